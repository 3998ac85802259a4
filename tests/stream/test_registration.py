"""What a loop of asyncio's kind is made to watch: told once, whatever happens to the socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketReceiver, serve_protocol
from anyio_mmsg._stream import registration
from anyio_mmsg._stream.registration import Registration
from anyio_mmsg._system import beacon

from ..helpers import Family, each_asyncio_loop
from ..interrupts import Interrupt, every_bytecode, interrupt
from ..protocol.helpers import Recorder

pytestmark = [pytest.mark.anyio, each_asyncio_loop]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has epoll")


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Seen:
    """A socket with a full queue, and how often a loop has called for it."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.ours, self.theirs = ours, theirs
        self.calls: list[str] = []
        self.registration = Registration(asyncio.get_running_loop(), ours)

    def read(self) -> None:
        self.calls.append("read")
        with contextlib.suppress(OSError):
            self.ours.recv(100)

    def write(self) -> None:
        self.calls.append("write")
        with contextlib.suppress(OSError):
            while True:
                self.ours.send(b"x")

    def fill(self) -> None:
        self.write()
        self.calls.clear()

    def make_room(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.theirs.recv(100)

    async def after(self, what: Callable[[], object]) -> list[str]:
        """Return which functions were called, each once though it may be more often."""
        self.calls.clear()
        what()
        await turns()
        return sorted(set(self.calls))


@pytest.fixture
async def seen(tmp_path: Path) -> Any:
    with contextlib.ExitStack() as stack:
        ours, theirs = (
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) for _ in "12"
        )
        for sock, name in ((ours, "ours"), (theirs, "theirs")):
            sock.setblocking(False)
            sock.bind(str(tmp_path / name))
        ours.connect(theirs.getsockname())
        theirs.connect(ours.getsockname())
        found = Seen(ours, theirs)
        yield found
        found.registration.close()


async def test_each_is_called_for_its_own(seen: Seen) -> None:
    def nothing() -> None:
        pass

    def both() -> None:
        seen.theirs.send(b"x")
        seen.make_room()

    watch = seen.registration.watch
    seen.fill()
    watch(seen.read)
    assert await seen.after(nothing) == []
    assert await seen.after(both) == ["read"]
    seen.fill()
    watch(seen.read, seen.write)
    assert await seen.after(nothing) == []
    assert await seen.after(lambda: seen.theirs.send(b"x")) == ["read"]
    assert await seen.after(seen.make_room) == ["write"]
    assert await seen.after(both) == ["read", "write"]
    watch(None, seen.write)
    assert await seen.after(lambda: seen.theirs.send(b"x")) == []
    assert await seen.after(seen.make_room) == ["write"]
    watch(None)
    assert await seen.after(both) == []
    seen.fill()
    watch(seen.read)
    assert await seen.after(nothing) == ["read"]


async def test_what_the_first_has_stopped_is_not_called(seen: Seen) -> None:
    def stop() -> None:
        seen.read()
        seen.registration.watch(None)

    def close() -> None:
        seen.read()
        seen.registration.close()

    for end in (stop, close):
        seen.registration.watch(end, seen.write)
        assert await seen.after(lambda: seen.theirs.send(b"x")) == ["read"]
    seen.registration.close()  # which does nothing more


@on_linux
async def test_an_error_is_both_and_nothing_is_forgotten(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POLLERR comes again and again, and the loop was told once."""
    told: list[bool] = []
    real = Registration.watch

    def counted(self: Registration, *args: Any) -> None:
        told.append(True)
        real(self, *args)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as third:
        third.bind(seen.theirs.getsockname() + "3")
        seen.fill()
        seen.registration.watch(seen.read, seen.write)
        monkeypatch.setattr(Registration, "watch", counted)

        def turn_away() -> None:  # which drops what it was sent: ECONNRESET
            seen.theirs.connect(third.getsockname())
            seen.theirs.connect(seen.ours.getsockname())

        for _ in range(5):
            assert await seen.after(turn_away) == ["read", "write"]
            assert seen.ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            assert await seen.after(lambda: seen.theirs.send(b"x")) == ["read"]
    assert told == []


async def test_a_transport_tells_the_loop_once(
    inet: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where errors come beside the packets, at which uvloop would forget the socket."""
    told: list[bool] = []
    real = Registration.watch

    def counted(self: Registration, *args: Any) -> None:
        told.append(True)
        real(self, *args)

    monkeypatch.setattr(Registration, "watch", counted)
    ours, peer = inet.open(), inet.open()
    there = peer.getsockname()
    ours.connect(there)
    protocol = Recorder()
    async with anyio.create_task_group() as tasks:
        await tasks.start(serve_protocol, ours, protocol)
        for number in range(1, 6):
            peer.close()
            ours.send(b"to nobody")
            await protocol.until("error", number)
            peer = inet.unbound()
            peer.bind(there)
            peer.sendto(b"x", ours.getsockname())
            await protocol.until("received", number)
        assert len(told) == 1
        protocol.transport.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_child_changes_nothing(seen: Seen) -> None:
    seen.registration.watch(seen.read)
    child = os.fork()
    if not child:
        try:
            seen.registration.watch(None, seen.write)
            seen.registration.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)  # noqa: ASYNC222  # it ends at once
    assert await seen.after(lambda: seen.theirs.send(b"x")) == ["read"]
    seen.fill()
    assert await seen.after(seen.make_room) == []


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Within the block the process can open no descriptor."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path(os.devnull).open("rb") as highest:
        number = highest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_without_descriptors(inet: Family) -> None:
    """An error that says so; later it works."""
    sock, sender = inet.pair()
    errors: list[OSError] = []
    async with PacketReceiver(sock, on_error=errors.append) as receiver:
        with no_descriptors(), pytest.raises(OSError, match="Too many open files") as caught:
            await receiver.receive()
        assert caught.value.errno == errno.EMFILE
        sender.send(b"x")
        (await receiver.receive()).close()
    sock, sender = inet.pair()
    protocol = asyncio.DatagramProtocol()
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        await serve_protocol(sock, protocol)
    assert sock.fileno() >= 0
    async with anyio.create_task_group() as tasks:
        transport = await tasks.start(serve_protocol, sock, protocol)
        transport.close()


@pytest.mark.thorough
async def test_interrupted_and_told_again(seen: Seen) -> None:
    """Whoever repeats what was interrupted has what he asked for."""
    watch, points = seen.registration.watch, 0
    for point in every_bytecode(interrupt, within=[registration, beacon]):
        seen.fill()
        watch(seen.read)
        with point, contextlib.suppress(Interrupt):
            watch(None, seen.write)
        watch(None, seen.write)
        points += point.reached
        assert await seen.after(lambda: seen.theirs.send(b"x")) == [], point.where
        assert await seen.after(seen.make_room) == ["write"], point.where
        with point, contextlib.suppress(Interrupt):
            watch(seen.read, None)
        watch(seen.read, None)
        assert await seen.after(seen.make_room) == ["read"], point.where
    assert points > 20
