"""Signals of a real timer, some ten thousand a second, while batches are used.

In the suite some thousands of them; ``ANYIO_MMSG_TRUST_ROUNDS=100`` makes them a hundred times as
many.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from anyio_mmsg import BatchFullError, ReceiveEngine, recv_mmsg_nowait

from ..interrupts import Interrupt
from .test_interrupts import HANDLERS, ask_addresses, closes, read
from .world import World, sockets

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        not hasattr(signal, "setitimer"), reason="no interval timers on this platform"
    ),
    # An interrupt in a finalizer or in a callback of the collector ends there.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Timer:
    """Has `handler` called by signals, wherever the interpreter is; only inside `during`.

    Attributes:
        calls: How often it was.
    """

    def __init__(self, handler: Callable[[], object]) -> None:
        self._handler = handler
        self._armed = False
        self._rng = random.Random(5)
        self.calls = 0

    def __enter__(self) -> Timer:
        self._before = signal.signal(signal.SIGALRM, self._arrived)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def _arrived(self, number: int, frame: Any) -> None:
        if self._armed:
            self._armed = False  # one for each step, so that what is interrupted gets on
            self.calls += 1
            self._handler()

    def during(self, step: Callable[[], object]) -> bool:
        """Do `step`, which a signal may interrupt after some microseconds; return whether one has.

        If it came too late for `step`, it comes never.
        """
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, self._rng.uniform(2e-6, 50e-6))
            step()
            self._armed = False
        except Interrupt:
            return True
        return False


@pytest.mark.parametrize("handler", [handler for handler in HANDLERS if handler is not closes])
def test_packets(
    engine: ReceiveEngine, handler: Callable[[World], object], trust_rounds: int
) -> None:
    rng = random.Random(6)
    with sockets() as found:
        world = World(found, engine, 16)

        def handle() -> None:
            with contextlib.suppress(anyio.BusyResourceError):
                handler(world)

        def release() -> None:
            with contextlib.suppress(ValueError):  # a handler has released as many
                world.batch.release(min(2, len(world.batch)))

        def clear() -> None:
            world.batch.clear()

        steps: list[Callable[[], object]] = [
            lambda: world.receive_if_possible(rng.choice([1, 3, 64])),
            lambda: world.receive_if_possible(),
            lambda: read(world),
            lambda: ask_addresses(world),
            lambda: (world.batch.payloads(), world.batch.addresses(), world.batch.sizes()),
            release,
            clear,
        ]
        wanted = 300 * trust_rounds
        with Timer(handle) as timer:
            while timer.calls < wanted:
                if world.sent - world.slots.tail < 30:
                    world.send(rng.randint(0, 4))
                step, held = rng.choice(steps), len(world.batch)
                if timer.during(step) and step in (release, clear) and len(world.batch) == held:
                    step()  # it was not done, and has to be done again
                if world.kept and rng.random() < 0.1:
                    world.check(keep=True)
                    world.kept = world.kept[-50:]
        world.finish()


@contextlib.contextmanager
def failing_calls() -> Iterator[Callable[[], None]]:
    """What a handler may do that leaves another errno: EPERM, EACCES, EBADF, ENOENT, EINVAL."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:

        def fail() -> None:
            for call in (
                lambda: os.close(-1),
                lambda: os.kill(1, 0) if os.getuid() else os.chroot("/nowhere/at/all"),
                lambda: Path("/nowhere/at/all").stat(),
                lambda: sock.sendto(b"x", ("127.0.0.1", 0)),
                lambda: sock.sendto(b"x", ("255.255.255.255", 9)),
            ):
                with contextlib.suppress(OSError):
                    call()

        yield fail


def test_errno(engine: ReceiveEngine, trust_rounds: int) -> None:
    """An empty socket is an empty socket, whatever errno a handler leaves."""
    with sockets() as found, failing_calls() as fail:
        world = World(found, engine, 4)
        engines = set()

        def receive() -> None:
            with contextlib.suppress(anyio.WouldBlock, BatchFullError):
                recv_mmsg_nowait(found.receiver, world.batch)

        wanted = 1000 * trust_rounds
        with Timer(fail) as timer:
            while timer.calls < wanted:
                if world.sent == world.slots.tail and timer.calls % 3 == 0:
                    world.send(1)
                timer.during(receive)
                engines.add(type(world.slots.filler.engine))
                world.batch.clear()
        assert len(engines) == 1, "the system was taken to refuse the call"
        world.finish()
