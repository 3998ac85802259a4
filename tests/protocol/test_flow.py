"""A socket without room: the protocol is paused, nothing is lost, and the end may wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from anyio_mmsg import SendEngine, serve_protocol

from .helpers import Recorder, serving, turns

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform"),
]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket and its peer, whose queue takes some packets and then no more."""
    with contextlib.ExitStack() as stack:
        sock, peer = (
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) for _ in "ab"
        )
        for one, name in ((sock, "sock"), (peer, "peer")):
            one.setblocking(False)
            one.bind(str(tmp_path / name))
        sock.connect(peer.getsockname())
        yield sock, peer


def fill(protocol: Recorder) -> int:
    """Send numbered datagrams until the protocol is paused; return how many."""
    count = 0
    while "pause" not in protocol.names:
        assert count < 100_000
        protocol.transport.sendto(b"%d" % count)
        count += 1
    return count


async def read(peer: socket.socket, count: int) -> list[bytes]:
    got: list[bytes] = []
    with anyio.fail_after(60):
        while len(got) < count:
            try:
                got.append(peer.recv(100))
            except BlockingIOError:
                await asyncio.sleep(0)
    return got


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


async def test_pause_and_resume(way: str, pair: tuple[socket.socket, socket.socket]) -> None:
    sock, peer = pair
    async with serving(way) as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        transport.set_write_buffer_limits(1000, 900)
        count = fill(protocol)
        assert transport.get_write_buffer_size() > 1000
        await turns(5)
        for number in range(count, count + 3):  # one that is paused may go on
            transport.sendto(b"%d" % number)
        assert protocol.names == ["made", "pause"]
        got = await read(peer, count + 3)
        await protocol.until("resume")
        transport.sendto(b"again")
        got += await read(peer, 1)
        # Python 3.13.0's own counts headers when they come in, and not when they go out.
        assert way == "loop" or transport.get_write_buffer_size() == 0
    assert got == [*numbered(count + 3), b"again"]
    assert protocol.names == ["made", "pause", "resume", "lost"]


async def test_close_sends_what_waits(way: str, pair: tuple[socket.socket, socket.socket]) -> None:
    sock, peer = pair
    async with serving(way) as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        transport.set_write_buffer_limits(100, 10)
        count = fill(protocol)
        transport.close()
        await turns(5)
        assert protocol.names == ["made", "pause"]
        assert await read(peer, count) == numbered(count)
        await protocol.until("lost")
    assert protocol.calls[-1] == ("lost", None)


@pytest.mark.usefixtures("not_uvloops")
async def test_abort_drops_what_waits(way: str, pair: tuple[socket.socket, socket.socket]) -> None:
    sock, peer = pair
    async with serving(way) as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        transport.set_write_buffer_limits(100, 10)
        count = fill(protocol)
        transport.abort()
        await protocol.until("lost")
        assert transport.is_closing()
    got: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(peer.recv(100))
    assert got == numbered(len(got))
    assert len(got) < count


async def test_a_cancellation_tries_what_waits_once(
    sending: SendEngine, pair: tuple[socket.socket, socket.socket]
) -> None:
    sock, peer = pair
    protocol = Recorder()
    got: list[bytes] = []
    count = 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve_protocol(sock, protocol, send_engine=sending))
        await protocol.until("made")
        protocol.transport.set_write_buffer_limits(100, 10)
        count = fill(protocol)
        got += [peer.recv(100), peer.recv(100)]  # there is room for some
        tasks.cancel_scope.cancel()
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(peer.recv(100))
    assert got == numbered(len(got))
    assert 2 < len(got) < count
    assert protocol.names == ["made", "pause", "lost"]
    assert sock.fileno() == -1


async def test_what_is_below_the_mark_goes_out_at_the_end_of_the_turn(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sock, peer = pair
    async with serving("ours") as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        transport.set_write_buffer_limits(0)  # none
        transport.sendto(b"at once")
        assert peer.recv(100) == b"at once"
        transport.set_write_buffer_limits(100)
        transport.sendto(b"x" * 92)
        assert transport.get_write_buffer_size() == 100
        with pytest.raises(BlockingIOError):
            peer.recv(100)
        transport.sendto(b"y")
        assert transport.get_write_buffer_size() == 0
        assert (peer.recv(100), peer.recv(100)) == (b"x" * 92, b"y")
    assert protocol.names == ["made", "lost"]


async def test_many_datagrams_wait(
    sending: SendEngine, pair: tuple[socket.socket, socket.socket]
) -> None:
    """More than one system call takes, and more than the protocol should have sent."""
    sock, peer = pair
    async with serving("ours", send_engine=sending) as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        transport.set_write_buffer_limits(2000)
        for number in range(3000):
            transport.sendto(b"%d" % number)
        assert await read(peer, 3000) == numbered(3000)
        await protocol.until("resume")
    assert protocol.names == ["made", "pause", "resume", "lost"]
