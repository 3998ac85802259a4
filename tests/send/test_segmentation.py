"""Segmentation offload changes nothing but the cost."""

from __future__ import annotations

import errno
import os
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendResult,
    send_mmsg_nowait,
)
from anyio_mmsg._send.sendto import runs

from ..helpers import Family, have_ipv6, nowhere, unheard
from .helpers import arrived, failures, fill


@pytest.mark.parametrize(
    "sizes",
    [
        [10] * 7,
        [10] * 6 + [3],
        [10] * 3 + [3] + [10] * 3,
        [0, 0, 5, 5, 0, 5, 5],
        [5, 5, 0],
        [1, 2, 3],
        [3, 2, 1],
        [1232] * 130,
        [1] * 130,
        [40_000, 30_000, 20_000, 20_000, 20_000, 20_000],
        [65_507, 65_507, 1],
        [65_507, 1],
    ],
    ids=str,
)
def test_segmentation_changes_nothing(sending: SendEngine, sizes: list[int]) -> None:
    for name in ["inet"] + ["inet6"] * have_ipv6():
        with Family(name, None) as family:
            receiver, sender = family.pair()
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            sent = [os.urandom(size) for size in sizes]
            for to in (None, receiver.getsockname()):
                packets = [(data, to) for data in sent]
                result = send_mmsg_nowait(sender, packets, gso=True, engine=sending)
                assert result == SendResult(len(sent), [])
                assert arrived(receiver) == [(data, sender.getsockname()) for data in sent]


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
def test_segmentation_of_the_largest(sending: SendEngine) -> None:
    """Over IPv6 a payload can be larger than any run."""
    with Family("inet6", None) as family:
        receiver, sender = family.pair()
        sent = [os.urandom(65_527), os.urandom(65_527), b"x"]
        packets = [(data, None) for data in sent]
        assert send_mmsg_nowait(sender, packets, gso=True, engine=sending).sent == 3
        assert [data for data, _ in arrived(receiver)] == sent


def test_segmentation_to_several_destinations(sending: SendEngine, family: Family) -> None:
    sender, *receivers = (family.open() for _ in range(3))
    order = [0, 0, 1, 1, 1, 0, 1, 0, 0]
    sent = [(os.urandom(50), receivers[to].getsockname()) for to in order]
    assert send_mmsg_nowait(sender, sent, gso=True, engine=sending) == SendResult(9, [])
    for receiver in receivers:
        here = [data for data, to in sent if to == receiver.getsockname()]
        assert arrived(receiver) == [(data, sender.getsockname()) for data in here]


def test_segmentation_of_a_batch(sending: SendEngine, engine: ReceiveEngine, inet: Family) -> None:
    """From its slots, which do not lie side by side, around the ring's end."""
    server, client = inet.open(), inet.open()
    batch = PacketBatch(8, 100, engine)
    fill(batch, server, *[(client, b"%d" % number) for number in range(8)])
    batch.release(5)
    fill(batch, server, *[(client, b"%d" % number) for number in range(8, 13)])
    assert send_mmsg_nowait(server, batch, gso=True, engine=sending) == SendResult(8, [])
    expected = [b"5", b"6", b"7", b"8", b"9", b"10", b"11", b"12"]
    assert [data for data, _ in arrived(client)] == expected


def test_errors_amongruns(sending: SendEngine, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    bad, number = nowhere(inet)
    packets = [(b"%d" % n, bad if n in (3, 4, 5) else receiver.getsockname()) for n in range(9)]
    result = send_mmsg_nowait(sender, packets, gso=True, engine=sending)
    assert failures(result) == [(3, number), (4, number), (5, number)]
    assert [data for data, _ in arrived(receiver)] == [b"0", b"1", b"2", b"6", b"7", b"8"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows reports that when receiving")
def test_an_old_error_amongruns(sending: SendEngine, inet: Family) -> None:
    """It is the first packet's of a run; the others are sent."""
    receiver, sender = inet.pair()
    unheard(receiver)
    assert send_mmsg_nowait(sender, [(b"x", None)], engine=sending).sent == 1
    packets = [(b"%d" % number, None) for number in range(2)]
    result = send_mmsg_nowait(sender, packets, gso=True, engine=sending)
    assert failures(result) == [(0, errno.ECONNREFUSED)]
    assert result.sent == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, 700, 1232, 40_000, 65_507, 65_527]), st.sampled_from("ab")
        )
    )
)
def test_runs(packets: list[tuple[int, str]]) -> None:
    """All packets, in order; each run is cut by the kernel into just its packets."""
    sizes = [size for size, _ in packets]
    lengths = runs(sizes, [to for _, to in packets])
    assert sum(lengths) == len(packets)
    at = 0
    for run in lengths:
        assert 1 <= run <= 64
        assert len({to for _, to in packets[at : at + run]}) == 1
        *before, last = sizes[at : at + run]
        if before:
            assert len({*before}) == 1
            assert 0 < last <= before[0]
            assert sum(before) + last <= 65_507
        at += run
