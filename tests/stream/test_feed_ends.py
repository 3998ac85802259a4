"""How `feed` ends: wrong streams, cancellation with a batch in hand, callbacks that fail."""

from __future__ import annotations

import asyncio
import gc
import pickle
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import anyio
import pytest
from anyio import create_memory_object_stream, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream
from anyio.streams.stapled import StapledObjectStream

from anyio_mmsg import PacketBatch, PacketBatchPool, PacketReceiver, ReceiveEngine, feed
from anyio_mmsg.testing import ScriptedReceiver, Step

from ..helpers import Family, contents

pytestmark = pytest.mark.anyio
POLICIES = ["block", "drop_newest", "drop_oldest"]


def options(overload: str, oldest: MemoryObjectReceiveStream[PacketBatch]) -> dict[str, Any]:
    return {"overload": overload} | ({"drop_from": oldest} if overload == "drop_oldest" else {})


# What it is given


@contextmanager
def wrong_streams() -> Iterator[list[Any]]:
    send, receive = create_memory_object_stream[PacketBatch](1)
    stapled = StapledObjectStream(send, receive)
    trio = import_module("trio") if find_spec("trio") else None
    channels = trio.open_memory_channel(1)[:1] if trio else ()
    with send, receive:
        yield [asyncio.Queue(), *channels, (send, receive), receive, stapled, None, [], print]


@pytest.mark.parametrize("overload", POLICIES)
async def test_another_stream_is_refused_at_once(overload: str) -> None:
    send, receive = create_memory_object_stream[PacketBatch](1)
    async with ScriptedReceiver([[b"x"]]) as receiver:
        with wrong_streams() as streams, anyio.fail_after(60):
            for stream in streams:
                with pytest.raises(TypeError, match=r"is a .*anyio\.create_memory_object_stream"):
                    await feed(receiver, stream, **options(overload, receive))
        with anyio.fail_after(60):  # nothing was taken
            with await receiver.receive() as batch:
                assert contents(batch) == [b"x"]
    send.close()
    receive.close()


async def test_other_arguments_of_the_wrong_type(inet: Family) -> None:
    send, receive = create_memory_object_stream[PacketBatch](1)
    async with ScriptedReceiver() as receiver:
        with send, receive, anyio.fail_after(60):
            wrong: list[Any] = [send, asyncio.Queue(), "oldest"]
            for oldest in wrong:
                with pytest.raises(TypeError, match=r"drop_from is a .*the receiving end"):
                    await feed(receiver, send, "drop_oldest", oldest)
            with pytest.raises(TypeError, match="on_drop is a int"):
                await feed(receiver, send, on_drop=3)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="receiver is a socket"):
                await feed(inet.open(), send)  # type: ignore[arg-type]


# Cancelled with a batch in hand


@asynccontextmanager
async def stuck(inet: Family | None = None, engine: ReceiveEngine = "auto") -> AsyncIterator[Any]:
    """A receiver and the ends of a stream that takes nothing; `feed` has b"0" in hand.

    With `inet` it has a socket.
    """
    send, receive = create_memory_object_stream[PacketBatch](0)
    pool, numbers = PacketBatchPool(4, 1, 16, engine), [b"0", b"1", b"2"]
    if inet is None:
        receiver: PacketReceiver = ScriptedReceiver([numbers, anyio.sleep_forever], pool)
    else:
        sock, sender = inet.pair()
        receiver = PacketReceiver(sock, pool)
        for number in numbers:
            sender.send(number)
    async with receiver:
        with receive, anyio.fail_after(60):
            yield receiver, send, receive


async def blocked(receive: MemoryObjectReceiveStream[PacketBatch]) -> None:
    while not receive.statistics().tasks_waiting_send:
        await checkpoint()


@pytest.mark.parametrize("again", [1, 3])
async def test_a_scope_leaves_the_batch_with_the_receiver(
    again: int, engine: ReceiveEngine, inet: Family
) -> None:
    async with stuck(inet, engine) as (receiver, send, receive):
        for _ in range(again):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feed, receiver, send.clone())
                await blocked(receive)
                tasks.cancel_scope.cancel()
        send.close()
        for number in range(3):
            with await receiver.receive() as batch:
                assert contents(batch) == [b"%d" % number]
        seen = receiver.statistics()
        assert (seen.packets, seen.batches, seen.dropped) == (3, 3, 0)
        assert receiver.pool.statistics().free == 4


async def test_a_deadline_leaves_it_there_too() -> None:
    async with stuck() as (receiver, send, _):
        with anyio.move_on_after(0.01) as scope:
            await feed(receiver, send)
        assert scope.cancelled_caught
        with await receiver.receive() as batch:
            assert contents(batch) == [b"0"]


async def test_cancelled_before_it_waits_for_room() -> None:
    """In the checkpoint of the stream's send."""
    async with stuck() as (receiver, send, _):
        real = receiver.receive
        with anyio.CancelScope() as scope:

            async def receive() -> PacketBatch:
                batch = await real()
                scope.cancel()
                return batch  # type: ignore[no-any-return]

            receiver.receive = receive
            await feed(receiver, send)
        assert scope.cancelled_caught
        with await real() as batch:
            assert contents(batch) == [b"0"]


async def test_what_a_consumer_took_in_that_moment_is_not_handed_out_again() -> None:
    taken: Any = None
    async with stuck() as (receiver, send, receive):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed, receiver, send)
            await blocked(receive)
            tasks.cancel_scope.cancel()
            taken = receive.receive_nowait()
        with await receiver.receive() as batch:
            assert contents(batch) == [b"1"]
        assert contents(taken) == [b"0"]
        taken.close()
        assert receiver.statistics().dropped == 0


async def test_other_senders_to_the_stream_do_not_confuse_it() -> None:
    async with stuck() as (receiver, send, receive):
        other, clone = PacketBatch(1), send.clone()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clone.send, other)
            await blocked(receive)
            tasks.start_soon(feed, receiver, send)
            while receive.statistics().tasks_waiting_send < 2:
                await checkpoint()
            tasks.cancel_scope.cancel()
            assert receive.receive_nowait() is other
        clone.close()
        with await receiver.receive() as batch:
            assert contents(batch) == [b"0"]


async def test_the_receivers_end_drops_what_it_was_given_back() -> None:
    async with stuck() as (receiver, send, _):
        with anyio.move_on_after(0.01):
            await feed(receiver, send)
        await receiver.aclose()
        seen = receiver.statistics()
        assert (seen.packets, seen.dropped, seen.unread) == (1, 1, 2)
        assert receiver.pool.statistics().free == 4


@pytest.mark.parametrize("others", [0, 1])
async def test_take_back_wakes_another_reader(others: int) -> None:
    """One that waits for packets, and one that waits for a batch."""
    got: list[PacketBatch] = []

    async def read() -> None:
        got.append(await receiver.receive())

    script: list[Step] = [[b"x"], anyio.sleep_forever]
    async with ScriptedReceiver(script, PacketBatchPool(2, 1)) as receiver:
        with anyio.fail_after(60):
            one = await receiver.receive()
            held = [receiver.pool.acquire_nowait() for _ in range(others)]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await wait_all_tasks_blocked()
                receiver._take_back(one)
            assert got == [one]
            for batch in (one, *held):
                batch.close()
    assert receiver.statistics().packets == 1
    assert receiver.pool.statistics().free == 2


@pytest.mark.parametrize("keep", [False, True], ids=["forgotten", "kept"])
async def test_a_native_cancellation_drops_the_batch(keep: bool, anyio_backend_name: str) -> None:
    """The canceller may hold on to the exception; the batch goes back all the same."""
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio's tasks can be cancelled without a scope")
    kept: list[BaseException] = []
    async with stuck() as (receiver, send, receive):
        task = asyncio.create_task(feed(receiver, send))
        await blocked(receive)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        if keep:
            kept.append(raised.value)
        del raised, task
        gc.collect()
        assert receiver.statistics().dropped == 1
        with await receiver.receive() as batch:
            assert contents(batch) == [b"1"]
        assert receiver.pool.statistics().free == 4


async def test_a_native_cancellation_leaves_a_batch_to_who_took_it(
    anyio_backend_name: str,
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio's tasks can be cancelled without a scope")
    async with stuck() as (receiver, send, receive):
        task = asyncio.create_task(feed(receiver, send))
        await blocked(receive)
        taken = receive.receive_nowait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert contents(taken) == [b"0"]
        taken.close()
        with await receiver.receive() as batch:
            assert contents(batch) == [b"1"]
        assert receiver.statistics().dropped == 0


@pytest.mark.parametrize("overload", POLICIES)
async def test_cancelling_it_leaves_other_tasks_alone(overload: str) -> None:
    """Also one that is the context of the cancellation, since it raised what is being handled."""
    errors: list[BaseException] = []
    go_on = anyio.Event()
    done: list[bool] = []

    async def unrelated() -> None:
        try:
            raise LookupError("handled for a while")
        except LookupError as error:
            errors.append(error)
            await go_on.wait()
        done.append(True)

    async def feed_while_handling() -> None:
        try:
            raise errors[0]
        except LookupError:
            await feed(receiver, send, **options(overload, receive))

    async with stuck() as (receiver, send, receive), anyio.create_task_group() as tasks:
        tasks.start_soon(unrelated)
        await wait_all_tasks_blocked()
        async with anyio.create_task_group() as others:
            others.start_soon(feed_while_handling)
            await wait_all_tasks_blocked()
            others.cancel_scope.cancel()
        gc.collect()
        go_on.set()
    assert done == [True]


# Callbacks


@pytest.mark.parametrize("overload", ["drop_newest", "drop_oldest"])
@pytest.mark.parametrize("release", [False, True])
async def test_a_callback_that_keeps_an_export(overload: str, release: bool) -> None:
    """The batch can't be closed; its packets count once, even if some of them were released."""
    send, receive = create_memory_object_stream[PacketBatch](1)
    exports: list[pickle.PickleBuffer] = []

    def keep(batch: PacketBatch) -> None:
        if release:
            batch.release(2)
        exports.append(pickle.PickleBuffer(batch[-1].data))

    async with ScriptedReceiver([[b"x"] * 5] * 2, PacketBatchPool(4)) as receiver:
        with anyio.fail_after(60):
            with pytest.raises(BufferError, match="still in use"):
                await feed(receiver, send, **options(overload, receive), on_drop=keep)
        dropped = 5 if overload == "drop_newest" else 10  # the one in hand too
        gc.collect()
        left = 0
        with receive:
            async for batch in receive:
                with batch:
                    left += len(batch)
        gc.collect()
        seen = receiver.statistics()
        assert (seen.packets, seen.dropped, left) == (10, dropped, 10 - dropped)
        for export in exports:
            export.release()


async def test_a_callback_may_keep_views() -> None:
    """They are not exports: reading one raises, and `feed` goes on."""
    send, receive = create_memory_object_stream[PacketBatch](1)
    views: list[memoryview] = []
    async with ScriptedReceiver([[b"x"]] * 4, PacketBatchPool(3, 1)) as receiver:
        with anyio.fail_after(60), receive:
            keep = lambda batch: views.append(batch[0].data)  # noqa: E731
            await feed(receiver, send, "drop_newest", on_drop=keep)
    assert len(views) == 3
    with pytest.raises(ValueError, match="released"):
        bytes(views[0])
