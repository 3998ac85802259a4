"""A loop that forgets what it watches, and the context in which it calls."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from ..helpers import Family, nowhere
from .helpers import Recorder, serving, turns

pytestmark = pytest.mark.anyio
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has an error queue")

# linux/net_tstamp.h: TX_SOFTWARE, SOFTWARE, OPT_TSONLY; the first has the kernel queue a message
# for each packet that leaves.
SO_TIMESTAMPING, TX_TIMESTAMPS = 37, 1 << 1 | 1 << 4 | 1 << 11


@on_linux
@pytest.mark.parametrize("when", ["in the callback", "in a task"])
async def test_a_server_that_reads_transmit_timestamps(inet: Family, when: str) -> None:
    """Each answer leaves a message in the error queue: POLLERR comes beside the next question."""
    sock, client = inet.pair()
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_TIMESTAMPS)
    stamps: list[bytes] = []

    def read_stamps() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, *_ = sock.recvmsg(100, 500, socket.MSG_ERRQUEUE)
                stamps.append(data)

    def answer(data: bytes, address: Any) -> None:
        if when == "in the callback":
            read_stamps()
        protocol.transport.sendto(data, address)

    async def ask() -> None:
        for number in range(300):
            client.send(b"%d" % number)
            while True:
                with contextlib.suppress(BlockingIOError):
                    assert client.recv(100) == b"%d" % number
                    break
                await asyncio.sleep(0)
                if when == "in a task":
                    read_stamps()

    async with serving("ours") as start:
        protocol = Recorder(received=answer)
        await start(sock, protocol)
        with anyio.fail_after(60):
            await ask()
        read_stamps()
    assert len(protocol.received) == 300
    assert len(stamps) == 300  # or the kernel did not do what this is about
    assert set(protocol.names) == {"made", "received", "lost"}


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[list[socket.socket]]:
    """Two sockets that are connected to each other, and one beside them."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for name in ("ours", "theirs", "third"):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            sock.setblocking(False)
            sock.bind(str(tmp_path / name))
            sockets.append(sock)
        sockets[0].connect(sockets[1].getsockname())
        sockets[1].connect(sockets[0].getsockname())
        yield sockets


@on_linux
@pytest.mark.parametrize("waits", [False, True], ids=["reader", "reader and writer"])
async def test_an_error_that_something_else_takes(
    unix: list[socket.socket], inet: Family, waits: bool
) -> None:
    """The loop was woken by POLLERR, and whoever is called finds data and room, but no error."""
    ours, theirs, third = unix
    first, trigger = inet.pair()
    taken: list[int] = []

    def take() -> None:
        first.recv(1)
        taken.append(ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    loop = asyncio.get_running_loop()
    got: list[bytes] = []
    async with serving("ours") as start:
        protocol = Recorder()
        transport: Any = await start(ours, protocol)
        transport.set_write_buffer_limits(100, 10)
        count = 0
        while waits and "pause" not in protocol.names:
            transport.sendto(b"%d" % count)
            count += 1
        for _ in range(2 * count):  # more than their queue takes at once
            transport.sendto(b"%d" % count)
            count += 1
        if not waits:
            ours.send(b"something to lose")
        loop.add_reader(first, take)
        await turns(3)
        # It is served first. Then ours: a peer that turns away drops what it had been sent, and
        # that is an error (unix_dgram_disconnected).
        trigger.send(b"x")
        theirs.connect(third.getsockname())
        theirs.connect(ours.getsockname())
        theirs.send(b"beside the error")
        await protocol.until("received")
        assert taken == [errno.ECONNRESET]
        loop.remove_reader(first)
        theirs.send(b"after it")
        await protocol.until("received", 2)
        with anyio.fail_after(60):
            while waits and got[-1:] != [b"%d" % (count - 1)]:
                with contextlib.suppress(BlockingIOError):
                    got.append(theirs.recv(100))
                await asyncio.sleep(0)
        if waits:
            await protocol.until("resume")
    assert protocol.received == [b"beside the error", b"after it"]


# Contexts

whose = contextvars.ContextVar("whose", default="nobody's")


async def in_another_context(function: Any, *arguments: Any) -> None:
    """Call a function as a task of another request does."""

    async def request() -> None:
        whose.set("a request's")
        function(*arguments)

    await asyncio.create_task(request())


class Witness(Recorder):
    """Notes whose context each method is called in."""

    def __init__(self) -> None:
        super().__init__()
        self.contexts: set[tuple[str, str]] = set()

    def _note(self, method: str, *arguments: Any) -> None:
        self.contexts.add((method, whose.get()))
        super()._note(method, *arguments)


@pytest.mark.parametrize("refused", ["at once", "too long", "both", "nothing"])
async def test_datagrams_come_in_the_context_of_the_start(inet: Family, refused: str) -> None:
    sock, sender = inet.pair()
    address = sender.getsockname()
    whose.set("the start's")
    async with serving("ours") as start:
        protocol = Witness()
        transport = await start(sock, protocol)
        whose.set("changed")
        await turns(2)
        if refused in ("at once", "both"):
            await in_another_context(transport.sendto, b"x", (address[0], 0))
            await in_another_context(transport.sendto, b"x", nowhere(inet)[0])
            await protocol.until("error", 2)
        if refused in ("too long", "both"):
            await in_another_context(transport.sendto, b"x" * 65_508, address)
            await protocol.until("error", 1 if refused == "too long" else 3)
        for number in range(3):
            sender.send(b"%d" % number)
            await protocol.until("received", number + 1)
        await in_another_context(transport.close)
        await protocol.until("lost")
    calls = {"made", "received", "lost"} | ({"error"} if refused != "nothing" else set())
    assert protocol.contexts == {(call, "the start's") for call in calls}


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_flow_control_in_the_context_of_the_start(
    unix: list[socket.socket], how: str
) -> None:
    ours, theirs, _ = unix
    whose.set("the start's")
    async with serving("ours") as start:
        protocol = Witness()
        transport: Any = await start(ours, protocol)
        whose.set("changed")
        transport.set_write_buffer_limits(100, 10)

        def fill() -> None:
            while "pause" not in protocol.names:
                transport.sendto(b"x")

        await in_another_context(fill)
        with anyio.fail_after(60):
            while "resume" not in protocol.names:
                with contextlib.suppress(BlockingIOError):
                    theirs.recv(100)
                await asyncio.sleep(0)
        theirs.send(b"x")
        await protocol.until("received")
        protocol.calls.clear()
        await in_another_context(fill)
        await in_another_context(transport.set_write_buffer_limits, 10**6)
        await in_another_context(transport.set_write_buffer_limits, 0)
        if how == "close":
            await in_another_context(transport.close)
            with anyio.fail_after(60):
                while "lost" not in protocol.names:
                    with contextlib.suppress(BlockingIOError):
                        theirs.recv(100)
                    await asyncio.sleep(0)
        else:
            await in_another_context(transport.abort)
            await protocol.until("lost")
    calls = {"made", "received", "pause", "resume", "lost"}
    assert protocol.contexts == {(call, "the start's") for call in calls}


async def test_reading_resumed_in_another_context(inet: Family) -> None:
    sock, sender = inet.pair()
    whose.set("the start's")
    async with serving("ours") as start:
        protocol = Witness()
        transport: Any = await start(sock, protocol)
        await in_another_context(transport.pause_reading)
        sender.send(b"0")
        await turns(3)
        assert protocol.names == ["made"]
        await in_another_context(transport.resume_reading)
        await protocol.until("received")
        sender.send(b"1")
        await protocol.until("received", 2)
    assert {call for call in protocol.contexts if call[0] == "received"} == {
        ("received", "the start's")
    }
