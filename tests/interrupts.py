"""Do something before one of the bytecodes that the library runs, as a signal handler may.

A signal handler runs between two bytecodes of the main thread. What is called here does too, at
one that can be chosen. Up to CPython 3.11 it is a trace function, which gets each bytecode; from
3.12 on a callback of `sys.monitoring`, which costs only the code of this library anything.
"""

from __future__ import annotations

import dis
import functools
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest

import anyio_mmsg

NEVER = 10**9  # more bytecodes than anything has: for a rehearsal

ROUNDS = int(os.environ.get("ANYIO_MMSG_TRUST_ROUNDS", "1"))
"""How often what is random is repeated; from 10 on no sweep leaves out a bytecode."""

PACKAGE = str(Path(anyio_mmsg.__file__).parent)

of_cpython = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="asks CPython's interpreter for its bytecodes"
)


class Interrupt(BaseException):
    """What a handler raises."""


class HandlerError(Exception):
    """What another one raises."""


def interrupt() -> None:
    raise Interrupt


def fail() -> None:
    raise HandlerError


# ceval.c of CPython says where the interpreter asks for signals. Never while it is in an await:
# that is left only by what the awaited raises.
_CLOSED = {"SEND", "YIELD_FROM", "YIELD_VALUE", "RESUME", "JUMP_BACKWARD_NO_INTERRUPT"}
# Nor does it ask where an `except` begins or ends. What tracing raises there leaves the thread in
# the `except` for good: all later exceptions have its exception as context. CPython 3.10 crashes.
_CLOSED |= {"PUSH_EXC_INFO", "POP_EXCEPT"}


def _asks(step: dis.Instruction) -> bool:
    """Whether the interpreter asks for signals after this instruction.

    Also what is no call by name may make one: attributes (properties), operators, iteration. Of
    those, this library has properties alone, whose frames ask themselves.
    """
    if step.opname.startswith("RESUME"):
        return (step.arg or 0) & 3 < 2  # at the start and after a yield, not in an await
    return step.opname.startswith(("CALL", "JUMP_BACKWARD")) or step.opname in (
        "JUMP_ABSOLUTE",
        "WITH_EXCEPT_START",
        "BEFORE_WITH",
    )


def _is_on_the_stack(code: CodeType) -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


@functools.cache
def _places(code: CodeType) -> tuple[set[int], set[int]]:
    """Return the offsets of bytecodes after which the interpreter asks for signals.

    And of those before which it never does.
    """
    steps = list(dis.get_instructions(code))
    asking = {step.offset for step in steps if _asks(step)}
    return asking, {step.offset for step in steps if step.opname in _CLOSED}


class BeforeOpcode:
    """Within the block, call `handler` before bytecode number `at`, counted from 0.

    Those of this library count, and of the thread that enters the block. Those of the tests and
    of event loops don't.

    Args:
        at: Which one.
        handler: What to call; its own bytecodes don't count. By default it raises `Interrupt`.
        everywhere: Whether every bytecode counts. Else only those before which CPython may run
            a signal handler: it asks for signals after calls, when a function begins, and when
            it jumps back.
        within: The modules whose bytecodes count, if not all.
        under: Code that has to be on the stack, if any. What event loops call is left out then.

    Attributes:
        at: The argument.
        reached: Whether there were as many.
        where: File, line, function and offset of it, for messages.
    """

    def __init__(
        self,
        at: int,
        handler: Callable[[], object] = interrupt,
        everywhere: bool = True,
        within: Sequence[ModuleType] = (),
        under: CodeType | None = None,
    ) -> None:
        self.handler = handler
        self._under = under
        self.reached = False
        self.where = "nowhere"
        self.at = self._left = at
        self._everywhere = everywhere
        self._files = {module.__file__ for module in within}
        self._last: dict[FrameType, int] = {}
        self._before: Any = None

    def __exit__(self, *exc_info: object) -> None:
        self._stop()
        self._last.clear()  # frames keep alive what they hold

    def _counts(self, code: CodeType) -> bool:
        if self._files:
            return code.co_filename in self._files
        return code.co_filename.startswith(PACKAGE)

    def _come_to(self, code: CodeType, offset: int, frame: FrameType | None = None) -> None:
        """Take note of a bytecode that counts, which is about to run."""
        asking, closed = _places(code)
        if frame is not None:
            last = self._last.get(frame)
            self._last[frame] = offset
            if last is not None and last not in asking:
                return
        if offset not in closed:
            self._left -= 1
            if self._left < 0 and (self._under is None or _is_on_the_stack(self._under)):
                self.reached = True
                line = next(line for first, stop, line in code.co_lines() if offset < stop)
                path = code.co_filename[len(PACKAGE) + 1 :]
                self.where = f"{path}:{line} {code.co_name}+{offset}"
                self._last.clear()
                self.handler()

    if sys.version_info >= (3, 12):

        def __enter__(self) -> BeforeOpcode:
            _instrument()
            self._before = _watchers.get(threading.get_ident())
            _watch(self._instruction)
            return self

        def _stop(self) -> None:
            _watch(self._before)

        def _instruction(self, code: CodeType, offset: int) -> None:
            if not self.reached and (not self._files or code.co_filename in self._files):
                self._come_to(code, offset, None if self._everywhere else sys._getframe(2))

    else:

        def __enter__(self) -> BeforeOpcode:
            self._before = sys.gettrace()
            sys.settrace(self._call)
            return self

        def _stop(self) -> None:
            sys.settrace(self._before)

        def _call(self, frame: FrameType, event: str, arg: object) -> Any:
            if not self._counts(frame.f_code):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            return self._opcode

        def _opcode(self, frame: FrameType, event: str, arg: object) -> Any:
            if event == "opcode" and not self.reached:
                self._come_to(frame.f_code, frame.f_lasti, None if self._everywhere else frame)
            return self._opcode


if sys.version_info >= (3, 12):
    from sys import monitoring

    _TOOL = 4  # of those that have no name (sys.monitoring)
    _watchers: dict[int, Any] = {}  # by thread

    def _watch(watcher: Any) -> None:
        """Have `watcher` called before each instruction of the library in this thread."""
        if watcher is None:
            _watchers.pop(threading.get_ident(), None)
        else:
            _watchers[threading.get_ident()] = watcher
        callback = _instruction if _watchers else None
        monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, callback)

    def _instruction(code: CodeType, offset: int) -> None:
        watcher = _watchers.get(threading.get_ident())
        if watcher is not None:
            watcher(code, offset)

    @functools.cache
    def _instrument() -> None:
        """Once, since it takes longer than a step of a sweep."""
        monitoring.use_tool_id(_TOOL, "tests of anyio_mmsg")
        for code in set(_codes()):
            monitoring.set_local_events(_TOOL, code, monitoring.events.INSTRUCTION)
            _instrumented.append(code)

    _instrumented: list[CodeType] = []

    def uninstrument() -> None:
        """Have the library's code run as without a `BeforeOpcode`, until the next one.

        For tests of allocations that fail. Before each bytecode that is watched CPython allocates
        its offset, watcher or not, and so it has MemoryErrors where the code can't raise any: of a
        return, which no `except` around it catches.
        """
        while _instrumented:
            monitoring.set_local_events(_TOOL, _instrumented.pop(), 0)
        if _instrument.cache_info().currsize:
            monitoring.free_tool_id(_TOOL)
            _instrument.cache_clear()

    def _codes() -> Iterator[CodeType]:
        """All code of the library that is a function's, or is in one's."""
        found = [each.__code__ for each in gc.get_objects() if isinstance(each, FunctionType)]
        while found:
            code = found.pop()
            if code.co_filename.startswith(PACKAGE):
                yield code
                found += [each for each in code.co_consts if isinstance(each, CodeType)]

else:

    def uninstrument() -> None:
        """There is nothing to be undone: trace functions end with the block."""


def every_bytecode(
    handler: Callable[[], object] = interrupt,
    everywhere: bool = True,
    within: Sequence[ModuleType] = (),
    under: CodeType | None = None,
    stride: int = 1,
) -> Iterator[BeforeOpcode]:
    """Return one `BeforeOpcode` for each bytecode of what they are used for.

    It has to run the same bytecodes each time. The last one interrupts nothing: all were tried.

    Args:
        handler: As for `BeforeOpcode`.
        everywhere: The same.
        within: The same.
        under: The same.
        stride: To try only one of so many. Where that begins differs from Python to Python, so
            that the matrix of versions tries more; `ROUNDS` of 10 or more try all.
    """
    stride = stride if ROUNDS < 10 else 1
    at = sys.version_info[1] % stride
    handled = sys.exc_info()[1]
    while True:
        point = BeforeOpcode(at, handler, everywhere, within, under)
        yield point
        assert sys.exc_info()[1] is handled, f"still in an `except`, after {point.where}"
        if not point.reached:
            return
        at += stride


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
