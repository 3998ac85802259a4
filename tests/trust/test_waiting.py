"""A handler before every bytecode of the receive functions that wait, on every event loop."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_mmsg import recv_mmsg, recv_mmsg_exact
from anyio_mmsg._packets.batch import is_busy

from ..interrupts import NEVER, BeforeOpcode, Interrupt, of_cpython
from .test_interrupts import raises, uses_others
from .world import World, sockets

pytestmark = [pytest.mark.thorough, pytest.mark.anyio, of_cpython]


async def some(world: World) -> None:
    await recv_mmsg(world.sockets.receiver, world.batch, 2)


async def exactly(world: World) -> None:
    await recv_mmsg_exact(world.sockets.receiver, world.batch, 3)


@pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
@pytest.mark.parametrize("handler", [raises, uses_others])
@pytest.mark.parametrize("function", [some, exactly])
@pytest.mark.parametrize("waiting", [False, True], ids=["there", "awaited"])
async def test_at_every_bytecode(
    function: Any, handler: Callable[[World], object], waiting: bool
) -> None:
    with sockets() as found:
        at, rehearsals = NEVER, 1
        while True:
            world = World(found, "auto")
            world.send(1)
            world.receive(1)
            if not waiting:
                world.send(3)
            point = BeforeOpcode(at, partial(handler, world), everywhere=handler is raises)
            async with anyio.create_task_group() as tasks:
                if waiting:
                    tasks.start_soon(send_later, world)
                with point, contextlib.suppress(Interrupt):
                    await function(world)
            try:
                assert not is_busy(world.slots), "a guard is stuck"
                world.finish()
            except Exception as error:
                raise AssertionError(f"at {point.where}") from error
            if rehearsals:
                at, rehearsals = 0, 0
                continue
            if not point.reached:
                break
            at += 1
        assert at > 10, "too few bytecodes to be true"
    gc.collect()  # what was never awaited, while it is ignored


async def send_later(world: World) -> None:
    for _ in range(3):
        await checkpoint()
        world.send(1)
