"""A loan ends once, and only its own end ends it: whatever comes between, from wherever."""

from __future__ import annotations

import contextlib
import gc
import queue
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketBatch, PacketBatchPool, PacketReceiver
from anyio_mmsg._packets import batch as batch_module
from anyio_mmsg._stream import loans
from anyio_mmsg._stream import pool as pool_module
from anyio_mmsg._stream import receiver as receiver_module

from ..helpers import Family, contents, drain, loses_batches
from ..interrupts import BeforeOpcode, HandlerError, every_bytecode, fail, unreported
from .ends import ENDS, close, leak, leak_in_a_cycle

pytestmark = [pytest.mark.anyio, loses_batches]
MODULES = [pool_module, loans, batch_module]


class Rival:
    """Asks for statistics, as a signal handler may, then borrows what is free, and keeps it."""

    def __init__(self, pool: PacketBatchPool, sock: Any = None, sender: Any = None) -> None:
        self.pool, self.sock, self.sender = pool, sock, sender
        self.held: list[PacketBatch] = []

    def __call__(self) -> None:
        seen = self.pool.statistics()
        assert seen.free + seen.lent == seen.size
        with contextlib.suppress(anyio.WouldBlock):
            self.held.append(self.pool.acquire_nowait())
            self.sender.send(b"rival's")
            drain(self.sock, self.held[-1], 1)

    def check(self) -> None:
        """No slots are lent twice, and nobody has touched what the rival holds."""
        slots = [id(batch._slots) for batch in self.held]
        assert len(set(slots)) == len(slots) <= self.pool.size
        for batch in self.held:
            assert contents(batch) == [b"rival's"]
        assert self.pool.free == self.pool.size - len(slots)
        for batch in self.held:
            batch.close()
        assert self.pool.statistics().free == self.pool.size


@pytest.mark.parametrize("end", ENDS)
async def test_a_handler_at_every_bytecode_of_an_end(
    end: Callable[[list[PacketBatch]], None], inet: Family
) -> None:
    sock, sender = inet.pair()
    rivals: list[Rival] = []
    count = 0
    for point in every_bytecode(lambda: rivals[-1](), within=MODULES):
        pool = PacketBatchPool(2, 2, 16)
        rival = Rival(pool, sock, sender)
        rivals.append(rival)
        held = [pool.acquire_nowait()]
        sender.send(b"ours")
        drain(sock, held[0], 1)
        with point:
            end(held)
        rival.check()
        assert pool.statistics().leaked == int(end is not close)
        count += 1
    # In C the usual end of a loan is one step.
    assert count > 10 or (end is close and loans.lend is not None)


@pytest.mark.parametrize("end", ENDS)
async def test_the_loops_thread_at_every_bytecode_of_an_end_in_another(
    end: Callable[[list[PacketBatch]], None], inet: Family
) -> None:
    sock, sender = inet.pair()
    asked: queue.Queue[str] = queue.Queue()
    answered: queue.Queue[str] = queue.Queue()

    def ask() -> None:
        asked.put("")
        answered.get(timeout=60)

    def work(point: BeforeOpcode, held: list[PacketBatch]) -> None:
        with point:
            end(held)
        asked.put("done")

    for point in every_bytecode(ask, within=MODULES):
        pool = PacketBatchPool(2, 2, 16)
        rival = Rival(pool, sock, sender)
        held = [pool.acquire_nowait()]
        sender.send(b"ours")
        drain(sock, held[0], 1)
        thread = threading.Thread(target=work, args=(point, held))
        thread.start()
        while asked.get(timeout=60) != "done":
            rival()
            answered.put("")
        thread.join()
        rival.check()
        assert pool.statistics().leaked == int(end is not close)


@pytest.mark.parametrize("end", [leak, leak_in_a_cycle])
async def test_a_loss_is_counted_once_whoever_asks_meanwhile(
    end: Callable[[list[PacketBatch]], None], inet: Family
) -> None:
    sock, sender = inet.pair()
    async with PacketReceiver(sock, PacketBatchPool(2, 4, 16)) as receiver:
        lost = 0
        for point in every_bytecode(lambda: receiver.pool.statistics(), within=MODULES):
            for _ in range(3):
                sender.send(b"x")
            held = [await receiver.receive()]
            with point:
                end(held)
            lost += 1
            assert receiver.statistics().dropped == 3 * lost
            assert receiver.pool.statistics().leaked == lost
            assert receiver.pool.free == 2
    assert lost > 10


@pytest.mark.parametrize("what", ["drop", "close"])
async def test_an_interrupted_drop_is_counted(what: str, inet: Family) -> None:
    """As `feed` drops a batch, or the end of a receiver does."""
    sock, sender = inet.pair()
    pool, lost, interrupted = PacketBatchPool(2, 4, 16), 0, 0
    receiver = PacketReceiver(sock, pool)
    with unreported():
        for point in every_bytecode(fail, within=[*MODULES, receiver_module]):
            for _ in range(3):
                sender.send(b"x")
            held = [await receiver.receive()]
            try:
                with point:
                    if what == "drop":
                        receiver._drop(held.pop())
                    else:
                        receiver._take_back(held.pop())
                        receiver._drop_batches()
            except HandlerError:
                interrupted += 1
            if what == "close":
                receiver._drop_batches()
            gc.collect(0)
            lost += 1
            assert pool.statistics().free == 2, point.where
            assert receiver.statistics().dropped == 3 * lost, point.where
    await receiver.aclose()
    assert interrupted > 10
