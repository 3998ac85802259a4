"""Control messages as bytes: what the kernel writes, and what it never would."""

from __future__ import annotations

import socket
import struct
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyio_mmsg import PacketBatch, ReceiveEngine, recv_mmsg_nowait
from anyio_mmsg._packets.packet import Control
from anyio_mmsg._system.control import (
    CACHE_SIZE,
    CONTROLS,
    IP_PKTINFO,
    IP_TOS,
    IP_TTL,
    IPV6_HOPLIMIT,
    IPV6_PKTINFO,
    IPV6_TCLASS,
    SOL_IP,
    SOL_IPV6,
    SOL_UDP,
    UDP_GRO,
    Ancillary,
    ControlCache,
    control_of,
    decode,
    segment_of,
    split,
)
from anyio_mmsg._system.options import has_gro
from anyio_mmsg._system.stamps import (
    SO_TIMESTAMPNS_NEW,
    SO_TIMESTAMPNS_OLD,
    arrival_of,
    arrivals_of,
    stamps_in,
    timestamp_of,
)

from .packets import ALL, Line

V4 = (SOL_IP, IP_PKTINFO, struct.pack("=i4s4s", 3, b"\x7f\0\0\1", b"\xe0\0\0\1"))
V6 = (SOL_IPV6, IPV6_PKTINFO, struct.pack("=16sI", b"\0" * 15 + b"\1", 5))
MAPPED = (
    SOL_IPV6,
    IPV6_PKTINFO,
    struct.pack("=16sI", b"\0" * 10 + b"\xff\xff\x7f\0\0\2", 5),
)

levels = st.sampled_from([SOL_IP, SOL_IPV6, SOL_UDP, int(socket.SOL_SOCKET), 9])
kinds = st.sampled_from(
    [
        IP_TOS,
        IP_TTL,
        IP_PKTINFO,
        IPV6_PKTINFO,
        IPV6_HOPLIMIT,
        IPV6_TCLASS,
        UDP_GRO,
        SO_TIMESTAMPNS_NEW,
        SO_TIMESTAMPNS_OLD,
        1,
    ]
)
messages = st.lists(st.tuples(levels, kinds, st.binary(max_size=40)), max_size=8)


def joined(parts: list[Ancillary]) -> bytes:
    """Write control messages as the kernel does (cmsg(3))."""
    word = struct.calcsize("@n")
    raw = b""
    for level, kind, data in parts:
        raw += struct.pack("@nii", struct.calcsize("@nii") + len(data), level, kind) + data
        raw += b"\0" * (-len(raw) % word)
    return raw


def test_ipv4() -> None:
    assert decode([V4]) == Control("224.0.0.1", 3, None, None, "127.0.0.1")


def test_ipv6() -> None:
    assert decode([V6]) == Control("::1", 5, None, None, "::1")


@pytest.mark.parametrize("parts", [[V4, MAPPED], [MAPPED, V4]])
def test_dual_stack(parts: list[Ancillary]) -> None:
    """In either order: the destination is mapped, and IPv4 says what to answer from."""
    assert decode(parts) == Control("::ffff:127.0.0.2", 5, None, None, "127.0.0.1")


@pytest.mark.parametrize("message", [(SOL_IP, IP_TOS), (SOL_IPV6, IPV6_TCLASS)])
@pytest.mark.parametrize("data", [b"\xfe", (0xFE).to_bytes(4, sys.byteorder), b"\xfe\0"])
def test_a_byte_or_an_int(message: tuple[int, int], data: bytes) -> None:
    assert decode([(*message, data)]).ecn == 2
    assert decode([(*message, b"")]).ecn is None


@pytest.mark.parametrize("kind", [SO_TIMESTAMPNS_NEW, SO_TIMESTAMPNS_OLD])
def test_timestamps_of_either_width(kind: int) -> None:
    level = int(socket.SOL_SOCKET)
    assert timestamp_of((level, kind, struct.pack("=qq", 2**33, 5))) == 2**33 * 10**9 + 5
    assert timestamp_of((level, kind, struct.pack("=ii", 7, 5))) == 7 * 10**9 + 5
    for size in (0, 4, 12, 17):
        assert timestamp_of((level, kind, b"x" * size)) is None
    assert timestamp_of((SOL_IP, kind, b"x" * 16)) is None


@given(st.lists(messages, min_size=1, max_size=5), st.lists(st.integers(0, 2**40), min_size=1))
def test_timestamps_in_bulk(controls: list[list[Ancillary]], stamps: list[int]) -> None:
    """Alike or not, they are what they are one by one."""
    for kind, form in ((SO_TIMESTAMPNS_NEW, "=qq"), (SO_TIMESTAMPNS_OLD, "=ii"), (IP_TTL, "=qq")):
        alike: list[list[Ancillary]] = [
            [(int(socket.SOL_SOCKET), kind, struct.pack(form, stamp % 2**31, 7)), V4]
            for stamp in stamps
        ]
        for parts in (alike, controls, alike + controls, [*alike, []]):
            one_by_one = [arrival_of(part) for part in parts]
            assert arrivals_of(parts) == one_by_one


@given(messages)
def test_what_was_joined_is_split(parts: list[Ancillary]) -> None:
    assert split(joined(parts)) == parts


@given(messages, st.integers(0, 300))
@example([V4, MAPPED], 31)
def test_what_was_cut_ends_it(parts: list[Ancillary], length: int) -> None:
    found = split(joined(parts)[:length])
    assert found == parts[: len(found)]


@given(st.binary(max_size=256))
@example(struct.pack("@nii", 2**62, 0, 8) + bytes(20))
@example(struct.pack("@nii", -1, 0, 8) + bytes(20))
@example(struct.pack("@nii", 0, 0, 8) + bytes(20))
def test_any_bytes(raw: bytes) -> None:
    found = split(raw)
    assert sum(len(data) for *_, data in found) <= len(raw)
    check(found)


@given(messages)
def test_any_messages(parts: list[Ancillary]) -> None:
    check(parts)


def check(parts: list[Ancillary]) -> None:
    """Whatever it says, it is of the types that packets promise."""
    control = decode(parts)
    for text in (control.destination, control.local):
        assert text is None or isinstance(text, str)
    for number in (control.interface, control.ecn, control.hop_limit):
        assert number is None or type(number) is int
    assert control.ecn is None or 0 <= control.ecn <= 3
    segment = segment_of(parts)
    assert segment is not None
    assert 0 <= segment <= 65_535
    assert control_of(parts) == decode(parts[stamps_in(parts) :]) == control
    for message in parts:
        stamp = timestamp_of(message)
        assert stamp is None or type(stamp) is int


def test_the_cache_is_bounded() -> None:
    cache = ControlCache()
    for number in range(2 * CACHE_SIZE + 10):
        data = number.to_bytes(4, sys.byteorder)
        key = ((SOL_IP, IP_TTL, data),)
        assert cache[key].hop_limit == number
        assert len(cache) <= CACHE_SIZE
    assert cache[()] == Control()


def test_timestamps_do_not_fill_the_cache(engine: ReceiveEngine) -> None:
    batch = PacketBatch(64, engine=engine, ancillary=True)
    with Line("inet", **ALL) as line:
        line.send(b"1")
        recv_mmsg_nowait(line.receiver, batch)
        assert batch.ecns() == [0]
        batch.clear()
        known = len(CONTROLS)
        for _ in range(64):
            line.send(b"1")
        recv_mmsg_nowait(line.receiver, batch)
        assert batch.ecns() == [0] * 64
        assert len(set(batch.timestamps())) > 1
        assert len(CONTROLS) == known


def test_has_gro() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert not has_gro(sock)
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        assert has_gro(sock)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        assert not has_gro(sock)
