"""One packet at a time: single calls, ours and the plain ones of a socket.

Each is called over and over, with the packet there already, or room for it.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import perf_counter_ns
from typing import TypeAlias

import anyio

from anyio_mmsg import (
    PACKET_DATA_SIZE,
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    recv_mmsg,
    recv_mmsg_nowait,
    send_mmsg_nowait,
)
from benchmarks import udp
from benchmarks.spec import LOOPS, PLAIN, Kind, Spec

from .receiving_peers import ROOM

Single: TypeAlias = Callable[[socket.socket, int], Awaitable[int]]
"""Makes a number of calls, and returns the nanoseconds of all. As many packets wait."""


async def recvfrom(sock: socket.socket, count: int) -> int:
    """`socket.recvfrom`, which gives data and address."""
    receive = sock.recvfrom
    start = perf_counter_ns()
    for _ in range(count):
        _data, _address = receive(ROOM)
    return perf_counter_ns() - start


async def receive_nowait(sock: socket.socket, count: int, engine: ReceiveEngine = "auto") -> int:
    """`recv_mmsg_nowait`, data and address read, and the batch cleared."""
    batch = PacketBatch(64, PACKET_DATA_SIZE, engine)
    start = perf_counter_ns()
    for _ in range(count):
        recv_mmsg_nowait(sock, batch, 1)
        for packet in batch:
            _data, _address = packet.data, packet.address
        batch.clear()
    return perf_counter_ns() - start


async def receive_one(sock: socket.socket, count: int, engine: ReceiveEngine = "auto") -> int:
    """`recv_mmsg` of one packet, otherwise the same."""
    batch = PacketBatch(64, PACKET_DATA_SIZE, engine)
    start = perf_counter_ns()
    for _ in range(count):
        await recv_mmsg(sock, batch, 1)
        for packet in batch:
            _data, _address = packet.data, packet.address
        batch.clear()
    return perf_counter_ns() - start


async def wait_and_recvfrom(sock: socket.socket, count: int) -> int:
    """`anyio.wait_readable`, then `socket.recvfrom`."""
    receive = sock.recvfrom
    start = perf_counter_ns()
    for _ in range(count):
        await anyio.wait_readable(sock)
        _data, _address = receive(ROOM)
    return perf_counter_ns() - start


async def checkpoint(sock: socket.socket, count: int) -> int:
    """A checkpoint of the loop, which any awaiting call has to take."""
    take = anyio.lowlevel.checkpoint
    start = perf_counter_ns()
    for _ in range(count):
        await take()
    return perf_counter_ns() - start


async def sendto(sock: socket.socket, count: int) -> int:
    """`socket.sendto`."""
    data, address, send = bytes(PACKET_DATA_SIZE), sock.getsockname(), sock.sendto
    start = perf_counter_ns()
    for _ in range(count):
        send(data, address)
    return perf_counter_ns() - start


async def send_nowait(sock: socket.socket, count: int, engine: SendEngine = "auto") -> int:
    """`send_mmsg_nowait` of one pair."""
    data, address = bytes(PACKET_DATA_SIZE), sock.getsockname()
    start = perf_counter_ns()
    for _ in range(count):
        send_mmsg_nowait(sock, [(data, address)], engine=engine)
    return perf_counter_ns() - start


SingleSpec: TypeAlias = Spec[Single]


def _spec(key: str, label: str, kind: Kind, call: Single, loop: str = "") -> SingleSpec:
    environment: Mapping[str, str] = PLAIN if kind == "plain" else {}
    return Spec(key, label, loop, kind, call, "single", environment=environment)


SINGLES = [
    _spec("recv-plain-socket", "socket.recvfrom", "peer", recvfrom),
    _spec("recv-ours", "recv_mmsg_nowait, read", "ours", receive_nowait),
    _spec(
        "recv-plain",
        "recv_mmsg_nowait, read, plain Python",
        "plain",
        partial(receive_nowait, engine="recvfrom_into"),
    ),
    _spec("send-plain-socket", "socket.sendto", "peer", sendto),
    _spec("send-ours", "send_mmsg_nowait of a pair", "ours", send_nowait),
    _spec(
        "send-plain",
        "send_mmsg_nowait of a pair, plain Python",
        "plain",
        partial(send_nowait, engine="sendto"),
    ),
]
_AWAITED: tuple[tuple[str, str, Kind, Single], ...] = (
    ("await-checkpoint", "a checkpoint alone", "peer", checkpoint),
    ("await-recvfrom", "wait_readable and recvfrom", "peer", wait_and_recvfrom),
    ("await-ours", "recv_mmsg, read", "ours", receive_one),
    (
        "await-plain",
        "recv_mmsg, read, plain Python",
        "plain",
        partial(receive_one, engine="recvfrom_into"),
    ),
)
AWAITED = [
    _spec(f"{key}-{loop}", label, kind, call, loop)
    for key, label, kind, call in _AWAITED
    for loop in LOOPS
]
SPECS = {spec.key: spec for spec in SINGLES + AWAITED}


def prepare(key: str, sock: socket.socket, count: int) -> udp.Filler | None:
    """Return what queues the packets for a receiver; None for those that need none."""
    if key.startswith(("recv", "await")) and "checkpoint" not in key:
        return udp.Filler(sock, count, PACKET_DATA_SIZE)
    return None
