"""A receiver's reader: registered once, gone with the receiver, and never in anybody's way."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any
from weakref import ref

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import PacketBatchPool, PacketReceiver, ReceiveEngine
from anyio_mmsg._stream import readiness

from ..helpers import Family, ScriptedSocket, contents, each_loop, read_and_close

pytestmark = pytest.mark.anyio


async def take(receiver: PacketReceiver) -> list[bytes]:
    with anyio.fail_after(60):
        with await receiver.receive() as batch:
            return contents(batch)


async def some_turns(count: int = 20) -> None:
    for _ in range(count):
        await checkpoint()


async def test_a_packet_now_and_then_costs_one_read(engine: ReceiveEngine, family: Family) -> None:
    sock, sender = family.pair()
    got: list[bytes] = []
    async with PacketReceiver(sock, PacketBatchPool(2, 4, 16, engine)) as receiver:

        async def consume() -> None:
            async for batch in receiver:
                read_and_close(batch, got)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(consume)
                for number in range(20):
                    await wait_all_tasks_blocked()
                    sender.send(b"%d" % number)
                    while len(got) <= number:
                        await checkpoint()
                receiver.stop()
        seen = receiver.statistics()
    assert got == [b"%d" % number for number in range(20)]
    assert seen.receive_calls - seen.empty_calls == 20
    assert seen.empty_calls <= 1  # by `stop`


def counted_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that gets an item for each call by a loop of asyncio's kind."""
    calls: list[bool] = []
    real = readiness._Reader._readable

    def counted(self: Any) -> None:
        calls.append(True)
        real(self)

    monkeypatch.setattr(readiness._Reader, "_readable", counted)
    return calls


def descriptors() -> set[int]:
    """The numbers that are in use, of those that sockets of tests may have."""
    found = set()
    for number in range(1000):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found.add(number)
    return found


@pytest.mark.parametrize("waited", ["waits no more", "cancelled"])
async def test_a_receiver_that_is_dropped_leaves_nothing(waited: str, inet: Family) -> None:
    """Not a reader in the loop, nor an object, nor a descriptor."""
    sock, sender = inet.pair()
    before = descriptors()
    for _ in range(3):
        receiver = PacketReceiver(sock)
        sender.send(b"x")
        assert await take(receiver) == [b"x"]
        if waited == "cancelled":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receiver.receive)
                await wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        gone = ref(receiver)
        del receiver
        gc.collect(0)
        assert gone() is None
        with anyio.fail_after(60):
            while descriptors() != before:
                await checkpoint()


async def test_dropped_in_another_thread(inet: Family) -> None:
    sock, sender = inet.pair()
    held = [PacketReceiver(sock)]
    sender.send(b"x")
    assert await take(held[0]) == [b"x"]
    before = descriptors()
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    with anyio.fail_after(60):
        while descriptors() == before:
            await checkpoint()
    async with PacketReceiver(sock) as receiver:
        sender.send(b"y")
        assert await take(receiver) == [b"y"]


async def hear_by_number(number: int, inet: Family, sender: socket.socket) -> None:
    """See that a new socket, whose descriptor has this number, is heard."""
    with inet.unbound() as other:
        assert other.fileno() == number
        other.bind(("127.0.0.1", 0))
        sender.connect(other.getsockname())
        async with PacketReceiver(other) as receiver:
            sender.send(b"y")
            assert await take(receiver) == [b"y"]


async def test_a_socket_that_somebody_else_closes(inet: Family) -> None:
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock)
    sender.send(b"x")
    assert await take(receiver) == [b"x"]
    number = sock.fileno()
    sock.close()
    with pytest.raises(anyio.ClosedResourceError):
        await take(receiver)
    await hear_by_number(number, inet, sender)


async def test_a_number_that_the_loop_still_knows(inet: Family) -> None:
    """Of a socket that was closed while its receiver, which lives, had a reader."""
    sock, sender = inet.pair()
    old = PacketReceiver(sock)
    sender.send(b"x")
    assert await take(old) == [b"x"]
    number = sock.fileno()
    sock.close()
    await hear_by_number(number, inet, sender)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it has a second descriptor")
@pytest.mark.parametrize("state", ["has waited", "waits"])
async def test_a_socket_that_somebody_else_closes_frees_its_port(state: str, inet: Family) -> None:
    sock, sender = inet.pair()
    address = sock.getsockname()
    receiver = PacketReceiver(sock)
    sender.send(b"x")
    assert await take(receiver) == [b"x"]
    other = inet.unbound()
    async with anyio.create_task_group() as tasks:
        if state == "waits":
            tasks.start_soon(receiver.receive)
            await wait_all_tasks_blocked()
        sock.close()
        other.bind(address)
        tasks.cancel_scope.cancel()
    async with PacketReceiver(other) as fresh:
        sender.send(b"y")
        assert await take(fresh) == [b"y"]
    with pytest.raises(anyio.ClosedResourceError):
        await take(receiver)


async def test_a_slow_consumer_does_not_keep_the_loop_busy(
    inet: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted_calls(monkeypatch)
    sock, sender = inet.pair()
    async with PacketReceiver(sock) as receiver:
        for number in range(3):
            sender.send(b"0")
            assert await take(receiver) == [b"0"]
            calls.clear()
            sender.send(b"1")
            await some_turns()
            assert len(calls) <= 1, number
            assert await take(receiver) == [b"1"]
            await some_turns()
            assert len(calls) <= 2, number


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("end", ["drop", "close"])
async def test_a_child_process_does_not_make_its_parent_deaf(end: str, inet: Family) -> None:
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock, count_unread=False)
    sender.send(b"x")
    assert await take(receiver) == [b"x"]
    child = os.fork()
    if not child:  # it has the same epoll instance
        try:
            if end == "close":
                receiver._port.close()
            del receiver
            gc.collect()
        finally:
            os._exit(0)
    os.waitpid(child, 0)  # noqa: ASYNC222  # it ends at once
    async with receiver:
        for data in (b"y", b"z"):
            sender.send(data)
            assert await take(receiver) == [data]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("end", ["drop", "close"])
async def test_a_parent_that_ends_before_its_child(
    end: str, inet: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the child keeps open does not call the parent's loop, which has no reader any more."""
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock, count_unread=False)
    sender.send(b"x")
    assert await take(receiver) == [b"x"]
    ours, childs = os.pipe()
    child = os.fork()
    if not child:
        os.close(childs)
        os.read(ours, 1)  # until the parent closes the other end
        os._exit(0)
    try:
        calls = counted_calls(monkeypatch)
        if end == "close":
            await receiver.aclose()
        del receiver
        gc.collect(0)
        await some_turns()
        calls.clear()
        sender.send(b"to the child's copy of the socket")
        await some_turns()
        assert len(calls) <= 1
        with inet.unbound() as other:
            other.bind(("127.0.0.1", 0))
            sender.connect(other.getsockname())
            async with PacketReceiver(other) as receiver:
                for data in (b"y", b"z"):
                    sender.send(data)
                    assert await take(receiver) == [data]
    finally:
        os.close(childs)
        os.close(ours)
        os.waitpid(child, 0)  # noqa: ASYNC222  # it ends at once


@each_loop
@pytest.mark.parametrize("gone", [False, True])
def test_another_loop_is_refused(backend: str, gone: bool, inet: Family) -> None:
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock)

    async def use() -> None:
        sender.send(b"x")
        assert await take(receiver) == [b"x"]

    async def other() -> None:
        with pytest.raises(RuntimeError, match="make a receiver for each event loop"):
            await take(receiver)

    async def both() -> None:
        await use()
        thread = threading.Thread(target=lambda: anyio.run(other, backend=backend))
        thread.start()
        thread.join()
        await use()

    if gone:
        anyio.run(use, backend=backend)
        anyio.run(other, backend=backend)
    else:
        anyio.run(both, backend=backend)


Where: ContextVar[str] = ContextVar("Where", default="nowhere")


class Listening(ScriptedSocket):
    """Says in which context it is read."""

    def __init__(self) -> None:
        socket.socket.__init__(self, socket.AF_INET, socket.SOCK_DGRAM)
        self.bind(("127.0.0.1", 0))
        self.setblocking(False)
        self.contexts: list[str] = []

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
        self.contexts.append(Where.get())
        return socket.socket.recvfrom_into(self, buffer, nbytes, flags)


async def test_callbacks_run_in_the_first_context(anyio_backend_name: str, inet: Family) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("on Trio the task reads, in its own context")
    sender = inet.unbound()
    with Listening() as sock:
        sender.connect(sock.getsockname())
        receiver = PacketReceiver(sock, PacketBatchPool(2, 4, 16, "recvfrom_into"))

        async def wait(where: str) -> None:
            Where.set(where)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take, receiver)
                await wait_all_tasks_blocked()
                sender.send(b"x")

        await wait("first")
        for name in ("second", "third"):
            sender.send(b"unregisters the reader, since nobody waits")
            await some_turns()
            await take(receiver)
            sock.contexts.clear()
            await copy_context().run(asyncio.ensure_future, wait(name))
            assert set(sock.contexts) == {"first"}
        await receiver.aclose()


async def test_errors_and_packets_again_and_again(engine: ReceiveEngine, inet: Family) -> None:
    """Each error is a POLLERR, at which uvloop forgets readers."""
    sock, peer = inet.open(), inet.open()
    there = peer.getsockname()
    sock.connect(there)
    errors: list[OSError] = []
    pool = PacketBatchPool(2, 4, 16, engine)
    async with PacketReceiver(sock, pool, on_error=errors.append) as receiver:
        for number in range(1, 6):
            peer.close()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take, receiver)
                await wait_all_tasks_blocked()
                sock.send(b"to nobody")
                with anyio.fail_after(60):
                    while len(errors) < number:
                        await checkpoint()
                await wait_all_tasks_blocked()
                peer = inet.unbound()
                peer.bind(there)
                peer.sendto(b"x", sock.getsockname())
            assert [error.errno for error in errors] == [errno.ECONNREFUSED] * number
    assert receiver.statistics().packets == 5


@pytest.mark.skipif(sys.platform != "linux", reason="transmit timestamps are Linux's")
async def test_an_error_queue_of_the_programs_with_each_packet(inet: Family) -> None:
    """POLLERR comes together with data, and no read meets an error."""
    sock, sender = inet.pair()
    sock.connect(sender.getsockname())
    sock.setsockopt(socket.SOL_SOCKET, 37, 1 << 1 | 1 << 4)  # SO_TIMESTAMPING: TX_SOFTWARE
    async with PacketReceiver(sock) as receiver:
        for _ in range(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take, receiver)
                await wait_all_tasks_blocked()
                sock.send(b"answer")  # its timestamp is queued at once
                sender.send(b"question")
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.recvmsg(1, 1000, socket.MSG_ERRQUEUE)


@pytest.fixture
def without_readers(anyio_backend_name: str, anyio_backend_options: Any) -> None:
    if anyio_backend_name != "asyncio" or anyio_backend_options.get("use_uvloop"):
        pytest.skip("only asyncio has loops without readers, and only its loops can be changed")


@pytest.mark.usefixtures("without_readers")
@pytest.mark.parametrize("end", [PacketReceiver.stop, PacketReceiver.aclose])
async def test_a_loop_without_readers(
    end: Callable[[PacketReceiver], Any], inet: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows' proactor: AnyIO waits there, by other means."""
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock)
    loop = asyncio.get_running_loop()
    real = loop.add_reader

    def add_reader(fd: Any, *args: Any) -> Any:
        if isinstance(fd, int):
            raise NotImplementedError
        return real(fd, *args)

    monkeypatch.setattr(loop, "add_reader", add_reader)
    for data in (b"x", b"y"):
        sender.send(data)
        assert await take(receiver) == [data]
    ended: list[bool] = []

    async def read() -> None:
        with contextlib.suppress(anyio.ClosedResourceError):
            async for _ in receiver:
                pass
        ended.append(True)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await wait_all_tasks_blocked()
            called = end(receiver)
            if called is not None:
                await called
    assert ended
    assert isinstance(receiver._port._readiness, readiness._AnyioWait)  # type: ignore[attr-defined]
    await receiver.aclose()
