"""`PacketReceiver.stop_on`: a receiver that signals stop, without a task that waits for them.

Handlers of Python's `signal` module lie in a stack: each knows what it has replaced. One that
fired, or whose block has ended, is transparent wherever it lies, as blocks of several tasks need
not end in the order in which they began.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import anyio

from .._compat import loop_clock, run_soon
from .wakeup import SignalWakeup


def check(numbers: tuple[int, ...], grace: float | None) -> None:
    """Raise TypeError or ValueError for arguments of `PacketReceiver.stop_on`."""
    if not numbers:
        raise ValueError("stop_on has no signals; give some: signal.SIGINT, signal.SIGTERM")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{number!r} is not a signal; give some, as signal.SIGTERM")
    if grace is not None:
        if isinstance(grace, bool) or not isinstance(grace, (int, float)):
            raise TypeError(f"grace is a {type(grace).__name__}; give seconds, or None")
        if not grace >= 0:
            raise ValueError(f"grace is {grace}; give seconds, or None to wait without end")


@contextmanager
def stopping(
    stop: Callable[[], object], numbers: tuple[int, ...], grace: float | None
) -> Iterator[anyio.CancelScope]:
    """See `PacketReceiver.stop_on`.

    Args:
        stop: What the first signal calls, in a signal handler.
        numbers: The signals.
        grace: Seconds from the first signal until the block is cancelled, or None.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "Python handles signals in its main thread alone, and this is another one; handle "
            "them there, and call receiver.stop(), which any thread may do"
        )
    with anyio.CancelScope() as scope:
        handler = Handler(stop, None if grace is None else Grace(scope, grace))
        wakeup = SignalWakeup()
        try:
            wakeup.begin()
            for number in numbers:
                handler.handle(number)
            yield scope
        finally:
            try:
                handler.end()
                wakeup.end()
            finally:  # once more, should a handler of some other signal have raised there
                handler.end()
                wakeup.end()


class Grace:
    """Cancels a scope some time after a signal."""

    def __init__(self, scope: anyio.CancelScope, seconds: float) -> None:
        self._scope: anyio.CancelScope | None = scope
        self._seconds = seconds
        self._soon, self._clock = run_soon(), loop_clock()

    def begin(self) -> None:
        """Have the event loop set the deadline; from anywhere."""
        self._soon(self._set_deadline)

    def _set_deadline(self) -> None:
        if self._scope is not None:
            self._scope.deadline = self._clock() + self._seconds

    def end(self) -> None:
        """Set no deadline any more: the block is over."""
        self._scope = None


class Handler:
    """Handles signals, for one block.

    Args:
        stop: What the first signal calls.
        grace: What begins then, or None.
    """

    def __init__(self, stop: Callable[[], object], grace: Grace | None) -> None:
        self._stop = stop
        self._grace = grace
        self._handles: set[int] = set()  # signals, until the first has come, or the block ends
        self._replaced: dict[int, Any] = {}  # what each signal did before

    def handle(self, number: int) -> None:
        """Handle a signal from now on."""
        previous = signal.getsignal(number)
        if previous is None:
            raise RuntimeError(
                f"{signal.Signals(number).name} has a handler that is not Python's, which could "
                f"not be restored; stop_on can't replace it"
            )
        if previous is not self:
            self._replaced[number] = previous
            self._handles.add(number)  # before, as the handler may be called at once
            signal.signal(number, self)

    def end(self) -> None:
        """Have signals do what they did before, and set no deadline any more."""
        self._restore()
        if self._grace is not None:
            self._grace.end()

    def _restore(self) -> None:
        for number in tuple(self._handles):
            now: Any = signal.getsignal(number)
            if now is self:
                signal.signal(number, _beneath(self, number))
            self._handles.discard(number)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. Python calls this between any two bytecodes of the main thread."""
        if number not in self._handles:  # another handler has put us back meanwhile
            _pass_on(_beneath(self, number), number, frame)
            return
        self._restore()  # first, so that the next signal does what it did before
        self._stop()
        if self._grace is not None:
            self._grace.begin()
        beneath = _beneath(self, number)
        if isinstance(beneath, Handler):  # of another receiver, or another block
            beneath(number, frame)


def _beneath(handler: Handler, number: int) -> Any:
    """Return what a signal did before: the next handler that is not one of ours that has ended."""
    beneath = handler._replaced[number]
    while isinstance(beneath, Handler) and number not in beneath._handles:
        beneath = beneath._replaced[number]
    return beneath


def _pass_on(handler: Any, number: int, frame: FrameType | None) -> None:
    """Have a signal do what it does with this handler."""
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
