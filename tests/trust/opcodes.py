"""Run something with a handler, which may raise, before one of its bytecodes.

A signal handler runs between two bytecodes of the main thread. A trace function does too, at
one that can be chosen.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import anyio_mmsg

NEVER = 10**9  # more bytecodes than anything has: for a rehearsal

_PACKAGE = str(Path(anyio_mmsg.__file__).parent)


class Interrupt(BaseException):
    """What a handler raises."""


class BeforeOpcode:
    """Within the block, call `handler` before bytecode number `at`, counted from 0.

    Those of this library count, those of the tests and of event loops don't.

    Args:
        at: Which one.
        handler: What to call. It is not traced.
        everywhere: Whether every bytecode counts. Else only those before which CPython may run
            a signal handler: it asks for signals after calls, when a function begins, and when
            it jumps back.

    Attributes:
        reached: Whether there were as many.
        where: File, line, function and offset of it, for messages.
    """

    def __init__(self, at: int, handler: Callable[[], object], everywhere: bool = True) -> None:
        self.handler = handler
        self.reached = False
        self.where = "nowhere"
        self._left = at
        self._everywhere = everywhere
        self._last: dict[FrameType, int] = {}

    def __enter__(self) -> BeforeOpcode:
        self._before = sys.gettrace()
        # From CPython 3.12 on a frame that asks during its call is too late, unless another did.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._call)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)
        self._last.clear()

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._opcode

    def _opcode(self, frame: FrameType, event: str, arg: object) -> Any:
        if event != "opcode" or self.reached:
            return self._opcode
        last = self._last.get(frame, -1)
        self._last[frame] = frame.f_lasti
        if frame.f_lasti in _places(frame.f_code)[1]:
            return self._opcode
        if self._everywhere or last < 0 or last in _places(frame.f_code)[0]:
            if self._left == 0:
                self.reached = True
                path = frame.f_code.co_filename[len(_PACKAGE) + 1 :]
                self.where = f"{path}:{frame.f_lineno} {frame.f_code.co_name}+{frame.f_lasti}"
                self.handler()
            self._left -= 1
        return self._opcode


@functools.cache
def _places(code: CodeType) -> tuple[set[int], set[int]]:
    """Return the offsets of bytecodes after which the interpreter asks for signals.

    And of those before which it never does: an await is left only by what the awaited raises.
    """
    steps = list(dis.get_instructions(code))
    asking = {step.offset for step in steps if _asks(step.opname)}
    return asking, {step.offset for step in steps if step.opname in _CLOSED}


# ceval.c of CPython says so.
_CLOSED = {"SEND", "YIELD_FROM", "YIELD_VALUE", "RESUME", "JUMP_BACKWARD_NO_INTERRUPT"}


def _asks(name: str) -> bool:
    # Also what is no call by name but may make one: attributes (properties), operators, iteration.
    # Of those, this library has properties alone, whose frames ask themselves.
    return name.startswith(("CALL", "RESUME", "JUMP_BACKWARD", "YIELD", "SEND")) or name in (
        "JUMP_ABSOLUTE",
        "PRECALL",
        "WITH_EXCEPT_START",
        "BEFORE_WITH",
    )


def are_reported() -> bool:
    """Return whether a trace function gets every bytecode; that of CPython 3.13 misses most."""
    return sys.version_info < (3, 13)
