"""What is measured of serving: ours, behind a small protocol that peers share.

A server sends what comes back to whom it came from: the packet itself, or what a function makes
of it, the same for all.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from anyio import WouldBlock

from anyio_mmsg import (
    NUM_RCVMMSGS,
    PACKET_DATA_SIZE,
    Packet,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    ReceiveEngine,
    SendEngine,
    recv_datagrams,
    recv_mmsg,
    recv_mmsg_nowait,
    send_mmsg,
    send_mmsg_nowait,
)
from benchmarks.spec import UnavailableError

Respond: TypeAlias = "Callable[[bytes | memoryview], bytes | None]"
"""Makes a reply of a request; None: there is none."""

BATCH = 256
"""Requests that ours answers at a time, at most: as the DNS server does by default."""

LINGER = 0.005  # seconds


class Server(ABC):
    """A socket in some library's hands.

    Args:
        sock: Bound and nonblocking.
        respond: Makes the replies; None: a request is its own, which costs no call then.
    """

    def __init__(self, sock: socket.socket, respond: Respond | None) -> None:
        self.sock = sock
        self.respond = respond

    async def start(self) -> None:  # noqa: B027  # most have nothing to await
        """Hand the socket over.

        Raises:
            UnavailableError: This can't be measured here.
        """

    async def aclose(self) -> None:
        """Close the socket in the way of whoever has it."""
        self.sock.close()

    @abstractmethod
    async def serve(self) -> None:
        """Serve until cancelled; may be called again then."""


async def send_all(
    sock: socket.socket, packets: PacketBatch | list[tuple[bytes, Packet]], engine: SendEngine
) -> None:
    """Answer as `send_mmsg_nowait` advises: receiving was a checkpoint, so wait only for room."""
    try:
        handled = send_mmsg_nowait(sock, packets, engine=engine).handled
    except WouldBlock:
        handled = 0
    if handled < len(packets):
        rest: Any = list(packets)[handled:]
        await send_mmsg(sock, rest, engine=engine)


class OurServer(Server):
    """One wait, a batch of requests, one call for all replies."""

    engines: tuple[ReceiveEngine, SendEngine] = ("auto", "auto")
    """To receive and to send by."""
    gso = False
    linger: float | None = None
    """Of a `PacketReceiver`; None: the server uses no receiver."""

    async def start(self) -> None:
        """See `Server`."""
        receiving, sending = self.engines
        own = self.sock.getsockname()
        try:
            self.batch = PacketBatch(NUM_RCVMMSGS, PACKET_DATA_SIZE, receiving)
            send_mmsg_nowait(self.sock, [(b"", own)], gso=self.gso, engine=sending)
            recv_mmsg_nowait(self.sock, self.batch)
        except WouldBlock:
            pass
        except ValueError as error:
            raise UnavailableError(str(error)) from None
        self.batch.clear()
        # Nothing is received while a batch is answered.
        size = BATCH if self.respond else NUM_RCVMMSGS
        pool = PacketBatchPool(1, size, PACKET_DATA_SIZE, receiving)
        self.receiver = PacketReceiver(self.sock, pool, limit=size, linger=self.linger or 0)

    async def aclose(self) -> None:
        """See `Server`."""
        await self.receiver.aclose()

    async def serve(self) -> None:
        """See `Server`."""
        if self.respond:
            await self._respond(self.respond)
        elif self.linger is None:
            await self._echo()
        else:
            await self._echo_stream()

    async def _echo(self) -> None:
        sock, batch, gso, engine = self.sock, self.batch, self.gso, self.engines[1]
        batch.clear()  # of what was there when this was cancelled before
        while True:
            await recv_mmsg(sock, batch)
            await send_mmsg(sock, batch, gso=gso, engine=engine)
            batch.clear()

    async def _echo_stream(self) -> None:
        sock, engine = self.sock, self.engines[1]
        async for batch in self.receiver:
            with batch:
                await send_all(sock, batch, engine)

    async def _respond(self, respond: Respond) -> None:
        sock, engine = self.sock, self.engines[1]
        async for batch in self.receiver:
            with batch:
                replies = [
                    (reply, packet)
                    for packet in batch
                    if (reply := respond(packet.data)) is not None
                ]
                if replies:
                    await send_all(sock, replies, engine)


class GsoServer(OurServer):
    """Runs of replies of one size to one client go out in one piece."""

    gso = True


class PlainServer(OurServer):
    """By the portable engines, in a process without the compiled module."""

    engines = ("recvfrom_into", "sendto")


class StreamServer(OurServer):
    """By a `PacketReceiver`."""

    linger = 0.0


class LingerServer(OurServer):
    """By a `PacketReceiver` that waits for fuller batches."""

    linger = LINGER


class DatagramsServer(OurServer):
    """`recv_datagrams`, and an answer by the socket's own `sendto`: what programs begin with."""

    async def _echo(self) -> None:
        sock = self.sock
        while True:
            for data, address in await recv_datagrams(sock):
                sock.sendto(data, address)


class SendtoServer(OurServer):
    """Echoes by the socket's own `sendto`: what differs from the six lines is the receiving."""

    async def _echo(self) -> None:
        sock, batch = self.sock, self.batch
        batch.clear()
        while True:
            await recv_mmsg(sock, batch)
            for packet in batch:
                sock.sendto(packet.data, packet.address)
            batch.clear()
