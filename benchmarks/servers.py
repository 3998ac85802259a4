"""What is measured of serving: ours and the peers, each in its idiomatic form.

A server sends what comes back to whom it came from: the packet itself, or what a function makes
of it, the same for all.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import anyio
from anyio.abc import UDPSocket

from anyio_mmsg import (
    NUM_RCVMMSGS,
    PACKET_DATA_SIZE,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    recv_mmsg,
    send_mmsg,
)

from . import example
from .receivers import Address
from .spec import FRESH, LOOPS, LUCKY, Spec

Respond: TypeAlias = "Callable[[bytes | memoryview], bytes | None]"
"""Makes a reply of a request; None: there is none."""


BATCH = 256
"""Requests that ours answers at a time, at most: as examples/dns_server.py does by default."""


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
        """Hand the socket over."""

    async def aclose(self) -> None:
        """Close the socket in the way of whoever has it."""
        self.sock.close()

    @abstractmethod
    async def serve(self) -> None:
        """Serve until cancelled; may be called again then."""


class OurServer(Server):
    """One wait, a batch of requests, one call for all replies."""

    def __init__(self, sock: socket.socket, respond: Respond | None) -> None:
        super().__init__(sock, respond)
        if respond:
            # Nothing is received while a batch is answered.
            self.receiver = PacketReceiver(sock, PacketBatchPool(1, BATCH), limit=BATCH)
        else:
            self.batch = PacketBatch(NUM_RCVMMSGS, PACKET_DATA_SIZE)

    async def serve(self) -> None:
        """See `Server`."""
        await (self._respond(self.respond) if self.respond else self._echo())

    async def _echo(self) -> None:
        sock, batch = self.sock, self.batch
        while True:
            await recv_mmsg(sock, batch)
            await send_mmsg(sock, batch)
            batch.clear()

    async def _respond(self, respond: Respond) -> None:
        async for batch in self.receiver:
            with batch:
                replies = [
                    (reply, address)
                    for data, address in zip(batch.payloads(), batch.addresses(), strict=True)
                    if (reply := respond(data)) is not None
                ]
                if replies:
                    await send_mmsg(self.sock, replies)


class LoopServer(Server):
    """A wait, then a loop of `recvfrom_into` and `sendto` until the socket runs dry."""

    async def serve(self) -> None:
        """See `Server`."""
        sock, respond = self.sock, self.respond
        buffer = bytearray(PACKET_DATA_SIZE)
        view = memoryview(buffer)
        while True:
            await anyio.wait_readable(sock)
            try:
                while True:
                    size, address = sock.recvfrom_into(buffer)
                    reply = respond(view[:size]) if respond else view[:size]
                    if reply is not None:
                        sock.sendto(reply, address)
            except BlockingIOError:
                pass


class AnyioServer(Server):
    """AnyIO's `UDPSocket`."""

    async def start(self) -> None:
        """See `Server`."""
        self.udp = await UDPSocket.from_socket(self.sock)

    async def aclose(self) -> None:
        """See `Server`."""
        await self.udp.aclose()

    async def serve(self) -> None:
        """See `Server`."""
        receive, sendto, respond = self.udp.receive, self.udp.sendto, self.respond
        while True:
            data, (host, port) = await receive()
            reply = respond(data) if respond else data
            if reply is not None:
                await sendto(reply, host, port)


class TrioServer(Server):
    """`trio.socket`."""

    async def serve(self) -> None:
        """See `Server`."""
        import trio  # here: the other servers' processes do without

        sock, respond = trio.socket.from_stdlib_socket(self.sock), self.respond
        buffer = bytearray(PACKET_DATA_SIZE)
        view = memoryview(buffer)
        while True:
            size, address = await sock.recvfrom_into(buffer)
            reply = respond(view[:size]) if respond else view[:size]
            if reply is not None:
                await sock.sendto(reply, address)


@dataclass
class Responding(asyncio.DatagramProtocol):
    """A datagram protocol that replies by its transport."""

    respond: Respond | None
    transport: asyncio.DatagramTransport = field(init=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport = transport  # type: ignore[assignment]  # uvloop's is of no such class

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Reply."""
        reply = self.respond(data) if self.respond else data
        if reply is not None:
            self.transport.sendto(reply, addr)


class ProtocolServer(Server):
    """`loop.create_datagram_endpoint`, on asyncio or uvloop."""

    async def start(self) -> None:
        """See `Server`."""
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(
            lambda: Responding(self.respond), sock=self.sock
        )

    async def aclose(self) -> None:
        """See `Server`."""
        self.transport.close()
        await asyncio.sleep(0)  # it closes the socket in the loop's next pass

    async def serve(self) -> None:
        """See `Server`."""
        await anyio.sleep_forever()


async def open_server(
    sock: socket.socket, kind: type[Server], load: Callable[[], Respond] | None
) -> Server:
    """Put `sock` into the hands of a server."""
    server = kind(sock, load() if load else None)
    await server.start()
    return server


ServerSpec: TypeAlias = Spec[Callable[[socket.socket], Awaitable[Server]]]

KINDS: dict[str, tuple[str, type[Server], Sequence[str]]] = {
    "ours": ("anyio-mmsg", OurServer, LOOPS),
    "protocol": ("DatagramProtocol", ProtocolServer, ("asyncio", "uvloop")),
    "anyio": ("AnyIO UDPSocket", AnyioServer, LOOPS),
    "socket": ("trio.socket", TrioServer, ("trio",)),
    "loop": ("recvfrom_into, sendto loop", LoopServer, LOOPS),
}


def specs(
    what: str, load: Callable[[], Respond] | None, without: str | None = None
) -> list[ServerSpec]:
    """Return servers, with keys such as "echo-ours-trio"; `load` is run in their processes."""
    made: list[ServerSpec] = []
    for kind, (label, server, loops) in KINDS.items():
        if kind == without:
            continue
        for loop in loops:
            allocates = loop == "asyncio" and kind in ("protocol", "anyio")
            for environment in (FRESH, LUCKY) if allocates else ({},):
                lucky = environment is LUCKY
                made.append(
                    Spec(
                        f"{what}-{kind}-{loop}{'-lucky' if lucky else ''}",
                        label + (", lucky malloc" if lucky else ""),
                        loop,
                        "ours" if kind == "ours" else "peer",
                        partial(open_server, kind=server, load=load),
                        (BATCH if load else NUM_RCVMMSGS) if kind == "ours" else 1,
                        environment=environment,
                        worker="server_worker",
                    )
                )
    return made


ECHO = specs("echo", None)
DNS = specs("dns", example.load_answer, without="loop")
SPECS = {spec.key: spec for spec in ECHO + DNS}
