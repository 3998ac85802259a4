"""How a command runs: its event loop, and how it is stopped."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from anyio.abc import TaskStatus

from .._system.platform import ON_WINDOWS
from .ending import need

T = TypeVar("T")


def add_backend_option(parser: argparse.ArgumentParser) -> None:
    """Let the command line choose the event loop."""
    parser.add_argument(
        "--backend", default="asyncio", choices=["asyncio", "trio", "uvloop"], help="event loop"
    )


def run_on(backend: str, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Run an async function on asyncio, Trio or uvloop; return what it returns.

    Raises:
        CommandError: The event loop is not installed.
    """
    if backend != "asyncio":
        package = "'anyio-mmsg[trio]'" if backend == "trio" else backend
        need(backend, f"--backend {backend}", package)
    return anyio.run(
        function,
        *arguments,
        backend="trio" if backend == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if backend == "uvloop" else {},
    )


async def stop_on_signal(
    stop: Callable[[], object],
    stop_at_once: Callable[[], object],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Call `stop` at the first Ctrl-C or SIGTERM, and `stop_at_once` at the second.

    Start it with ``await nursery.start(...)``: from then on the signals are handled here. On
    Windows, where asyncio can't handle signals, this does nothing, and Ctrl-C raises
    KeyboardInterrupt.
    """
    if ON_WINDOWS:
        task_status.started()
        return
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        stop()
        await anext(signals)
        stop_at_once()
