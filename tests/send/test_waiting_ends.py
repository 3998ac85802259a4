"""How waiting for room ends other than by room: closed sockets, other waiters, ended loops."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    SendEngine,
    SendResult,
    UnusableSocketError,
    send_mmsg,
    send_mmsg_nowait,
)
from anyio_mmsg._compat import wait_socket_writable
from anyio_mmsg._send import turns

from .helpers import fill_buffer, received, send_pairs

pytestmark = pytest.mark.anyio


def test_a_loop_that_ends_with_a_pending_send(
    sending: SendEngine, anyio_backend: Any, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """Another loop can go on with the socket."""
    if anyio_backend[0] == "trio":
        pytest.skip("Trio ends no loop before its tasks")
    sender, receiver = narrow
    filled = fill_buffer(sender)

    async def leave_pending() -> None:
        loop = asyncio.get_running_loop()
        pending.append(loop.create_task(send_mmsg(sender, [(b"x", None)], engine=sending)))
        await wait_all_tasks_blocked()

    async def go_on() -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send_pairs, sender, [b"y"], None)
                await wait_all_tasks_blocked()
                received(receiver)
        assert received(receiver) == [b"y"]

    pending: list[asyncio.Task[Any]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_pending())
    loop.close()
    assert filled
    anyio.run(go_on, backend="asyncio")
    pending.pop()._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("meddle", ["clear", "share"])
async def test_whatever_is_done_to_the_result(
    meddle: str, sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """It reports what was done, and does not decide what to do next."""
    sender, receiver = narrow
    sizes = [1, 700, 30, 0, 2000]
    packets = [(b"%d" % (number % 10) * sizes[number % 5], None) for number in range(2500)]
    result = SendResult()
    got: list[bytes] = []

    async def send() -> None:
        await send_mmsg(sender, packets, engine=sending, result=result)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            while len(got) < len(packets):
                got += received(receiver)
                if meddle == "clear":
                    result.failures.append(result)  # type: ignore[arg-type]
                    result.__init__(5)  # type: ignore[misc]
                elif len(got) > 2000:
                    send_mmsg_nowait(sender, [], result=result)
                await checkpoint()
    assert got == [data for data, _ in packets]


async def test_a_socket_that_something_else_waits_for(
    sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = narrow
    filled = fill_buffer(sender)
    assert received(receiver) == [b"filler"] * filled
    packets = [(b"x", None)] * (2 * filled)
    result = SendResult()

    async def wait() -> None:
        await wait_socket_writable(sender)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            send_mmsg_nowait(sender, packets)
            tasks.start_soon(wait)
            await wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await send_mmsg(sender, packets, engine=sending, result=result)
            received(receiver)
    assert result == SendResult(0, [])


# Errors on the way


async def test_closing_under_a_waiter(
    sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    if not hasattr(anyio, "notify_closing"):
        pytest.skip("anyio.notify_closing came with AnyIO 4.10")
    sender, receiver = narrow
    filled = fill_buffer(sender)
    received(receiver)
    packets = [(b"%d" % number, None) for number in range(3 * filled)]
    raised: list[UnusableSocketError] = []

    async def send() -> None:
        try:
            await send_mmsg(sender, packets, engine=sending)
        except UnusableSocketError as error:
            raised.append(error)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            tasks.start_soon(send)  # which waits for its turn
            await wait_all_tasks_blocked()
            anyio.notify_closing(sender)
            sender.close()
    first, second = raised
    got = received(receiver)
    assert first.result == SendResult(len(got), [])
    assert got == [data for data, _ in packets[: len(got)]]
    assert second.result == SendResult(0, [])


@pytest.mark.skipif(os.name == "nt", reason="a descriptor of Windows is not a file's")
async def test_a_descriptor_closed_by_number_while_it_waits(
    sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """The next call finds out, with what was sent before."""
    sender, _ = narrow
    filled = fill_buffer(sender)
    assert filled

    async def close_instead(sock: socket.socket) -> None:
        os.close(sock.fileno())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "wait_socket_writable", close_instead)
        with pytest.raises(UnusableSocketError) as raised:
            await send_pairs(sender, [b"x"], None, engine=sending)
    assert raised.value.errno == errno.EBADF
    sender.detach()


async def test_an_error_of_the_wait_is_told_as_it_is(
    sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """Such as ENOSPC, where epoll watches as many descriptors as it may."""
    sender, _ = narrow
    filled = fill_buffer(sender)
    assert filled

    async def fail(sock: socket.socket) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    result = SendResult()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "wait_socket_writable", fail)
        with pytest.raises(OSError, match="no space left") as raised:
            await send_mmsg(sender, [(b"x", None)], engine=sending, result=result)
    assert not isinstance(raised.value, UnusableSocketError)
    assert result == SendResult(0, [])


async def test_an_object_that_becomes_another_socket(
    sending: SendEngine, narrow: tuple[socket.socket, socket.socket], anyio_backend_name: str
) -> None:
    """A send by the new one does not wait its turn behind one by the old one."""
    if anyio_backend_name == "asyncio" and not hasattr(anyio, "wait_writable"):
        pytest.skip("before 4.7 AnyIO knows sockets by their objects on asyncio")
    sender, _ = narrow
    fill_buffer(sender)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    old = sender.fileno()
    got: list[bytes] = []
    with anyio.fail_after(60), there:
        there.setblocking(False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_pairs, sender, [b"old"], None)
            await wait_all_tasks_blocked()
            sender.__init__(fileno=here.detach())  # type: ignore[misc]
            sender.setblocking(False)
            fill_buffer(sender)
            tasks.start_soon(send_pairs, sender, [b"new"], None)
            await wait_all_tasks_blocked()
            while b"new" not in got:
                got += received(there)
                await checkpoint()
            tasks.cancel_scope.cancel()
    os.close(old)
    assert b"old" not in got
