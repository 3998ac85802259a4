"""Packets in trains (GRO), and with control data: ours, and `recvfrom` and `recvmsg` one by one.

Nobody waits: all packets are there. Each candidate takes them and reads data and address, and
what control data its name says.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

from anyio import WouldBlock

from anyio_mmsg import PACKET_DATA_SIZE, PacketBatch, recv_datagrams_nowait, recv_mmsg_nowait
from benchmarks import udp
from benchmarks.spec import PLAIN, Kind, Spec, UnavailableError

from . import qh3_sockets

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104  # linux/udp.h

# Options by level and number (asm-generic/socket.h, linux/in.h), for a socket over IPv4.
STAMPS = ((socket.SOL_SOCKET, 64),)
DESTINATIONS = ((0, 8),)
EVERYTHING = (*STAMPS, *DESTINATIONS, (0, 13), (0, 12))
GRO = ((SOL_UDP, UDP_GRO),)

CONTROL_ROOM = 256  # bytes, as a slot of ours has

Take: TypeAlias = Callable[[], int]
"""Takes all packets that are there; returns how many."""

Open: TypeAlias = Callable[[socket.socket], Take]


def ask(sock: socket.socket, options: tuple[tuple[int, int], ...]) -> None:
    """Set options of a socket to 1.

    Raises:
        UnavailableError: The system does not know one.
    """
    if options and sys.platform != "linux":
        raise UnavailableError("GRO and control data are Linux's")
    for level, option in options:
        try:
            sock.setsockopt(level, option, 1)
        except OSError as error:
            raise UnavailableError(f"this kernel does not know an option: {error}") from None


def batches(
    sock: socket.socket,
    read: tuple[str, ...] = (),
    gro: bool = False,
    ancillary: bool = False,
    options: tuple[tuple[int, int], ...] = (),
) -> Take:
    """Ours: a batch at a time, by ``for packet in batch``; `read` are attributes besides."""
    ask(sock, options)
    batch = PacketBatch(64, engine="auto", gro=gro, ancillary=ancillary)

    def take() -> int:
        taken = 0
        with contextlib.suppress(WouldBlock):
            while True:
                taken += recv_mmsg_nowait(sock, batch)
                if read == ("timestamp",):
                    for packet in batch:
                        _ = packet.data, packet.address, packet.timestamp
                elif read:
                    for packet in batch:
                        _ = packet.data, packet.address, packet.timestamp
                        _ = packet.destination, packet.ecn, packet.hop_limit
                else:
                    for packet in batch:
                        _ = packet.data, packet.address
                batch.clear()
        return taken

    return take


def batch_lists(sock: socket.socket) -> Take:
    """Ours with trains: `PacketBatch.datagrams`, bytes and addresses."""
    ask(sock, GRO)
    batch = PacketBatch(64, gro=True)

    def take() -> int:
        taken = 0
        with contextlib.suppress(WouldBlock):
            while True:
                recv_mmsg_nowait(sock, batch)
                for _data, _address in batch.datagrams():
                    taken += 1
                batch.clear()
        return taken

    return take


def our_lists(sock: socket.socket) -> Take:
    """Ours with trains: `recv_datagrams_nowait`, the same without a batch."""
    ask(sock, GRO)

    def take() -> int:
        taken = 0
        with contextlib.suppress(WouldBlock):
            while True:
                for _data, _address in recv_datagrams_nowait(sock):
                    taken += 1
        return taken

    return take


def one_by_one(sock: socket.socket) -> Take:
    """`socket.recvfrom` until nothing is left."""
    receive = sock.recvfrom

    def take() -> int:
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                _data, _address = receive(PACKET_DATA_SIZE)
                taken += 1
        return taken

    return take


def messages(sock: socket.socket) -> Take:
    """`socket.recvmsg` until nothing is left, with all control data as it gives it."""
    ask(sock, EVERYTHING)
    receive = sock.recvmsg

    def take() -> int:
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                _data, _control, _flags, _address = receive(PACKET_DATA_SIZE, CONTROL_ROOM)
                taken += 1
        return taken

    return take


def qh3_lists(sock: socket.socket) -> Take:
    """qh3's ``recv``, lists of bytes and addresses, until nothing is left."""
    receive = qh3_sockets.open_state(sock).recv

    def take() -> int:
        taken = 0
        while packets := receive():
            for _data, _address in packets:
                taken += 1
        return taken

    return take


TrainSpec: TypeAlias = Spec[Open]


def _spec(key: str, label: str, kind: Kind, call: Open) -> TrainSpec:
    environment: Mapping[str, str] = PLAIN if kind == "plain" else {}
    return Spec(key, label, "", kind, call, "trains", environment=environment)


def _ours(key: str, label: str, call: Open) -> list[TrainSpec]:
    """Return two candidates: compiled, and in plain Python."""
    return [
        _spec(f"ours-{key}", label, "ours", call),
        _spec(f"plain-{key}", f"{label}, plain Python", "plain", call),
    ]


_GRO = partial(batches, gro=True, options=GRO)
_STAMPS = partial(batches, ancillary=True, options=STAMPS)
_DESTINATIONS = partial(batches, ancillary=True, options=DESTINATIONS)
_EVERYTHING = partial(batches, ancillary=True, options=EVERYTHING)

TRAINS: list[TrainSpec] = [
    _spec("recvfrom", "socket.recvfrom", "peer", one_by_one),
    *_ours("batch", "a batch", batches),
    *_ours("gro", "a batch with gro=True", _GRO),
    *_ours("lists", "a batch with gro=True, datagrams()", batch_lists),
    *_ours("datagrams", "recv_datagrams_nowait with UDP_GRO", our_lists),
    Spec("qh3", qh3_sockets.CALLS, "", "peer", qh3_lists, "trains", needs=qh3_sockets.NEEDS),
    Spec("c", "C, recvmmsg, nothing read", "", "floor", None, "trains", arguments=("0",)),
    Spec("c-gro", "C, recvmmsg with UDP_GRO, nothing read", "", "floor", None, "trains",
         arguments=("1",)),
]  # fmt: skip

CONTROL: list[TrainSpec] = [
    *_ours("stamps", "timestamps asked for, not read", _STAMPS),
    *_ours("stamps-read", "timestamps read", partial(_STAMPS, read=("timestamp",))),
    *_ours("destinations", "destinations asked for, not read", _DESTINATIONS),
    *_ours("everything", "all asked for, not read", _EVERYTHING),
    *_ours("everything-read", "all read", partial(_EVERYTHING, read=("everything",))),
    _spec("recvmsg", "socket.recvmsg, all asked for", "peer", messages),
]
SPECS = {spec.key: spec for spec in TRAINS + CONTROL}


def fill(sender: socket.socket, count: int, train: int) -> None:
    """Send `count` packets to who `sender` is connected to, in trains of `train`.

    Raises:
        UnavailableError: The kernel does not send trains of that length.
    """
    data = bytes(PACKET_DATA_SIZE)
    if train == 1:
        for _ in range(count):
            sender.send(data)
        return
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", PACKET_DATA_SIZE))]
    for sent in range(0, count, train):
        try:
            sender.sendmsg([data] * min(train, count - sent), control)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EMSGSIZE, errno.EIO):
                raise
            raise UnavailableError(f"no trains of {train}: {error}") from None


def open_pair(spec: TrainSpec) -> tuple[socket.socket, socket.socket, Take]:
    """Return a receiver, a sender that is connected to it, and what takes its packets."""
    assert spec.open is not None
    receiver = udp.open_socket()
    try:
        take = spec.open(receiver)
        return receiver, udp.open_sender(receiver.getsockname()[1]), take
    except BaseException:
        receiver.close()
        raise
