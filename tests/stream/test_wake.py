"""What a receiver's task awaits on asyncio and uvloop, where the compiled module is in use."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from contextvars import ContextVar, copy_context
from typing import Any
from weakref import ref

import anyio
import pytest

from anyio_mmsg import PacketReceiver
from anyio_mmsg._stream.readiness import Wake

from ..helpers import Family, each_asyncio_loop

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(Wake is None, reason="needs the compiled module"),
    each_asyncio_loop,
]


def new() -> Any:
    assert Wake is not None
    return Wake(asyncio.get_running_loop())


async def awaited(wake: Awaitable[object]) -> object:
    return await wake


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_task_waits_and_goes_on() -> None:
    for early in (True, False):
        wake = new()
        assert asyncio.isfuture(wake)
        assert not wake.done()
        if early:
            wake.set_result(None)
        task = asyncio.ensure_future(awaited(wake))
        await turns()
        assert task.done() == early
        if not early:
            wake.set_result(None)
        assert await task is None
        assert wake.done()
        assert not wake.cancelled()
        assert wake.result() is None
        assert wake.get_loop() is asyncio.get_running_loop()
        assert not wake.cancel()
        with pytest.raises(RuntimeError, match="it is done"):
            wake.set_result(None)


async def test_an_error() -> None:
    wake, error = new(), ValueError("x")
    task = asyncio.ensure_future(awaited(wake))
    await turns()
    wake.set_exception(error)
    with pytest.raises(ValueError, match="x") as caught:
        await task
    assert caught.value is error
    with pytest.raises(TypeError, match="an exception"):
        new().set_exception(3)


async def test_a_cancellation_keeps_its_message() -> None:
    for message in ((), ("why",)):
        wake = new()
        task = asyncio.ensure_future(awaited(wake))
        await turns()
        assert task.cancel(*message)
        assert wake.cancelled()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args in ((), message)  # Python 3.11 on gives it
        with pytest.raises(asyncio.CancelledError):
            wake.result()
        with pytest.raises(asyncio.CancelledError):
            await wake


async def test_done_and_cancelled_in_the_same_turn() -> None:
    """Where AnyIO would spare a task that waits for a Future."""
    wake = new()
    left: list[bool] = []

    async def wait() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await wake
            left.append(False)
        left.append(scope.cancelled_caught)

    scopes: list[anyio.CancelScope] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await turns()
        wake.set_result(None)
        scopes[0].cancel()
    assert left == [True]
    assert asyncio.current_task() is not None


async def test_in_the_context_of_the_task() -> None:
    where: ContextVar[str] = ContextVar("where", default="outside")
    seen: list[str] = []
    wake = new()

    async def wait() -> None:
        where.set("inside")
        await wake
        seen.append(where.get())

    task = asyncio.ensure_future(wait())
    await turns()
    wake.set_result(None)
    await task
    assert seen == ["inside"]


async def test_a_task_goes_on_at_once() -> None:
    """In the loop's callback, and in the task's own context."""
    where: ContextVar[str] = ContextVar("where", default="outside")
    loop, seen = asyncio.get_running_loop(), list[object]()
    wake = new()

    async def wait() -> None:
        where.set("inside")
        await wake
        seen.append((where.get(), asyncio.current_task()))

    def call() -> None:
        wake.resume()
        seen.append((where.get(), asyncio.current_task()))

    task = loop.create_task(wait())
    await turns()
    loop.call_soon(call)
    await turns(1)
    assert seen == [("inside", task), ("outside", None)]
    assert task.done()
    with pytest.raises(RuntimeError, match="it is done"):
        wake.resume()


async def test_a_task_goes_on_later_where_something_runs_in_its_context() -> None:
    context, seen, wake = copy_context(), list[object](), new()
    wake.add_done_callback(seen.append, context=context)
    context.run(wake.resume)
    assert seen == []
    assert wake.done()
    await turns()
    assert seen == [wake]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_what_ends_a_program_ends_it(kind: type[BaseException], inet: Family) -> None:
    """uvloop gives what a reader raises to its handler of exceptions, and goes on."""
    new_loop = type(asyncio.get_running_loop())

    async def consume() -> None:
        sock, sender = inet.pair()
        async with PacketReceiver(sock) as receiver:
            for data in (b"1", b"2", b"3"):
                asyncio.get_running_loop().call_soon(sender.send, data)
                with await receiver.receive() as batch:
                    assert batch[0].data == data
            raise kind("done")

    def run() -> None:
        loop = new_loop()
        try:
            with pytest.raises(kind, match="done"):
                loop.run_until_complete(asyncio.wait_for(consume(), 5))
        finally:
            loop.close()

    await anyio.to_thread.run_sync(run)


@pytest.mark.parametrize("how", ["close", "drop", "cancel", "native", "stop"])
async def test_a_consumer_ends_in_the_loops_callback(how: str, inet: Family) -> None:
    """It closes or drops the receiver, or ends its own task, while the receiver's reader runs."""
    errors: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock)
    ended: list[str] = []

    async def consume(receiver: PacketReceiver) -> None:
        with anyio.CancelScope() as scope:
            for data in (b"1", b"2", b"3"):
                loop.call_soon(sender.send, data)
                with await receiver.receive() as batch:
                    assert batch[0].data == data
            if how == "close":
                await receiver.aclose()
                with pytest.raises(anyio.ClosedResourceError):
                    await receiver.receive()
            elif how == "stop":
                receiver.stop()
                with pytest.raises(anyio.EndOfStream):
                    await receiver.receive()
            elif how == "drop":
                return
            elif how == "native":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                sender.send(b"4")
                try:
                    await receiver.receive()
                except asyncio.CancelledError:
                    ended.append("native")
                    getattr(task, "uncancel", int)()
            else:
                sender.send(b"4")
                scope.cancel()
                await receiver.receive()
        ended.append(str(scope.cancelled_caught))

    with anyio.fail_after(60):
        await asyncio.ensure_future(consume(receiver))
        if how in ("native", "cancel"):
            with await receiver.receive() as batch:
                assert batch[0].data == b"4"
        await turns()
    if how != "drop":
        await receiver.aclose()
        assert ended[-1] == str(how == "cancel")
    gone = ref(receiver)
    del receiver
    await turns()
    gc.collect()
    assert gone() is None
    assert errors == []


async def test_wrong_use() -> None:
    wake = new()
    wrong: Any
    with pytest.raises(RuntimeError, match="it is not done"):
        wake.result()
    for wrong in ((), (1, 2)):
        with pytest.raises(TypeError):
            wake.add_done_callback(*wrong)
    with pytest.raises(TypeError, match="a function, and context="):
        wake.add_done_callback(print, other=3)
    with pytest.raises(TypeError):
        wake.cancel(1, 2)
    assert Wake is not None
    make: Any = Wake
    for wrong in ((), (1, 2)):
        with pytest.raises(TypeError):
            make(*wrong)
    with pytest.raises(TypeError):
        make(loop=3)
    task = asyncio.ensure_future(awaited(wake))
    await turns()
    with pytest.raises(RuntimeError, match="another task waits"):
        await wake
    wake.set_result(None)
    await task
    without_loop = make(3)
    without_loop.add_done_callback(print, context=None)
    with pytest.raises(AttributeError):
        without_loop.set_result(None)


async def test_nothing_is_kept() -> None:
    """Of a task that waits for what nobody has any more."""
    gone = ref(asyncio.get_running_loop().create_task(awaited(new())))
    await turns()
    task = gone()
    assert task is not None
    task.cancel()
    del task
    await turns()
    gc.collect()
    assert gone() is None
