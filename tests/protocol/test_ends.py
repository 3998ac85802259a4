"""KeyboardInterrupt while a transport sends, and a program that goes on with its loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from anyio_mmsg import SendEngine, serve_protocol

from ..helpers import Family
from ..interrupts import every_bytecode, unreported
from .hand_loop import Loop, served_by
from .helpers import Recorder, turns

unix_only = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform"
)
COUNT = 8


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def narrow() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Make pairs of sockets that have room for a few datagrams of 1,000 bytes."""
    with contextlib.ExitStack() as stack:

        def make() -> tuple[socket.socket, socket.socket]:
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for sock in pair:
                stack.enter_context(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                sock.setblocking(False)
            return pair

        yield make


def new_loop(anyio_backend: Any) -> asyncio.AbstractEventLoop:
    if "use_uvloop" in anyio_backend[1]:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.new_event_loop()


class Served:
    """A protocol served on a loop that KeyboardInterrupt leaves, and that goes on."""

    def __init__(self, backend: Any, sock: socket.socket, **then: Any) -> None:
        self.loop = new_loop(backend)
        self.loop.run_until_complete(self._begin(sock, then))
        self.transport: Any = self.protocol.transport

    async def _begin(self, sock: socket.socket, then: Any) -> None:
        self.protocol = Recorder(**then)
        self.task = asyncio.create_task(serve_protocol(sock, self.protocol))
        await self.protocol.until("made")

    def go_on(self, until: Callable[[], bool]) -> int:
        """Run the loop until something is true; return how often it was interrupted."""

        async def wait() -> None:
            for _ in range(1000):
                if until():
                    return
                await asyncio.sleep(0)
            raise AssertionError(self.protocol.names)

        interrupted = 0
        task = self.loop.create_task(wait())
        while not task.done():
            try:
                self.loop.run_until_complete(task)
            except KeyboardInterrupt:
                interrupted += 1
        task.result()
        return interrupted

    def end(self) -> None:
        self.task.cancel()
        self.loop.run_until_complete(asyncio.wait([self.task]))
        self.loop.run_until_complete(turns(2))
        self.loop.close()


@unix_only
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["close", "task"])
def test_pause_writing_is_interrupted(
    anyio_backend: Any, narrow: Any, when: str, how: str
) -> None:
    """The rest goes out, `resume_writing` and the end come, whoever has sent."""
    sock, peer = narrow()
    served = Served(anyio_backend, sock, pause=interrupt)
    transport, protocol = served.transport, served.protocol
    transport.set_write_buffer_limits(100, 50)
    sent = [b"%d" % number * 1000 for number in range(9)]

    async def send() -> None:
        for data in sent:
            with contextlib.suppress(KeyboardInterrupt):
                transport.sendto(data)
        if when == "before" and how == "close":
            transport.close()

    served.loop.run_until_complete(send())
    assert "pause" in protocol.names
    got: list[bytes] = []

    def read() -> bool:
        with contextlib.suppress(BlockingIOError):
            got.append(peer.recv(2000))
        return got == sent

    served.go_on(read)
    if how == "close":
        transport.close()
        served.go_on(lambda: "lost" in protocol.names)
        assert served.task.done()
    else:
        served.go_on(lambda: "resume" in protocol.names)
    served.end()
    assert protocol.calls[-1] == ("lost", None)
    assert sock.fileno() == -1


@pytest.mark.parametrize("count", [1, 3, 5])
def test_error_received_is_interrupted(
    anyio_backend: Any, inet: Family, on_uvloop: bool, count: int
) -> None:
    """Each error is reported once, what comes after it is sent, and `close` ends."""
    sock, peer = inet.open(), inet.open()
    served = Served(anyio_backend, sock, error=interrupt)
    transport, protocol = served.transport, served.protocol

    def send() -> None:
        for number in range(count):
            transport.sendto(b"%d" % number, ("127.0.0.1", 0))
        transport.sendto(b"last", peer.getsockname())
        transport.close()

    served.loop.call_soon(send)
    interrupted = served.go_on(lambda: "lost" in protocol.names)
    assert interrupted == count or (on_uvloop and interrupted)  # which makes another turn
    assert protocol.names == ["made", *["error"] * count, "lost"]
    assert peer.recv(100) == b"last"
    served.loop.run_until_complete(served.task)
    served.end()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_connection_lost_is_interrupted(
    anyio_backend: Any, inet: Family, error: type[BaseException]
) -> None:
    def fail(_: object) -> None:
        raise error

    sock = inet.open()
    served = Served(anyio_backend, sock, lost=fail)
    served.transport.close()
    with pytest.raises(error):
        served.loop.run_until_complete(turns(3))
    served.loop.run_until_complete(served.task)
    served.end()
    assert protocol_ends(served) == 1
    assert sock.fileno() == -1


def protocol_ends(served: Served) -> int:
    return served.protocol.names.count("lost")


# At every bytecode


def turn_until_over(loop: Loop, transport: Any, step: Callable[[], object], where: str) -> None:
    for _ in range(50):
        if transport._over:
            return
        step()
        with contextlib.suppress(KeyboardInterrupt):
            loop.turn()
    raise AssertionError(f"{where}: {transport!r} never ended")


@unix_only
@unreported()
@pytest.mark.parametrize("end", ["close", "abort", "finish"])
def test_without_room_at_every_bytecode(narrow: Any, sending: SendEngine, end: str) -> None:
    """What waits goes out, once and in order, but for one at most; then comes the end, once."""
    sent = [b"%d" % number * 1000 for number in range(COUNT)]
    points = 0
    for before in every_bytecode(interrupt, everywhere=False):
        sock, peer = narrow()
        loop = Loop()
        protocol = Recorder()
        transport = served_by(loop, sock, "auto", sending, protocol)
        for data in sent:
            transport.sendto(data)
        got: list[bytes] = []

        def read(peer: socket.socket = peer, got: list[bytes] = got) -> None:
            with contextlib.suppress(BlockingIOError):
                got.append(peer.recv(2000))

        with before, contextlib.suppress(KeyboardInterrupt):
            transport.set_write_buffer_limits(5500, 2100)
            loop.turn()
            read()
            read()
            loop.turn()
            getattr(transport, end)()
            read()
            loop.turn()
        getattr(transport, end)()
        turn_until_over(loop, transport, read, before.where)
        read_rest(peer, got)
        if end == "close":
            missing = [data for data in sent if data not in got]
            assert len(missing) <= 1, before.where
            assert got == [data for data in sent if data not in missing], before.where
        else:
            assert got == [data for data in sent if data in got], before.where
        assert protocol.names.count("lost") == 1, before.where
        assert transport._over, before.where
        assert sock.fileno() == -1, before.where
        assert not loop.readers, before.where
        assert not loop.writers, before.where
        points += before.reached
    assert points > 20


def read_rest(peer: socket.socket, got: list[bytes]) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(peer.recv(2000))


@unreported()
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_refused_at_every_bytecode(inet: Family, sending: SendEngine, count: int) -> None:
    """Each error is reported, once, but for one at most."""
    points = 0
    for before in every_bytecode(interrupt, everywhere=False):
        sock, peer = inet.open(), inet.open()
        loop = Loop()
        protocol = Recorder()
        transport = served_by(loop, sock, "auto", sending, protocol)
        for number in range(count):
            transport.sendto(b"%d" % number, ("127.0.0.1", 0))
            transport.sendto(b"%d" % number, peer.getsockname())
        with before, contextlib.suppress(KeyboardInterrupt):
            loop.turn()
            loop.turn()
        transport.close()
        turn_until_over(loop, transport, lambda: None, before.where)
        got: list[bytes] = []
        read_rest(peer, got)
        missing = 2 * count - len(got) - protocol.names.count("error")
        assert 0 <= missing <= 1, before.where
        assert got == sorted(set(got)), before.where
        points += before.reached
        sock.close()
        peer.close()
    assert points > 20
