"""What wakes asyncio's loop when a signal comes that `PacketReceiver.stop_on` handles."""

from __future__ import annotations

import errno
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_mmsg import PacketReceiver, open_udp_socket
from anyio_mmsg._compat import asyncio_loop, run_soon
from anyio_mmsg._stream import wakeup as wakeup_module
from anyio_mmsg._stream.wakeup import SignalWakeup

from ..helpers import Family, attempts, each_asyncio_loop, each_program_loop, wakeup_fd
from ..interrupts import every_bytecode, of_cpython

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals as Unix has them"),
]

NUMBER, OTHER = (getattr(signal, name, 0) for name in ("SIGUSR1", "SIGUSR2"))


@pytest.fixture
def ignored() -> Iterator[None]:
    """Within the test a handler does nothing, and the descriptor is put back."""
    was, wakes = signal.signal(NUMBER, lambda number, frame: None), wakeup_fd()
    yield
    assert wakeup_fd() == wakes
    signal.signal(NUMBER, was)


def wait_for_sleep(thread: int) -> None:
    """Wait until a thread of this process sleeps in an event loop, if the system says where."""
    where, status = (Path(f"/proc/self/task/{thread}/{name}") for name in ("wchan", "status"))
    if where.exists():
        before = ""
        for _ in attempts():
            now = where.read_text() + status.read_text()  # with how often it has slept
            if "poll" in now and now == before:
                return
            before = now


@each_program_loop
@pytest.mark.parametrize("inner", [0, 1])
def test_a_signal_that_ends_no_system_call(inner: int, loop: str, ignored: None) -> None:
    """As one that another thread gets, or that comes just before the loop begins to sleep."""
    backend, *uvloop = loop.split("+")
    stopped = threading.Event()
    woken: list[bool] = []

    async def use() -> None:
        main, soon, ended = threading.get_native_id(), run_soon(), anyio.Event()

        def other() -> None:
            wait_for_sleep(main)
            signal.pthread_kill(threading.get_ident(), NUMBER)
            woken.append(stopped.wait(60))
            soon(ended.set)

        async with PacketReceiver(await open_udp_socket("127.0.0.1")) as receiver:
            with receiver.stop_on(NUMBER):
                for _ in range(inner):
                    with receiver.stop_on(NUMBER):
                        pass
                thread = threading.Thread(target=other)
                thread.start()
                async for _ in receiver:
                    raise AssertionError("nobody has sent a packet")
                stopped.set()
                await ended.wait()
                thread.join()

    options = {"use_uvloop": True} if uvloop else {}
    anyio.run(use, backend=backend, backend_options=options)
    assert woken == [True]


@each_asyncio_loop
async def test_blocks_wake_until_the_last_one_ends() -> None:
    """They need not end in the order in which they began. uvloop wakes by itself."""
    wakes = wakeup_fd()
    one, two = SignalWakeup(), SignalWakeup()
    one.begin()
    first = wakeup_fd()
    two.begin()
    second = wakeup_fd()
    assert -1 not in (first, second)
    assert (first == second) == (wakes != -1)
    one.end()
    assert wakeup_fd() == second
    one.begin()
    two.end()
    assert wakeup_fd() == first  # the lowest number that is free, unless it is uvloop's
    for _ in range(2):
        one.end()
        assert wakeup_fd() == wakes


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """What somebody reads, and gives to Python to write to."""
    reads, writes = socket.socketpair()
    with reads, writes:
        reads.setblocking(False)
        writes.setblocking(False)
        yield reads, writes


async def test_what_wakes_a_loop_already_goes_on(
    ignored: None, inet: Family, pair: tuple[socket.socket, socket.socket]
) -> None:
    """What somebody has set before the block, or in it, gets all signals."""
    reads, writes = pair
    wakes = wakeup_fd()
    async with PacketReceiver(inet.open()) as receiver:
        with receiver.stop_on(OTHER):
            signal.set_wakeup_fd(writes.fileno())
            signal.raise_signal(NUMBER)
        assert wakeup_fd() == writes.fileno()
        with receiver.stop_on(OTHER):
            assert wakeup_fd() == writes.fileno()
            signal.raise_signal(NUMBER)
        signal.raise_signal(NUMBER)
        assert signal.set_wakeup_fd(wakes) == writes.fileno()
    assert reads.recv(100) == bytes([NUMBER] * 3)


@of_cpython
async def test_a_signal_while_it_is_asked_who_is_woken(
    ignored: None, pair: tuple[socket.socket, socket.socket]
) -> None:
    """It goes where it would have gone, at each bytecode."""
    reads, writes = pair
    wakes = signal.set_wakeup_fd(writes.fileno())
    wakeup = SignalWakeup()
    for point in every_bytecode(partial(signal.raise_signal, NUMBER), within=[wakeup_module]):
        with point:
            wakeup.begin()
            wakeup.end()
        assert not point.reached or reads.recv(100) == bytes([NUMBER]), point.where
    assert signal.set_wakeup_fd(wakes) == writes.fileno()


async def test_a_flood_of_signals(ignored: None, inet: Family) -> None:
    """More than there is room for."""
    async with PacketReceiver(inet.open()) as receiver:
        with receiver.stop_on(OTHER):
            for _ in range(10_000):
                signal.raise_signal(NUMBER)
            for _ in range(9):
                await checkpoint()
            signal.raise_signal(OTHER)
            with anyio.fail_after(60):
                async for _ in receiver:
                    raise AssertionError("nobody has sent a packet")


async def test_no_descriptor_left(inet: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there is left as it was."""
    wakes = wakeup_fd()
    was = signal.getsignal(OTHER)

    def fails() -> None:
        raise OSError(errno.EMFILE, "no descriptor left")

    monkeypatch.setattr(socket, "socketpair", fails)
    async with PacketReceiver(inet.open()) as receiver:
        with suppress(OSError), receiver.stop_on(OTHER):
            assert asyncio_loop() is None or wakes != -1
        assert (wakeup_fd(), signal.getsignal(OTHER)) == (wakes, was)
