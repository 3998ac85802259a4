"""`PacketReceiver.stop_on`: signals that stop a receiver, and what they do before and after."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from anyio import to_thread, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import PacketReceiver
from anyio_mmsg._stream import signals as signals_module
from anyio_mmsg._stream import wakeup as wakeup_module
from anyio_mmsg._stream.signals import Handler

from ..helpers import Family, attempts, contents, each_program_loop, wakeup_fd
from ..interrupts import HandlerError, every_bytecode, fail, of_cpython, unreported

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no SIGUSR1 here"),
]


class Before:
    """A handler that was there before, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, number: int, frame: Any) -> None:
        self.calls += 1


ONE, TWO = (getattr(signal, name, 0) for name in ("SIGUSR1", "SIGUSR2"))


@pytest.fixture
def before() -> Iterator[Before]:
    handler = Before()
    replaced = {number: signal.signal(number, handler) for number in (ONE, TWO)}
    yield handler
    assert [signal.getsignal(number) for number in (ONE, TWO)] == [handler, handler]
    for number, was in replaced.items():
        signal.signal(number, was)


async def the_rest(receiver: PacketReceiver) -> list[bytes]:
    got = []
    with anyio.fail_after(60):
        async for batch in receiver:
            with batch:
                got += contents(batch)
    return got


async def test_the_first_signal_stops_it(before: Before, inet: Family) -> None:
    """What has arrived is handed out. The second signal does what it did before."""
    sock, sender = inet.pair()
    async with PacketReceiver(sock) as receiver:
        with receiver.stop_on(ONE, TWO):
            sender.send(b"arrived")
            signal.raise_signal(ONE)
            assert (receiver.stopped, before.calls) == (True, 0)
            signal.raise_signal(TWO)
            signal.raise_signal(ONE)
            assert before.calls == 2
            assert await the_rest(receiver) == [b"arrived"]
        signal.raise_signal(ONE)
        assert before.calls == 3


async def test_it_wakes_a_task_that_waits(before: Before, inet: Family) -> None:
    got: list[bytes] = []
    async with PacketReceiver(inet.open()) as receiver, anyio.create_task_group() as nursery:

        async def receive() -> None:
            got.extend(await the_rest(receiver))
            got.append(b"the end")

        with receiver.stop_on(ONE):
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            signal.raise_signal(ONE)
            with anyio.fail_after(60):
                while not got:
                    await checkpoint()
    assert got == [b"the end"]


async def test_after_the_block_signals_do_what_they_did(before: Before, inet: Family) -> None:
    async with PacketReceiver(inet.open()) as receiver:
        with receiver.stop_on(ONE, ONE, TWO):
            pass
        signal.raise_signal(ONE)
        assert (receiver.stopped, before.calls) == (False, 1)


async def test_several_receivers(before: Before, inet: Family) -> None:
    """The first signal that concerns several stops all of these, and no other."""
    receivers = [PacketReceiver(inet.open()) for _ in range(4)]
    with receivers[0].stop_on(ONE), receivers[1].stop_on(TWO), receivers[2].stop_on(ONE, TWO):
        with receivers[3].stop_on(ONE):
            pass
        signal.raise_signal(ONE)
        assert [one.stopped for one in receivers] == [True, False, True, False]
        signal.raise_signal(ONE)
        assert before.calls == 1
        signal.raise_signal(TWO)
        assert [one.stopped for one in receivers] == [True, True, True, False]
        assert before.calls == 1
        signal.raise_signal(TWO)
        assert before.calls == 2
    for one in receivers:
        await one.aclose()


@pytest.mark.parametrize("fires", [False, True])
async def test_blocks_that_overlap(fires: bool, before: Before, inet: Family) -> None:
    """As those of two tasks may. Handlers that are put back after their end are transparent."""
    one, two = PacketReceiver(inet.open()), PacketReceiver(inet.open())
    async with one, two:
        first, second = Handler(one.stop, None), Handler(two.stop, None)
        foreign = Before()
        first.handle(ONE)
        under_foreign = signal.signal(ONE, foreign)
        second.handle(ONE)
        first.end()
        if fires:
            signal.raise_signal(ONE)
            assert (one.stopped, two.stopped, foreign.calls, before.calls) == (False, True, 0, 0)
            signal.raise_signal(ONE)
            assert (foreign.calls, before.calls) == (1, 0)
        second.end()
        assert signal.getsignal(ONE) is foreign
        signal.signal(ONE, under_foreign)  # which ended long ago
        signal.raise_signal(ONE)
        assert (one.stopped, before.calls) == (False, 1)
        signal.signal(ONE, before)


async def test_nothing_is_beneath_but_the_systems_own(inet: Family) -> None:
    """A handler that was put back after its end does what the system does: here nothing."""
    was = signal.signal(ONE, signal.SIG_IGN)
    try:
        async with PacketReceiver(inet.open()) as receiver:
            handler = Handler(receiver.stop, None)
            handler.handle(ONE)
            handler.end()
            signal.signal(ONE, handler)
            signal.raise_signal(ONE)
            assert not receiver.stopped
    finally:
        signal.signal(ONE, was)


@of_cpython
async def test_an_interrupt_at_every_bytecode(before: Before, inet: Family) -> None:
    """Whatever it keeps from happening, the handlers are as they were, and what wakes the loop."""
    interrupted = 0
    modules = [signals_module, wakeup_module]
    async with PacketReceiver(inet.open()) as receiver:
        wakes = wakeup_fd()
        with unreported():  # a socket that is not kept yet is closed by collection, with a warning
            for point in every_bytecode(fail, everywhere=False, within=modules):
                try:
                    with point, receiver.stop_on(ONE, TWO, grace=1):
                        pass
                except HandlerError:
                    interrupted += 1
                assert [signal.getsignal(number) for number in (ONE, TWO)] == [before, before]
                assert (wakeup_fd(), wakeup_module._ours) == (wakes, [])
                await checkpoint()  # no scope is left that would end this
        assert not receiver.stopped
    assert interrupted > 20


async def test_grace(before: Before, inet: Family) -> None:
    """A block that does not end in time is cancelled."""
    async with PacketReceiver(inet.open()) as receiver:
        with anyio.fail_after(60):
            with receiver.stop_on(ONE, grace=0) as scope:
                signal.raise_signal(ONE)
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        with receiver.stop_on(ONE, grace=100) as scope:
            signal.raise_signal(ONE)
            for _ in attempts():
                await checkpoint()
                if scope.deadline < float("inf"):
                    break
            assert 90 < scope.deadline - anyio.current_time() <= 100
        assert not scope.cancelled_caught


async def test_a_signal_at_the_end_of_the_block(before: Before, inet: Family) -> None:
    """The deadline that the loop is to set comes too late."""
    async with PacketReceiver(inet.open()) as receiver:
        with receiver.stop_on(ONE, grace=0) as scope:
            signal.raise_signal(ONE)
        await wait_all_tasks_blocked()
        assert (scope.deadline, scope.cancel_called) == (float("inf"), False)


async def test_an_error_in_the_block(before: Before, inet: Family) -> None:
    async with PacketReceiver(inet.open()) as receiver:
        with pytest.raises(ZeroDivisionError), receiver.stop_on(ONE, grace=1):
            raise ZeroDivisionError


async def test_default_and_ignored(inet: Family) -> None:
    """Signals without a handler of Python's code."""
    async with PacketReceiver(inet.open()) as receiver:
        was = signal.signal(ONE, signal.SIG_IGN)
        try:
            for handler in (signal.SIG_IGN, signal.SIG_DFL):
                signal.signal(ONE, handler)
                with receiver.stop_on(ONE):
                    signal.raise_signal(ONE)
                    assert signal.getsignal(ONE) == handler
                assert receiver.stopped
        finally:
            signal.signal(ONE, was)


async def test_in_another_thread(inet: Family) -> None:
    async with PacketReceiver(inet.open()) as receiver:

        def other() -> None:
            with receiver.stop_on(ONE):
                pass

        with pytest.raises(RuntimeError, match=r"main thread alone.*call receiver\.stop\(\)"):
            await to_thread.run_sync(other)


@pytest.mark.parametrize(
    ("arguments", "grace", "error", "sentence"),
    [
        ((), None, ValueError, "no signals; give some"),
        (("SIGTERM",), None, TypeError, "'SIGTERM' is not a signal"),
        ((True,), None, TypeError, "True is not a signal"),
        ((signal.SIGTERM,), -1, ValueError, "grace is -1; give seconds"),
        ((signal.SIGTERM,), float("nan"), ValueError, "grace is nan; give seconds"),
        ((signal.SIGTERM,), "8", TypeError, "grace is a str; give seconds"),
    ],
)
async def test_bad_arguments(
    arguments: Any, grace: Any, error: type[Exception], sentence: str, inet: Family
) -> None:
    async with PacketReceiver(inet.open()) as receiver:
        with pytest.raises(error, match=sentence):
            receiver.stop_on(*arguments, grace=grace)


async def test_what_cannot_be_handled(before: Before, inet: Family) -> None:
    """The others are as they were."""
    async with PacketReceiver(inet.open()) as receiver:
        with pytest.raises(OSError), receiver.stop_on(ONE, signal.SIGKILL):
            raise AssertionError("SIGKILL is handled")
        assert signal.getsignal(ONE) is before


# Programs, and signals from elsewhere

PROGRAM = """
import asyncio, signal, sys
import anyio
from anyio_mmsg import PacketReceiver, open_udp_socket

async def main():
    receiver = PacketReceiver(await open_udp_socket("127.0.0.1"))
    async with receiver:
        with receiver.stop_on(signal.SIGINT, signal.SIGTERM):
            print("ready", flush=True)
            async for batch in receiver:
                batch.close()
            print("stopped", flush=True)
            if "hang" in sys.argv:
                await anyio.sleep_forever()
    print("closed", flush=True)

backend, *_ = sys.argv[1].split("+")
options = {"use_uvloop": True} if sys.argv[1] == "asyncio+uvloop" else {}
try:
    anyio.run(main, backend=backend, backend_options=options)
except (KeyboardInterrupt, asyncio.CancelledError):  # the latter of AnyIO on Python 3.10
    print("KeyboardInterrupt", flush=True)
"""


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program, from when its block of `stop_on` has begun; kill it at the end."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@each_program_loop
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_program_ends(number: signal.Signals, loop: str) -> None:
    with program(loop) as process:
        process.send_signal(number)
        assert process.communicate(timeout=60)[0] == "stopped\nclosed\n"
        assert process.returncode == 0


@each_program_loop
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_second_interrupt_ends_a_program_that_hangs(first: signal.Signals, loop: str) -> None:
    with program(loop, "hang") as process:
        process.send_signal(first)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopped\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "KeyboardInterrupt\n"
        assert process.returncode == 0


@each_program_loop
def test_a_second_sigterm_kills_a_program_that_hangs(loop: str) -> None:
    with program(loop, "hang") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopped\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == -signal.SIGTERM


def test_a_run_in_the_background() -> None:
    """A shell has its background jobs ignore SIGINT, and what they start. These tests don't."""
    test = f"{__file__}::test_a_second_interrupt_ends_a_program_that_hangs[SIGINT-asyncio]"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    ignore = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    execute = "os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", f"{ignore}; {execute}", *command],
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
    )
    assert "1 passed" in done.stdout
