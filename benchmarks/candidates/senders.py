"""What is measured of sending: ours and the peers, each in its idiomatic form."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import perf_counter_ns
from typing import Any, TypeAlias

from anyio.abc import UDPSocket

from anyio_mmsg import (
    PACKET_DATA_SIZE,
    PacketBatch,
    SendEngine,
    multi_target_send,
    recv_mmsg_nowait,
    send_mmsg,
    send_mmsg_nowait,
)
from benchmarks.spec import LOOPS, PLAIN, WARM, Kind, Spec, UnavailableError

from . import qh3_sockets
from .receivers import Address

Pairs: TypeAlias = list[tuple[bytes, Address]]
Sinks: TypeAlias = Mapping[Address, socket.socket]
"""The sockets that packets go to, by address."""


class Sender(ABC):
    """A socket in some library's hands."""

    def prepare(self, calls: list[Pairs], sinks: Sinks) -> None:
        """Get ready to send the pairs of each call."""
        self.calls = calls

    async def clocked(self) -> int:
        """Send all that was prepared; return the nanoseconds."""
        start = perf_counter_ns()
        await self.send()
        return perf_counter_ns() - start

    @abstractmethod
    async def send(self) -> None:
        """Send what was prepared."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the socket in the way of whoever has it."""


class OurSender(Sender):
    """`send_mmsg` of pairs."""

    def __init__(self, sock: socket.socket, engine: SendEngine, gso: bool = False) -> None:
        self.sock = sock
        self.options: dict[str, Any] = {"gso": gso, "engine": engine}

    async def send(self) -> None:
        """See `Sender`."""
        sock, options = self.sock, self.options
        for pairs in self.calls:
            await send_mmsg(sock, pairs, **options)

    async def aclose(self) -> None:
        """See `Sender`."""
        self.sock.close()


class BatchSender(OurSender):
    """`send_mmsg` of a batch that was just received: what an echo server does."""

    def prepare(self, calls: list[Pairs], sinks: Sinks) -> None:
        """See `Sender`."""
        self.calls, self.sinks = calls, sinks
        self.batch = PacketBatch(len(calls[0]), PACKET_DATA_SIZE)

    async def clocked(self) -> int:
        """See `Sender`. The clock stops for each receive."""
        nanoseconds = 0
        own = self.sock.getsockname()
        for pairs in self.calls:
            self.batch.clear()
            for data, address in pairs:
                self.sinks[address].sendto(data, own)
            if recv_mmsg_nowait(self.sock, self.batch, len(pairs)) < len(pairs):
                raise RuntimeError("packets were lost on their way into a batch")
            nanoseconds += await super().clocked()
        return nanoseconds

    async def send(self) -> None:
        """See `Sender`."""
        await send_mmsg(self.sock, self.batch, **self.options)


class FanSender(OurSender):
    """`multi_target_send`: the addresses of each call get its first payload."""

    def prepare(self, calls: list[Pairs], sinks: Sinks) -> None:
        """See `Sender`."""
        self.fans = [(pairs[0][0], [address for _, address in pairs]) for pairs in calls]

    async def send(self) -> None:
        """See `Sender`."""
        sock, engine = self.sock, self.options["engine"]
        for data, addresses in self.fans:
            await multi_target_send(sock, data, addresses, engine=engine)


async def open_ours(
    sock: socket.socket, kind: type[OurSender], engine: SendEngine, gso: bool = False
) -> Sender:
    """Send by ours.

    Raises:
        UnavailableError: The engine or GSO is not there.
    """
    try:
        result = send_mmsg_nowait(sock, [(b"", sock.getsockname())], gso=gso, engine=engine)
    except ValueError as error:
        raise UnavailableError(str(error)) from None
    if result.failures:
        raise UnavailableError(str(result.failures[0][1]))
    sock.recv(1)
    return kind(sock, engine, gso)


class LoopSender(Sender):
    """A plain loop of `socket.sendto`; no event loop has a part in it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def send(self) -> None:
        """See `Sender`."""
        sendto = self.sock.sendto
        for pairs in self.calls:
            for data, address in pairs:
                sendto(data, address)

    async def aclose(self) -> None:
        """See `Sender`."""
        self.sock.close()


async def open_loop(sock: socket.socket) -> Sender:
    """Send by a loop of `socket.sendto`."""
    return LoopSender(sock)


class AwaitingSender(Sender):
    """A peer that awaits ``sendto(data, address)``."""

    def __init__(
        self,
        sendto: Callable[[bytes, Address], Awaitable[object]],
        close: Callable[[], None],
    ) -> None:
        self.sendto = sendto
        self.close = close

    async def send(self) -> None:
        """See `Sender`."""
        sendto = self.sendto
        for pairs in self.calls:
            for data, address in pairs:
                await sendto(data, address)

    async def aclose(self) -> None:
        """See `Sender`."""
        self.close()


async def open_sock_sendto(sock: socket.socket) -> Sender:
    """`loop.sock_sendto` of asyncio; uvloop has none (NotImplementedError)."""
    loop: Any = asyncio.get_running_loop()
    if not hasattr(loop, "sock_sendto"):
        raise UnavailableError("sock_sendto came with Python 3.11")
    return AwaitingSender(partial(loop.sock_sendto, sock), sock.close)


async def open_trio_socket(sock: socket.socket) -> Sender:
    """`trio.socket`, by its `sendto`."""
    import trio  # here: the other senders' processes do without

    trio_socket = trio.socket.from_stdlib_socket(sock)
    return AwaitingSender(trio_socket.sendto, trio_socket.close)


class AnyioSender(Sender):
    """AnyIO's `UDPSocket`."""

    def __init__(self, udp: UDPSocket) -> None:
        self.udp = udp

    async def send(self) -> None:
        """See `Sender`."""
        sendto = self.udp.sendto
        for pairs in self.calls:
            for data, (host, port) in pairs:
                await sendto(data, host, port)

    async def aclose(self) -> None:
        """See `Sender`."""
        await self.udp.aclose()


async def open_anyio(sock: socket.socket) -> Sender:
    """AnyIO's `UDPSocket`, on whatever loop runs."""
    return AnyioSender(await UDPSocket.from_socket(sock))


class TransportSender(Sender):
    """`loop.create_datagram_endpoint`, on asyncio or uvloop."""

    def __init__(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    async def send(self) -> None:
        """See `Sender`."""
        sendto = self.transport.sendto  # at once, unless the socket's buffer is full
        for pairs in self.calls:
            for data, address in pairs:
                sendto(data, address)

    async def aclose(self) -> None:
        """See `Sender`."""
        self.transport.close()
        await asyncio.sleep(0)  # it closes the socket in the loop's next pass


class Qh3Sender(Sender):
    """qh3's ``send`` of a list of payloads to one address, of which it makes trains."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.state = sock, qh3_sockets.open_state(sock)

    def prepare(self, calls: list[Pairs], sinks: Sinks) -> None:
        """See `Sender`. All pairs of a call have one address."""
        self.lists: list[tuple[list[bytes], Any]] = [
            ([data for data, _ in pairs], pairs[0][1]) for pairs in calls
        ]

    async def send(self) -> None:
        """See `Sender`."""
        send = self.state.send
        for datagrams, address in self.lists:
            if send(datagrams, address) < len(datagrams):
                raise RuntimeError("the socket's buffer is too small to measure qh3")

    async def aclose(self) -> None:
        """See `Sender`."""
        self.sock.close()


async def open_qh3(sock: socket.socket) -> Sender:
    """qh3's calls, which need no event loop."""
    return Qh3Sender(sock)


async def open_fastnet(sock: socket.socket) -> Sender:
    """The transport of aiofastnet on the running loop, asyncio's or uvloop's."""
    import aiofastnet  # here: the other senders' processes do without

    transport, _ = await aiofastnet.create_datagram_endpoint(
        asyncio.get_running_loop(), asyncio.DatagramProtocol, sock=sock
    )
    return TransportSender(transport)


async def open_transport(sock: socket.socket) -> Sender:
    """A `DatagramTransport` on the running loop, asyncio's or uvloop's."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)
    return TransportSender(transport)


SenderSpec: TypeAlias = Spec[Callable[[socket.socket], Awaitable[Sender]]]

MANY = 1024
"""The most packets of one call: `UIO_MAXIOV` of the kernel."""


def ours_key(what: str, loop: str) -> str:
    """Return the key of ours."""
    return f"send-{what}-{loop}"


def _spec(
    key: str,
    label: str,
    loop: str,
    kind: Kind,
    open_sender: Callable[[socket.socket], Awaitable[Sender]],
    limit: int = 1,
    environment: Mapping[str, str] | None = None,
    needs: tuple[str, ...] = (),
) -> SenderSpec:
    return Spec(key, label, loop, kind, open_sender, WORKER, limit, environment or {}, needs)


WORKER = "send"
FLOOR, FLOOR_GSO = "floor-send", "floor-send-gso"
PAIRS, BATCH, FAN, GSO, PLAIN_PAIRS = "pairs", "batch", "fan", "gso", "plain"
FLOORS: list[SenderSpec] = [
    Spec(key, label, "", "floor", None, WORKER, MANY, arguments=arguments)
    for key, label, arguments in (
        (FLOOR, "C, sendmmsg(2)", ()),
        (FLOOR_GSO, "C, sendmmsg(2), GSO", ("gso",)),
    )
]
WAYS: tuple[tuple[str, str, type[OurSender], SendEngine], ...] = (
    (PAIRS, "send_mmsg(pairs)", OurSender, "auto"),
    (BATCH, "send_mmsg(batch)", BatchSender, "auto"),
    (FAN, "multi_target_send", FanSender, "auto"),
    (GSO, "send_mmsg(pairs, gso=True)", OurSender, "auto"),
    (PLAIN_PAIRS, "send_mmsg(pairs), plain Python", OurSender, "sendto"),
)
OURS = [
    _spec(
        ours_key(what, loop),
        label,
        loop,
        "plain" if what == PLAIN_PAIRS else "ours",
        partial(open_ours, kind=kind, engine=engine, gso=what == GSO),
        MANY,
        PLAIN if what == PLAIN_PAIRS else None,
    )
    for what, label, kind, engine in WAYS
    for loop in LOOPS
]
LOOP, QH3 = "send-sendto", "send-qh3"
PEERS = [
    _spec(LOOP, "sendto loop", "", "peer", open_loop),
    _spec(
        QH3,
        f"{qh3_sockets.CALLS}, GSO",
        "",
        "peer",
        open_qh3,
        MANY,
        needs=qh3_sockets.NEEDS,
    ),
    _spec("send-transport-asyncio", "transport.sendto", "asyncio", "peer", open_transport),
    _spec("send-transport-uvloop", "transport.sendto", "uvloop", "peer", open_transport),
    *(
        _spec(
            f"send-aiofastnet-{loop}",
            "aiofastnet transport.sendto",
            loop,
            "peer",
            open_fastnet,
            1,
            WARM,
            ("aiofastnet",),
        )
        for loop in ("asyncio", "uvloop")
    ),
    _spec("send-sock-asyncio", "loop.sock_sendto", "asyncio", "peer", open_sock_sendto),
    *(_spec(f"send-anyio-{loop}", "AnyIO UDPSocket", loop, "peer", open_anyio) for loop in LOOPS),
    _spec("send-socket-trio", "trio.socket sendto", "trio", "peer", open_trio_socket),
]
SPECS = {spec.key: spec for spec in FLOORS + OURS + PEERS}
