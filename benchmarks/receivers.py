"""What is measured: ours and the peers, each in its idiomatic form, behind one small protocol."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, TypeAlias

from anyio.abc import UDPSocket

from anyio_mmsg import (
    PACKET_DATA_SIZE,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    recv_mmsg,
)

from .spec import FRESH, LOOPS, LUCKY, Spec

Use: TypeAlias = Literal["received", "read", "packets", "echo"]
"""What the application does with a packet.

received: nothing beyond having it.
read: takes its data (and the length of that) and its address; ours by whole columns,
    `PacketBatch.payloads` and `PacketBatch.addresses`.
packets: the same by iterating over `Packet` objects, which peers do not have.
echo: sends the data back to the address.
"""

Address: TypeAlias = Any
Reply: TypeAlias = Callable[[Any, Address], object]
"""Sends data to an address: a plain nonblocking `socket.sendto` of another socket, the same
for every receiver, so that a round trip differs in receiving alone."""


class Receiver(ABC):
    """A socket in some library's hands.

    Attributes:
        got: Packets that reached the application since the last command; a receiver counts
            while it receives, so that a deadline in the midst loses no count.
        octets: Bytes of payload that the application has seen in the uses "read" and "packets".
        address: The sender it has seen last in these.
    """

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.got = 0
        self.octets = 0
        self.address: Address = None

    @abstractmethod
    async def receive(self, count: int, use: Use) -> None:
        """Receive until `got` is `count`."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the socket in the way of whoever has it."""

    def look(self, data: Any, address: Address) -> None:
        """Do what the use "read" says, for receivers that hand out one packet at a time."""
        self.octets += len(data)
        self.address = address


class Ours(Receiver):
    """`recv_mmsg`, with a batch of `limit` slots that is cleared after each call."""

    def __init__(self, sock: socket.socket, reply: Reply, engine: str, limit: int) -> None:
        super().__init__(reply)
        self.sock = sock
        self.batch = PacketBatch(limit, PACKET_DATA_SIZE, engine)
        self.limit = limit

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        sock, batch, limit = self.sock, self.batch, self.limit
        while self.got < count:
            self.got += await recv_mmsg(sock, batch, limit)
            if use == "read":
                for data, address in zip(batch.payloads(), batch.addresses(), strict=True):
                    self.octets += len(data)
                    self.address = address
            elif use == "packets":
                for packet in batch:
                    self.octets += len(packet.data)
                    self.address = packet.address
            elif use == "echo":
                for packet in batch:
                    self.reply(packet.data, packet.address)
            batch.clear()

    async def aclose(self) -> None:
        """See `Receiver`."""
        self.sock.close()


async def open_ours(sock: socket.socket, reply: Reply, engine: str, limit: int) -> Receiver:
    """Hand `sock` to a `PacketBatch` of `limit` slots with that engine."""
    return Ours(sock, reply, engine, limit)


class Stream(Receiver):
    """`PacketReceiver` with a pool, whose batches are closed after use."""

    def __init__(self, sock: socket.socket, reply: Reply, engine: str, limit: int) -> None:
        super().__init__(reply)
        pool = PacketBatchPool(2, limit, PACKET_DATA_SIZE, engine)
        self.receiver = PacketReceiver(sock, pool, limit=limit)

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        async for batch in self.receiver:
            self.got += len(batch)
            if use != "received":
                for data, address in zip(batch.payloads(), batch.addresses(), strict=True):
                    self.look(data, address)
            batch.close()
            if self.got >= count:
                break

    async def aclose(self) -> None:
        """See `Receiver`."""
        await self.receiver.aclose()


async def open_stream(sock: socket.socket, reply: Reply, engine: str, limit: int) -> Receiver:
    """Hand `sock` to a `PacketReceiver` with a pool of such batches."""
    return Stream(sock, reply, engine, limit)


class AnyioReceiver(Receiver):
    """AnyIO's `UDPSocket`."""

    def __init__(self, reply: Reply, udp: UDPSocket) -> None:
        super().__init__(reply)
        self.udp = udp

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        receive_one = self.udp.receive
        if use == "received":
            while self.got < count:
                await receive_one()
                self.got += 1
        else:
            consume = self.reply if use == "echo" else self.look
            while self.got < count:
                data, address = await receive_one()
                self.got += 1
                consume(data, address)

    async def aclose(self) -> None:
        """See `Receiver`."""
        await self.udp.aclose()


async def open_anyio(sock: socket.socket, reply: Reply) -> Receiver:
    """AnyIO's `UDPSocket`, on whatever loop runs."""
    return AnyioReceiver(reply, await UDPSocket.from_socket(sock))


class RecvfromInto(Receiver):
    """A peer that awaits ``recvfrom_into(buffer)``, which gives a length and an address."""

    def __init__(
        self,
        reply: Reply,
        recvfrom_into: Callable[[bytearray], Awaitable[tuple[int, Address]]],
        close: Callable[[], None],
    ) -> None:
        super().__init__(reply)
        self.recvfrom_into = recvfrom_into
        self.close = close
        self.buffer = bytearray(PACKET_DATA_SIZE)

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        recvfrom_into, buffer = self.recvfrom_into, self.buffer
        view = memoryview(buffer)
        if use == "received":
            while self.got < count:
                await recvfrom_into(buffer)
                self.got += 1
        else:
            consume = self.reply if use == "echo" else self.look
            while self.got < count:
                size, address = await recvfrom_into(buffer)
                self.got += 1
                consume(view[:size], address)

    async def aclose(self) -> None:
        """See `Receiver`."""
        self.close()


async def open_sock_recvfrom_into(sock: socket.socket, reply: Reply) -> Receiver:
    """`loop.sock_recvfrom_into` of asyncio; uvloop has none (NotImplementedError)."""
    loop = asyncio.get_running_loop()
    # In Python since 3.11, and not yet in typeshed.
    recvfrom_into = partial(loop.sock_recvfrom_into, sock)  # type: ignore[attr-defined]
    return RecvfromInto(reply, recvfrom_into, sock.close)


async def open_trio_socket(sock: socket.socket, reply: Reply) -> Receiver:
    """`trio.socket`, by its `recvfrom_into`."""
    import trio  # here: the other receivers' processes do without

    trio_socket = trio.socket.from_stdlib_socket(sock)
    return RecvfromInto(reply, trio_socket.recvfrom_into, trio_socket.close)


class Counting(asyncio.DatagramProtocol):
    """A datagram protocol whose application counts packets, and tells when all are there."""

    def __init__(self, receiver: ProtocolReceiver, count: int) -> None:
        self.receiver = receiver
        self.count = count

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Count."""
        receiver = self.receiver
        receiver.got += 1
        if receiver.got == self.count:
            receiver.done.set()


class Reading(Counting):
    """See `Use`."""

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Count and read."""
        receiver = self.receiver
        receiver.octets += len(data)
        receiver.address = addr
        receiver.got += 1
        if receiver.got == self.count:
            receiver.done.set()


class Echoing(Counting):
    """See `Use`."""

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Send it back, and count."""
        self.receiver.reply(data, addr)
        super().datagram_received(data, addr)


class ProtocolReceiver(Receiver):
    """`loop.create_datagram_endpoint`, on asyncio or uvloop."""

    transport: asyncio.DatagramTransport

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.done = asyncio.Event()

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        kind = {"received": Counting, "echo": Echoing}.get(use, Reading)
        self.done.clear()
        self.transport.set_protocol(kind(self, count))
        await self.done.wait()

    async def aclose(self) -> None:
        """See `Receiver`."""
        self.transport.close()
        await asyncio.sleep(0)  # it closes the socket in the loop's next pass


async def open_protocol(sock: socket.socket, reply: Reply) -> Receiver:
    """A `DatagramProtocol` on the running loop, asyncio's or uvloop's."""
    receiver = ProtocolReceiver(reply)
    loop = asyncio.get_running_loop()
    receiver.transport, _ = await loop.create_datagram_endpoint(
        lambda: Counting(receiver, 0), sock=sock
    )
    return receiver


ReceiverSpec: TypeAlias = Spec[Callable[[socket.socket, Reply], Awaitable[Receiver]]]

ENGINES = ("recvmmsg", "recvfrom_into")
LIMITS = (64, 1024)


def floor_key(limit: int) -> str:
    """Return the key of the C floor with this vlen."""
    return f"floor-{limit}"


def ours_key(engine: str, limit: int, loop: str) -> str:
    """Return the key of ours."""
    return f"ours-{engine}-{limit}-{loop}"


FLOORS: list[ReceiverSpec] = [
    Spec(
        floor_key(n),
        f"C recvmmsg(2), vlen {n}",
        "",
        "floor",
        None,
        n,
        worker="floor",
        arguments=(str(n),),
    )
    for n in LIMITS
]
OURS: list[ReceiverSpec] = [
    Spec(
        ours_key(engine, limit, loop),
        f"recv_mmsg {engine}/{limit}",
        loop,
        "ours",
        partial(open_ours, engine=engine, limit=limit),
        limit,
    )
    for limit in LIMITS
    for engine in ENGINES
    for loop in LOOPS
]
STREAMS: list[ReceiverSpec] = [
    Spec(
        f"stream-recvmmsg-64-{loop}",
        "PacketReceiver recvmmsg/64",
        loop,
        "ours",
        partial(open_stream, engine="recvmmsg", limit=64),
        64,
    )
    for loop in LOOPS
]
PEERS: list[ReceiverSpec] = [
    Spec(
        "protocol-asyncio",
        "DatagramProtocol",
        "asyncio",
        "peer",
        open_protocol,
        awaits=False,
        environment=FRESH,
    ),
    Spec(
        "protocol-asyncio-lucky",
        "DatagramProtocol, lucky malloc",
        "asyncio",
        "peer",
        open_protocol,
        awaits=False,
        environment=LUCKY,
    ),
    Spec("protocol-uvloop", "DatagramProtocol", "uvloop", "peer", open_protocol, awaits=False),
    Spec("sock-asyncio", "sock_recvfrom_into", "asyncio", "peer", open_sock_recvfrom_into),
    Spec("anyio-asyncio", "AnyIO UDPSocket", "asyncio", "peer", open_anyio, environment=FRESH),
    Spec(
        "anyio-asyncio-lucky",
        "AnyIO UDPSocket, lucky malloc",
        "asyncio",
        "peer",
        open_anyio,
        environment=LUCKY,
    ),
    Spec("anyio-uvloop", "AnyIO UDPSocket", "uvloop", "peer", open_anyio),
    Spec("anyio-trio", "AnyIO UDPSocket", "trio", "peer", open_anyio),
    Spec("socket-trio", "trio.socket recvfrom_into", "trio", "peer", open_trio_socket),
]
SPECS = {spec.key: spec for spec in FLOORS + OURS + STREAMS + PEERS}
