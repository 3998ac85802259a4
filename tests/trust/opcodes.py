"""Run something with a handler, which may raise, before one of its bytecodes.

A signal's handler runs between two bytecodes of the main thread. A trace function does too, at
one that can be chosen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import anyio_mmsg

_HERE = os.path.dirname(__file__)
_PACKAGE = os.path.dirname(anyio_mmsg.__file__)


class Interrupt(BaseException):
    """What a handler raises."""


class before_opcode:
    """Within the block, call `handler` before bytecode number `at`, counted from 0.

    Those of this library and what it calls count, those of the tests and of event loops don't.

    Attributes:
        reached: Whether there were as many.
        seen: How many there were.
        where: File, line and offset of it, for messages.
    """

    def __init__(self, at: int, handler: Callable[[], object]) -> None:
        self.at = at
        self.handler = handler
        self.seen = 0
        self.reached = False
        self.where = "nowhere"

    def __enter__(self) -> before_opcode:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._opcode

    def _opcode(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            self.seen += 1
            if self.seen == self.at + 1:
                self.reached = True
                self.where = (
                    f"{os.path.relpath(frame.f_code.co_filename, _PACKAGE)}:{frame.f_lineno} "
                    f"{frame.f_code.co_name}+{frame.f_lasti}"
                )
                self.handler()
        return self._opcode


def each_opcode(step: Callable[[before_opcode], object], handler: Callable[[], object]) -> Iterator[before_opcode]: ...
