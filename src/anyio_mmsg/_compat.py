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
from typing import TYPE_CHECKING, Any, TypeAlias

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
    "asyncio_loop",
    "checkpoint",
    "checkpoint_if_cancelled",
    "hides_cancellation",
    "loop_clock",
    "notify_closing",
    "run_soon",
    "wait_socket_readable",
    "wait_socket_writable",
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


def checkpoint_if_cancelled() -> Awaitable[None]:
    """Return what `anyio.lowlevel.checkpoint_if_cancelled` would await, to be awaited at once."""
    if getattr(_running, "name", None) == "trio":
        trio_checkpoint: Callable[[], Awaitable[None]] = sys.modules[
            "trio"
        ].lowlevel.checkpoint_if_cancelled
        return trio_checkpoint()
    return anyio.lowlevel.checkpoint_if_cancelled()


def hides_cancellation() -> bool:
    """Return whether a wait for a ready socket may end before a pending cancellation is delivered.

    Then a task asks before it waits. Trio delivers when a task begins to wait. AnyIO delivers by a
    callback of the loop's next turn, which asyncio's own loops run before those of sockets that
    became ready meanwhile. uvloop runs it after them; of other loops nothing is known.
    """
    if getattr(_running, "name", None) == "trio":
        return False
    asyncio: Any = sys.modules["asyncio"]
    return not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)


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
