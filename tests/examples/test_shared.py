"""What the examples share, alone: stopping on signals, rates, intervals."""

from __future__ import annotations

import os
import signal
from typing import Any

import anyio
import pytest

from .helpers import load, without_signals

shared = load("shared")


class Stops:
    """Counts what a program is asked for."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.asked_at_once = anyio.Event()


@pytest.mark.anyio
@without_signals
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_stops_and_the_second_stops_at_once(
    first: signal.Signals, second: signal.Signals
) -> None:
    stops = Stops()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            await nursery.start(shared.stop_on_signal, stops.asked.set, stops.asked_at_once.set)
            os.kill(os.getpid(), first)
            await stops.asked.wait()
            assert not stops.asked_at_once.is_set()
            os.kill(os.getpid(), second)
            await stops.asked_at_once.wait()


@pytest.mark.anyio
@without_signals
async def test_a_second_signal_may_be_pending_already() -> None:
    stops = Stops()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            await nursery.start(shared.stop_on_signal, stops.asked.set, stops.asked_at_once.set)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
            await stops.asked_at_once.wait()
            assert stops.asked.is_set()


@pytest.mark.anyio
@without_signals
async def test_signals_are_as_before_when_the_nursery_ends() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with anyio.create_task_group() as nursery:
        await nursery.start(shared.stop_on_signal, int, int)
        nursery.cancel_scope.cancel()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_rates() -> None:
    rate = shared.Rate(started=100.0)
    assert rate.since_last_look(102.0, 10) == 5.0
    assert rate.since_last_look(103.0, 11) == 1.0
    assert rate.since_start(105.0, 20) == 4.0
    assert rate.since_last_look(104.0, 31) == 20.0
    assert rate.since_last_look(104.0, 31) == 0.0


@pytest.mark.parametrize(
    ("address", "line"),
    [(("127.0.0.1", 7), "listening on 127.0.0.1:7"), (("::1", 7, 0, 0), "listening on [::1]:7")],
)
def test_where_it_listens(address: Any, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    class Bound:
        def getsockname(self) -> Any:
            return address

    shared.announce(Bound())
    assert capsys.readouterr().out == f"{line}\n"
