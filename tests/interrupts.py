"""Raise an exception at any bytecode of the package, as a signal handler can."""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio_mmsg

STRIDE = 1 if sys.version_info < (3, 12) else 7
"""From CPython 3.12 on, tracing bytecodes slows down all code, that of the event loop too: there
some of the bytecodes are left out."""

PACKAGE = str(Path(anyio_mmsg.__file__).parent)


# Where the interpreter runs no signal handler, so that an `await` is left only by what the
# awaited raises: ceval.c of CPython says so.
_CLOSED = {"SEND", "YIELD_FROM", "YIELD_VALUE", "RESUME", "JUMP_BACKWARD_NO_INTERRUPT"}
if sys.version_info < (3, 11):
    # CPython 3.10 itself crashes later, if tracing raises here: its block stack is between states.
    _CLOSED.add("POP_EXCEPT")


@functools.cache
def _closed_offsets(code: types.CodeType) -> set[int]:
    return {step.offset for step in dis.get_instructions(code) if step.opname in _CLOSED}


class Interrupt(BaseException):
    """What a signal handler raises."""


class Interrupter:
    """Raises `Interrupt` before one of the bytecodes that the package runs.

    Attributes:
        raised: Whether it did.
    """

    def __init__(self, step: int) -> None:
        self._left = step
        self.raised = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count the bytecodes of this block, in this thread, and raise before one of them."""
        before = sys.gettrace()
        # CPython 3.12 looks at this when tracing begins, and not again.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        try:
            yield
        except Interrupt:
            assert self.raised
        finally:
            sys.settrace(before)

    def _trace(self, frame: Any, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        closed = frame.f_lasti in _closed_offsets(frame.f_code)
        if event == "opcode" and not self.raised and not closed:
            if self._left == 0:
                self.raised = True
                raise Interrupt
            self._left -= 1
        return self._trace


def interrupters() -> Iterator[Interrupter]:
    """Return one for each bytecode of what they are used for, which has to be the same each time.

    The last one raises nothing: all were tried.
    """
    step = 0
    while True:
        interrupter = Interrupter(step)
        yield interrupter
        if not interrupter.raised:
            return
        step += STRIDE
