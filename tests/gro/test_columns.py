"""Trains as datagrams and as arrays: packets one by one."""

from __future__ import annotations

import gc
import mmap
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine, compiled, recv_datagrams_nowait
from anyio_mmsg._system.platform import Refused

from ..packets.test_columns import check, rows
from .flow import Flow, drain, numbered


@pytest.fixture(params=[False, True], ids=["recvmmsg", "recvfrom"])
def flows(request: pytest.FixtureRequest, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> Flow:
    """For `recv_datagrams`, by both of its ways."""
    monkeypatch.setattr(Refused, "recvmmsg", request.param)
    return flow


def test_datagrams_one_by_one(flows: Flow) -> None:
    sent = flows.send(*numbered(5, 100, 40)) + flows.single(b"") + flows.single(b"alone", 1)
    sent += flows.send(*numbered(3, 10), sender=1)
    names = [flows.names[0]] * 6 + [flows.names[1]] * 4
    got = recv_datagrams_nowait(flows.receiver)
    assert got == list(zip(sent, names, strict=True))


def test_the_limit_counts_messages(flows: Flow) -> None:
    first, second = flows.send(*numbered(5, 100)), flows.send(*numbered(4, 50))
    assert [data for data, _ in recv_datagrams_nowait(flows.receiver, 1)] == first
    assert [data for data, _ in recv_datagrams_nowait(flows.receiver, 1)] == second
    with pytest.raises(anyio.WouldBlock):
        recv_datagrams_nowait(flows.receiver, 1)


def test_each_packet_is_cut(flows: Flow) -> None:
    flows.send(*numbered(3, 100, 2))
    got = recv_datagrams_nowait(flows.receiver, max_size=7)
    assert [data for data, _ in got] == [data[:7] for data in numbered(3, 100, 2)]


def test_columns(flow: Flow, engine: ReceiveEngine) -> None:
    batch = PacketBatch(8, engine=engine, gro=True)
    sent = flow.send(*numbered(5, 100, 40)) + flow.single(b"") + flow.single(b"alone", 1)
    drain(flow.receiver, batch)
    columns = check(batch)
    assert rows(columns) == sent
    assert columns.data.shape == (7, 100)  # the longest
    assert columns.ports.tolist() == [flow.names[0][1]] * 6 + [flow.names[1][1]]
    assert batch.columns().data is columns.data
    batch.release(3)
    with pytest.raises(ValueError, match="released"):
        bytes(columns.data)
    assert rows(check(batch)) == sent[3:]
    batch.release(3)
    columns = check(batch)
    assert columns.data.shape == (1, 5)
    batch.clear()
    flow.single(b"")
    drain(flow.receiver, batch)
    assert check(batch).data.shape == (1, 1)  # a view can't have rows of nothing


def test_around_the_end(inet: Flow, engine: ReceiveEngine) -> None:
    batch = PacketBatch(3, engine=engine, gro=True)
    left: list[bytes] = []
    for turn in range(7):
        left += inet.send(*numbered(4, 20 + turn, 9, start=10 * turn))
        drain(inet.receiver, batch)
        assert rows(check(batch)) == left
        batch.release(3)
        del left[:3]
        assert rows(check(batch)) == left
        batch.release(len(left))
        left = []
        left += inet.send(*numbered(2, 30))
        drain(inet.receiver, batch)


def test_one_long_packet_among_many_costs_no_memory(inet: Flow, engine: ReceiveEngine) -> None:
    """A sender chooses the longest packet. What is not written to is not provided."""
    batch = PacketBatch(64, engine=engine, gro=True)
    sent = []
    for _ in range(60):
        sent += inet.send(*numbered(40, 20))
    sent += inet.single(b"x" * 60_000)
    drain(inet.receiver, batch)
    columns = batch.columns()
    assert columns.data.shape == (2401, 60_000)
    memory: Any = columns.data.obj
    if compiled:  # it is what shows that memory as rows
        (memory,) = (each.obj for each in gc.get_referents(memory) if type(each) is memoryview)
    assert isinstance(memory, mmap.mmap)
    assert [bytes(memory[i * 60_000 : i * 60_000 + 20]) for i in range(2400)] == sent[:-1]
