"""What packets say of when, where and how they came."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import pytest

from anyio_mmsg import Packet, PacketBatch, ReceiveEngine, recv_mmsg_nowait
from anyio_mmsg._system.control import SOL_IP, SOL_IPV6

from .packets import ALL, LOOPBACK, OPTIONS, Line

NAMES = ("timestamp", "destination", "interface", "ecn", "hop_limit")
COLUMNS = ("timestamps", "destinations", "interfaces", "ecns", "hop_limits")
ASKED_BY: dict[str, str] = dict(
    zip(NAMES, ("timestamps", "destinations", "destinations", *OPTIONS[2:]), strict=True)
)


@pytest.fixture
def batch(engine: ReceiveEngine) -> PacketBatch:
    return PacketBatch(8, engine=engine, ancillary=True)


def is_timestamp(value: Any) -> bool:
    """Of today: the kernel's clock is that of Python, but may be set meanwhile."""
    return type(value) is int and abs(value - time.time_ns()) < 86_400 * 10**9


def said(packet: Packet) -> tuple[Any, ...]:
    return packet.destination, packet.interface, packet.ecn, packet.hop_limit


def test_all_together(kind: str, batch: PacketBatch) -> None:
    with Line(kind, **ALL) as line:
        expected = []
        for turn in range(8):
            host = line.hosts[turn % len(line.hosts)]
            tos, hops = 4 * turn + turn % 4, 1 + 36 * turn
            line.send(b"%d" % turn, host, tos, hops)
            expected.append((line.shown(host), LOOPBACK, turn % 4, hops))
        assert recv_mmsg_nowait(line.receiver, batch) == 8
        assert [said(packet) for packet in batch] == expected
        assert all(is_timestamp(packet.timestamp) for packet in batch)
        assert batch.timestamps() == [packet.timestamp for packet in batch]
        assert batch.destinations() == [destination for destination, *_ in expected]
        assert batch.interfaces() == [LOOPBACK] * 8
        assert batch.ecns() == [0, 1, 2, 3] * 2
        assert batch.hop_limits() == [hop_limit for *_, hop_limit in expected]
        times = batch.columns().timestamps
        assert times is not None
        assert times.tolist() == batch.timestamps()
        assert times.format == "q"
        assert batch.addresses() == [line.name] * 8
        assert batch.payloads() == [b"%d" % turn for turn in range(8)]


# By level, all that comes with a fixed size, beside what `ALL` asks for: linux/in.h, linux/in6.h,
# asm-generic/socket.h. No kernel knows all of them.
MORE = {
    socket.SOL_SOCKET: {
        37: 1 << 3 | 1 << 4,
        40: 1,
        75: 1,
        82: 1,
    },  # TIMESTAMPING, RXQ_OVFL, ...
    SOL_IP: dict.fromkeys((20, 23, 25), 1),  # ORIGDSTADDR, CHECKSUM, RECVFRAGSIZE
    SOL_IPV6: dict.fromkeys((2, 8, 11, 74, 77), 1),  # 2292PKTINFO, 2292HOPLIMIT, FLOWINFO, ...
}


def test_there_is_room_for_every_option(kind: str, batch: PacketBatch) -> None:
    with Line(kind, **ALL) as line:
        for level, options in MORE.items():
            for option, value in options.items():
                with contextlib.suppress(OSError):
                    line.receiver.setsockopt(level, option, value)
        line.send(b"x", hops=9, tos=3)
        assert recv_mmsg_nowait(line.receiver, batch) == 1
        packet = batch[0]
        assert is_timestamp(packet.timestamp)
        assert said(packet) == (line.shown(line.hosts[0]), LOOPBACK, 3, 9)


@pytest.mark.parametrize("option", OPTIONS)
def test_alone(option: str, kind: str, batch: PacketBatch) -> None:
    """What was not asked for is None."""
    with Line(kind, **{option: True}) as line:
        line.send(b"1", line.hosts[-1], tos=2, hops=9)
        line.send(b"2", line.hosts[0], tos=1, hops=8)
        assert recv_mmsg_nowait(line.receiver, batch) == 2
        one, two = batch
        for name, values in {
            "destination": [line.shown(line.hosts[-1]), line.shown(line.hosts[0])],
            "interface": [LOOPBACK] * 2,
            "ecn": [2, 1],
            "hop_limit": [9, 8],
        }.items():
            wanted = values if ASKED_BY[name] == option else [None, None]
            assert [getattr(one, name), getattr(two, name)] == wanted
        assert is_timestamp(one.timestamp) == is_timestamp(two.timestamp) == (option == OPTIONS[0])
        assert (one.timestamp is None) == (option != OPTIONS[0])


def test_nothing_was_asked_for(kind: str, batch: PacketBatch) -> None:
    with Line(kind) as line:
        line.send(b"1")
        assert recv_mmsg_nowait(line.receiver, batch) == 1
        for name, column in zip(NAMES, COLUMNS, strict=True):
            assert getattr(batch[0], name) is None
            assert getattr(batch, column)() == [None]


@pytest.mark.parametrize("gro", [False, True])
def test_a_batch_without_room_names_the_fix(kind: str, gro: bool, engine: ReceiveEngine) -> None:
    batch = PacketBatch(8, engine=engine, gro=gro)
    with Line(kind, **ALL, gro=gro) as line:
        line.send(b"1")
        assert recv_mmsg_nowait(line.receiver, batch) == 1
        assert batch.payloads() == [b"1"]
        for name, column in zip(NAMES, COLUMNS, strict=True):
            with pytest.raises(ValueError, match=r"PacketBatch\(ancillary=True\).*open_udp_soc"):
                getattr(batch[0], name)
            with pytest.raises(ValueError, match=r"ancillary=True"):
                getattr(batch, column)()


def test_columns_of_nothing(engine: ReceiveEngine) -> None:
    for ancillary in (False, True):
        batch = PacketBatch(8, engine=engine, ancillary=ancillary)
        assert [getattr(batch, column)() for column in COLUMNS] == [[]] * 5


def test_a_released_packet(kind: str, batch: PacketBatch) -> None:
    with Line(kind, **ALL) as line:
        line.send(b"1")
        line.send(b"2")
        assert recv_mmsg_nowait(line.receiver, batch) == 2
        packet = batch[0]
        assert packet.hop_limit == 64
        batch.release()
        for name in NAMES:
            with pytest.raises(ValueError, match="this packet was released"):
                getattr(packet, name)
            assert getattr(batch[0], name) is not None
        batch.close()
        for column in COLUMNS:
            with pytest.raises(ValueError, match="was closed"):
                getattr(batch, column)()


def test_attributes_are_read_only(kind: str, batch: PacketBatch) -> None:
    with Line(kind, **ALL) as line:
        line.send(b"1")
        assert recv_mmsg_nowait(line.receiver, batch) == 1
        for name in NAMES:
            with pytest.raises(AttributeError):
                setattr(batch[0], name, 1)
            with pytest.raises(AttributeError):
                delattr(batch[0], name)


def test_slots_are_used_again(kind: str, batch: PacketBatch) -> None:
    """A slot's control data is that of its packet, around the end and with released ones."""
    with Line(kind, **ALL) as line:
        number = 0
        expected: list[tuple[bytes, int, int]] = []
        for turn in range(30):
            for _ in range(min(batch.free, 1 + turn % 4)):
                line.send(b"%d" % number, tos=number % 4, hops=1 + number % 200)
                expected.append((b"%d" % number, number % 4, 1 + number % 200))
                number += 1
            while len(batch) < len(expected):
                recv_mmsg_nowait(line.receiver, batch)
            assert [(bytes(p.data), p.ecn, p.hop_limit) for p in batch] == expected
            batch.release(min(len(batch), turn % 3 + 1))
            expected = expected[-len(batch) :] if len(batch) else []


def test_a_batch_that_changes_sockets(engine: ReceiveEngine, batch: PacketBatch) -> None:
    """Each packet keeps what its own socket was asked for."""
    with Line("inet", **ALL) as first, Line("inet", ecn=True) as second, Line("inet") as third:
        for line in (first, second, third, first):
            line.send(b"x", tos=3, hops=7)
            assert recv_mmsg_nowait(line.receiver, batch, 1) == 1
        assert batch.ecns() == [3, 3, None, 3]
        assert batch.hop_limits() == [7, None, None, 7]
        assert batch.destinations() == ["127.0.0.1", None, None, "127.0.0.1"]
        assert [value is not None for value in batch.timestamps()] == [True, False, False, True]


def test_a_multicast_packet_says_its_group(batch: PacketBatch) -> None:
    """And which address to answer from, which is not the group's."""
    import socket
    import struct

    group = "224.0.0.251"
    with Line("inet", destinations=True) as line:
        member = struct.pack("=4s4sI", *map(socket.inet_aton, (group, "127.0.0.1")), LOOPBACK)
        try:
            line.receiver.setsockopt(0, 35, member)  # IP_ADD_MEMBERSHIP, ip(7)
            line.sender.setsockopt(0, 32, member)  # IP_MULTICAST_IF
            line.sender.sendto(b"to all", (group, line.port))
        except OSError as error:
            pytest.skip(f"no multicast on loopback here: {error}")
        assert recv_mmsg_nowait(line.receiver, batch) == 1
        packet: Any = batch[0]
        assert packet.destination == group
        assert packet.interface == LOOPBACK
        assert packet._local == "127.0.0.1"


def test_what_to_answer_from(kind: str, batch: PacketBatch) -> None:
    with Line(kind, destinations=True) as line:
        line.send(b"1", line.hosts[-1])
        assert recv_mmsg_nowait(line.receiver, batch) == 1
        packet: Any = batch[0]
        assert packet._local == line.hosts[-1]


def test_columns_of_packets_without_a_timestamp(kind: str, batch: PacketBatch) -> None:
    """They have numpy's NaT there."""
    with Line(kind, ecn=True) as line:
        line.send(b"1", line.hosts[0], tos=2, hops=9)
        assert recv_mmsg_nowait(line.receiver, batch) == 1
        times = batch.columns().timestamps
        assert times is not None
        assert times.tolist() == [-(2**63)]
