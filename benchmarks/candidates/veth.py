"""Who receives from another network namespace: ours with gro=True and without, and `recvfrom`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from anyio import WouldBlock

from anyio_mmsg import PACKET_DATA_SIZE, PacketBatch, recv_mmsg_nowait
from benchmarks.spec import PLAIN, Kind, Spec

from .trains import GRO, ask

TRAIN = 52
"""Packets of a train, and of a burst of those who send no trains."""


@dataclass(frozen=True)
class Way:
    """How packets cross.

    Attributes:
        key: Its name in commands.
        label: Its name in the table.
        gso: Whether the sender sends trains.
        cut: Whether the sending device takes none, so that the kernel cuts them up before.
        coalesce: Whether the receiving device does GRO.
    """

    key: str
    label: str
    gso: bool
    cut: bool = False
    coalesce: bool = False


WAYS = (
    Way("whole", "GSO, trains cross whole", gso=True),
    Way("cut", "GSO, cut up on the way", gso=True, cut=True),
    Way("device", "GSO, cut up, device with GRO", gso=True, cut=True, coalesce=True),
    Way("single", "no GSO, device with GRO", gso=False, coalesce=True),
)

Counts: TypeAlias = tuple[int, int]
"""Packets, and the messages that they came in."""

Open: TypeAlias = Callable[[socket.socket], Callable[[], Counts]]
"""What takes and reads all packets that are there; nobody waits in it."""


def batches(sock: socket.socket, gro: bool = False) -> Callable[[], Counts]:
    """Ours: a batch at a time, by ``for packet in batch``."""
    if gro:
        ask(sock, GRO)
    batch = PacketBatch(64, engine="auto", gro=gro)

    def take() -> Counts:
        packets = messages = 0
        with suppress(WouldBlock):
            while True:
                packets += recv_mmsg_nowait(sock, batch)
                messages += batch.capacity - batch.free  # both count messages
                for packet in batch:
                    _ = packet.data, packet.address
                batch.clear()
        return packets, messages

    return take


def one_by_one(sock: socket.socket) -> Callable[[], Counts]:
    """`socket.recvfrom` until nothing is left."""
    receive = sock.recvfrom

    def take() -> Counts:
        packets = 0
        with suppress(BlockingIOError):
            while True:
                _data, _address = receive(PACKET_DATA_SIZE)
                packets += 1
        return packets, packets

    return take


VethSpec: TypeAlias = Spec[Open]


def _spec(key: str, label: str, kind: Kind, call: Open) -> VethSpec:
    environment: Mapping[str, str] = PLAIN if kind == "plain" else {}
    name = f"veth: {label}"
    return Spec(f"veth-{key}", name, "", kind, call, "veth", environment=environment)


VETH: list[VethSpec] = [
    _spec("recvfrom", "socket.recvfrom", "peer", one_by_one),
    _spec("ours-batch", "a batch", "ours", batches),
    _spec("plain-batch", "a batch, plain Python", "plain", batches),
    _spec("ours-gro", "a batch with gro=True", "ours", partial(batches, gro=True)),
    _spec("plain-gro", "a batch with gro=True, plain Python", "plain", partial(batches, gro=True)),
]
SPECS = {spec.key: spec for spec in VETH}
