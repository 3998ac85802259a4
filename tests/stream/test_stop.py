"""The end of a receiver: `stop` loses nothing, `aclose` counts what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import create_memory_object_stream, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    ReceiveEngine,
    feed,
    open_udp_socket,
)
from anyio_mmsg._compat import wait_socket_writable

from ..helpers import Family, ScriptedSocket, contents, each_loop

pytestmark = pytest.mark.anyio
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports its drops")


async def the_rest(receiver: PacketReceiver) -> list[bytes]:
    """What a receiver hands out until its end."""
    got: list[bytes] = []
    async for batch in receiver:
        with batch:
            got += contents(batch)
    return got


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("linger", [0.0, 0.0005, 60])
async def test_what_has_arrived_is_handed_out(
    linger: float, engine: ReceiveEngine, family: Family
) -> None:
    sock, sender = family.pair()
    sent = numbers(9 if family.name == "unix" else 200)
    receiver = PacketReceiver(sock, PacketBatchPool(2, 16, 100, engine), linger=linger)
    for data in sent:
        sender.send(data)
    receiver.stop()
    with anyio.fail_after(60):
        async with receiver:
            assert await the_rest(receiver) == sent
            with pytest.raises(anyio.EndOfStream):  # each time
                await receiver.receive()
            assert receiver.pool.statistics().free == 2
        with pytest.raises(anyio.ClosedResourceError):
            await receiver.receive()
    seen = receiver.statistics()
    assert (seen.packets, seen.dropped, seen.unread) == (len(sent), 0, 0)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
async def test_a_unix_socket_with_a_long_queue(tmp_path: Any) -> None:
    """As under systemd, which raises net.unix.max_dgram_qlen: many small senders fill it."""
    with Family("unix", tmp_path) as unix:
        sock = unix.open()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # does not limit such a queue
        sent, full = 0, False
        sender = unix.unbound()
        while not full and sent < 1000:
            try:
                sender.sendto(b"%d" % sent, sock.getsockname())
                sent += 1
            except BlockingIOError:
                full = True
        async with PacketReceiver(sock) as receiver:
            receiver.stop()
            assert await the_rest(receiver) == numbers(sent)


def by_the_task(stop: Callable[[], None]) -> None:
    stop()


def by_a_callback(stop: Callable[[], None]) -> None:
    try:
        asyncio.get_running_loop().call_soon(stop)
    except RuntimeError:
        import trio

        trio.lowlevel.current_trio_token().run_sync_soon(stop)


def by_a_thread(stop: Callable[[], None]) -> None:
    thread = threading.Thread(target=stop)
    thread.start()
    thread.join()


def by_a_signal_handler(stop: Callable[[], None]) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: stop())
    signal.raise_signal(signal.SIGUSR1)


WAYS = [
    by_the_task,
    by_a_callback,
    by_a_thread,
    pytest.param(
        by_a_signal_handler,
        marks=pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no SIGUSR1 here"),
    ),
]


@pytest.fixture
def restored_handler() -> Any:
    if not hasattr(signal, "SIGUSR1"):
        yield
        return
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("restored_handler")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("linger", [0.0, 60])
async def test_from_anywhere(
    way: Callable[[Callable[[], None]], None], linger: float, inet: Family
) -> None:
    """It wakes a task that waits for the socket, or lingers."""
    sock, sender = inet.pair()
    got: list[bytes] = []

    async def read() -> None:
        got.extend(await the_rest(receiver))

    with anyio.fail_after(60):
        async with (
            PacketReceiver(sock, linger=linger) as receiver,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(read)
            await wait_all_tasks_blocked()
            if linger:
                sender.send(b"held back")
                while receiver.statistics().buffer_used:  # until it lingers
                    await checkpoint()
            way(receiver.stop)
    assert got == ([b"held back"] if linger else [])


@pytest.mark.usefixtures("restored_handler")
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no pthread_kill here")
async def test_from_a_signal_handler_while_the_loop_sleeps(inet: Family) -> None:
    done = threading.Event()
    main = threading.get_ident()

    def kill() -> None:
        while not done.wait(0.01):  # until one came while the loop was asleep
            signal.pthread_kill(main, signal.SIGUSR1)

    async with PacketReceiver(inet.open()) as receiver:
        signal.signal(signal.SIGUSR1, lambda *_: receiver.stop())
        thread = threading.Thread(target=kill)
        thread.start()
        try:
            with anyio.fail_after(60):
                assert await the_rest(receiver) == []
        finally:
            done.set()
            thread.join()


async def test_a_peer_that_goes_on_does_not_keep_it_alive(
    engine: ReceiveEngine, family: Family
) -> None:
    sock, sender = family.pair()
    sent, got = 0, 0

    def send(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            try:
                sender.send(b"x")
            except BlockingIOError:  # a unix socket whose queue is full
                return
            sent += 1

    send(5)
    receiver = PacketReceiver(sock, PacketBatchPool(2, 4, 100, engine))
    with anyio.fail_after(60):
        async with receiver:
            receiver.stop()
            async for batch in receiver:
                with batch:
                    got += len(batch)
                send(10)
    seen = receiver.statistics()
    assert got == seen.packets >= 5
    assert seen.unread > 0
    assert sent == got + seen.unread


async def test_it_may_wait_for_a_batch(engine: ReceiveEngine, inet: Family) -> None:
    sock, sender = inet.pair()
    got: list[bytes] = []

    async def read() -> None:
        got.extend(await the_rest(receiver))

    async with PacketReceiver(sock, PacketBatchPool(1, 2, 16, engine)) as receiver:
        for data in numbers(5):
            sender.send(data)
        with anyio.fail_after(60):
            batch = await receiver.receive()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await wait_all_tasks_blocked()
                receiver.stop()
                await wait_all_tasks_blocked()
                assert got == []
                assert contents(batch) == numbers(2)
                batch.close()
    assert got == numbers(5)[2:]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
async def test_a_waiting_writer_goes_on_waiting(tmp_path: Any) -> None:
    wrote: list[bool] = []

    async def write() -> None:
        await wait_socket_writable(sock)
        wrote.append(True)

    with Family("unix", tmp_path) as unix:
        sock, peer = unix.open(), unix.open()
        sock.connect(peer.getsockname())
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(b"x")
        async with PacketReceiver(sock) as receiver:
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(write)
                    tasks.start_soon(the_rest, receiver)
                    await wait_all_tasks_blocked()
                    receiver.stop()
                    await wait_all_tasks_blocked()
                    assert wrote == []
                    while not wrote:
                        with contextlib.suppress(BlockingIOError):
                            peer.recv(1)
                        await checkpoint()


async def test_errors_that_pass_do_not_end_it() -> None:
    """Nor do they keep it alive."""
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    sock = ScriptedSocket(refused, b"0", *[refused] * 2000)
    pool = PacketBatchPool(2, engine="recvfrom_into")
    async with PacketReceiver(sock, pool) as receiver:
        receiver.stop()
        with anyio.fail_after(60):
            assert await the_rest(receiver) == [b"0"]
        assert receiver.statistics().transient_errors[errno.ECONNREFUSED] >= 1


async def test_errors_are_raised_for_those_who_want_them() -> None:
    sock = ScriptedSocket(ConnectionRefusedError(errno.ECONNREFUSED, "refused"), b"0")
    pool = PacketBatchPool(2, engine="recvfrom_into")
    async with PacketReceiver(sock, pool, errors="raise") as receiver:
        receiver.stop()
        with anyio.fail_after(60):
            with pytest.raises(ConnectionRefusedError):
                await receiver.receive()
            assert await the_rest(receiver) == [b"0"]


@pytest.mark.parametrize("after", range(12))
async def test_cancelled_anywhere(after: int, engine: ReceiveEngine, inet: Family) -> None:
    sock, sender = inet.pair()
    got: list[bytes] = []

    async def read() -> None:
        async for batch in receiver:
            with batch:
                got.extend(contents(batch))

    async with PacketReceiver(sock, PacketBatchPool(1, 3, 16, engine)) as receiver:
        for data in numbers(20):
            sender.send(data)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                for step in range(after):
                    if step == 2:
                        receiver.stop()
                    await checkpoint()
                tasks.cancel_scope.cancel()
            receiver.stop()
            await read()
    assert got == numbers(20)
    assert receiver.statistics().dropped == 0


@each_loop
def test_after_the_end_of_the_loop(backend: str) -> None:
    async def main() -> PacketReceiver:
        receiver = PacketReceiver(await open_udp_socket("127.0.0.1"))
        with anyio.move_on_after(0.001):
            await receiver.receive()
        return receiver

    receiver = anyio.run(main, backend=backend)
    receiver.stop()
    receiver.stop()

    async def close() -> None:
        await receiver.aclose()

    anyio.run(close, backend=backend)
    receiver.stop()


async def test_a_closed_one_stays_closed(inet: Family) -> None:
    receiver = PacketReceiver(inet.open())
    await receiver.aclose()
    receiver.stop()
    with pytest.raises(anyio.ClosedResourceError):
        await receiver.receive()


# aclose


async def test_what_is_left_counts_as_unread(engine: ReceiveEngine, family: Family) -> None:
    sock, sender = family.pair()
    receiver = PacketReceiver(sock, PacketBatchPool(2, 4, 100, engine))
    for data in numbers(9):
        sender.send(data * 50)
    with anyio.fail_after(60):
        with await receiver.receive() as batch:
            assert len(batch) == 4
        await receiver.aclose()
        await receiver.aclose()
    seen = receiver.statistics()
    assert (seen.packets, seen.dropped, seen.unread) == (4, 0, 5)


async def test_unread_packets_are_left_alone(inet: Family) -> None:
    """The descriptor of another process goes on reading them."""
    sock, sender = inet.pair()
    with sock.dup() as other:
        sender.send(b"x")
        await PacketReceiver(sock, count_unread=False).aclose()
        assert other.recv(9) == b"x"


@on_linux
async def test_an_error_before_unread_packets(inet: Family) -> None:
    sock, peer = inet.open(), inet.open()
    sock.connect(peer.getsockname())
    receiver = PacketReceiver(sock)
    peer.sendto(b"0", sock.getsockname())
    peer.close()
    sock.send(b"nobody is there")  # which comes back as an error, before what waits
    await receiver.aclose()
    assert receiver.statistics().unread == 1


class Endless(ScriptedSocket):
    """A socket that never runs dry."""

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return 1


@on_linux
async def test_a_peer_that_goes_on_does_not_keep_it_from_closing() -> None:
    with anyio.fail_after(60):
        await (receiver := PacketReceiver(Endless())).aclose()
    assert receiver.statistics().unread > 0


@on_linux
async def test_every_packet_is_accounted_for(engine: ReceiveEngine) -> None:
    """Received, dropped, left unread, or dropped by the kernel: one of them, to the packet."""
    sock = await open_udp_socket("127.0.0.1", receive_buffer_size=20_000)
    got = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(sock.getsockname())
        receiver = PacketReceiver(sock, PacketBatchPool(2, 3, engine=engine), linger=60)
        for number in range(200):
            sender.send(bytes(number))
            if number % 50 == 0:
                with anyio.move_on_after(0):
                    await receiver.receive()
                with anyio.move_on_after(0.001):
                    with await receiver.receive() as batch:
                        got += len(batch)
        await receiver.aclose()
    seen = receiver.statistics()
    assert seen.dropped_by_kernel
    assert seen.packets == got + seen.dropped
    assert seen.packets + seen.unread + seen.dropped_by_kernel == 200


# feed


@pytest.mark.parametrize("overload", ["block", "drop_newest", "drop_oldest"])
async def test_feed_drops_nothing_after_a_stop(
    overload: Any, engine: ReceiveEngine, inet: Family
) -> None:
    sock, sender = inet.pair()
    send, receive = create_memory_object_stream[PacketBatch](1)
    oldest = receive if overload == "drop_oldest" else None
    got: list[bytes] = []
    async with PacketReceiver(sock, PacketBatchPool(3, 2, 16, engine)) as receiver:
        for data in numbers(30):
            sender.send(data)
        receiver.stop()
        with anyio.fail_after(60), receive:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feed, receiver, send, overload, oldest)
                async for batch in receive:
                    for _ in range(4):  # in which the stream fills
                        await checkpoint()
                    with batch:
                        got += contents(batch)
    assert got == numbers(30)
    assert receiver.statistics().dropped == 0
    assert receiver.pool.statistics().free == 3
