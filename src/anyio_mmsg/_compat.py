"""What AnyIO renamed or lacks in older versions: the only place that asks.

The floor is AnyIO 4.4.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    import asyncio

if sys.version_info < (3, 11):
    # AnyIO requires it there.
    from exceptiongroup import ExceptionGroup as ExceptionGroup
else:
    ExceptionGroup = ExceptionGroup

__all__ = [
    "ExceptionGroup",
    "RunSoon",
    "Waits",
    "asyncio_loop",
    "checkpoint",
    "loop_clock",
    "notify_closing",
    "run_soon",
    "wait_socket_readable",
    "wait_socket_writable",
    "waits",
]

# Renamed in AnyIO 4.7; since then each call by the old name warns.
wait_socket_readable = (
    anyio.wait_readable if hasattr(anyio, "wait_readable") else anyio.wait_socket_readable
)
wait_socket_writable = (
    anyio.wait_writable if hasattr(anyio, "wait_writable") else anyio.wait_socket_writable
)

_running: Any = None
with contextlib.suppress(ImportError):
    # Where Trio says that it is running; Trio needs this package, AnyIO no longer does.
    _running = import_module("sniffio").thread_local


def checkpoint() -> Awaitable[None]:
    """Return what `anyio.lowlevel.checkpoint` would await, to be awaited at once.

    AnyIO asks for the event loop's library each time, and awaits through two coroutines of its
    own; under load that is a good part of a checkpoint's cost.
    """
    name = getattr(_running, "name", None)
    if name is None:
        sleep: Callable[[int], Awaitable[None]] = sys.modules["asyncio"].sleep
        return sleep(0)
    if name == "trio":
        trio_checkpoint: Callable[[], Awaitable[None]] = sys.modules["trio"].lowlevel.checkpoint
        return trio_checkpoint()
    return anyio.lowlevel.checkpoint()


class Waits(NamedTuple):
    """How a task waits in a kind of event loop. What a function returns is awaited at once.

    Attributes:
        look: `anyio.lowlevel.checkpoint_if_cancelled` if a wait for a ready socket may end before
            a pending cancellation is delivered, so that a task asks before it waits; else None.
        readable: `anyio.wait_readable`; a coroutine function.
    """

    look: Callable[[], Awaitable[None]] | None
    readable: Callable[[socket.socket], Awaitable[None]]


_waits: dict[object, Waits] = {}  # by kind of loop
_MOST_KINDS = 8  # a program has one or two; tests make more


def waits() -> Waits:
    """Return how a task waits in the running event loop.

    AnyIO asks for the event loop's library at each call, which costs half as much as what is
    called. This asks once.
    """
    name = getattr(_running, "name", None)
    loop: object = type(sys.modules["asyncio"].get_running_loop()) if name is None else name
    known = _waits.get(loop)
    if known is None:
        if len(_waits) == _MOST_KINDS:
            _waits.clear()
        known = _waits[loop] = _waits_in(loop)
    return known


def _waits_in(loop: object) -> Waits:
    """Return how a task waits in a kind of event loop of asyncio's, or in a library's, by name.

    Trio delivers a cancellation when a task begins to wait. AnyIO delivers it by a callback of the
    loop's next turn, which asyncio's own loops run before those of sockets that became ready
    meanwhile. uvloop runs it after them; of other loops nothing is known.
    """
    if loop == "trio":
        return Waits(None, wait_socket_readable)
    look, readable = anyio.lowlevel.checkpoint_if_cancelled, wait_socket_readable
    if isinstance(loop, type):
        token = anyio.lowlevel.current_token()
        backend = getattr(token, "backend_class", None)  # of AnyIO for asyncio, since 4.11
        if backend is not None:
            look, readable = backend.checkpoint_if_cancelled, backend.wait_readable
        if issubclass(loop, sys.modules["asyncio"].SelectorEventLoop):
            return Waits(None, readable)
    return Waits(look, readable)


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running event loop if it is one of asyncio's kind, uvloop's too; None for Trio.

    Raises:
        RuntimeError: No event loop is running.
    """
    if getattr(_running, "name", None) == "trio":
        return None
    import asyncio  # here, so that programs on Trio do without it

    return asyncio.get_running_loop()


RunSoon: TypeAlias = Callable[[Callable[[], object]], None]
"""Has an event loop call a function soon. May be called from anywhere: a signal handler, a
finalizer, another thread. Does nothing where the loop is over."""


def loop_clock() -> Callable[[], float]:
    """Return the clock of the running event loop, which its callbacks may ask too."""
    loop = asyncio_loop()
    clock: Callable[[], float] = sys.modules["trio"].current_time if loop is None else loop.time
    return clock


def run_soon() -> RunSoon:
    """Return the entry to the running event loop that is safe from anywhere."""
    token: Any = anyio.lowlevel.current_token()
    token = getattr(token, "native_token", token)  # wrapped since AnyIO 4.11
    # A TrioToken, or a loop of asyncio.
    enter = getattr(token, "run_sync_soon", None) or token.call_soon_threadsafe
    return partial(_enter, enter)


def _enter(enter: RunSoon, function: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is over: trio.RunFinishedError is one too
        enter(function)


def notify_closing(sock: socket.socket) -> None:
    """Tell the tasks that wait for a socket that it is about to be closed, where AnyIO can."""
    notify = getattr(anyio, "notify_closing", None)  # since AnyIO 4.10
    if notify is not None:
        notify(sock)
