"""Feeding consumers: each policy under one that is too slow, with every packet accounted for."""

from __future__ import annotations

import errno
import gc
import math
import socket
import sys
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import create_memory_object_stream, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream

from anyio_mmsg import PacketBatch, PacketBatchPool, PacketReceiver, ReceiveEngine, feed
from anyio_mmsg.testing import ScriptedReceiver, Step

from ..helpers import Family, contents

pytestmark = pytest.mark.anyio
POLICIES = ["block", "drop_newest", "drop_oldest"]


def options(overload: str, oldest: MemoryObjectReceiveStream[PacketBatch]) -> dict[str, Any]:
    return {"overload": overload} | ({"drop_from": oldest} if overload == "drop_oldest" else {})


@pytest.mark.parametrize("overload", POLICIES)
async def test_feeds_consumers(overload: str, engine: ReceiveEngine, inet: Family) -> None:
    sock, sender = inet.pair()
    send, receive = create_memory_object_stream[PacketBatch](4)
    got: list[bytes] = []

    async def consume(stream: MemoryObjectReceiveStream[PacketBatch]) -> None:
        async with stream:
            async for batch in stream:
                with batch:
                    got.extend(contents(batch))

    pool = PacketBatchPool(8, 4, 16, engine)
    with anyio.fail_after(60):
        async with PacketReceiver(sock, pool) as receiver, anyio.create_task_group() as tasks:
            await tasks.start(partial(feed, receiver, send, **options(overload, receive)))
            tasks.start_soon(consume, receive.clone())
            tasks.start_soon(consume, receive.clone())
            receive.close()
            for number in range(20):
                sender.send(b"%d" % number)
                if number % 3 == 0:
                    await wait_all_tasks_blocked()
            while len(got) < 20:
                await checkpoint()
            await receiver.aclose()  # ends feed, which ends the consumers
    assert sorted(got, key=int) == [b"%d" % number for number in range(20)]
    assert receiver.statistics().dropped == 0
    assert pool.statistics().free == 8


@pytest.mark.parametrize(("size", "batches"), [(3, 8), (0, 2), (math.inf, 4), (9, 2)])
@pytest.mark.parametrize("overload", POLICIES)
async def test_a_slow_consumer(overload: str, size: float, batches: int) -> None:
    """The stream is full, or the pool is empty; whichever, nothing is unaccounted for."""
    everything = [b"%02d" % number for number in range(40)]
    script = [everything[first : first + 4] for first in range(0, 40, 4)]
    send, receive = create_memory_object_stream[PacketBatch](size)
    dropped: list[bytes] = []
    got: list[bytes] = []
    keywords = options(overload, receive)
    keywords["on_drop"] = lambda batch: dropped.extend(contents(batch))
    async with ScriptedReceiver(script, PacketBatchPool(batches, 4, 16)) as receiver:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(feed, receiver, send, **keywords))
                await wait_all_tasks_blocked()  # it is over, or waits for us
                async with receive:
                    async for batch in receive:
                        with batch:
                            got += contents(batch)
    room = 4 * int(min(size, batches - 1))  # one batch stays with the receiver
    if overload == "block":
        assert got == everything
        assert dropped == []
    elif overload == "drop_newest":
        assert got == everything[:room]
        assert dropped == everything[room:]
    else:
        assert got == everything[40 - room :]
        assert dropped == everything[: 40 - room]
    seen = receiver.statistics()
    assert seen.packets == len(got) + len(dropped) == 40
    assert seen.dropped == len(dropped)
    assert receiver.pool.statistics().free == batches


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports its drops")
@pytest.mark.parametrize("overload", POLICIES)
async def test_sent_is_consumed_and_dropped_and_queued(
    overload: str, engine: ReceiveEngine, inet: Family
) -> None:
    """Under a flood that overflows the kernel too: to the packet, by the kernel's own count."""
    sock, sender = inet.pair()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
    send, receive = create_memory_object_stream[PacketBatch](2)
    pool = PacketBatchPool(5, 8, 1000, engine)
    sent = consumed = 0
    receiver = PacketReceiver(sock, pool)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(partial(feed, receiver, send, **options(overload, receive)))
            for burst in range(60):
                for _ in range(burst):
                    sender.send(bytes(500))
                    sent += 1
                for _ in range(burst % 7):
                    await checkpoint()
                if burst % 5 == 0:
                    try:
                        with receive.receive_nowait() as batch:
                            consumed += len(batch)
                    except anyio.WouldBlock:
                        pass
            tasks.cancel_scope.cancel()
        queued = 0
        for batch in [
            receive.receive_nowait() for _ in range(receive.statistics().current_buffer_used)
        ]:
            with batch:
                queued += len(batch)
        receive.close()
        in_kernel = 0
        while True:
            try:
                sock.recv(1000)
                in_kernel += 1
            except BlockingIOError:
                break
        await receiver.aclose()  # which drops what feed has put back
        seen = receiver.statistics()
    assert seen.dropped_by_kernel is not None
    assert seen.dropped_by_kernel > 0
    assert sent == consumed + seen.dropped + queued + in_kernel + seen.dropped_by_kernel
    assert pool.statistics().lent == 0


@pytest.mark.parametrize("after", range(8))
@pytest.mark.parametrize("overload", POLICIES)
async def test_cancelled_anywhere(
    overload: str, after: int, engine: ReceiveEngine, inet: Family
) -> None:
    sock, sender = inet.pair()
    send, receive = create_memory_object_stream[PacketBatch](1)
    pool = PacketBatchPool(4, 2, 16, engine)
    sent = 0
    async with PacketReceiver(sock, pool) as receiver:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(feed, receiver, send, **options(overload, receive)))
                for _ in range(after):
                    for _ in range(3):
                        sender.send(b"%d" % sent)
                        sent += 1
                    await checkpoint()
                tasks.cancel_scope.cancel()
            got = 0
            with receive:
                async for batch in receive:
                    with batch:
                        got += len(batch)
            dropped = receiver.statistics().dropped
            while got + dropped < sent:
                with await receiver.receive() as batch:
                    got += len(batch)
        assert got + dropped == sent
    assert pool.statistics().free == 4


@pytest.mark.parametrize("overload", POLICIES)
async def test_nobody_is_left(overload: str) -> None:
    send, receive = create_memory_object_stream[PacketBatch](4)
    async with ScriptedReceiver([receive.close, [b"x"]]) as receiver:
        with anyio.fail_after(60), pytest.raises(anyio.BrokenResourceError):
            await feed(receiver, send, **options(overload, receive))
        assert receiver.statistics().dropped == 1
        assert receiver.pool.statistics().free == 8


def fail(batch: PacketBatch) -> None:
    raise LookupError("the callback's own")


@pytest.mark.parametrize("overload", ["drop_newest", "drop_oldest"])
async def test_a_callback_that_fails(overload: str) -> None:
    send, receive = create_memory_object_stream[PacketBatch](1)
    async with ScriptedReceiver([[b"0"], [b"1"]], PacketBatchPool(4, 1)) as receiver:
        with anyio.fail_after(60), pytest.raises(LookupError):
            await feed(receiver, send, **options(overload, receive), on_drop=fail)
        queued = 0
        with receive:
            async for batch in receive:
                with batch:
                    queued += len(batch)
        assert receiver.statistics().packets == 2
        assert queued + receiver.statistics().dropped == 2
        assert receiver.pool.statistics().free == 4


@pytest.mark.parametrize("overload", ["drop_newest", "drop_oldest"])
@pytest.mark.parametrize("use", ["close", "clear"])
async def test_a_callback_that_ends_the_batch(overload: str, use: str) -> None:
    send, receive = create_memory_object_stream[PacketBatch](1)
    async with ScriptedReceiver([[b"x"]] * 3, PacketBatchPool(4, 1)) as receiver:
        on_drop = lambda batch: getattr(batch, use)()  # noqa: E731
        with anyio.fail_after(60), receive:
            await feed(receiver, send, **options(overload, receive), on_drop=on_drop)
            assert receiver.statistics().dropped == 2
            receive.receive_nowait().close()
        assert receiver.pool.statistics().free == 4


async def test_cancelled_in_the_moment_of_handing_over() -> None:
    """Whoever has the batch then keeps it; it is not closed under a consumer."""
    send, receive = create_memory_object_stream[PacketBatch](0)
    batch: PacketBatch | None = None
    async with ScriptedReceiver([[b"x"]]) as receiver:
        with anyio.fail_after(60), receive:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feed, receiver, send)
                while not receive.statistics().tasks_waiting_send:
                    await checkpoint()
                tasks.cancel_scope.cancel()
                batch = receive.receive_nowait()
            assert batch is not None
            with batch:
                assert contents(batch) == [b"x"]
        assert receiver.statistics().dropped == 0
        assert receiver.pool.statistics().free == 8


@pytest.mark.parametrize("overload", POLICIES)
async def test_what_consumers_leave_in_the_stream_is_counted(overload: str) -> None:
    async def leave_three() -> None:
        send, receive = create_memory_object_stream[PacketBatch](8)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(feed, receiver, send, **options(overload, receive)))
            while receive.statistics().current_buffer_used < 3:
                await checkpoint()
            tasks.cancel_scope.cancel()
        receive.close()

    script: list[Step] = [[b"x"], [b"x"], [b"x"], anyio.sleep_forever]
    async with ScriptedReceiver(script, PacketBatchPool(8, 1)) as receiver:
        with anyio.fail_after(60):
            await leave_three()
            while receiver.statistics().dropped < 3:  # the loop has let go of the tasks then
                gc.collect()
                await checkpoint()
        assert receiver.pool.free == 7  # one waits in the receiver for more


async def test_feed_does_not_take_a_callbacks_error_for_the_end() -> None:
    def closed(error: OSError) -> None:
        raise anyio.ClosedResourceError

    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    send, receive = create_memory_object_stream[PacketBatch](1)
    async with ScriptedReceiver([refused], on_error=closed) as receiver:
        with receive, anyio.fail_after(60), pytest.raises(anyio.ClosedResourceError):
            await feed(receiver, send)


async def test_bad_arguments() -> None:
    send, receive = create_memory_object_stream[PacketBatch](1)
    async with ScriptedReceiver() as receiver:
        with send, receive:
            with pytest.raises(ValueError, match="overload is 'drop'; give one of"):
                await feed(receiver, send, overload="drop")  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="give drop_from"):
                await feed(receiver, send, overload="drop_oldest")
            with pytest.raises(ValueError, match="give drop_from"):
                await feed(receiver, send, drop_from=receive)
    async with ScriptedReceiver((), PacketBatchPool(1)) as receiver:
        with pytest.raises(ValueError, match="give it a pool of 2 or more"):
            await feed(receiver, send, overload="drop_newest")
