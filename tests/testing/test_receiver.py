"""A receiver that plays a script: what each step does, and that all else is a receiver's."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading
from functools import partial
from importlib import import_module
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import anyio
import pytest
from anyio import create_memory_object_stream, wait_all_tasks_blocked
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint

from anyio_mmsg import PacketBatch, PacketBatchPool, PacketReceiver, ReceiverStatistics, feed
from anyio_mmsg.testing import Datagram, ScriptedReceiver, Step, make_batch

from ..helpers import assert_others_run, contents, loses_batches

pytestmark = pytest.mark.anyio


async def rest(receiver: PacketReceiver) -> list[list[bytes]]:
    """Receive till the end; the parameter's type is the one that consumers ask for."""
    got = []
    with anyio.fail_after(60):
        async for batch in receiver:
            with batch:
                got.append(contents(batch))
    return got


# Packets


async def test_packets_that_arrive_together_come_in_one_batch() -> None:
    script: list[Step] = [[b"a", (b"b", ("198.51.100.7", 53))], [Datagram(b"c")]]
    async with ScriptedReceiver(script) as receiver:
        with await receiver.receive() as batch:
            assert contents(batch) == [b"a", b"b"]
            assert batch.addresses() == [("192.0.2.1", 50000), ("198.51.100.7", 53)]
        assert await rest(receiver) == [[b"c"]]
    assert receiver.pool.statistics().free == 8


@pytest.mark.parametrize(("capacity", "limit"), [(3, 64), (64, 3), (3, 3)])
async def test_more_than_a_batch_takes_come_in_several(capacity: int, limit: int) -> None:
    numbers = [b"%d" % number for number in range(7)]
    receiver = ScriptedReceiver([numbers, [b"x"]], PacketBatchPool(2, capacity), limit=limit)
    assert await rest(receiver) == [numbers[:3], numbers[3:6], numbers[6:], [b"x"]]
    seen = receiver.statistics()
    assert (seen.batches, seen.full_batches, seen.largest_batch) == (4, 2, 3)
    await receiver.aclose()


async def test_a_batch_is_a_step() -> None:
    recorded = make_batch([Datagram(b"1", ecn=1), b"2"], ancillary=True)
    script: list[Any] = [recorded, {b"3"}, (each for each in [b"4"])]
    receiver = ScriptedReceiver(script, PacketBatchPool(ancillary=True))
    recorded.close()
    with await receiver.receive() as batch:
        assert batch is not recorded
        assert (contents(batch), batch.ecns()) == ([b"1", b"2"], [1, None])
    assert await rest(receiver) == [[b"3"], [b"4"]]


async def test_trains() -> None:
    receiver = ScriptedReceiver([[Datagram(b"x" * 25, segment_size=10), b"y", b"z"]], limit=2)
    assert await rest(receiver) == [[b"x" * 10, b"x" * 10, b"x" * 5, b"y"], [b"z"]]
    seen = receiver.statistics()
    assert (seen.packets, seen.bytes, seen.full_batches, seen.largest_batch) == (5, 27, 1, 4)


async def test_each_call_is_a_checkpoint(anyio_backend_name: str) -> None:
    async def nothing() -> None:
        pass

    ready = anyio.Event()
    ready.set()
    script: list[Step] = [
        [b"x"] * 3,
        ready,
        [b"y"],
        nothing,
        [b"z"],
        lambda: None,
        LookupError,
        [b"last"],
    ]
    receiver = ScriptedReceiver(script, PacketBatchPool(8, 2))
    for _ in range(4):
        with assert_others_run(anyio_backend_name):
            (await receiver.receive()).close()
    for error in (LookupError, anyio.EndOfStream, anyio.EndOfStream):
        if error is LookupError:
            with pytest.raises(error):
                await receiver.receive()
            (await receiver.receive()).close()
            continue
        with assert_others_run(anyio_backend_name), pytest.raises(error):
            await receiver.receive()


@pytest.mark.parametrize("kind", [Mock, MagicMock, AsyncMock])
async def test_a_mock_is_a_function(kind: type[Mock]) -> None:
    """A mock answers to every name, and may borrow any class; it is called all the same."""
    steps: list[Any] = [kind(), kind(spec=anyio.Event), kind(spec=OSError)]
    failing = kind(side_effect=LookupError)
    async with ScriptedReceiver([*steps, [b"a"], failing]) as receiver:
        with await receiver.receive() as batch:
            assert contents(batch) == [b"a"]
        with pytest.raises(LookupError):
            await receiver.receive()
        assert receiver.statistics().transient_errors == {}
    assert [step.call_count for step in (*steps, failing)] == [1, 1, 1, 1]


async def test_it_waits_for_a_batch_of_the_pool() -> None:
    receiver = ScriptedReceiver([[b"a"], [b"b"]], PacketBatchPool(1))
    first = await receiver.receive()
    got: list[bytes] = []

    async def receive() -> None:
        with await receiver.receive() as batch:
            got.extend(contents(batch))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await wait_all_tasks_blocked()
            assert got == []
            with pytest.raises(anyio.BusyResourceError):
                await receiver.receive()
            first.close()
    assert got == [b"b"]


# Errors


async def test_errors_that_pass_are_counted() -> None:
    told: list[OSError] = []
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    script: list[Step] = [refused, [b"a"], refused, refused, [b"b"], refused]
    receiver = ScriptedReceiver(script, on_error=told.append)
    assert await rest(receiver) == [[b"a"], [b"b"]]
    assert told == [refused] * 4
    assert receiver.statistics().transient_errors == {errno.ECONNREFUSED: 4}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EBADMSG, "another"),
        OSError("without a number"),
        LookupError("the application's"),
        anyio.ClosedResourceError(),
        anyio.BrokenResourceError,
        KeyError,
    ],
)
async def test_others_are_raised_and_receiving_goes_on(error: Any) -> None:
    receiver = ScriptedReceiver([[b"a"], error, error, [b"b"]])
    with await receiver.receive() as batch:
        assert contents(batch) == [b"a"]
    for _ in range(2):
        with pytest.raises(error if isinstance(error, type) else type(error)) as caught:
            await receiver.receive()
        assert isinstance(error, type) or caught.value is error
    assert await rest(receiver) == [[b"b"]]


async def test_all_errors_can_be_raised() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    receiver = ScriptedReceiver([refused, [b"a"]], errors="raise")
    with pytest.raises(ConnectionRefusedError):
        await receiver.receive()
    assert await rest(receiver) == [[b"a"]]


# Time


@pytest.mark.parametrize("kind", ["anyio", "own"])
async def test_an_event_says_when(kind: str, anyio_backend_name: str) -> None:
    own: Any = asyncio.Event
    if anyio_backend_name == "trio":
        own = import_module("trio").Event
    events = [own() if kind == "own" else anyio.Event() for _ in range(2)]
    receiver = ScriptedReceiver([events[0], [b"a"], events[1], [b"b"]])
    got: list[list[bytes]] = []

    async def receive() -> None:
        got.extend(await rest(receiver))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        for number, event in enumerate(events):
            await wait_all_tasks_blocked()
            assert len(got) == 0
            assert receiver.statistics().packets == number
            event.set()
    assert got == [[b"a"], [b"b"]]


async def test_an_event_may_be_made_before_the_loop_runs() -> None:
    event = await anyio.to_thread.run_sync(anyio.Event)  # where no loop runs
    receiver = ScriptedReceiver([event, [b"a"]])
    event.set()
    assert await rest(receiver) == [[b"a"]]


async def test_functions_are_called_first() -> None:
    order: list[Any] = []

    async def between(what: str) -> None:
        await checkpoint()
        order.append(what)

    script: list[Step] = [partial(between, "first"), [b"a"], lambda: order.append("sync"), [b"b"]]
    async with ScriptedReceiver([*script, partial(between, "last")]) as receiver:
        async for batch in receiver:
            with batch:
                order += contents(batch)
    assert order == ["first", b"a", "sync", b"b", "last"]


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EBADMSG])
async def test_what_functions_raise_is_a_step(number: int) -> None:
    def fail() -> None:
        raise OSError(number, "from a function")

    async def fail_later() -> None:
        await checkpoint()
        fail()

    receiver = ScriptedReceiver([fail, fail_later, [b"a"]])
    for _ in range(2 * (number == errno.EBADMSG)):
        with pytest.raises(OSError, match="from a function"):
            await receiver.receive()
    assert await rest(receiver) == [[b"a"]]


async def test_a_cancelled_wait_is_done_again() -> None:
    calls: list[int] = []

    async def wait() -> None:
        calls.append(len(calls))
        if len(calls) < 3:
            await anyio.sleep_forever()

    receiver = ScriptedReceiver([wait, [b"a"]])
    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receiver.receive)
            await wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert await rest(receiver) == [[b"a"]]
    assert calls == [0, 1, 2]


async def test_a_cancelled_call_loses_no_packet() -> None:
    receiver = ScriptedReceiver([[b"a"], [b"b"]])
    with anyio.CancelScope() as scope:
        scope.cancel()
        await receiver.receive()
    assert scope.cancelled_caught
    assert await rest(receiver) == [[b"a"], [b"b"]]


async def test_an_idle_line() -> None:
    receiver = ScriptedReceiver([[b"a"], anyio.sleep_forever, [b"never"]])
    with await receiver.receive() as batch:
        assert contents(batch) == [b"a"]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receiver.receive)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert not receiver.stopped


# The end


async def test_the_end_of_the_script_is_like_a_stop() -> None:
    async with ScriptedReceiver([[b"a"]]) as receiver:
        assert not receiver.stopped
        assert await rest(receiver) == [[b"a"]]
        assert receiver.stopped
        assert not receiver.closed
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await receiver.receive()
    assert receiver.closed
    with pytest.raises(anyio.ClosedResourceError):
        await receiver.receive()


@pytest.mark.parametrize("script", [(), [], iter([])])
async def test_an_empty_script(script: Any) -> None:
    assert await rest(ScriptedReceiver(script)) == []
    assert await rest(ScriptedReceiver()) == []


@pytest.mark.parametrize("how", ["here", "thread"])
async def test_stop_hands_out_what_has_arrived(how: str) -> None:
    happened, waiting = anyio.Event(), anyio.Event()
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    script: list[Step] = [[b"a"] * 3, refused, happened, [b"b"], refused, waiting, [b"never"]]
    receiver = ScriptedReceiver(script, PacketBatchPool(8, 2))
    happened.set()
    if how == "here":
        receiver.stop()
    else:
        await anyio.to_thread.run_sync(receiver.stop)
    waiting.set()
    assert await rest(receiver) == [[b"a"] * 2, [b"a"], [b"b"]]
    assert receiver.statistics().transient_errors == {errno.ECONNREFUSED: 2}


@pytest.mark.parametrize("wait", ["event", "function"])
async def test_stop_ends_a_wait(wait: str) -> None:
    event = anyio.Event()
    step: Any = event if wait == "event" else event.wait
    receiver = ScriptedReceiver([step, [b"never"]])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rest, receiver)
        await wait_all_tasks_blocked()
        receiver.stop()
    assert receiver.statistics().packets == 0


async def test_an_event_before_a_stop_has_happened_for_one_who_waits() -> None:
    event = anyio.Event()
    receiver = ScriptedReceiver([event, [b"a"], anyio.sleep_forever])
    got: list[list[bytes]] = []

    async def receive() -> None:
        got.extend(await rest(receiver))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await wait_all_tasks_blocked()
        event.set()
        receiver.stop()
    assert got == [[b"a"]]


async def test_a_step_may_stop_it() -> None:
    """What comes after the step had not arrived."""
    receiver: ScriptedReceiver
    receiver = ScriptedReceiver([[b"a"], lambda: receiver.stop(), [b"never"]])
    assert await rest(receiver) == [[b"a"]]


async def test_aclose_counts_what_had_arrived() -> None:
    waiting, refused = anyio.Event(), ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    train = Datagram(b"x" * 25, segment_size=10)
    script: list[Step] = [[b"a"], [train, b"b"], refused, [b"c"], waiting, [b"never"]]
    for count_unread in (True, False):
        receiver = ScriptedReceiver(script, count_unread=count_unread)
        (await receiver.receive()).close()
        await receiver.aclose()
        await receiver.aclose()
        assert (receiver.statistics().packets, receiver.statistics().unread) == (
            1,
            5 if count_unread else 0,
        )
        receiver.stop()
        with pytest.raises(anyio.ClosedResourceError):
            await receiver.receive()


async def test_aclose_ends_a_wait() -> None:
    receiver = ScriptedReceiver([anyio.sleep_forever])

    async def expect_the_end() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await receiver.receive()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(expect_the_end)
            await wait_all_tasks_blocked()
            await receiver.aclose()


# A receiver


@loses_batches
async def test_statistics() -> None:
    idle = anyio.Event()
    script: list[Step] = [[b"four", bytes(2000)], idle, [b"dropped"], [b"lost"]]
    receiver = ScriptedReceiver(script, PacketBatchPool(2, 2))
    (await receiver.receive()).close()
    with anyio.move_on_after(0.001):
        await receiver.receive()
    idle.set()
    receiver._drop(await receiver.receive())
    await receiver.receive()
    gc.collect()
    assert receiver.statistics() == ReceiverStatistics(
        packets=4,
        bytes=4 + 1232 + 7 + 4,
        batches=3,
        full_batches=1,
        largest_batch=2,
        truncated=1,
        receive_calls=3,
        empty_calls=0,
        dropped=2,
        unread=0,
        transient_errors={},
        dropped_by_kernel=None,
        buffer_used=None,
        buffer_size=None,
        batch_fills=(2, 1),
    )
    assert receiver.pool.statistics().free == 2


async def test_take_back() -> None:
    receiver = ScriptedReceiver([[b"a"], [b"b"]])
    batch = await receiver.receive()
    receiver._take_back(batch)
    assert await receiver.receive() is batch
    batch.close()
    assert await rest(receiver) == [[b"b"]]


async def test_it_has_no_socket() -> None:
    before = threading.active_count()
    async with ScriptedReceiver([[b"a"]]) as receiver:
        assert isinstance(receiver, PacketReceiver)
        assert dict(receiver.extra_attributes) == {}
        assert receiver.extra(SocketAttribute.local_port, None) is None
        with pytest.raises(anyio.TypedAttributeLookupError):
            receiver.extra(SocketAttribute.raw_socket)
    assert threading.active_count() == before


async def test_feed_takes_it() -> None:
    send, receive = create_memory_object_stream[PacketBatch](8)
    receiver = ScriptedReceiver([[b"a"], [b"b"]])
    with anyio.fail_after(60):
        await feed(receiver, send)
        async with receive:
            assert [contents(batch) async for batch in receive] == [[b"a"], [b"b"]]


async def test_feed_raises_what_is_no_end() -> None:
    """As with a socket: only `stop` and `aclose` end it."""
    for error in (anyio.EndOfStream, anyio.ClosedResourceError, LookupError):
        send, receive = create_memory_object_stream[PacketBatch](8)
        with receive, pytest.raises(error):
            await feed(ScriptedReceiver([error]), send)
