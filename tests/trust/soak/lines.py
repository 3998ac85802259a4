"""The ways of a packet through a program: each line opens a receiver, uses it, and accounts."""

from __future__ import annotations

import random
import socket
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
from anyio import WouldBlock
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from anyio_mmsg import (
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    feed,
    open_udp_socket,
    recv_mmsg,
    recv_mmsg_exact,
    recv_mmsg_nowait,
    send_mmsg,
)
from anyio_mmsg._system.memory import socket_memory

from .ledger import Book, FaultError, Totals, elsewhere, equal, settle
from .world import Round, Sender, until_quiet

BUFFER = 1 << 20
WORKERS = 2  # of each stream
ENDS = ("stop", "stop in the flood", "cancel and stop", "close")
"""How a receiver ends. "close" leaves packets unread; nothing else may."""


async def _open(round_: Round, line: str, host: str | None, **options: Any) -> socket.socket:
    """Open a line's socket, at the port that it had in the last round.

    Otherwise the caches of addresses would grow from round to round, until they are full.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a smaller buffer will do too
        options["receive_buffer_size"] = BUFFER
        try:
            sock = await open_udp_socket(host, round_.ports.get(line, 0), **options)
        except OSError:  # somebody else has it by now
            sock = await open_udp_socket(host, **options)
    round_.ports[line] = sock.getsockname()[1]
    return sock


@dataclass(frozen=True)
class Pipeline:
    """Receiver -> feed -> workers -> another task for what they pass on.

    Attributes:
        overload: The policy of `feed`.
        host: Where it receives.
        senders: Who sends.
        slot_size: Bytes of a slot.
        slow: How often a worker takes its time, of a thousand batches.
        options: For `open_udp_socket`.
    """

    overload: Any
    host: str | None
    senders: tuple[Sender, ...]
    slot_size: int
    slow: int
    options: Any

    @property
    def name(self) -> str:
        """What it is called in the report."""
        return f"feed, {self.overload}"

    async def run(self, round_: Round) -> Totals:
        """Live for a round."""
        rng = round_.rng(self.overload)
        before = elsewhere()
        sock = await _open(round_, self.name, self.host, **self.options)
        pool = PacketBatchPool(
            rng.choice([3, 8]),
            rng.choice([16, 64, 200]),
            self.slot_size,
            round_.engine,
            ancillary=bool(self.options.get("timestamps")),
        )
        receiver = PacketReceiver(
            sock, pool, limit=rng.choice([5, 64, 1000]), linger=rng.choice([0, 0, 0.002])
        )
        book = await round_.go(sock, self.senders, self.slot_size)
        end = rng.choice(ENDS)
        send, receive = anyio.create_memory_object_stream[PacketBatch](rng.choice([1, 3, 6]))
        on, further = anyio.create_memory_object_stream[PacketBatch](1)
        feeding, cancelled = anyio.CancelScope(), anyio.Event()
        done: dict[str, int] = {}

        async def fed(stream: MemoryObjectSendStream[PacketBatch]) -> None:
            oldest = receive if self.overload == "drop_oldest" else None
            await feed(receiver, stream, self.overload, oldest, on_drop=book.drop)

        async def fed_until_cancelled(stream: MemoryObjectSendStream[PacketBatch]) -> None:
            with feeding:
                await fed(stream)
            cancelled.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fed_until_cancelled, send.clone())
            for number in range(WORKERS):
                turns = random.Random(f"{round_.seed} {number}")
                tasks.start_soon(self._work, book, receive.clone(), on.clone(), turns)
            tasks.start_soon(_last, book, further)
            on.close()
            await anyio.sleep(round_.seconds)
            if end == "cancel and stop":
                feeding.cancel()
                await cancelled.wait()
                tasks.start_soon(fed, send.clone())
                await anyio.sleep(round_.seconds / 10)
            send.close()
            if end == "stop in the flood":
                receiver.stop()
            else:
                done = await round_.halt(self.senders)
                await until_quiet(sock)
                if end == "close":
                    await receiver.aclose()
                receiver.stop()
        receive.close()
        if end == "stop in the flood":
            done = await round_.halt(self.senders)
            await until_quiet(sock)
        await receiver.aclose()
        seen, lent = receiver.statistics(), pool.statistics()
        if lent.lent or lent.leaked or lent.waiting:
            raise FaultError(f"{self.name}: {lent} at the end")
        equal(
            self.name,
            "what consumers and the policy have",
            book.consumed + book.dropped,
            "packets received",
            seen.packets,
        )
        equal(self.name, "what the policy dropped", book.dropped, "as dropped", seen.dropped)
        equal(self.name, "bytes read", book.octets, "bytes received", seen.bytes)
        equal(self.name, "packets seen cut", book.truncated, "counted so", seen.truncated)
        if end in ("stop", "cancel and stop"):
            equal(self.name, "what a stop has left", seen.unread, "what it may", 0)
        totals = Totals(
            sent=done["sent"],
            received=seen.packets,
            dropped_by_kernel=seen.dropped_by_kernel or 0,
            unread=seen.unread,
            dropped_by_policy=seen.dropped,
            truncated=seen.truncated,
            octets=seen.bytes,
            batches=seen.batches,
            strangers=book.strangers,
        )
        settle(f"{self.name} ({end})", totals, before)
        return totals

    async def _work(
        self,
        book: Book,
        stream: MemoryObjectReceiveStream[PacketBatch],
        on: MemoryObjectSendStream[PacketBatch],
        rng: random.Random,
    ) -> None:
        async with stream, on:
            async for batch in stream:
                if rng.randrange(1000) < self.slow:
                    await anyio.sleep(rng.random() * 0.03)
                if rng.random() < 0.2:  # half of it, and the rest to somebody else
                    batch.release(book.consume(batch, len(batch) // 2))
                    await on.send(batch)
                else:
                    with batch:
                        book.consume(batch)


async def _last(book: Book, stream: MemoryObjectReceiveStream[PacketBatch]) -> None:
    async with stream:
        async for batch in stream:
            with batch:
                book.consume(batch)


@dataclass(frozen=True)
class Exact:
    """`recv_mmsg_exact` under a flood, which a timeout cancels now and then."""

    senders: tuple[Sender, ...]
    name: str = "recv_mmsg_exact"

    async def run(self, round_: Round) -> Totals:
        """Live for a round."""
        rng, before = round_.rng(self.name), elsewhere()
        sock = await _open(round_, self.name, "127.0.0.1")
        memory = socket_memory(sock)
        drops = 0 if memory is None else memory.drops
        batch = PacketBatch(300, 700, round_.engine)
        totals = Totals()
        with sock, batch:
            book = await round_.go(sock, self.senders, batch.slot_size)

            def consume() -> None:
                totals.received += len(batch)
                totals.batches += 1
                book.consume(batch)
                batch.clear()

            async def receive() -> None:
                while True:
                    with anyio.move_on_after(rng.choice([0.0005, 0.005, 1])):
                        await recv_mmsg_exact(sock, batch, rng.choice([None, 1, 64, 290]))
                    consume()

            done: dict[str, int] = {}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await anyio.sleep(round_.seconds)
                done = await round_.halt(self.senders)
                await until_quiet(sock)
                tasks.cancel_scope.cancel()
            consume()
            try:
                while recv_mmsg_nowait(sock, batch):
                    consume()
            except WouldBlock:
                pass
            memory = socket_memory(sock)
            totals.dropped_by_kernel = 0 if memory is None else memory.drops - drops
        totals.sent, totals.strangers = done["sent"], book.strangers
        totals.octets, totals.truncated = book.octets, book.truncated
        settle(self.name, totals, before)
        return totals


@dataclass(frozen=True)
class Echo:
    """A server that answers each packet; the senders check what comes back.

    Attributes:
        gro: Whether it receives trains and answers by trains, batches of a receiver. Otherwise it
            is a loop around `recv_mmsg`.
    """

    senders: tuple[Sender, ...]
    gro: bool

    @property
    def name(self) -> str:
        """What it is called in the report."""
        return "echo of trains" if self.gro else "echo by recv_mmsg"

    async def run(self, round_: Round) -> Totals:
        """Live for a round."""
        rng, before = round_.rng(self.name), elsewhere()
        sock = await _open(round_, self.name, "127.0.0.1", gro=self.gro)
        pool = PacketBatchPool(2, 64, 65_535 if self.gro else 1500, round_.engine, self.gro)
        receiver = PacketReceiver(sock, pool)
        totals = Totals()
        slot_size = 1500
        book = await round_.go(sock, self.senders, slot_size, answered=True)

        async def answer(batch: PacketBatch) -> None:
            book.consume(batch)
            packets: Any = batch
            if rng.random() < 0.3:
                packets = [(packet.data, packet.address) for packet in batch]
            result = await send_mmsg(sock, packets, gso=self.gro)
            if result.failures:
                raise FaultError(f"{self.name}: {result}")
            totals.echoed += result.sent
            totals.batches += 1

        async def loop() -> None:
            batch = PacketBatch(64, slot_size, round_.engine)
            while True:
                with anyio.move_on_after(rng.choice([0, 0.001, 1])):
                    await recv_mmsg(sock, batch, rng.choice([1, 8, 64]))
                if batch:
                    await answer(batch)
                    totals.received += len(batch)
                    batch.clear()

        async def serve() -> None:
            async for batch in receiver:
                with batch:
                    await answer(batch)

        done: dict[str, int] = {}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve if self.gro else loop)
            await anyio.sleep(round_.seconds)
            done = await round_.halt(self.senders)
            if self.gro:
                receiver.stop()
            else:
                tasks.cancel_scope.cancel()
        await receiver.aclose()
        seen = receiver.statistics()
        totals.received += seen.packets
        totals.sent, totals.unread = done["sent"], seen.unread
        totals.dropped_by_kernel = seen.dropped_by_kernel or 0
        totals.octets, totals.truncated = book.octets, book.truncated
        totals.strangers = book.strangers
        equal(self.name, "packets read", book.consumed, "packets received", totals.received)
        settle(self.name, totals, before, trains=self.gro)
        lost = totals.echoed - done["echoed"] - done["echo_drops"]
        if lost and not 0 < lost <= elsewhere() - before:
            raise FaultError(
                f"{self.name}: of {totals.echoed} answers {done['echoed']} came, "
                f"{done['echo_drops']} were dropped: {lost} are missing"
            )
        return totals


def lines(ipv6: bool) -> dict[str, Callable[[Round], Awaitable[Totals]]]:
    """Return all lines by name.

    Args:
        ipv6: Whether this machine has it.
    """
    v4, v6 = socket.AF_INET, socket.AF_INET6 if ipv6 else socket.AF_INET
    dual = {"family": socket.AF_INET6} if ipv6 else {}
    control = {"timestamps": True, "destinations": True, "ecn": True}
    found: list[Pipeline | Exact | Echo] = [
        Pipeline("block", None, (Sender(0, v4), Sender(1, v6, True)), 1232, 5, dual),
        Pipeline("drop_newest", "127.0.0.1", (Sender(2, v4, True), Sender(3)), 256, 20, {}),
        Pipeline(
            "drop_oldest",
            "::1" if ipv6 else "127.0.0.1",
            (Sender(4, v6), Sender(5, v6, True)),
            1472,
            20,
            control,
        ),
        Exact((Sender(6), Sender(7, v4, True))),
        Echo((Sender(8), Sender(9, v4, True)), False),
        Echo((Sender(10, gso=True), Sender(11, v4, True, gso=True)), True),
    ]
    return {line.name: line.run for line in found}
