"""One filler a ring, whatever ended its guard and whichever thread comes when.

Threads are stopped between two bytecodes, one at each, while others run: nothing is left to luck.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from anyio_mmsg import recv_mmsg_nowait
from anyio_mmsg._packets import compiled
from anyio_mmsg._receive import engine as engines
from anyio_mmsg._receive import functions, recvfrom_into
from anyio_mmsg._system.platform import Recvmmsg, Refused

from ..interrupts import BeforeOpcode, Interrupt, every_bytecode, interrupt, of_cpython
from .world import Sockets, World, sockets

pytestmark = of_cpython
MODULES = [engines, functions, recvfrom_into]


@pytest.fixture(scope="module")
def world_sockets() -> Iterator[Sockets]:
    with sockets() as found:
        yield found


def receive(world: World) -> None:
    with contextlib.suppress(anyio.WouldBlock, anyio.BusyResourceError, RuntimeError):
        recv_mmsg_nowait(world.sockets.receiver, world.batch, 2)


def receive_again(world: World) -> None:
    """After a receive that ends the guard once more."""
    with contextlib.suppress(Interrupt, anyio.BusyResourceError):
        world.slots.source._alone(interrupt)
    receive(world)


class Other:
    """Another thread, which does a step and stops before one of its bytecodes."""

    def __init__(self, step: Callable[[], None], point: BeforeOpcode) -> None:
        self._stopped, self._goes_on = threading.Event(), threading.Event()
        self._step, self._point = step, point
        self._error: BaseException | None = None
        point.handler = self._stop
        self._thread = threading.Thread(target=self._run)

    def run_up_to_there(self) -> None:
        self._thread.start()
        assert self._stopped.wait(30)

    def run_on(self) -> None:
        self._goes_on.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _stop(self) -> None:
        self._stopped.set()
        assert self._goes_on.wait(30)

    def _run(self) -> None:
        try:
            with self._point:
                self._step()
        except BaseException as error:
            self._error = error
        finally:
            self._stopped.set()


@pytest.mark.parametrize("step", [receive, receive_again])
def test_threads_that_replace_an_ended_guard(
    step: Callable[[World], None], world_sockets: Sockets
) -> None:
    """One stops at each bytecode, another meanwhile at each of its own."""
    tried = 0
    for at in itertools.count():
        theirs = BeforeOpcode(at, everywhere=False, within=[recvfrom_into])
        for ours in every_bytecode(everywhere=False, within=[recvfrom_into]):
            world = World(world_sockets, "recvfrom_into")
            world.send(5)
            world.receive(1)
            world.batch.clear()
            with contextlib.suppress(Interrupt):
                world.slots.source._alone(interrupt)  # as an interrupt within a fill does
            theirs = BeforeOpcode(at, everywhere=False, within=[recvfrom_into])
            other = Other(lambda: receive(world), theirs)  # noqa: B023
            ours.handler = other.run_on
            other.run_up_to_there()
            with ours:
                step(world)
            other.run_on()
            try:
                world.finish()
            except Exception as error:
                raise AssertionError(f"{theirs.where} and {ours.where}") from error
            tried += 1
        if not theirs.reached:
            break
    assert tried > 100


def test_an_ended_guard_has_one_successor() -> None:
    """And a thread that comes late, with one of long ago, finds the newest."""
    guard = recvfrom_into._Guard()
    guards = [guard]
    for _ in range(3):
        with pytest.raises(Interrupt):
            guard.turns.send((interrupt, ()))
        guard = guard.successor()
        guards.append(guard)
    assert guards[0].successor() is guards[1]
    assert guards[1].successor() is guards[2]
    assert guards[2].successor() is guard
    assert guard.turns.send((lambda: "in", ())) == "in"


@pytest.mark.skipif(not compiled or Recvmmsg is None, reason="plain Python has one engine")
def test_an_engine_of_another_kind_comes_in_between(
    world_sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each bytecode of a fill: it comes before or after, or is refused."""
    monkeypatch.setattr(Refused, "recvmmsg", Refused.recvmmsg)
    refused = 0

    def fill_by_other() -> None:
        nonlocal refused
        try:
            by_call.fill(world.slots, world_sockets.receiver, 2)
        except RuntimeError as error:
            assert "receiving into" in str(error)  # noqa: PT017
            refused += 1

    by_call: Any = None
    for point in every_bytecode(fill_by_other, within=MODULES):
        world = World(world_sockets, "auto")
        world.send(1)
        Refused.recvmmsg = False
        world.receive(1)
        by_call = world.slots.source
        assert type(by_call) is Recvmmsg
        Refused.recvmmsg = True
        one_by_one = engines.engine_for(world.slots, world_sockets.receiver)
        world.send(4)
        with point:
            one_by_one.fill(world.slots, world_sockets.receiver, 2)
        try:
            world.finish()
        except Exception as error:
            raise AssertionError(f"at {point.where}") from error
    assert refused > 10
