"""Timestamps in whatever form the program has asked for them, by the kernel and by the card."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_mmsg import PacketBatch, ReceiveEngine, configure_udp_socket, recv_mmsg_nowait
from anyio_mmsg._system.control import SOL_IP, Ancillary, control_of
from anyio_mmsg._system.stamps import (
    SO_TIMESTAMP_NEW,
    SO_TIMESTAMP_OLD,
    SO_TIMESTAMPING_NEW,
    SO_TIMESTAMPING_OLD,
    SO_TIMESTAMPNS_NEW,
    SO_TIMESTAMPNS_OLD,
    arrival_of,
    arrivals_of,
    hardware_of,
)
from anyio_mmsg.testing import Datagram, make_batch

from .packets import Line

SOL_SOCKET = int(socket.SOL_SOCKET)
SO_TIMESTAMP = 29
RX_SOFTWARE, SOFTWARE, RAW_HARDWARE = 1 << 3, 1 << 4, 1 << 6  # linux/net_tstamp.h
V4: Ancillary = (SOL_IP, 2, struct.pack("=i", 61))
SECOND = 10**9


def three(kind: int, software: int, hardware: int) -> Ancillary:
    form = "=qq" if kind == SO_TIMESTAMPING_NEW else "=ii"
    parts = [struct.pack(form, *divmod(stamp, SECOND)) for stamp in (software, 0, hardware)]
    return SOL_SOCKET, kind, b"".join(parts)


# What the kernel really gives. No card here stamps; those of the kernel come by the same message.


@pytest.mark.parametrize("form", [SO_TIMESTAMP_NEW, SO_TIMESTAMP, "SO_TIMESTAMPING", "both"])
def test_asked_for_by_the_program(form: Any, engine: ReceiveEngine, kind: str) -> None:
    with Line(kind, ecn=True, hop_limits=True) as line:
        if form in ("SO_TIMESTAMPING", "both"):
            flags = RX_SOFTWARE | SOFTWARE | RAW_HARDWARE
            line.receiver.setsockopt(SOL_SOCKET, 37, flags)
        else:
            line.receiver.setsockopt(SOL_SOCKET, form, 1)
        if form == "both":
            configure_udp_socket(line.receiver, timestamps=True)
        batch = PacketBatch(engine=engine, ancillary=True)
        before = time.time_ns() - SECOND
        for _ in range(3):
            line.send(b"x")
        assert recv_mmsg_nowait(line.receiver, batch) == 3
        stamps = batch.timestamps()
        assert stamps == [packet.timestamp for packet in batch]
        for stamp in stamps:
            assert stamp is not None
            assert before < stamp < time.time_ns() + SECOND
        assert [packet.hardware_timestamp for packet in batch] == [None] * 3
        assert batch.ecns() == [0] * 3
        assert batch.hop_limits() == [64] * 3


# What it would give


@pytest.mark.parametrize("kind", [SO_TIMESTAMPING_NEW, SO_TIMESTAMPING_OLD])
def test_the_kernels_and_the_cards(kind: int) -> None:
    both, neither = three(kind, 7 * SECOND + 1, 9 * SECOND + 2), three(kind, 0, 0)
    assert (arrival_of([both, V4]), hardware_of([both, V4])) == (7 * SECOND + 1, 9 * SECOND + 2)
    assert (arrival_of([neither]), hardware_of([neither])) == (None, None)
    assert hardware_of([three(kind, 0, 5)]) == 5
    assert arrival_of([three(kind, 0, 5)]) is None
    # Beside the kernel's own, which comes first, or between it and what the card says of itself.
    own = (SOL_SOCKET, SO_TIMESTAMPNS_NEW, struct.pack("=qq", 8, 3))
    info = (SOL_SOCKET, 58, bytes(16))
    for messages in ([own, info, both, V4], [own, both], [info, both, own]):
        assert arrival_of(messages) == 8 * SECOND + 3
        assert hardware_of(messages) == 9 * SECOND + 2
        assert control_of(messages) == control_of([m for m in messages if m is V4])
    # Not where the kernel does not write it.
    assert arrival_of([V4, both]) is None
    assert hardware_of([V4, both]) is None
    assert arrivals_of([[both], [own], [], [V4]]) == [7 * SECOND + 1, 8 * SECOND + 3, None, None]


@pytest.mark.parametrize("size", [0, 8, 23, 25, 47, 49, 64])
def test_of_another_length(size: int) -> None:
    for kind in (SO_TIMESTAMPING_NEW, SO_TIMESTAMPING_OLD):
        assert arrival_of([(SOL_SOCKET, kind, b"x" * size)]) is None
        assert hardware_of([(SOL_SOCKET, kind, b"x" * size)]) is None


@given(st.integers(0, 2**31 - 1), st.integers(0, 999_999))
def test_microseconds(seconds: int, rest: int) -> None:
    stamp = seconds * SECOND + rest * 1000
    for kind, form in ((SO_TIMESTAMP_NEW, "=qq"), (SO_TIMESTAMP_OLD, "=ii")):
        assert arrival_of([(SOL_SOCKET, kind, struct.pack(form, seconds, rest))]) == stamp
    for kind, form in ((SO_TIMESTAMPNS_NEW, "=qq"), (SO_TIMESTAMPNS_OLD, "=ii")):
        message = (SOL_SOCKET, kind, struct.pack(form, seconds, rest))
        assert arrival_of([message]) == seconds * SECOND + rest


def test_a_test_may_say_so() -> None:
    batch = make_batch(
        [
            Datagram(b"1", hardware_timestamp=123, timestamp=5, ecn=1),
            Datagram(b"2", hardware_timestamp=2**40),
            Datagram(b"3", timestamp=7),
        ],
        ancillary=True,
    )
    assert [packet.hardware_timestamp for packet in batch] == [123, 2**40, None]
    assert batch.timestamps() == [5, None, 7]
    assert batch.ecns() == [1, None, None]
    copy = Datagram.copy_of(batch[0])
    assert (copy.hardware_timestamp, copy.timestamp) == (123, 5)
    packet = batch[0]
    batch.clear()
    with pytest.raises(ValueError, match="released"):
        _ = packet.hardware_timestamp
    with pytest.raises(ValueError, match="ancillary=True"):
        _ = make_batch([b"x"])[0].hardware_timestamp
