"""The promises of `recv_datagrams` and `recv_datagrams_nowait`."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from anyio_mmsg import (
    IcmpError,
    PacketBatch,
    ReceiveEngine,
    open_udp_socket,
    recv_datagrams,
    recv_datagrams_nowait,
    recv_mmsg_nowait,
)
from anyio_mmsg._receive import datagrams as module
from anyio_mmsg._system.platform import Refused

from ..helpers import Family, assert_others_run, trickle, unheard

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _by(engine: ReceiveEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """By recvmmsg(2), or by `recvfrom` as where that is missing."""
    monkeypatch.setattr(Refused, "recvmmsg", engine == "recvfrom_into")


def rest(sock: socket.socket) -> list[bytes]:
    """All that is still to come."""
    found: list[bytes] = []
    while True:
        try:
            found += [data for data, _ in recv_datagrams_nowait(sock)]
        except anyio.WouldBlock:
            return found


# Receiving


async def test_waits_for_the_first(family: Family) -> None:
    receiver, sender = family.pair()
    got: list[Any] = []

    async def receive() -> None:
        got.extend(await recv_datagrams(receiver))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await wait_all_tasks_blocked()
            assert got == []
            sender.send(b"at last")
    assert got == [(b"at last", sender.getsockname())]


async def test_returns_all_that_are_there(family: Family) -> None:
    receiver, sender = family.pair()
    other = family.open()
    sent = [(b"%d" % number * number, sender.getsockname()) for number in range(9)]
    for data, _ in sent:
        sender.send(data)
    other.sendto(b"other", receiver.getsockname())
    with anyio.fail_after(60):
        got = await recv_datagrams(receiver)
        assert got == [*sent, (b"other", other.getsockname())]
        assert [(type(pair), type(pair[0])) for pair in got] == [(tuple, bytes)] * 10
        sender.send(b"next")
        assert await recv_datagrams(receiver) == [(b"next", sender.getsockname())]
        with pytest.raises(anyio.WouldBlock):
            recv_datagrams_nowait(receiver)


async def test_limits(inet: Family) -> None:
    receiver, sender = inet.pair()
    for number in range(300):
        sender.send(b"%d" % number)
    with anyio.fail_after(60):
        got = await recv_datagrams(receiver, 3)
        assert len(got) == 3
        got += await recv_datagrams(receiver)
        assert len(got) == 3 + 64
        got += await recv_datagrams(receiver, limit=150)
        assert len(got) == 3 + 64 + 150
        got += recv_datagrams_nowait(receiver, 10**30)
    assert [data for data, _ in got] == [b"%d" % number for number in range(300)]


def test_of_all_lengths(family: Family) -> None:
    receiver, sender = family.pair()
    most = 65_507 if family.name == "inet" else 65_527
    sent = [b"", b"x", b"", b"y" * 1232, b"z" * most]
    for data in sent:
        sender.send(data)
    assert [data for data, _ in recv_datagrams_nowait(receiver)] == sent


def test_is_cut_as_by_recvfrom(family: Family) -> None:
    receiver, sender = family.pair()
    for max_size in (1, 4, 5, 10**30):
        for data in (b"", b"four", b"fiver"):
            sender.send(data)
        got = recv_datagrams_nowait(receiver, max_size=max_size)
        assert [data for data, _ in got] == [data[:max_size] for data in (b"", b"four", b"fiver")]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_longer_ones_of_unix_sockets() -> None:
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver, sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        receiver.setblocking(False)
        for _ in range(2):
            sender.send(b"x" * 70_000)
        assert recv_datagrams_nowait(receiver, 1) == [(b"x" * 65_535, None)]
        assert recv_datagrams_nowait(receiver, max_size=100_000) == [(b"x" * 70_000, None)]


@pytest.mark.skipif(sys.platform != "linux", reason="file descriptors as Linux passes them")
def test_file_descriptors_are_not_taken() -> None:
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.setblocking(False)
        before = set(Path("/proc/self/fd").iterdir())
        socket.send_fds(sender, [b"with one"], [0])
        assert recv_datagrams_nowait(receiver) == [(b"with one", None)]
        assert len(set(Path("/proc/self/fd").iterdir())) == len(before)


async def test_beside_a_batch(inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch()
    for number in range(4):
        sender.send(b"%d" % number)
    assert recv_mmsg_nowait(receiver, batch, 2) == 2
    assert recv_datagrams_nowait(receiver, 1) == [(b"2", sender.getsockname())]
    assert recv_mmsg_nowait(receiver, batch) == 1
    assert batch.payloads() == [b"0", b"1", b"3"]


# Checkpoints and cancellation


@pytest.mark.parametrize("waiting", [False, True])
async def test_always_a_checkpoint(anyio_backend_name: str, inet: Family, waiting: bool) -> None:
    receiver, sender = inet.pair()
    with anyio.fail_after(60):
        for limit in (1, 1, 64):
            sender.send(b"x")
            if not waiting:
                sender.send(b"y")  # the next call finds that there is more
            with assert_others_run(anyio_backend_name):
                assert await recv_datagrams(receiver, limit)


async def test_a_cancelled_call_reads_nothing(inet: Family) -> None:
    receiver, sender = inet.pair()
    for _ in range(3):
        sender.send(b"x")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await recv_datagrams(receiver, 1)
        assert scope.cancelled_caught
    assert rest(receiver) == [b"x"] * 3


@pytest.mark.parametrize("after", range(12))
async def test_cancelled_anywhere_no_datagram_is_lost(after: int, family: Family) -> None:
    receiver, sender = family.pair()
    got: list[bytes] = []
    sent = 0

    async def receive_for_ever() -> None:
        while True:
            got.extend(data for data, _ in await recv_datagrams(receiver, 2))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive_for_ever)
            sent = await trickle(sender, after)
            tasks.cancel_scope.cancel()
    assert got + rest(receiver) == [b"%d" % number for number in range(sent)]


async def test_spurious_readiness(inet: Family, waits: list[socket.socket]) -> None:
    receiver, sender = inet.pair()
    got: list[Any] = []

    async def receive() -> None:
        got.extend(await recv_datagrams(receiver))

    with anyio.fail_after(60), pytest.MonkeyPatch.context() as patch:
        real, empty = module._receive, [True, True]

        def find_nothing(*args: Any) -> None:
            if not (empty and empty.pop()):
                real(*args)

        patch.setattr(module, "_receive", find_nothing)
        sender.send(b"x")
        await receive()
    assert len(waits) == 3
    assert got == [(b"x", sender.getsockname())]


# Errors


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback may not report it")
def test_an_error_outranks_queued_datagrams_and_loses_none(inet: Family) -> None:
    receiver, peer = inet.open(), inet.open()
    address = peer.getsockname()
    receiver.connect(address)
    peer.close()
    receiver.send(b"is anyone there?")  # answered by ICMP port unreachable
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(address)
        peer.sendto(b"now I am", receiver.getsockname())
        with pytest.raises(ConnectionRefusedError):
            recv_datagrams_nowait(receiver)
        assert recv_datagrams_nowait(receiver) == [(b"now I am", address)]


class Scripted(socket.socket):
    """Whose `recvfrom` follows a script; see `anyio_mmsg` by `recvfrom` alone."""

    script: list[Any]

    def recvfrom(self, size: int, flags: int = 0) -> Any:
        step = self.script.pop(0) if self.script else None
        if step is None:
            raise BlockingIOError
        if isinstance(step, BaseException):
            raise step
        return step, ("192.0.2.1", 9)


def test_an_error_after_datagrams_is_raised_by_the_next_receive(engine: ReceiveEngine) -> None:
    if engine != "recvfrom_into":
        pytest.skip("the script is in Python; recvmmsg's errors are the kernel's")
    with closing(Scripted(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.setblocking(False)
        sock.script = [b"1", InterruptedError(), b"2", ConnectionRefusedError(111, "no"), b"3"]
        assert [data for data, _ in recv_datagrams_nowait(sock)] == [b"1", b"2"]
        with pytest.raises(ConnectionRefusedError):
            recv_mmsg_nowait(sock, PacketBatch())  # whichever receive that is
        assert [data for data, _ in recv_datagrams_nowait(sock)] == [b"3"]
        with pytest.raises(anyio.WouldBlock):
            recv_datagrams_nowait(sock)


async def test_a_closed_socket(inet: Family) -> None:
    receiver = inet.open()
    receiver.close()
    with pytest.raises(anyio.ClosedResourceError), anyio.fail_after(60):
        await recv_datagrams(receiver)
    with pytest.raises(anyio.ClosedResourceError):
        recv_datagrams_nowait(receiver)


async def test_closed_during_the_wait(inet: Family) -> None:
    if not hasattr(anyio, "notify_closing"):
        pytest.skip("anyio.notify_closing came with AnyIO 4.10")
    receiver = inet.open()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:

            async def receive() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await recv_datagrams(receiver)

            tasks.start_soon(receive)
            await wait_all_tasks_blocked()
            anyio.notify_closing(receiver)
            receiver.close()


async def test_another_task_waits_for_the_socket(inet: Family) -> None:
    receiver, sender = inet.pair()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recv_datagrams, receiver)
            await wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await recv_datagrams(receiver)
            sender.send(b"x")


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"limit": 0}, ValueError, "limit is 0"),
    ({"limit": -1}, ValueError, "limit is -1"),
    ({"limit": 1.0}, TypeError, "limit is a float"),
    ({"limit": True}, TypeError, "limit is True, a bool"),
    ({"max_size": 0}, ValueError, "max_size is 0"),
    ({"max_size": "1"}, TypeError, "max_size is a str"),
    ({"max_size": False}, TypeError, "max_size is False, a bool"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD)
async def test_bad_arguments(
    inet: Family, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    receiver, sender = inet.pair()
    sender.send(b"stays")
    with pytest.raises(error, match=words):
        await recv_datagrams(receiver, **arguments)
    with pytest.raises(error, match=words):
        recv_datagrams_nowait(receiver, **arguments)
    assert rest(receiver) == [b"stays"]


async def test_bad_sockets(inet: Family) -> None:
    receiver = inet.open()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
        stream.setblocking(False)
        with pytest.raises(ValueError, match="not a datagram socket"):
            await recv_datagrams(stream)
    receiver.setblocking(True)
    with pytest.raises(ValueError, match="blocking"):
        recv_datagrams_nowait(receiver)
    async with await anyio.create_udp_socket(local_host="127.0.0.1") as udp:
        with pytest.raises(TypeError, match=r"has to be a socket\.socket"):
            await recv_datagrams(udp)  # type: ignore[arg-type]


# Threads


def in_threads(count: int, function: Callable[[int], None]) -> None:
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            function(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_sockets_of_several_threads() -> None:
    """Each thread has its own socket; none gets what is another's."""

    def work(number: int) -> None:
        with Family("inet", None) as family:
            receiver, sender = family.pair()
            for turn in range(200):
                data = b"%d of thread %d" % (turn, number)
                sender.send(data)
                assert recv_datagrams_nowait(receiver) == [(data, sender.getsockname())]

    in_threads(4, work)


def test_a_socket_of_several_threads(inet: Family) -> None:
    receiver, sender = inet.pair()
    got: list[list[bytes]] = [[], [], [], []]
    for number in range(400):
        sender.send(b"%d" % number)

    def work(number: int) -> None:
        while True:
            try:
                found = recv_datagrams_nowait(receiver, 3)
            except anyio.WouldBlock:
                return
            got[number] += [data for data, _ in found]

    in_threads(4, work)
    assert sorted(chain.from_iterable(got)) == sorted(b"%d" % number for number in range(400))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_fork(inet: Family) -> None:
    receiver, sender = inet.pair()
    name = sender.getsockname()
    sender.send(b"before")
    assert recv_datagrams_nowait(receiver) == [(b"before", name)]
    child = os.fork()
    if child == 0:  # no pytest in here
        try:
            sender.send(b"from the child")
            os._exit(0 if recv_datagrams_nowait(receiver) == [(b"from the child", name)] else 1)
        except BaseException:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    sender.send(b"from the parent")
    assert recv_datagrams_nowait(receiver) == [(b"from the parent", name)]


@pytest.mark.skipif(sys.platform != "linux", reason="the error queue is Linux's")
@pytest.mark.parametrize("waiting", [False, True])
async def test_what_the_network_reports(inet: Family, waiting: bool) -> None:
    """Each error once, where no datagram was read; then the datagrams behind it."""
    nobody = unheard(inet.open())
    sock = await open_udp_socket("127.0.0.1", 0, icmp_errors=True)
    with sock, anyio.fail_after(60):
        sock.sendto(b"is anyone there?", nobody)
        with pytest.raises(IcmpError) as caught:
            await recv_datagrams(sock) if waiting else recv_datagrams_nowait(sock)
        assert caught.value.destination == nobody
        sock.sendto(b"behind it", sock.getsockname())
        assert await recv_datagrams(sock) == [(b"behind it", sock.getsockname())]
