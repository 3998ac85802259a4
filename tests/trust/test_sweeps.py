"""Every public async function, ended at every step of the event loop, and at every bytecode.

By a cancel scope, by `asyncio.Task.cancel`, by `stop` or `aclose` from another task, and by an
exception as a signal handler raises it. Then every packet is accounted for, batches are back in
their pool, no descriptor is left, and the same objects go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import sys
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import anyio_mmsg

from ..interrupts import (
    NEVER,
    ROUNDS,
    BeforeOpcode,
    Interrupt,
    every_bytecode,
    of_cpython,
    unreported,
)
from .scenarios import SCENARIOS, Scenario

pytestmark = [pytest.mark.thorough, pytest.mark.anyio]

STRIDE = 23
"""One of so many bytecodes is tried; with ``ANYIO_MMSG_TRUST_ROUNDS=10`` each."""

STEPS = range(sys.version_info[1] % 2 if ROUNDS < 10 else 0, 200, 2 if ROUNDS < 10 else 1)
"""At which a call is struck: the other half is tried on other versions of Python."""

MOST_STEPS = 16
"""At which a call is struck, where timers and threads have a part in how long it takes."""

CASES = [(name, strike) for name, make in SCENARIOS.items() for strike in make.func.strikes]


async def struck(scenario: Scenario, strike: str, at: int) -> bool:
    """Do the call; strike at that step. Return whether it was over before."""
    over = False
    scope = anyio.CancelScope()
    task: asyncio.Task[None] | None = None

    async def call() -> None:
        nonlocal over
        expected: list[type[BaseException]] = [anyio.ClosedResourceError] * (strike == "aclose")
        expected += [asyncio.CancelledError] * (strike == "task")
        try:
            with scope, contextlib.suppress(*expected):
                await scenario.call()
        finally:
            over = True

    async with anyio.create_task_group() as tasks:
        if strike == "task":
            task = asyncio.get_running_loop().create_task(call())
        else:
            tasks.start_soon(call)
        tasks.start_soon(scenario.beside)
        for number in itertools.count():
            if over or (task is not None and task.done()):  # one may be cancelled before it begins
                await scenario.end()
                return number <= at
            if number == at:
                if task is not None:
                    task.cancel()
                elif strike == "stop":
                    scenario.one.stop()
                elif strike == "aclose":
                    await scenario.one.aclose()
                else:
                    scope.cancel()
            scenario.step(number)
            await checkpoint()
    raise AssertionError


@pytest.mark.parametrize(("name", "strike"), CASES, ids=lambda part: part)
async def test_at_every_step(name: str, strike: str, anyio_backend_name: str) -> None:
    if strike == "task" and anyio_backend_name != "asyncio":
        pytest.skip("only asyncio cancels tasks")
    for at in STEPS:
        with ExitStack() as stack, anyio.fail_after(60):
            scenario: Scenario = SCENARIOS[name](stack)
            over = await struck(scenario, strike, at)
            try:
                await scenario.account(strike)
            except Exception as error:
                raise AssertionError(f"struck at step {at}") from error
        timed = "linger" in name or name == "open_udp_socket"
        if over or (timed and at >= MOST_STEPS):
            return
    raise AssertionError("it never ends")


@of_cpython
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("name", SCENARIOS)
async def test_at_every_bytecode(name: str) -> None:
    """Wherever CPython may run a signal handler."""
    within = [
        module
        for module_name, module in sys.modules.items()
        if module_name.startswith("anyio_mmsg.")
    ]
    with unreported():
        await interrupt_everywhere(name, within)


async def interrupt_everywhere(name: str, within: list[ModuleType]) -> None:
    over = False

    async def go_on(scenario: Scenario) -> None:
        for number in itertools.count():
            if over:
                return
            with BeforeOpcode(NEVER):  # these don't count
                scenario.step(number)
            await checkpoint()

    async def call(scenario: Scenario) -> None:
        await scenario.call()

    under = call.__code__
    for point in every_bytecode(everywhere=False, within=within, under=under, stride=STRIDE):
        with ExitStack() as stack, anyio.fail_after(60):
            scenario: Scenario = SCENARIOS[name](stack)
            over = False
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(go_on, scenario)
                tasks.start_soon(scenario.beside)
                with contextlib.suppress(Interrupt), point:
                    await call(scenario)
                over = True
                await scenario.end()
            try:
                await scenario.account("interrupt" if point.reached else "")
            except Exception as error:
                raise AssertionError(f"interrupted at {point.where}") from error


def test_no_function_is_left_out() -> None:
    """The public async functions and methods are those that the scenarios call."""
    found = set()
    for name in anyio_mmsg.__all__:
        thing: Any = getattr(anyio_mmsg, name)
        if inspect.iscoroutinefunction(thing):
            found.add(name)
        elif inspect.isclass(thing):
            members = vars(thing).items()
            found |= {
                f"{name}.{member}"
                for member, value in members
                if not member.startswith("_") and inspect.iscoroutinefunction(value)
            }
    assert found == {
        "PacketBatchPool.acquire",
        "PacketReceiver.aclose",
        "PacketReceiver.receive",
        "aclose_udp_socket",
        "feed",
        "multi_target_send",
        "open_udp_socket",
        "recv_datagrams",
        "recv_mmsg",
        "recv_mmsg_exact",
        "send_mmsg",
        "serve_protocol",  # in tests/protocol/
    }
