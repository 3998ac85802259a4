"""A handler before every bytecode of what takes a batch of trains, in plain Python.

It raises. Then every packet is accounted for: none lost, none twice, none with another's sender;
and the batch goes on, once a release that was interrupted is done again. In the compiled module
nothing comes in between; what is around it is tested in tests/trust.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from anyio_mmsg import compiled

from ..interrupts import BeforeOpcode, Interrupt, interrupt, of_cpython
from .flow import Flow
from .world import World

pytestmark = [
    pytest.mark.thorough,
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
AGAIN = [release_some, release_one, clear]
PAIRS = [
    (setup, step)
    for setup in SETUPS
    for step in STEPS
    if setup is not trains_wait or step in (receive, receive_one)
]
Part = Callable[[World], None]


@pytest.mark.parametrize(("setup", "step"), PAIRS, ids=lambda part: part.__name__)
def test_whenever_it_comes(setup: Part, step: Part, inet: Flow) -> None:
    at = 0
    while True:
        world = World(inet, "recvfrom_into")
        setup(world)
        with BeforeOpcode(at, interrupt) as point:
            try:
                step(world)
            except Interrupt:
                if step in AGAIN:
                    step(world)
        try:
            world.finish()
        except AssertionError as error:
            raise AssertionError(f"{error}, interrupted at {point.where}") from error
        if not point.reached:
            return
        at += 1
