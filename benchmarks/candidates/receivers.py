"""What is measured of receiving: ours, behind a small protocol that peers share."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, TypeAlias

from anyio import WouldBlock

from anyio_mmsg import (
    NUM_RCVMMSGS,
    PACKET_DATA_SIZE,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    ReceiveEngine,
    recv_datagrams,
    recv_mmsg,
    recv_mmsg_nowait,
)
from benchmarks.spec import LOOPS, PLAIN, Kind, Spec, UnavailableError

Use: TypeAlias = Literal["read", "columns", "received"]
"""What the application does with packets.

read: takes each packet's data and address; ours by ``for packet in batch``.
columns: the same by `PacketBatch.payloads` and `PacketBatch.addresses`; ours only.
received: nothing beyond having it; ours and the floors only, since peers hand over both anyway.
"""

Address: TypeAlias = Any


class Receiver(ABC):
    """A socket in some library's hands.

    Each reads packets in the same way: it counts them and the bytes of their payload, and has
    the address.

    Attributes:
        got: Packets that reached the application since the last command; what was received
            before a deadline in the midst is counted.
        octets: Bytes of payload that the application has seen.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.got = 0
        self.octets = 0

    async def open(self) -> None:  # noqa: B027  # most have nothing to await
        """Hand the socket over.

        Raises:
            UnavailableError: This can't be measured here.
        """

    @abstractmethod
    async def receive(self, count: int, use: Use) -> None:
        """Receive until `got` is `count`."""

    async def aclose(self) -> None:
        """Close the socket in the way of whoever has it."""
        self.sock.close()


class Ours(Receiver):
    """`recv_mmsg`, with a batch of `limit` slots that is cleared after each call."""

    def __init__(self, sock: socket.socket, engine: ReceiveEngine, limit: int) -> None:
        super().__init__(sock)
        self.engine: ReceiveEngine = engine
        self.limit = limit

    async def open(self) -> None:
        """See `Receiver`."""
        try:
            self.batch = PacketBatch(self.limit, PACKET_DATA_SIZE, self.engine)
            recv_mmsg_nowait(self.sock, self.batch)
        except WouldBlock:
            pass
        except ValueError as error:
            raise UnavailableError(str(error)) from None

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        await {"read": self._read, "columns": self._columns, "received": self._receive}[use](count)

    async def _read(self, count: int) -> None:
        sock, batch, limit = self.sock, self.batch, self.limit
        while self.got < count:
            await recv_mmsg(sock, batch, limit)
            got = octets = 0
            for packet in batch:
                data, _address = packet.data, packet.address
                octets += len(data)
                got += 1
            batch.clear()
            self.octets += octets
            self.got += got

    async def _columns(self, count: int) -> None:
        sock, batch, limit = self.sock, self.batch, self.limit
        while self.got < count:
            await recv_mmsg(sock, batch, limit)
            got = octets = 0
            for data, _address in zip(batch.payloads(), batch.addresses(), strict=True):
                octets += len(data)
                got += 1
            batch.clear()
            self.octets += octets
            self.got += got

    async def _receive(self, count: int) -> None:
        sock, batch, limit = self.sock, self.batch, self.limit
        while self.got < count:
            self.got += await recv_mmsg(sock, batch, limit)
            batch.clear()


class Stream(Ours):
    """`PacketReceiver` with a pool, whose batches are closed after use."""

    async def open(self) -> None:
        """See `Receiver`."""
        await super().open()
        pool = PacketBatchPool(2, self.limit, PACKET_DATA_SIZE, self.engine)
        self.receiver = PacketReceiver(self.sock, pool, limit=self.limit)

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        async for batch in self.receiver:
            with batch:
                got = octets = 0
                for packet in batch:
                    data, _address = packet.data, packet.address
                    octets += len(data)
                    got += 1
            self.octets += octets
            self.got += got
            if self.got >= count:
                break

    async def aclose(self) -> None:
        """See `Receiver`."""
        await self.receiver.aclose()


class Datagrams(Receiver):
    """`recv_datagrams`, which gives bytes and addresses."""

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        sock = self.sock
        while self.got < count:
            got = octets = 0
            for data, _address in await recv_datagrams(sock):
                octets += len(data)
                got += 1
            self.octets += octets
            self.got += got


ReceiverSpec: TypeAlias = Spec[Callable[[socket.socket], Awaitable[Receiver]]]


async def opened(sock: socket.socket, make: Callable[[socket.socket], Receiver]) -> Receiver:
    """Make a receiver and hand the socket over."""
    receiver = make(sock)
    await receiver.open()
    return receiver


WORKER = "receive"
LIMITS = (64, 512, 1024)


def floor_key(limit: int) -> str:
    """Return the key of the C floor with this vlen."""
    return f"floor-{limit}"


def ours_key(limit: int, loop: str) -> str:
    """Return the key of ours."""
    return f"ours-{limit}-{loop}"


def plain_key(limit: int, loop: str) -> str:
    """Return the key of ours in plain Python."""
    return f"plain-{limit}-{loop}"


def stream_key(loop: str) -> str:
    """Return the key of a `PacketReceiver`."""
    return f"stream-64-{loop}"


def datagrams_key(loop: str) -> str:
    """Return the key of `recv_datagrams`."""
    return f"datagrams-64-{loop}"


def _ours(
    key: str, label: str, loop: str, engine: ReceiveEngine, limit: int, kind: Kind = "ours"
) -> ReceiverSpec:
    return Spec(
        key,
        label,
        loop,
        kind,
        partial(
            opened, make=partial(Stream if "stream" in key else Ours, engine=engine, limit=limit)
        ),
        WORKER,
        limit,
        environment=PLAIN if kind == "plain" else {},
    )


FLOORS: list[ReceiverSpec] = [
    Spec(
        floor_key(n),
        f"C, recvmmsg(2), {n:,} a call",
        "",
        "floor",
        None,
        WORKER,
        n,
        arguments=(str(n),),
    )
    for n in LIMITS
]
OURS = [
    _ours(ours_key(limit, loop), f"recv_mmsg, {limit:,} a call", loop, "auto", limit)
    for limit in LIMITS
    for loop in LOOPS
]
STREAMS = [
    _ours(stream_key(loop), "PacketReceiver, a pool, 64 a call", loop, "auto", 64)
    for loop in LOOPS
]
DATAGRAMS: list[ReceiverSpec] = [
    Spec(
        datagrams_key(loop),
        f"recv_datagrams, {NUM_RCVMMSGS} a call",
        loop,
        "ours",
        partial(opened, make=Datagrams),
        WORKER,
        NUM_RCVMMSGS,
    )
    for loop in LOOPS
]
PORTABLE = [
    _ours(f"portable-64-{loop}", "recv_mmsg, recvfrom_into, 64 a call", loop, "recvfrom_into", 64)
    for loop in LOOPS
]
PLAINS = [
    _ours(
        plain_key(64, loop),
        "recv_mmsg, plain Python, 64 a call",
        loop,
        "recvfrom_into",
        64,
        "plain",
    )
    for loop in LOOPS
]
