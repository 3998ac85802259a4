"""`PacketReceiver.stop_on`: a receiver that signals stop, without a task that waits for them.

Handlers of Python's `signal` module lie in a stack: each knows what it has replaced. One that
fired, or whose block has ended, is transparent wherever it lies, as blocks of several tasks need
not end in the order in which they began.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

import anyio

from .._compat import loop_clock, run_soon


class StopOnSignals(AbstractContextManager[anyio.CancelScope]):
    """See `PacketReceiver.stop_on`.

    Args:
        stop: What the first signal calls, in a signal handler.
        numbers: The signals.
        grace: Seconds from the first signal until the block is cancelled, or None.
    """

    def __init__(
        self, stop: Callable[[], object], numbers: tuple[int, ...], grace: float | None
    ) -> None:
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
        self._stop = stop
        self._numbers = numbers
        self._grace = grace
        self._scope: anyio.CancelScope | None = None
        self._handles: set[int] = set()  # signals, until the first has come, or the block ends
        self._replaced: dict[int, Any] = {}  # what each signal did before

    def __enter__(self) -> anyio.CancelScope:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "Python handles signals in its main thread alone, and this is another one; "
                "handle them there, and call receiver.stop(), which any thread may do"
            )
        self._soon, self._clock = run_soon(), loop_clock()
        self._scope = scope = anyio.CancelScope()
        scope.__enter__()
        try:
            for number in self._numbers:
                self._handle(number)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        scope, self._scope = self._scope, None
        self._handle_no_more()
        return None if scope is None else scope.__exit__(kind, error, traceback)

    def _handle(self, number: int) -> None:
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

    def _handle_no_more(self) -> None:
        """Have signals do what they did before. A signal handler may come in between."""
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
        self._handle_no_more()  # first, so that the next signal does what it did before
        self._stop()
        if self._grace is not None:
            self._soon(self._set_deadline)
        beneath = _beneath(self, number)
        if isinstance(beneath, StopOnSignals):  # of another receiver, or another block
            beneath(number, frame)

    def _set_deadline(self) -> None:
        """In the event loop's thread, and perhaps after the end of the block."""
        if self._scope is not None and self._grace is not None:
            self._scope.deadline = self._clock() + self._grace


def _beneath(handler: StopOnSignals, number: int) -> Any:
    """Return what a signal did before: the next handler that is not one of ours that has ended."""
    beneath = handler._replaced[number]
    while isinstance(beneath, StopOnSignals) and number not in beneath._handles:
        beneath = beneath._replaced[number]
    return beneath


def _pass_on(handler: Any, number: int, frame: FrameType | None) -> None:
    """Have a signal do what it does with this handler."""
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
