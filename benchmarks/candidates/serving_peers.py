"""What others serve with, each in its idiomatic form; and all servers together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import anyio
from anyio.abc import UDPSocket

from anyio_mmsg import NUM_RCVMMSGS, serve_protocol
from benchmarks import example
from benchmarks.spec import FRESH, LOOPS, PLAIN, WARM, Kind, Spec, UnavailableError

from . import qh3_sockets
from .receivers import Address
from .receiving_peers import ROOM, SIX_LINES
from .servers import (
    BATCH,
    LINGER,
    DatagramsServer,
    GsoServer,
    LingerServer,
    OurServer,
    PlainServer,
    Respond,
    SendtoServer,
    Server,
    StreamServer,
)


class NaiveServer(Server):
    """A wait, then a loop of `recvfrom` and `sendto` until the socket is dry."""

    async def serve(self) -> None:
        """See `Server`."""
        sock, respond = self.sock, self.respond
        while True:
            await anyio.wait_readable(sock)
            try:
                while True:
                    data, address = sock.recvfrom(ROOM)
                    reply = respond(data) if respond else data
                    if reply is not None:
                        sock.sendto(reply, address)
            except BlockingIOError:
                pass


class Naive64Server(Server):
    """The same, with a turn for other tasks after 64 packets."""

    async def serve(self) -> None:
        """See `Server`."""
        sock, respond = self.sock, self.respond
        while True:
            await anyio.wait_readable(sock)
            try:
                for _ in range(64):
                    data, address = sock.recvfrom(ROOM)
                    reply = respond(data) if respond else data
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


class AwaitingServer(Server):
    """A peer that awaits ``recvfrom(size)`` and ``sendto(data, address)``."""

    recvfrom: Callable[[int], Awaitable[tuple[bytes, Address]]]
    sendto: Callable[[bytes, Address], Awaitable[object]]

    async def serve(self) -> None:
        """See `Server`."""
        recvfrom, sendto, respond = self.recvfrom, self.sendto, self.respond
        while True:
            data, address = await recvfrom(ROOM)
            reply = respond(data) if respond else data
            if reply is not None:
                await sendto(reply, address)


class TrioServer(AwaitingServer):
    """`trio.socket`."""

    async def start(self) -> None:
        """See `Server`."""
        import trio  # here: the other servers' processes do without

        trio_socket = trio.socket.from_stdlib_socket(self.sock)
        self.recvfrom, self.sendto = trio_socket.recvfrom, trio_socket.sendto


class SockServer(AwaitingServer):
    """`loop.sock_recvfrom` and `sock_sendto` of asyncio; uvloop has none."""

    async def start(self) -> None:
        """See `Server`."""
        loop: Any = asyncio.get_running_loop()
        if not hasattr(loop, "sock_recvfrom"):
            raise UnavailableError("sock_recvfrom came with Python 3.11")
        self.recvfrom = partial(loop.sock_recvfrom, self.sock)
        self.sendto = partial(loop.sock_sendto, self.sock)


@dataclass
class Responding(asyncio.DatagramProtocol):
    """A datagram protocol that replies by its transport."""

    respond: Respond | None
    transport: asyncio.DatagramTransport = field(init=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport = transport  # type: ignore[assignment]  # others' are of no such class

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Reply."""
        reply = self.respond(data) if self.respond else data
        if reply is not None:
            self.transport.sendto(reply, addr)


class ProtocolServer(Server):
    """`loop.create_datagram_endpoint`, on asyncio or uvloop."""

    transport: asyncio.DatagramTransport

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


class ServedServer(Server):
    """The same protocol by `serve_protocol`."""

    async def start(self) -> None:
        """See `Server`."""
        self.protocol = Responding(self.respond)
        self.serving = asyncio.create_task(serve_protocol(self.sock, self.protocol))
        await asyncio.sleep(0)  # it begins

    async def aclose(self) -> None:
        """See `Server`."""
        self.serving.cancel()
        await asyncio.wait([self.serving])

    async def serve(self) -> None:
        """See `Server`."""
        await anyio.sleep_forever()


class FastnetServer(ProtocolServer):
    """`aiofastnet.create_datagram_endpoint`, on asyncio or uvloop."""

    async def start(self) -> None:
        """See `Server`."""
        import aiofastnet  # here: the other servers' processes do without

        self.transport, _ = await aiofastnet.create_datagram_endpoint(
            asyncio.get_running_loop(), lambda: Responding(self.respond), sock=self.sock
        )


class Qh3Server(ProtocolServer):
    """qh3's transport, on asyncio or uvloop."""

    async def start(self) -> None:
        """See `Server`."""
        self.transport = await qh3_sockets.open_transport(
            self.sock, lambda: Responding(self.respond)
        )


async def open_server(
    sock: socket.socket, kind: type[Server], load: Callable[[], Respond] | None
) -> Server:
    """Put `sock` into the hands of a server."""
    server = kind(sock, load() if load else None)
    await server.start()
    return server


ServerSpec: TypeAlias = Spec[Callable[[socket.socket], Awaitable[Server]]]

BOTH = ("asyncio", "uvloop")
KINDS: dict[str, tuple[str, type[Server], Sequence[str], Kind]] = {
    "ours": ("anyio-mmsg", OurServer, LOOPS, "ours"),
    "gso": ("anyio-mmsg, gso=True", GsoServer, LOOPS, "ours"),
    "plain": ("anyio-mmsg, plain Python", PlainServer, LOOPS, "plain"),
    "sendto": ("anyio-mmsg, answers by sendto", SendtoServer, LOOPS, "ours"),
    "datagrams": ("anyio-mmsg, recv_datagrams and sendto", DatagramsServer, LOOPS, "ours"),
    "stream": ("anyio-mmsg, PacketReceiver", StreamServer, LOOPS, "ours"),
    "linger": (
        f"anyio-mmsg, PacketReceiver, linger {LINGER * 1e3:.0f} ms",
        LingerServer,
        LOOPS,
        "ours",
    ),
    "served": ("DatagramProtocol by serve_protocol", ServedServer, BOTH, "ours"),
    "naive": (SIX_LINES, NaiveServer, LOOPS, "peer"),
    "naive64": (f"{SIX_LINES}, 64 a wake", Naive64Server, LOOPS, "peer"),
    "protocol": ("DatagramProtocol", ProtocolServer, BOTH, "peer"),
    "protocol-fresh": ("DatagramProtocol, fresh process", ProtocolServer, ("asyncio",), "peer"),
    "aiofastnet": ("aiofastnet DatagramProtocol", FastnetServer, BOTH, "peer"),
    "qh3": (qh3_sockets.TRANSPORT, Qh3Server, BOTH, "peer"),
    "sock": ("loop.sock_recvfrom", SockServer, ("asyncio",), "peer"),
    "anyio": ("AnyIO UDPSocket", AnyioServer, LOOPS, "peer"),
    "socket": ("trio.socket", TrioServer, ("trio",), "peer"),
}
"""By key: label, class, loops, whose."""


def _environment(kind: str, loop: str) -> dict[str, str]:
    if kind == "plain":
        return PLAIN
    if kind.endswith("fresh"):
        return FRESH
    allocates = kind == "aiofastnet" or (kind in ("protocol", "anyio") and loop == "asyncio")
    return WARM if allocates else {}


def key(what: str, kind: str, loop: str) -> str:
    """Return the key of a server, such as "echo-ours-trio"."""
    return f"{what}-{kind}-{loop}"


def _specs(
    what: str, load: Callable[[], Respond] | None, kinds: Sequence[str]
) -> list[ServerSpec]:
    """Return servers; `load` is run in their processes."""
    return [
        Spec(
            key(what, kind, loop),
            label,
            loop,
            whose,
            partial(open_server, kind=server, load=load),
            "serve",
            1 if whose == "peer" else BATCH if load else NUM_RCVMMSGS,
            environment=_environment(kind, loop),
            needs=(
                *([kind] if kind in ("aiofastnet", "qh3") else []),
                *(["dns"] if load else []),
            ),
        )
        for kind, (label, server, loops, whose) in KINDS.items()
        if kind in kinds
        for loop in loops
    ]


ECHO = _specs("echo", None, list(KINDS))
DNS = _specs(
    "dns",
    example.load_answer,
    ("ours", "plain", "naive", "naive64", "protocol", "aiofastnet", "qh3", "anyio", "socket"),
)
SPECS = {spec.key: spec for spec in ECHO + DNS}


def echoes(*kinds: str) -> list[ServerSpec]:
    """Return the echo servers of these kinds, on all of their loops."""
    wanted = {key("echo", kind, loop) for kind in kinds for loop in LOOPS}
    return [spec for spec in ECHO if spec.key in wanted]
