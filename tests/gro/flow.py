"""A receiver that takes trains, and senders of them."""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import ExitStack
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketBatch, recv_mmsg_nowait
from anyio_mmsg._system.control import SOL_UDP
from anyio_mmsg._system.options import ask_for

UDP_SEGMENT = 103  # linux/udp.h


class Flow:
    """A receiver with UDP_GRO, and two senders that are connected to it.

    Args:
        host: Where all of them are.
        asked: For `ask_for`, beside `gro`.
    """

    def __init__(self, host: str = "127.0.0.1", **asked: bool) -> None:
        self._sockets = ExitStack()
        self.host = host
        self.receiver = self.open()
        ask_for(self.receiver, **{"gro": True, **asked})
        self.senders = [self.open(), self.open()]
        for sender in self.senders:
            sender.connect(self.receiver.getsockname())
        self.sender = self.senders[0]
        self.names = [sender.getsockname() for sender in self.senders]

    def __enter__(self) -> Flow:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._sockets.close()

    def open(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = self._sockets.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        sock.bind((self.host, 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.setblocking(False)
        return sock

    def send(self, *packets: bytes, sender: int = 0) -> list[bytes]:
        """Send packets of one size, the last perhaps shorter, as one train."""
        segment = len(packets[0])
        assert all(len(packet) == segment for packet in packets[:-1])
        assert 1 <= len(packets[-1]) <= segment
        control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", segment))]
        try:
            self.senders[sender].sendmsg([b"".join(packets)], control)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            pytest.skip(f"this kernel does not send {len(packets)} segments at once")
        return list(packets)

    def single(self, data: bytes, sender: int = 0) -> list[bytes]:
        self.senders[sender].send(data)
        return [data]


def numbered(count: int, size: int, last: int | None = None, start: int = 0) -> list[bytes]:
    """Packets of `size` bytes that differ; the last one has `last` bytes."""
    packets = []
    for number in range(start, start + count):
        body = b"%d," % number
        packets.append((body * (size // len(body) + 1))[:size])
    if last is not None:
        packets[-1] = packets[-1][:last]
    return packets


def drain(sock: socket.socket, batch: PacketBatch) -> int:
    """Receive all that is there, or that there are slots for; return how many packets."""
    taken = 0
    while batch.free:
        try:
            taken += recv_mmsg_nowait(sock, batch)
        except anyio.WouldBlock:
            break
    return taken


def check(batch: PacketBatch, packets: list[bytes], addresses: list[Any]) -> None:
    """Check what a batch holds, through every way that it shows it."""
    assert len(batch) == len(packets)
    assert bool(batch) == bool(packets)
    assert batch.sizes() == [len(packet) for packet in packets]
    assert batch.payloads() == packets
    assert batch.addresses() == addresses
    held = list(batch)
    assert [bytes(packet.data) for packet in held] == packets
    assert [packet.address for packet in held] == addresses
    assert [packet.size for packet in held] == [len(packet) for packet in packets]
    assert [packet.wire_size for packet in held] == [len(packet) for packet in packets]
    assert not any(packet.truncated for packet in held)
