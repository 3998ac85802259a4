"""How loans end: in other threads, in finalizers, in the worst moment; and who is woken."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import PacketBatch, PacketBatchPool, PacketReceiver, PoolStatistics, ReceiveEngine
from anyio_mmsg._stream import loans
from anyio_mmsg._stream import pool as pool_module

from ..helpers import Family, contents, drain, each_loop, loses_batches
from ..interrupts import HandlerError, every_bytecode, fail, unreported
from .ends import ENDS, close, leak, leak_in_a_cycle

pytestmark = [pytest.mark.anyio, loses_batches]
ALL_FREE = {"lent": 0, "waiting": 0}


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# In worker threads


@pytest.mark.parametrize("waiters", [0, 1, 3])
async def test_closed_in_a_worker_thread(
    waiters: int, engine: ReceiveEngine, inet: Family
) -> None:
    sock, sender = inet.pair()
    pool = PacketBatchPool(1, 4, 16, engine)
    read: list[bytes] = []

    def handle(batch: PacketBatch) -> None:
        with batch:
            read.extend(contents(batch))

    async def use() -> None:
        with await pool.acquire():
            await checkpoint()

    sender.send(b"x")
    batch = pool.acquire_nowait()
    drain(sock, batch, 1)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(waiters):
                tasks.start_soon(use)
            await wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(handle, batch)
    assert read == [b"x"]
    assert pool.statistics() == PoolStatistics(size=1, free=1, leaked=0, **ALL_FREE)


async def test_a_receiver_whose_consumers_are_threads(engine: ReceiveEngine, inet: Family) -> None:
    sock, sender = inet.pair()
    got: list[bytes] = []

    def handle(batch: PacketBatch) -> None:
        with batch:
            got.extend(contents(batch))

    async with PacketReceiver(sock, PacketBatchPool(2, 2, 16, engine)) as receiver:
        for number in range(50):
            sender.send(b"%d" % number)
        receiver.stop()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                async for batch in receiver:
                    tasks.start_soon(anyio.to_thread.run_sync, handle, batch)
    assert sorted(got, key=int) == [b"%d" % number for number in range(50)]
    assert receiver.pool.statistics().free == 2


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("foreign", [False, True], ids=["here", "in-a-thread"])
async def test_every_end_wakes_who_waits(
    end: Callable[[list[PacketBatch]], None], foreign: bool
) -> None:
    pool = PacketBatchPool(1)
    held = [pool.acquire_nowait()]

    async def use() -> None:
        with await pool.acquire():
            pass

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use)
            await wait_all_tasks_blocked()
            if foreign:
                in_a_thread(lambda: end(held))
            else:
                end(held)
    leaked = int(end is not close)
    assert pool.statistics() == PoolStatistics(size=1, free=1, leaked=leaked, **ALL_FREE)


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_while_a_task_begins_to_wait(
    end: Callable[[list[PacketBatch]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look at what is free, and its place in the queue."""
    pool = PacketBatchPool(1)
    held = [pool.acquire_nowait()]
    real = pool_module._Waiter

    def waiter() -> Any:
        if held:
            end(held)
        return real()

    monkeypatch.setattr(pool_module, "_Waiter", waiter)
    with anyio.fail_after(60):
        with await pool.acquire() as batch:
            assert batch.free == 64
    assert pool.statistics().free == 1


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_at_every_bytecode_of_acquire(
    end: Callable[[list[PacketBatch]], None],
) -> None:
    """As a finalizer or a signal handler may do it: a task never sleeps for ever."""
    held: list[PacketBatch] = []
    for point in every_bytecode(lambda: end(held), within=[pool_module], stride=2):
        pool = PacketBatchPool(1)
        held[:] = [pool.acquire_nowait()]
        with point:
            with anyio.move_on_after(0) as scope:
                (await pool.acquire()).close()
        if scope.cancelled_caught and held:
            end(held)  # it came too late for that step
        with anyio.fail_after(60):
            (await pool.acquire()).close()
        assert pool.statistics().free == 1


@pytest.mark.parametrize("what", ["acquire", "acquire_nowait", "wait", "close", "leak"])
async def test_an_interrupt_at_every_bytecode(
    what: str, inet: Family, anyio_backend_name: str
) -> None:
    """Whatever it hits, no batch is lost, and none is lent twice."""
    if anyio_backend_name == "asyncio" and not hasattr(anyio, "wait_readable"):
        pytest.skip("before 4.7 AnyIO keeps the frames of an error on asyncio, and what they hold")
    with unreported():
        await interrupt_everywhere(what, inet)


async def interrupt_everywhere(what: str, inet: Family) -> None:
    async def use() -> None:
        (await pool.acquire()).close()

    sock, sender = inet.pair()
    interrupted = 0
    for point in every_bytecode(fail, within=[pool_module, loans]):
        pool = PacketBatchPool(2, 2, 16)
        other = pool.acquire_nowait()
        batch, held = None, [other]
        if what in ("close", "leak"):
            batch = pool.acquire_nowait()
            sender.send(b"x")
            drain(sock, batch, 1)
        elif what == "wait":
            other.close()
            held = [pool.acquire_nowait(), pool.acquire_nowait()]
        try:
            async with anyio.create_task_group() as tasks:
                with point:
                    if what == "acquire":
                        batch = await pool.acquire()
                    elif what == "acquire_nowait":
                        batch = pool.acquire_nowait()
                    elif what == "wait":
                        tasks.start_soon(use)
                        await checkpoint()
                        await checkpoint()
                        held.pop().close()
                    elif what == "close" and batch is not None:
                        batch.close()
                    else:
                        batch = None
        except Exception:  # ours, or a group of it
            interrupted += 1
        if what == "wait":
            held.clear()
        elif batch is not None and not batch.closed:
            batch.close()
        batch = None
        if not other.closed:
            other.close()
        gc.collect(1)
        with anyio.fail_after(60):
            two = [await pool.acquire(), await pool.acquire()]
        assert two[0]._slots is not two[1]._slots
        assert [len(one) for one in two] == [0, 0]
        with pytest.raises(anyio.WouldBlock):
            pool.acquire_nowait()
        for one in two:
            one.close()
        assert pool.statistics().free == 2
    # In C the usual end of a loan is one step.
    assert interrupted or what == "leak" or (what == "close" and loans.lend is not None)


# Who waits


async def test_nobody_overtakes_those_who_wait() -> None:
    pool = PacketBatchPool(1)
    order: list[str] = []

    async def use() -> None:
        with await pool.acquire():
            order.append("waiter")

    held = pool.acquire_nowait()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use)
            await wait_all_tasks_blocked()
            held.close()
            with pytest.raises(anyio.WouldBlock):
                pool.acquire_nowait()
            with await pool.acquire():
                order.append("late")
    assert order == ["waiter", "late"]


@pytest.mark.parametrize("steps", range(5))
async def test_a_waiter_that_is_cancelled_when_it_is_served(steps: int) -> None:
    pool = PacketBatchPool(1)
    held = pool.acquire_nowait()
    got: list[bool] = []

    async def use() -> None:
        with await pool.acquire():
            got.append(True)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as others, anyio.create_task_group() as tasks:
            tasks.start_soon(use)
            await wait_all_tasks_blocked()
            others.start_soon(use)
            await wait_all_tasks_blocked()
            held.close()
            for _ in range(steps):
                await checkpoint()
            tasks.cancel_scope.cancel()
    assert got in ([True], [True, True])
    assert pool.statistics() == PoolStatistics(size=1, free=1, leaked=0, **ALL_FREE)


async def test_another_threads_loop_is_refused() -> None:
    pool = PacketBatchPool(1)
    held = pool.acquire_nowait()
    raised: list[BaseException] = []

    def other_loop() -> None:
        async def use() -> None:
            try:
                await pool.acquire()
            except RuntimeError as error:
                raised.append(error)

        anyio.run(use)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.acquire)
        await wait_all_tasks_blocked()
        in_a_thread(other_loop)
        tasks.cancel_scope.cancel()
    held.close()
    assert "make a pool for each event loop" in str(raised[0])


@each_loop
def test_one_loop_after_another(backend: str) -> None:
    pool = PacketBatchPool(1)
    held = [pool.acquire_nowait()]

    async def wait() -> None:
        with anyio.move_on_after(0.001):
            await pool.acquire()

    async def use() -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.acquire)
                await wait_all_tasks_blocked()
                held.pop().close()

    anyio.run(wait, backend=backend)
    anyio.run(use, backend=backend)
    gc.collect()
    assert pool.statistics().free == 1


# Losses


@pytest.mark.parametrize("foreign", [False, True], ids=["here", "in-a-thread"])
@pytest.mark.parametrize("end", [leak, leak_in_a_cycle])
async def test_a_lost_batch_is_counted_once(
    end: Callable[[list[PacketBatch]], None], foreign: bool, engine: ReceiveEngine, inet: Family
) -> None:
    sock, sender = inet.pair()
    async with PacketReceiver(sock, PacketBatchPool(2, 4, 16, engine)) as receiver:
        for _ in range(3):
            sender.send(b"x")
        with anyio.fail_after(60):
            batch = await receiver.receive()
            packet = batch[0]
            held = [batch]
            del batch
            if foreign:
                in_a_thread(lambda: end(held))
            else:
                end(held)
            seen = receiver.statistics()
            assert (seen.packets, seen.dropped) == (3, 3)
            pool = receiver.pool.statistics()
            assert (pool.free, pool.leaked) == (2, 1)
            with pytest.raises(ValueError, match="released"):
                bytes(packet.data)
            for _ in range(8):  # its memory is used again
                sender.send(b"y")
            first, second = await receiver.receive(), await receiver.receive()
            assert contents(first) + contents(second) == [b"y"] * 8
            first.close()
            second.close()
        assert receiver.statistics().dropped == 3


async def test_a_lost_pool_is_collected(inet: Family) -> None:
    pool = PacketBatchPool(2)
    gone = []
    for end in (close, leak):
        held = [pool.acquire_nowait()]
        end(held)
    gone.append(pool._self)
    gc.disable()
    try:
        del pool
        assert gone[0]() is None
    finally:
        gc.enable()


async def test_a_batch_outlives_its_pool(inet: Family) -> None:
    sock, sender = inet.pair()
    batch = PacketBatchPool(1).acquire_nowait()
    gc.collect()
    sender.send(b"x")
    drain(sock, batch, 1)
    assert contents(batch) == [b"x"]
    batch.close()
    assert batch.closed


async def test_who_could_not_leave_the_line_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a signal handler raises there."""
    pool = PacketBatchPool(1)
    with pool.acquire_nowait(), unreported(), monkeypatch.context() as patch:
        patch.setattr(pool, "_leave", lambda place_in_line: fail())
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                with pytest.raises(HandlerError):
                    await pool.acquire()

            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert pool.statistics().waiting == 1
            tasks.cancel_scope.cancel()
        gc.collect()
        assert pool.statistics().waiting == 0
        assert "waiting=0" in repr(pool)
    with await pool.acquire():
        assert pool.free == 0
