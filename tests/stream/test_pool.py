"""Batches lent and given back: bounds, fairness, misuse, leaks."""

from __future__ import annotations

import gc
import pickle
import weakref

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from anyio_mmsg import (
    PacketBatch,
    PacketBatchPool,
    PoolStatistics,
    ReceiveEngine,
    recv_mmsg,
    recv_mmsg_nowait,
)

from ..helpers import Family, contents, drain, loses_batches

pytestmark = pytest.mark.anyio


async def test_lends_and_takes_back() -> None:
    pool = PacketBatchPool(2, capacity=4, slot_size=16)
    assert pool.statistics() == PoolStatistics(size=2, free=2, lent=0, leaked=0, waiting=0)
    one = await pool.acquire()
    assert (one.capacity, one.slot_size, one.free) == (4, 16, 4)
    two = pool.acquire_nowait()
    assert pool.statistics() == PoolStatistics(size=2, free=0, lent=2, leaked=0, waiting=0)
    with pytest.raises(anyio.WouldBlock):
        pool.acquire_nowait()
    one.close()
    assert pool.statistics() == PoolStatistics(size=2, free=1, lent=1, leaked=0, waiting=0)
    two.close()
    assert pool.statistics().free == 2


async def test_memory_is_used_again(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    pool = PacketBatchPool(1, 2, 16, engine)
    rings = set()
    for number in range(20):
        with await pool.acquire() as batch:
            rings.add(id(batch._slots.memory))
            sender.send(b"%d" % number)
            drain(receiver, batch, 1)
            assert contents(batch) == [b"%d" % number]
            assert batch[0].address == sender.getsockname()
    assert len(rings) == 1


async def test_what_was_handed_out_dies_with_the_batch(
    engine: ReceiveEngine, inet: Family
) -> None:
    receiver, sender = inet.pair()
    pool = PacketBatchPool(1, engine=engine)
    with pool.acquire_nowait() as batch:
        sender.send(b"secret")
        drain(receiver, batch, 1)
        packet, view = batch[0], batch.payloads()[0]
    for dead in (lambda: bytes(view), lambda: packet.data, lambda: packet.address):
        with pytest.raises(ValueError, match="released"):
            dead()


async def test_use_after_the_return_fails_also_when_it_is_lent_again(inet: Family) -> None:
    sock = inet.open()
    pool = PacketBatchPool(1)
    first = pool.acquire_nowait()
    first.close()
    second = None
    for _ in range(2):
        with pytest.raises(ValueError, match="this batch was closed, and given back"):
            len(first)
        with pytest.raises(ValueError, match="closed"):
            list(first)
        with pytest.raises(ValueError, match="closed"):
            first.release()
        with pytest.raises(ValueError, match="closed"):
            recv_mmsg_nowait(sock, first)
        with pytest.raises(ValueError, match="closed"):
            first.close()
        with pytest.raises(ValueError, match="closed"), first:
            pytest.fail("entered")
        assert repr(first) == "<PacketBatch, closed>"
        assert isinstance(first, PacketBatch)
        if second is None:
            second = pool.acquire_nowait()  # the same memory
    assert second is not None
    assert second.free == 64
    second.close()
    assert pool.statistics().free == 1


async def test_a_batch_of_no_pool_can_be_closed_too() -> None:
    with PacketBatch() as batch:
        assert batch.free == 64
    with pytest.raises(ValueError, match="closed"):
        _ = batch.free


async def test_waiting_is_first_come_first_served() -> None:
    pool = PacketBatchPool(1)
    order: list[int] = []

    async def use(number: int) -> None:
        with await pool.acquire():
            order.append(number)
            await wait_all_tasks_blocked()

    held = pool.acquire_nowait()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(use, number)
                await wait_all_tasks_blocked()
            assert pool.statistics().waiting == 4
            held.close()
    assert order == [0, 1, 2, 3]
    assert pool.statistics() == PoolStatistics(size=1, free=1, lent=0, leaked=0, waiting=0)


async def test_a_cancelled_waiter_takes_nothing() -> None:
    pool = PacketBatchPool(1)
    held = pool.acquire_nowait()
    with anyio.move_on_after(0.01) as scope:
        await pool.acquire()
    assert scope.cancelled_caught
    held.close()
    assert pool.statistics().free == 1
    with anyio.CancelScope() as scope:
        scope.cancel()
        await pool.acquire()
    assert scope.cancelled_caught
    assert pool.statistics().free == 1


async def test_a_batch_that_a_task_receives_into_is_not_closed(inet: Family) -> None:
    sock = inet.open()
    pool = PacketBatchPool(1)
    batch = pool.acquire_nowait()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recv_mmsg, sock, batch)
        await wait_all_tasks_blocked()
        with pytest.raises(ValueError, match="a task is receiving into this batch"):
            batch.close()
        tasks.cancel_scope.cancel()
    batch.close()


@loses_batches
async def test_leaks_show_and_come_back() -> None:
    pool = PacketBatchPool(2)
    leaked = pool.acquire_nowait()
    kept = pool.acquire_nowait()
    del leaked
    gc.collect()
    assert pool.statistics() == PoolStatistics(size=2, free=1, lent=1, leaked=1, waiting=0)
    kept.close()
    assert pool.statistics() == PoolStatistics(size=2, free=2, lent=0, leaked=1, waiting=0)


@loses_batches
async def test_a_leak_wakes_who_waits() -> None:
    pool = PacketBatchPool(1)
    held = [pool.acquire_nowait()]

    async def wait() -> None:
        with await pool.acquire():
            pass

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await wait_all_tasks_blocked()
            held.clear()


@loses_batches
async def test_a_leak_that_is_in_use_comes_back_later(inet: Family) -> None:
    receiver, sender = inet.pair()
    pool = PacketBatchPool(1)
    sender.send(b"x")
    batch = pool.acquire_nowait()
    drain(receiver, batch, 1)
    user = pickle.PickleBuffer(batch[0].data)
    del batch
    assert pool.statistics() == PoolStatistics(size=1, free=0, lent=1, leaked=1, waiting=0)
    assert bytes(user) == b"x"
    user.release()
    assert pool.statistics() == PoolStatistics(size=1, free=1, lent=0, leaked=1, waiting=0)
    with pool.acquire_nowait() as batch:
        assert len(batch) == 0


async def test_the_arguments_of_a_closed_batch() -> None:
    batch = PacketBatch(3, 7)
    assert not batch.closed
    batch.close()
    assert batch.closed
    for name in ("capacity", "slot_size", "engine"):
        with pytest.raises(ValueError, match="this batch was closed"):
            getattr(batch, name)


async def test_the_bodys_exception_shows_beside_a_pinned_packet(inet: Family) -> None:
    receiver, sender = inet.pair()
    sender.send(b"x")
    batch = PacketBatch()
    drain(receiver, batch, 1)
    user = pickle.PickleBuffer(batch[0].data)
    with pytest.raises(BufferError) as raised, batch:
        raise LookupError("the body's own")
    context: BaseException | None = raised.value
    while context is not None and not isinstance(context, LookupError):
        context = context.__context__
    assert isinstance(context, LookupError)
    user.release()
    batch.close()


async def test_a_pool_is_no_garbage_cycle() -> None:
    gc.disable()
    try:
        pool = PacketBatchPool(2)
        with pool.acquire_nowait():
            pass
        gone = weakref.ref(pool)
        del pool
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"size": 0}, ValueError, "size is 0; give the number of batches"),
        ({"size": True}, TypeError, "size is True"),
        ({"capacity": 0}, ValueError, "capacity is 0"),
        ({"slot_size": 0}, ValueError, "slot_size is 0"),
        ({"engine": "x"}, ValueError, "engine is 'x'"),
    ],
)
async def test_bad_arguments(
    arguments: dict[str, object], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        PacketBatchPool(**arguments)  # type: ignore[arg-type]
