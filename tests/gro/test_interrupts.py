"""A handler before every bytecode of what takes a batch of trains, in plain Python.

It raises; or it receives, reads or releases, on the same batch. Then every packet is accounted
for: none lost, none twice, none with another's sender; and the batch goes on. In the compiled
module nothing comes in between; what is around it is tested in tests/trust.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from anyio_mmsg import compiled

from ..interrupts import BeforeOpcode, Interrupt, of_cpython
from .flow import Flow
from .world import World

pytestmark = [
    of_cpython,
    pytest.mark.skipif(compiled, reason="is of the plain path; run with ANYIO_MMSG_COMPILED=0"),
]

# What a step finds


def trains_wait(world: World) -> None:
    world.send(3)


def held(world: World) -> None:
    world.send(5)
    world.receive_if_possible()


def held_and_read(world: World) -> None:
    held(world)
    world.check(keep=True)


def read_around_the_end(world: World) -> None:
    world.send(3)
    world.receive_if_possible()
    world.check(keep=True)
    world.batch.release(6)  # two trains, and two packets of the third
    world.send(4)
    world.receive_if_possible(1)
    world.check(keep=True)


# The steps


def receive(world: World) -> None:
    world.receive_if_possible()


def receive_one(world: World) -> None:
    world.receive_if_possible(1)


def release_some(world: World) -> None:
    world.release_if_possible(5)


def release_one(world: World) -> None:
    world.release_if_possible(1)


def clear(world: World) -> None:
    world.batch.clear()


def iterate(world: World) -> None:
    list(world.batch)


def payloads(world: World) -> None:
    world.batch.payloads()


def addresses(world: World) -> None:
    world.batch.addresses()


def sizes(world: World) -> None:
    world.batch.sizes()


def index(world: World) -> None:
    with contextlib.suppress(IndexError):  # fewer are held
        _ = world.batch[3]


# The handlers

stopped: list[bool] = []  # whether a release was, each time


def stop(world: World) -> None:
    raise Interrupt


def read(world: World) -> None:
    world.check(keep=True)


def release_and_receive(world: World) -> None:
    world.release_if_possible(1)
    world.receive_if_possible()
    world.check(keep=True)


def release_all_and_receive(world: World) -> None:
    world.batch.clear()
    world.receive_if_possible(2)
    world.check(keep=True)


def read_and_release_most(world: World) -> None:
    world.check(keep=True)
    world.release_if_possible(4)


def a_release_that_is_stopped(world: World) -> None:
    """And what stopped it is caught, by something that does not know of it.

    In a thread, since nothing that a handler does counts.
    """

    def release() -> None:
        with contextlib.suppress(Interrupt), BeforeOpcode(12, everywhere=False) as point:
            world.release_if_possible(2)
        stopped.append(point.reached)

    thread = threading.Thread(target=release)
    thread.start()
    thread.join()


SETUPS = [trains_wait, held, held_and_read, read_around_the_end]
STEPS = [
    receive,
    receive_one,
    release_some,
    release_one,
    clear,
    iterate,
    payloads,
    addresses,
    sizes,
    index,
]
HANDLERS = [
    stop,
    read,
    release_and_receive,
    release_all_and_receive,
    read_and_release_most,
    a_release_that_is_stopped,
]
PAIRS = [
    (setup, step)
    for setup in SETUPS
    for step in STEPS
    if setup is not trains_wait or step in (receive, receive_one)
]
Part = Callable[[World], None]


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda part: part.__name__)
@pytest.mark.parametrize(("setup", "step"), PAIRS, ids=lambda part: part.__name__)
def test_whenever_it_comes(setup: Part, step: Part, handler: Part, inet: Flow) -> None:
    at = 0
    while True:
        world = World(inet, "recvfrom_into")
        setup(world)
        interrupted = False
        with BeforeOpcode(at, lambda: handler(world), everywhere=False) as point:  # noqa: B023
            try:
                step(world)
            except Interrupt:
                interrupted = True
        try:
            assert interrupted <= (handler is stop)
            world.finish()
        except AssertionError as error:
            raise AssertionError(f"{error}, interrupted at {point.where}") from error
        if not point.reached:
            return
        at += 1


def test_a_release_that_is_stopped(inet: Flow) -> None:
    """It is, in the middle."""
    stopped.clear()
    test_whenever_it_comes(held_and_read, iterate, a_release_that_is_stopped, inet)
    assert any(stopped)
