"""Calls of every public async function in worlds that go on step by step, for test_sweeps.py.

A scenario says what the call is, what the world does at each step of the event loop meanwhile,
and how everything is accounted for afterwards, whatever has ended the call.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from contextlib import ExitStack
from functools import partial
from typing import Any

import anyio
import pytest

from anyio_mmsg import (
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    ReceiveEngine,
    SendResult,
    aclose_udp_socket,
    feed,
    multi_target_send,
    open_udp_socket,
    recv_datagrams,
    recv_datagrams_nowait,
    recv_mmsg,
    recv_mmsg_exact,
    recv_mmsg_nowait,
    send_mmsg,
)
from anyio_mmsg._packets.batch import is_busy
from anyio_mmsg._system.control import SOL_UDP, UDP_GRO
from anyio_mmsg._system.options import ask_for
from anyio_mmsg._system.platform import ON_LINUX

from ..gro.flow import Flow
from ..gro.world import World as TrainWorld
from ..helpers import read_and_close
from ..send.helpers import fill_buffer, received
from .world import SLOT_SIZE, Sockets, World, body

STRIKES: tuple[str, ...] = ("scope", "task")  # of everything; see `struck_at` in test_sweeps.py


class Scenario:
    """One call.

    Args:
        stack: Closes what the scenario opens.

    Attributes:
        strikes: What can end it.
        one: The receiver, if there is one.
    """

    strikes = STRIKES
    one: PacketReceiver

    def __init__(self, stack: ExitStack) -> None: ...

    async def call(self) -> None:
        """Do what is swept."""
        raise NotImplementedError

    async def beside(self) -> None:
        """Do something in another task."""

    async def end(self) -> None:
        """Have that end."""

    def step(self, number: int) -> None:
        """Let the world go on."""

    async def account(self, strike: str) -> None:
        """Go on after the call was ended by that; check that nothing is lost."""
        raise NotImplementedError


# The receive functions


class AncillaryWorld(World):
    def __init__(self, sockets: Sockets, engine: ReceiveEngine) -> None:
        ask_for(sockets.receiver, timestamps=True, destinations=True)
        super().__init__(sockets, engine)
        self.batch = PacketBatch(5, SLOT_SIZE, engine, ancillary=True)
        self.slots = self.batch._slots

    def check(self, keep: bool = False) -> None:
        super().check(keep)
        assert {packet.destination for packet in self.batch} <= {"127.0.0.1"}
        stamps = [packet.timestamp or 0 for packet in self.batch]
        assert stamps == self.batch.timestamps() == sorted(stamps)
        assert all(stamps)


class Trains(TrainWorld):
    """Whose ring numbers messages, if it is the compiled one: so what comes is put together."""

    def finish(self) -> None:
        got: list[tuple[bytes, Any]] = []
        for _ in range(2):
            while self.receive_if_possible() or len(self.batch):
                got += [(bytes(packet.data), packet.address) for packet in self.batch]
                self.batch.clear()
            assert got == self.sent, "packets were lost"
            self.send(4)


class Receive(Scenario):
    def __init__(self, stack: ExitStack, kind: str, exactly: bool = False) -> None:
        self.exactly = exactly
        self.world: Any
        if kind != "plain" and not ON_LINUX:
            pytest.skip("trains and control data are Linux's")
        if kind == "gro":
            flow = stack.enter_context(Flow())
            self.sock, self.world = flow.receiver, Trains(flow, "auto")
        else:
            sockets = Sockets(stack)
            world = World if kind == "plain" else AncillaryWorld
            self.sock, self.world = sockets.receiver, world(sockets, "auto")
        self.left = 3

    async def call(self) -> None:
        if self.exactly:
            await recv_mmsg_exact(self.sock, self.world.batch, 3)
        else:
            await recv_mmsg(self.sock, self.world.batch, 2)

    def step(self, number: int) -> None:
        if number % 2 and self.left:
            self.left -= 1
            self.world.send(1)

    async def account(self, strike: str) -> None:
        assert not is_busy(self.world.slots), "a guard is stuck"
        self.world.finish()


class Datagrams(Scenario):
    def __init__(self, stack: ExitStack) -> None:
        sockets = Sockets(stack)
        self.sock, self.world, self.left = sockets.receiver, World(sockets, "auto"), 3
        self.got: list[Any] = []

    async def call(self) -> None:
        self.got += await recv_datagrams(self.sock, 2)

    def step(self, number: int) -> None:
        if number % 2 and self.left:
            self.left -= 1
            self.world.send(1)

    async def account(self, strike: str) -> None:
        with contextlib.suppress(anyio.WouldBlock):
            while True:
                self.got += recv_datagrams_nowait(self.sock)
        names = self.world.sockets.names
        assert self.got == [(body(n, n % 3), names[n % 3]) for n in range(self.world.sent)]


# The send functions, on a socket whose buffer is full


class Send(Scenario):
    def __init__(self, stack: ExitStack, form: str) -> None:
        if not hasattr(socket, "AF_UNIX"):
            pytest.skip("no unix sockets on this platform")
        sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sender, self.receiver = stack.enter_context(sender), stack.enter_context(receiver)
        for sock in (sender, receiver):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            sock.setblocking(False)
        self.form = form
        self.datas = [b"same"] * 5 if form == "fan" else [b"%d" % number for number in range(5)]
        self.batch = PacketBatch(5, 16)
        for data in self.datas if form == "batch" else []:
            receiver.send(data)
            recv_mmsg_nowait(sender, self.batch)
        self.result = SendResult()
        self.got: list[bytes] = []
        self.fillers = fill_buffer(sender)

    async def call(self) -> None:
        if self.form == "fan":
            await multi_target_send(self.sender, b"same", [None] * 5, result=self.result)
        else:
            pairs = [(data, None) for data in self.datas]
            packets: Any = self.batch if self.form == "batch" else pairs
            await send_mmsg(self.sender, packets, result=self.result)

    def step(self, number: int) -> None:
        if number % 3 == 2:
            with contextlib.suppress(BlockingIOError):
                self.got.append(self.receiver.recv(16))

    async def account(self, strike: str) -> None:
        assert (self.result.sent, self.result.failures) == (self.result.handled, [])
        self.got += received(self.receiver)
        assert self.got[: self.fillers] == [b"filler"] * self.fillers
        assert self.got[self.fillers :] == self.datas[: self.result.handled]
        rest = [(data, None) for data in self.datas[self.result.handled :]]
        assert (await send_mmsg(self.sender, rest)).sent == len(rest)
        assert received(self.receiver) == [data for data, _ in rest]
        try:
            self.batch.clear()
        except BufferError:  # a traceback may be in a cycle, and pin what is sent
            gc.collect()
            self.batch.clear()


# Opening


class Open(Scenario):
    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.before = descriptors()

    async def call(self) -> None:
        asked = {"timestamps": ON_LINUX, "receive_buffer_size": 1 << 16}
        sock = await open_udp_socket("127.0.0.1", remote_host="127.0.0.1", remote_port=9, **asked)  # type: ignore[arg-type]
        self.stack.enter_context(sock)

    async def account(self, strike: str) -> None:
        self.stack.close()
        gc.collect()
        assert descriptors() == self.before


def descriptors() -> set[str]:
    """Those that are sockets of ours: of the event loop's there may come more."""
    found = set()
    for name in os.listdir("/proc/self/fd") if ON_LINUX else ():  # noqa: PTH208
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115
    return {name for name in found if name.startswith("socket:")}


class CloseSocket(Scenario):
    """`aclose_udp_socket`, while another task waits for packets."""

    def __init__(self, stack: ExitStack) -> None:
        self.sock = Sockets(stack).receiver
        self.batch = PacketBatch(1, 16)

    async def call(self) -> None:
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        await aclose_udp_socket(self.sock)

    async def beside(self) -> None:
        if hasattr(anyio, "notify_closing"):  # else nothing wakes it
            with pytest.raises(anyio.ClosedResourceError):
                await recv_mmsg(self.sock, self.batch)

    async def end(self) -> None:
        await aclose_udp_socket(self.sock)

    async def account(self, strike: str) -> None:
        assert self.sock.fileno() == -1
        assert not is_busy(self.batch._slots), "a guard is stuck"
        self.batch.close()


# The pool


class Acquire(Scenario):
    def __init__(self, stack: ExitStack) -> None:
        self.pool = PacketBatchPool(1, 2, 16)
        self.held = [self.pool.acquire_nowait()]

    async def call(self) -> None:
        (await self.pool.acquire()).close()

    def step(self, number: int) -> None:
        if number == 3:
            self.held.pop().close()

    async def account(self, strike: str) -> None:
        if self.held:
            self.held.pop().close()
        gc.collect(1)
        assert self.pool.statistics().waiting == 0
        (await self.pool.acquire()).close()
        assert self.pool.statistics().free == 1


# The receiver


class Receiving(Scenario):
    """Loops over a receiver, while 7 packets come.

    Attributes:
        got: The packets that the consumer got, each a number.
    """

    strikes = (*STRIKES, "stop", "aclose")
    packets = 7

    def __init__(
        self, stack: ExitStack, kind: str = "plain", linger: float = 0.0, lent: int = 0
    ) -> None:
        if kind != "plain" and not ON_LINUX:
            pytest.skip("trains and control data are Linux's")
        open_one = [stack.enter_context(socket.socket(socket.AF_INET, 2)) for _ in range(2)]
        for sock in open_one:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        sock, self.sender = open_one
        self.sender.connect(sock.getsockname())
        if kind == "gro":
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            self.pool = PacketBatchPool(2, 3, gro=True)
        else:
            ask_for(sock, timestamps=kind == "ancillary")
            self.pool = PacketBatchPool(2, 3, 16, ancillary=kind == "ancillary")
        self.one = PacketReceiver(sock, self.pool, linger=linger)
        self.sent = 0
        self.got: list[bytes] = []
        self.lent = [self.pool.acquire_nowait() for _ in range(lent)]

    async def call(self) -> None:
        async for batch in self.one:
            self.consume(batch)
            del batch
            if self.sent == self.packets == len(self.got):
                break

    def consume(self, batch: PacketBatch) -> None:
        read_and_close(batch, self.got)

    def step(self, number: int) -> None:
        if number % 2 and self.sent < self.packets and not self.one.closed:
            self.sender.send(b"%d" % self.sent)
            self.sent += 1
        if number == 5 and self.lent:
            self.lent.pop().close()

    async def account(self, strike: str) -> None:
        while self.lent:
            self.lent.pop().close()
        gc.collect(1)
        await self.finish()
        gc.collect(1)
        await self.one.aclose()
        seen = self.one.statistics()
        assert seen.packets + seen.unread == self.sent, seen
        numbers = list(map(int, self.got))
        assert numbers == sorted(set(numbers))
        missing = self.sent - len(numbers) - seen.dropped - seen.unread
        self.check_missing(strike, missing, seen.dropped, seen.unread)
        assert self.pool.statistics().free == self.pool.size

    async def finish(self) -> None:
        self.one.stop()
        with contextlib.suppress(anyio.ClosedResourceError):  # by the strike
            async for batch in self.one:
                self.consume(batch)
                del batch

    def check_missing(self, strike: str, missing: int, dropped: int, unread: int) -> None:
        assert missing == 0
        if strike != "interrupt":
            assert not dropped or strike == "aclose"
            assert not unread or strike in ("stop", "aclose")


class Closing(Receiving):
    """`aclose`, while another task waits for packets."""

    strikes = STRIKES

    async def call(self) -> None:
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        await self.one.aclose()

    async def beside(self) -> None:
        with contextlib.suppress(anyio.ClosedResourceError):
            await super().call()

    async def end(self) -> None:
        await self.one.aclose()

    async def account(self, strike: str) -> None:
        await super().account("aclose")


class Feeding(Receiving):
    """`feed`, with a consumer that is slower than the sender, and a stop at the end."""

    packets = 12

    def __init__(self, stack: ExitStack, overload: Any) -> None:
        super().__init__(stack)
        self.overload = overload
        self.send, self.receive = anyio.create_memory_object_stream[PacketBatch](1)
        stack.enter_context(self.receive)

    async def call(self) -> None:
        oldest = self.receive if self.overload == "drop_oldest" else None
        await feed(self.one, self.send, self.overload, oldest)

    def step(self, number: int) -> None:
        super().step(number)
        if number % 7 == 6:
            self.take()
        if number == 40:
            self.one.stop()

    def take(self) -> None:
        with contextlib.suppress(anyio.WouldBlock, anyio.EndOfStream):
            self.consume(self.receive.receive_nowait())

    async def finish(self) -> None:
        for _ in range(3):
            self.take()
        await super().finish()

    def check_missing(self, strike: str, missing: int, dropped: int, unread: int) -> None:
        assert missing == 0
        if strike != "interrupt":
            assert not unread or strike in ("stop", "aclose")
            assert not dropped or self.overload != "block" or strike in ("task", "aclose")


SCENARIOS: dict[str, Any] = {
    "recv_mmsg": partial(Receive, kind="plain"),
    "recv_mmsg, trains": partial(Receive, kind="gro"),
    "recv_mmsg, control data": partial(Receive, kind="ancillary"),
    "recv_mmsg_exact": partial(Receive, kind="plain", exactly=True),
    "recv_mmsg_exact, trains": partial(Receive, kind="gro", exactly=True),
    "recv_mmsg_exact, control data": partial(Receive, kind="ancillary", exactly=True),
    "recv_datagrams": partial(Datagrams),
    "send_mmsg, pairs": partial(Send, form="pairs"),
    "send_mmsg, batch": partial(Send, form="batch"),
    "multi_target_send": partial(Send, form="fan"),
    "open_udp_socket": partial(Open),
    "aclose_udp_socket": partial(CloseSocket),
    "acquire": partial(Acquire),
    "receiver": partial(Receiving),
    "receiver, trains": partial(Receiving, kind="gro"),
    "receiver, control data": partial(Receiving, kind="ancillary"),
    "receiver, short linger": partial(Receiving, linger=0.0005),
    "receiver, linger": partial(Receiving, linger=0.003),
    "receiver that waits for a batch": partial(Receiving, lent=2),
    "aclose": partial(Closing),
    "feed, block": partial(Feeding, overload="block"),
    "feed, drop_newest": partial(Feeding, overload="drop_newest"),
    "feed, drop_oldest": partial(Feeding, overload="drop_oldest"),
}
