"""Waiting for trains: exact counts, cancellation, checkpoints."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_mmsg import BatchFullError, PacketBatch, ReceiveEngine, recv_mmsg, recv_mmsg_exact

from ..helpers import assert_others_run
from .flow import Flow, check, numbered

pytestmark = pytest.mark.anyio


@pytest.fixture
def batch(engine: ReceiveEngine) -> PacketBatch:
    return PacketBatch(4, engine=engine, gro=True)


async def held(batch: PacketBatch, count: int) -> None:
    """Let others run until the batch holds so many."""
    while len(batch) != count:
        await checkpoint()


async def test_a_train_comes_while_we_wait(inet: Flow, batch: PacketBatch) -> None:
    taken: list[int] = []

    async def receive() -> None:
        taken.append(await recv_mmsg(inet.receiver, batch))

    packets: list[bytes] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            packets += inet.send(*numbered(20, 100, last=1))
    assert taken == [20]
    check(batch, packets, inet.names[:1] * 20)


async def test_exact_stops_where_the_last_train_ends(inet: Flow, batch: PacketBatch) -> None:
    packets = inet.send(*numbered(3, 10))
    with anyio.fail_after(60):
        assert await recv_mmsg_exact(inet.receiver, batch, 2) == 3
        batch.clear()
        packets = inet.single(b"one") + inet.single(b"two") + inet.send(*numbered(3, 10))
        rest = inet.single(b"left there")
        assert await recv_mmsg_exact(inet.receiver, batch, 3) == 5
        check(batch, packets, inet.names[:1] * 5)
        assert await recv_mmsg_exact(inet.receiver, batch, 1) == 1
        check(batch, packets + rest, inet.names[:1] * 6)


async def test_exact_asks_for_no_more_messages_than_are_missing(
    inet: Flow, batch: PacketBatch
) -> None:
    packets = inet.single(b"one") + inet.send(*numbered(30, 10))
    inet.send(*numbered(30, 10, start=50))
    with anyio.fail_after(60):
        assert await recv_mmsg_exact(inet.receiver, batch, 2) == 31
    check(batch, packets, inet.names[:1] * 31)


async def test_exact_over_several_waits(inet: Flow, batch: PacketBatch) -> None:
    taken: list[int] = []

    async def receive() -> None:
        taken.append(await recv_mmsg_exact(inet.receiver, batch, 4))

    packets: list[bytes] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            for count in (1, 2, 9):
                await held(batch, len(packets))
                assert not taken
                packets += inet.send(*numbered(count, 10, start=count))
    assert taken == [12]
    check(batch, packets, inet.names[:1] * 12)


async def test_exact_counts_at_most_the_free_slots(inet: Flow, batch: PacketBatch) -> None:
    inet.send(*numbered(9, 10))
    with anyio.fail_after(60):
        await recv_mmsg(inet.receiver, batch)
        with pytest.raises(ValueError, match="count is 4, but the batch has 3 free slots of 4"):
            await recv_mmsg_exact(inet.receiver, batch, 4)


async def test_exact_without_a_count_fills_every_slot(inet: Flow, batch: PacketBatch) -> None:
    taken: list[int] = []

    async def receive() -> None:
        taken.append(await recv_mmsg_exact(inet.receiver, batch))

    packets = inet.send(*numbered(5, 10)) + inet.single(b"one")
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await held(batch, 6)
            packets += inet.send(*numbered(7, 10))
            await held(batch, 13)
            await anyio.wait_all_tasks_blocked()
            assert not taken
            packets += inet.single(b"")
        assert taken == [14]
        assert batch.free == 0
        check(batch, packets, inet.names[:1] * 14)
        with pytest.raises(BatchFullError):
            await recv_mmsg_exact(inet.receiver, batch)


async def test_exact_while_another_task_releases(inet: Flow, batch: PacketBatch) -> None:
    """Slots that come free meanwhile are not counted in."""
    packets: list[bytes] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recv_mmsg_exact, inet.receiver, batch)
            await anyio.wait_all_tasks_blocked()
            for turn in range(3):
                inet.send(*numbered(5, 10, start=turn))
                await held(batch, 5)
                batch.release(5)
            packets += inet.send(*numbered(3, 10))
    check(batch, packets, inet.names[:1] * 3)


async def test_cancelled_while_it_waits(inet: Flow, batch: PacketBatch) -> None:
    packets: list[bytes] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recv_mmsg_exact, inet.receiver, batch, 4)
            await anyio.wait_all_tasks_blocked()
            packets += inet.send(*numbered(3, 10))
            await held(batch, 3)
            tasks.cancel_scope.cancel()
        check(batch, packets, inet.names[:1] * 3)
        packets += inet.send(*numbered(2, 10))
        assert await recv_mmsg(inet.receiver, batch) == 2
    check(batch, packets, inet.names[:1] * 5)


async def test_cancelled_anywhere_no_train_is_lost(inet: Flow, batch: PacketBatch) -> None:
    sent: list[bytes] = []
    seen: list[bytes] = []
    with anyio.fail_after(60):
        for steps in range(12):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(recv_mmsg, inet.receiver, batch, 1)
                for step in range(steps):
                    if step % 3 == 1 and len(sent) < 300:
                        sent += inet.send(*numbered(5, 10, start=len(sent)))
                    await checkpoint()
                tasks.cancel_scope.cancel()
            seen += map(bytes, batch.payloads())
            batch.clear()
        while len(seen) < len(sent):
            await recv_mmsg(inet.receiver, batch)
            seen += map(bytes, batch.payloads())
            batch.clear()
    assert seen == sent


async def test_cancelled_before_it_reads_nothing(inet: Flow, batch: PacketBatch) -> None:
    inet.send(*numbered(3, 10))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await recv_mmsg(inet.receiver, batch)
    assert len(batch) == 0
    with anyio.fail_after(60):
        assert await recv_mmsg(inet.receiver, batch) == 3


async def test_is_a_checkpoint(inet: Flow, batch: PacketBatch, anyio_backend_name: str) -> None:
    for _ in range(3):
        inet.send(*numbered(3, 10))
        with assert_others_run(anyio_backend_name):
            await recv_mmsg(inet.receiver, batch, 1)
    with assert_others_run(anyio_backend_name):
        inet.single(b"")
        assert await recv_mmsg_exact(inet.receiver, batch) == 1


async def test_another_task_is_refused_meanwhile(inet: Flow, batch: PacketBatch) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recv_mmsg, inet.receiver, batch)
        await anyio.wait_all_tasks_blocked()
        calls: list[Any] = [recv_mmsg, recv_mmsg_exact]
        for receive in calls:
            with pytest.raises(anyio.BusyResourceError):
                await receive(inet.receiver, batch)
        with pytest.raises(ValueError, match="a task is receiving into this batch"):
            batch.close()
        tasks.cancel_scope.cancel()
    batch.close()
