"""How a command shows what it sees: a live table on a terminal, else lines, or JSON."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import anyio

from .. import ReceiverStatistics
from .ending import need

if TYPE_CHECKING:
    from rich.table import Table

Form: TypeAlias = Literal["table", "lines", "json"]


class Sample(Protocol):
    """What was seen in an interval."""

    def line(self) -> str:
        """Return it for a log."""
        raise NotImplementedError

    def table(self) -> Table:
        """Return it for a terminal."""
        raise NotImplementedError

    def fields(self) -> dict[str, Any]:
        """Return it for programs, to be written as JSON."""
        raise NotImplementedError


def choose_form(as_json: bool) -> Form:
    """Return how to show samples here.

    Raises:
        CommandError: What draws a live table is not installed.
    """
    if as_json:
        return "json"
    if not sys.stdout.isatty():
        return "lines"
    need("rich", "the live table", "'anyio-mmsg[tools]' (or pipe it through cat, or give --json)")
    return "table"


def announce(sock: socket.socket, form: Form) -> None:
    """Print where a socket listens; on stderr where stdout is for JSON alone."""
    host, port = sock.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    file = sys.stderr if form == "json" else sys.stdout
    print(f"listening on {where}:{port}", file=file, flush=True)


def print_json(kind: Literal["interval", "summary"], fields: dict[str, Any]) -> None:
    """Print a line of JSON, with its kind, and when that is."""
    document = {"kind": kind, "time": round(time.time(), 3), **fields}
    print(json.dumps(document), flush=True)


async def show_at_intervals(interval: float, look: Callable[[], Sample], form: Form) -> None:
    """Show a sample every `interval` seconds, for ever."""
    if form == "table":
        from rich.live import Live

        with Live(auto_refresh=False) as live:
            async for _ in ticks(interval):
                live.update(look().table(), refresh=True)
    async for _ in ticks(interval):
        if form == "json":
            print_json("interval", look().fields())
        else:
            print(look().line(), flush=True)


async def ticks(interval: float) -> AsyncIterator[None]:
    """Give a turn every `interval` seconds, without drift; turns that were missed are left out."""
    due = anyio.current_time()
    while True:
        due = max(due + interval, anyio.current_time())
        await anyio.sleep_until(due)
        yield


def losses(seen: ReceiverStatistics) -> str:
    """Return what the kernel dropped, and what a second signal left, if anything."""
    dropped = "unknown" if seen.dropped_by_kernel is None else f"{seen.dropped_by_kernel:,}"
    left = seen.unread + seen.dropped
    return f"dropped by kernel {dropped}" + (f", left {left:,}" if left else "")
