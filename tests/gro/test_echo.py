"""Trains go back as the packets that they are, or with ``gso=True`` as trains."""

from __future__ import annotations

import struct

import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine, SendEngine, send_mmsg_nowait
from anyio_mmsg._system.control import SOL_UDP, UDP_GRO

from .flow import Flow, drain, numbered


@pytest.mark.parametrize("gso", [False, True])
def test_a_batch_of_trains(
    gso: bool, flow: Flow, engine: ReceiveEngine, sending: SendEngine
) -> None:
    batch = PacketBatch(8, engine=engine, gro=True)
    packets = flow.send(*numbered(9, 100, last=1)) + flow.single(b"") + flow.single(b"one")
    packets += flow.send(*numbered(30, 50, start=20))
    drain(flow.receiver, batch)
    batch.release(2)
    result = send_mmsg_nowait(flow.receiver, batch, gso=gso, engine=sending)
    assert (result.sent, result.failures) == (39, [])
    got = [flow.sender.recv(200) for _ in range(39)]
    assert got == packets[2:]
    assert batch.payloads() == packets[2:]


def test_from_two_senders(flow: Flow, engine: ReceiveEngine, sending: SendEngine) -> None:
    batch = PacketBatch(8, engine=engine, gro=True)
    first = flow.send(*numbered(9, 100, last=1))
    second = flow.send(*numbered(5, 100, start=20), sender=1)
    drain(flow.receiver, batch)
    for packets in (batch, list(batch), batch[:9] + batch[9:]):
        assert send_mmsg_nowait(flow.receiver, packets, engine=sending).sent == 14
        assert [flow.senders[0].recv(200) for _ in first] == first
        assert [flow.senders[1].recv(200) for _ in second] == second


def test_goes_back_as_one(flow: Flow, engine: ReceiveEngine) -> None:
    """To a socket with UDP_GRO, which says the segment size."""
    flow.sender.setsockopt(SOL_UDP, UDP_GRO, 1)
    batch = PacketBatch(8, engine=engine, gro=True)
    packets = flow.send(*numbered(9, 100, last=1))
    drain(flow.receiver, batch)
    assert send_mmsg_nowait(flow.receiver, batch, gso=True).sent == 9
    data, control, _, _ = flow.sender.recvmsg(2000, 64)
    if len(data) == 100:
        pytest.skip("gso=True has no effect here: plain Python sends packets one by one")
    assert data == b"".join(packets)
    assert control == [(SOL_UDP, UDP_GRO, struct.pack("=i", 100))]
