"""Something that happens between two bytecodes, as a signal handler or a finalizer may run."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dis import opname
from types import FrameType, ModuleType
from typing import Any

AWAITING = {"SEND", "YIELD_VALUE", "YIELD_FROM", "RESUME", "JUMP_BACKWARD_NO_INTERRUPT"}
"""Of an await that is under way. The interpreter runs no handler there, in any frame of a chain of
them, and event loops rely on that."""


class HandlerError(Exception):
    """What a signal handler raises."""


def interrupt() -> None:
    raise HandlerError


class at_bytecode:  # noqa: N801
    """Call something at the nth bytecode that some modules execute.

    Attributes:
        reached: Whether there were as many.
    """

    def __init__(
        self, number: int, what: Callable[[], object], modules: Sequence[ModuleType]
    ) -> None:
        self._left = number
        self.reached = False
        self._what = what
        self._files = {module.__file__ for module in modules}

    def __enter__(self) -> at_bytecode:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and opname[frame.f_code.co_code[frame.f_lasti]] not in AWAITING:
            self._left -= 1
            if self._left == 0:
                sys.settrace(None)
                self.reached = True
                self._what()
        return self._trace


@contextmanager
def unreported() -> Iterator[None]:
    """Have nobody report what is raised in a finalizer, or a coroutine that was never awaited.

    Who does keeps the frame, and with it what the finalizer is about. For a test's body: pytest
    sets a hook of its own before it.
    """
    before = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = before
