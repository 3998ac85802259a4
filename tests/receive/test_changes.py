"""A batch whose engine changes while it holds packets: each keeps its sender and control data."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from anyio_mmsg import PacketBatch, recv_mmsg_nowait, send_mmsg_nowait
from anyio_mmsg._receive.engine import engine_for
from anyio_mmsg._receive.recvfrom_into import RecvfromInto
from anyio_mmsg._system.options import ask_for
from anyio_mmsg._system.platform import ON_LINUX, Recvmmsg, Refused
from anyio_mmsg.testing import Datagram, fill_batch

from ..helpers import Family, contents, drain

pytestmark = pytest.mark.skipif(Recvmmsg is None, reason="there is one engine in plain Python")


@pytest.fixture(autouse=True)
def refused_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Refused, "recvmmsg", Refused.recvmmsg)


def fall_back(batch: PacketBatch, receiver: socket.socket) -> None:
    """As after a receive that met ENOSYS twice."""
    Refused.recvmmsg = True
    assert type(engine_for(batch._slots, receiver)) is RecvfromInto


def not_at_all(batch: PacketBatch) -> None:
    pass


def ask_packets(batch: PacketBatch) -> None:
    assert all(packet.address for packet in batch)


def ask_payloads(batch: PacketBatch) -> None:
    batch.payloads()


@pytest.mark.parametrize("look", [not_at_all, ask_packets, ask_payloads])
def test_the_call_is_refused(family: Family, look: Callable[[PacketBatch], None]) -> None:
    receiver, first = family.pair()
    second = family.open()
    batch = PacketBatch(4)
    expected: list[Any] = []
    for turn in range(9):  # around the ring's end
        sender = (first, second)[turn % 2]
        sender.sendto(b"%d" % turn, receiver.getsockname())
        drain(receiver, batch, 1)
        expected.append((b"%d" % turn, sender.getsockname()))
        look(batch)
        if turn == 2:
            kept = list(batch)
            fall_back(batch, receiver)
            assert [packet.address for packet in kept] == [name for _, name in expected]
        assert contents(batch) == [data for data, _ in expected]
        assert batch.addresses() == [name for _, name in expected]
        assert [packet.address for packet in batch] == batch.addresses()
        if len(batch) == 4:
            batch.release(2)
            del expected[:2]


def test_and_comes_back(inet: Family) -> None:
    """From one to the other and back, for each packet."""
    receiver, sender = inet.pair()
    batch = PacketBatch(8)
    for turn in range(8):
        Refused.recvmmsg = bool(turn % 2)
        engine_for(batch._slots, receiver)
        sender.send(b"%d" % turn)
        drain(receiver, batch, 1)
    assert len(batch._slots.filler.engines) == 2
    assert batch.addresses() == [sender.getsockname()] * 8
    assert send_mmsg_nowait(receiver, batch).sent == 8
    assert [sender.recv(10) for _ in range(8)] == [b"%d" % turn for turn in range(8)]


@pytest.mark.skipif(not ON_LINUX, reason="control data is Linux's")
def test_control_data_stays(inet: Family) -> None:
    receiver, sender = inet.pair()
    ask_for(receiver, timestamps=True, hop_limits=True)
    batch = PacketBatch(4, ancillary=True)
    sender.send(b"1")
    sender.send(b"2")
    drain(receiver, batch, 2)
    stamps = batch.timestamps()
    fall_back(batch, receiver)
    sender.send(b"3")
    drain(receiver, batch, 1)
    assert fill_batch(batch, [Datagram(b"4", ("::1", 4), timestamp=5, hop_limit=6)]) == 1
    assert batch.timestamps()[:2] == stamps
    assert None not in batch.timestamps()
    assert batch.timestamps()[3] == 5
    assert batch.hop_limits()[:3] == [batch[0].hop_limit] * 3
    assert batch.hop_limits()[3] == 6
    batch.release(2)
    Refused.recvmmsg = False
    sender.send(b"5")
    engine_for(batch._slots, receiver)
    assert recv_mmsg_nowait(receiver, batch) == 1
    assert contents(batch) == [b"3", b"4", b"5"]
    assert batch.addresses()[1] == ("::1", 4, 0, 0)
    assert batch.hop_limits()[1:] == [6, batch[0].hop_limit]
