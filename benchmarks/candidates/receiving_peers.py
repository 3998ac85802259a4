"""What others receive with, each in its idiomatic form, and a protocol of theirs served by us."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio
from anyio.abc import UDPSocket

from anyio_mmsg import NUM_RCVMMSGS, PACKET_DATA_SIZE, serve_protocol
from benchmarks.spec import FRESH, LOOPS, WARM, Spec, UnavailableError

from . import qh3_sockets, receivers
from .fields import FIELDS
from .receivers import WORKER, Address, Receiver, ReceiverSpec, Use, opened

ROOM = 2048
"""Bytes that a `recvfrom` is given: what programs write that expect no jumbo frames. With 65,536
it is slower, since each call allocates them."""


class Naive(Receiver):
    """The loop that anyone writes: wait, then `recvfrom` until the socket is dry."""

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        sock = self.sock
        while self.got < count:
            await anyio.wait_readable(sock)
            got = octets = 0
            try:
                while True:
                    data, _address = sock.recvfrom(ROOM)
                    octets += len(data)
                    got += 1
            except BlockingIOError:
                pass
            self.octets += octets
            self.got += got


class Naive64(Receiver):
    """The same, with a turn for other tasks after 64 packets."""

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        sock = self.sock
        while self.got < count:
            await anyio.wait_readable(sock)
            got = octets = 0
            try:
                for _ in range(64):
                    data, _address = sock.recvfrom(ROOM)
                    octets += len(data)
                    got += 1
            except BlockingIOError:
                pass
            self.octets += octets
            self.got += got


class AnyioReceiver(Receiver):
    """AnyIO's `UDPSocket`."""

    async def open(self) -> None:
        """See `Receiver`."""
        self.udp = await UDPSocket.from_socket(self.sock)

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        receive = self.udp.receive
        got, octets = self.got, self.octets
        try:
            while got < count:
                data, _address = await receive()
                octets += len(data)
                got += 1
        finally:
            self.got, self.octets = got, octets

    async def aclose(self) -> None:
        """See `Receiver`."""
        await self.udp.aclose()


class RecvfromInto(Receiver):
    """A peer that awaits ``recvfrom_into(buffer)``, which gives a length and an address."""

    recvfrom_into: Callable[[bytearray], Awaitable[tuple[int, Address]]]

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        recvfrom_into, buffer = self.recvfrom_into, bytearray(PACKET_DATA_SIZE)
        view = memoryview(buffer)
        got, octets = self.got, self.octets
        try:
            while got < count:
                size, _address = await recvfrom_into(buffer)
                data = view[:size]
                octets += len(data)
                got += 1
        finally:
            self.got, self.octets = got, octets


class SockReceiver(RecvfromInto):
    """`loop.sock_recvfrom_into` of asyncio; uvloop has none (NotImplementedError)."""

    async def open(self) -> None:
        """See `Receiver`."""
        loop: Any = asyncio.get_running_loop()
        if not hasattr(loop, "sock_recvfrom_into"):
            raise UnavailableError("sock_recvfrom_into came with Python 3.11")
        self.recvfrom_into = partial(loop.sock_recvfrom_into, self.sock)


class TrioReceiver(RecvfromInto):
    """`trio.socket`, by its `recvfrom_into`."""

    async def open(self) -> None:
        """See `Receiver`."""
        import trio  # here: the other receivers' processes do without

        self.socket = trio.socket.from_stdlib_socket(self.sock)
        self.recvfrom_into = self.socket.recvfrom_into

    async def aclose(self) -> None:
        """See `Receiver`."""
        self.socket.close()


class Reading(asyncio.DatagramProtocol):
    """A datagram protocol whose application reads packets, and wakes who waits for the last."""

    def __init__(self, receiver: ProtocolReceiver) -> None:
        self.receiver = receiver

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Count and read."""
        receiver = self.receiver
        receiver.octets += len(data)
        receiver.got += 1
        if receiver.got == receiver.wanted:
            receiver.done.set()


class ProtocolReceiver(Receiver):
    """`loop.create_datagram_endpoint`, on asyncio or uvloop."""

    transport: asyncio.BaseTransport

    async def open(self) -> None:
        """See `Receiver`."""
        self.done = asyncio.Event()
        self.wanted = 0
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(
            lambda: Reading(self), sock=self.sock
        )

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        self.done.clear()
        self.wanted = count
        if self.got < count:
            await self.done.wait()

    async def aclose(self) -> None:
        """See `Receiver`."""
        self.transport.close()
        await asyncio.sleep(0)  # it closes the socket in the loop's next pass


class FastnetReceiver(ProtocolReceiver):
    """`aiofastnet.create_datagram_endpoint`, on asyncio or uvloop."""

    async def open(self) -> None:
        """See `Receiver`."""
        import aiofastnet  # here: the other receivers' processes do without

        self.done = asyncio.Event()
        self.wanted = 0
        self.transport, _ = await aiofastnet.create_datagram_endpoint(
            asyncio.get_running_loop(), lambda: Reading(self), sock=self.sock
        )


class ReadingBatches(Reading):
    """The same protocol, which also takes lists of one sender's datagrams."""

    def datagrams_received(self, datagrams: list[bytes], addr: Address) -> None:
        """Count and read."""
        receiver, octets = self.receiver, 0
        for data in datagrams:
            octets += len(data)
        receiver.octets += octets
        before = receiver.got
        receiver.got += len(datagrams)
        if before < receiver.wanted <= receiver.got:
            receiver.done.set()


class Qh3ProtocolReceiver(ProtocolReceiver):
    """qh3's transport, with a protocol that takes the lists that it has."""

    async def open(self) -> None:
        """See `Receiver`."""
        self.done = asyncio.Event()
        self.wanted = 0
        self.transport = await qh3_sockets.open_transport(self.sock, lambda: ReadingBatches(self))


class Qh3Receiver(Receiver):
    """The wait that everyone has, then qh3's ``recv`` until the socket is dry."""

    async def open(self) -> None:
        """See `Receiver`."""
        self.state = qh3_sockets.open_state(self.sock)

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        sock, receive = self.sock, self.state.recv
        while self.got < count:
            await anyio.wait_readable(sock)
            got = octets = 0
            while packets := receive():  # an empty list: there are no more
                for data, _address in packets:
                    octets += len(data)
                    got += 1
            self.octets += octets
            self.got += got


class ServedReceiver(ProtocolReceiver):
    """The same protocol by `serve_protocol`."""

    async def open(self) -> None:
        """See `Receiver`."""
        self.done = asyncio.Event()
        self.wanted = 0
        self.protocol = Reading(self)
        self.serving = asyncio.create_task(serve_protocol(self.sock, self.protocol))
        await asyncio.sleep(0)  # it begins

    async def aclose(self) -> None:
        """See `Receiver`."""
        self.serving.cancel()
        await asyncio.wait([self.serving])


def naive_key(loop: str) -> str:
    """Return the key of the loop that anyone writes."""
    return f"naive-{loop}"


def naive64_key(loop: str) -> str:
    """Return the key of the same, 64 a wake."""
    return f"naive64-{loop}"


def qh3_key(loop: str) -> str:
    """Return the key of qh3's calls behind the wait that everyone has."""
    return f"qh3-{loop}"


SIX_LINES = "six-line recvfrom loop"


def _peer(
    key: str,
    label: str,
    loop: str,
    make: type[Receiver],
    environment: Mapping[str, str] | None = None,
    needs: tuple[str, ...] = (),
) -> ReceiverSpec:
    opener = partial(opened, make=make)
    return Spec(
        key, label, loop, "peer", opener, WORKER, environment=environment or {}, needs=needs
    )


NAIVE = [
    *(_peer(naive_key(loop), SIX_LINES, loop, Naive) for loop in LOOPS),
    *(_peer(naive64_key(loop), f"{SIX_LINES}, 64 a wake", loop, Naive64) for loop in LOOPS),
]
PEERS = [
    *NAIVE,
    _peer("protocol-asyncio", "DatagramProtocol", "asyncio", ProtocolReceiver, WARM),
    _peer("protocol-uvloop", "DatagramProtocol", "uvloop", ProtocolReceiver),
    *(
        _peer(
            f"aiofastnet-{loop}",
            "aiofastnet DatagramProtocol",
            loop,
            FastnetReceiver,
            WARM,
            ("aiofastnet",),
        )
        for loop in ("asyncio", "uvloop")
    ),
    _peer("sock-asyncio", "loop.sock_recvfrom_into", "asyncio", SockReceiver),
    _peer("anyio-asyncio", "AnyIO UDPSocket", "asyncio", AnyioReceiver, WARM),
    _peer("anyio-uvloop", "AnyIO UDPSocket", "uvloop", AnyioReceiver),
    _peer("anyio-trio", "AnyIO UDPSocket", "trio", AnyioReceiver),
    _peer("socket-trio", "trio.socket recvfrom_into", "trio", TrioReceiver),
]
QH3_TRANSPORT = [
    _peer(
        f"qh3-transport-{loop}",
        qh3_sockets.TRANSPORT,
        loop,
        Qh3ProtocolReceiver,
        needs=qh3_sockets.NEEDS,
    )
    for loop in ("asyncio", "uvloop")
]
QH3 = [
    _peer(
        qh3_key(loop), f"a wait, {qh3_sockets.CALLS}", loop, Qh3Receiver, None, qh3_sockets.NEEDS
    )
    for loop in LOOPS
]
SERVED: list[ReceiverSpec] = [
    Spec(
        f"served-{loop}",
        "DatagramProtocol by serve_protocol",
        loop,
        "ours",
        partial(opened, make=ServedReceiver),
        WORKER,
        NUM_RCVMMSGS,
    )
    for loop in ("asyncio", "uvloop")
]
COLD = [
    _peer(
        "protocol-asyncio-fresh",
        "DatagramProtocol, fresh process",
        "asyncio",
        ProtocolReceiver,
        FRESH,
    ),
    _peer(
        "anyio-asyncio-fresh", "AnyIO UDPSocket, fresh process", "asyncio", AnyioReceiver, FRESH
    ),
]
"""The peers whose figures depend on the state of the allocator, in the other state."""

SPECS = {
    spec.key: spec
    for spec in (
        receivers.FLOORS
        + receivers.OURS
        + receivers.STREAMS
        + receivers.DATAGRAMS
        + FIELDS
        + receivers.PORTABLE
        + receivers.PLAINS
        + SERVED
        + PEERS
        + QH3
        + QH3_TRANSPORT
        + COLD
    )
}
