"""What the examples print: where they listen, rates, losses, at intervals."""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import anyio

from anyio_mmsg import ReceiverStatistics

if TYPE_CHECKING:
    from rich.table import Table


def announce(sock: socket.socket) -> None:
    """Print where a socket listens, so that people and scripts know the port."""
    host, port = sock.getsockname()[:2]
    print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", flush=True)


class Rate:
    """Counts per second: since the last look, or since the start."""

    def __init__(self, started: float) -> None:
        self.started = started
        self._last = (started, 0)

    def since_last_look(self, now: float, count: int) -> float:
        """Return the rate since the last call of this method."""
        (then, before), self._last = self._last, (now, count)
        return (count - before) / max(now - then, 1e-9)

    def since_start(self, now: float, count: int) -> float:
        """Return the rate of the whole time."""
        return count / max(now - self.started, 1e-9)


def losses(seen: ReceiverStatistics) -> str:
    """Return what the kernel dropped, and what a second signal left, if anything."""
    dropped = "unknown" if seen.dropped_by_kernel is None else f"{seen.dropped_by_kernel:,}"
    return f"dropped by kernel {dropped}" + (f", left {left(seen):,}" if left(seen) else "")


def left(seen: ReceiverStatistics) -> int:
    """Return how many packets, read or unread, a program left when it ended."""
    return seen.unread + seen.dropped


async def print_at_intervals(interval: float, line: Callable[[], object]) -> None:
    """Print a line every `interval` seconds, without drift: the times are fixed at the start."""
    due = anyio.current_time()
    while True:
        due += interval
        await anyio.sleep_until(due)
        print(line(), flush=True)


class Look(Protocol):
    """What can be shown as a line of text or as a table."""

    def line(self) -> str:
        """Return it for a log."""
        raise NotImplementedError

    def table(self) -> Table:
        """Return it for a terminal."""
        raise NotImplementedError


async def show_at_intervals(interval: float, look: Callable[[], Look]) -> None:
    """Show a look every `interval` seconds: on a terminal as a live table, elsewhere as a line."""
    if not sys.stdout.isatty():
        await print_at_intervals(interval, lambda: look().line())
        return
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        while True:
            await anyio.sleep(interval)
            live.update(look().table(), refresh=True)


def escape_what_cannot_be_printed() -> None:
    """Let a terminal that lacks a character show an escape instead of raising an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
