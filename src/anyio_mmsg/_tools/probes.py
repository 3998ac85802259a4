"""The datagrams of `latency`: what they say, and who sends them at a steady rate."""

from __future__ import annotations

import secrets
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import anyio
from anyio.lowlevel import checkpoint

from .. import open_udp_socket, send_mmsg_nowait

# A datagram: a mark, the sender (a random number for each run), the datagram's number, the time.
HEADER = struct.Struct("!4sQQQ")
MAGIC = b"lat1"


class Probe(NamedTuple):
    """What a datagram says."""

    sender: int
    number: int
    sent: int  # nanoseconds since 1970, by the sender's clock

    def pack(self, size: int) -> bytes:
        """Return the datagram, of `size` bytes."""
        return HEADER.pack(MAGIC, *self).ljust(size, b"\0")


def read_probe(data: memoryview) -> Probe | None:
    """Return what a datagram says, or None if it is not one of these."""
    if len(data) < HEADER.size:
        return None
    magic, sender, number, sent = HEADER.unpack_from(data)
    return Probe(sender, number, sent) if magic == MAGIC else None


@dataclass
class Sender:
    """Sends datagrams at a steady rate.

    Args:
        rate: Datagrams a second.
        size: Bytes of one, at least `HEADER.size`.
        packets: How many to send; None for no end.

    Attributes:
        sent: How many went out.
        refused: How many did not: nobody listens, or the socket's buffer is full.
        stopping: When set, ends the sending.
    """

    rate: float
    size: int
    packets: int | None
    sent: int = 0
    refused: int = 0
    stopping: anyio.Event = field(default_factory=anyio.Event)
    name: int = field(default_factory=lambda: secrets.randbits(64))

    async def work(self, host: str, port: int) -> None:
        """Send until `stopping` is set, or all were sent."""
        with await open_udp_socket(remote_host=host, remote_port=port) as sock:
            started, tried = anyio.current_time(), 0
            while tried != self.packets and not self.stopping.is_set():
                due = started + tried / self.rate
                if (early := due - anyio.current_time()) > 0:
                    with anyio.move_on_after(early):
                        await self.stopping.wait()
                    continue
                await checkpoint()
                self.send(sock)
                tried += 1

    def send(self, sock: socket.socket) -> None:
        """Send one, with nothing between its stamp and the send."""
        probe = Probe(self.name, self.sent, time.time_ns())
        try:
            result = send_mmsg_nowait(sock, [(probe.pack(self.size), None)])
        except anyio.WouldBlock:  # the socket's buffer is full; a wait would spoil the stamp
            self.refused += 1
            return
        self.refused += len(result.failures)  # nobody listens, or the like
        self.sent += result.sent

    def fields(self) -> dict[str, int]:
        """Return what was sent, for programs."""
        return {"sent": self.sent, "refused": self.refused}

    def summary(self) -> str:
        """Return what was sent, for people."""
        return f"sent {self.sent:,}, refused {self.refused:,}"
