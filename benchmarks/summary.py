"""The results in short: ratios to what people use today."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from . import report
from .report import NAMES, Grid
from .result import Result, Table
from .spec import LOOPS


@dataclass(frozen=True)
class Comparison:
    """Ours and another's figure of one table.

    Attributes:
        what: Ours, in words.
        to: What it is compared with, in words.
        table: Which table, and which column of it.
        ours: The key of our row, with {} for the loop.
        other: The key of the other's row; likewise.
    """

    what: str
    to: str
    table: str
    column: str
    ours: str
    other: str


SIX = "six-line recvfrom loop"
LOOP = "`sendto` loop"
PROTOCOL = "`DatagramProtocol`"
READ = "read", "ns"
SENT = "send", "one destination"
ECHO = "echo-512", "packets/s"
DNS = "dns-full", "queries/s"
LOW = "lowrate-10000", "CPU, %"
RECEIVER = Comparison(
    "CPU at 10,000 a second, `PacketReceiver`",
    SIX,
    *LOW,
    "echo-stream-{}",
    "echo-naive-{}",
)
TO_PROTOCOL = replace(RECEIVER, to=PROTOCOL, other="echo-protocol-{}")
TO_FRESH = replace(RECEIVER, to=f"{PROTOCOL}, fresh process", other="echo-protocol-fresh-{}")
COMPARISONS = (
    Comparison("many packets, `for packet in batch`", SIX, *READ, "ours-64-{}", "naive-{}"),
    Comparison("many packets, `PacketReceiver`", SIX, *READ, "stream-64-{}", "naive-{}"),
    Comparison("many packets, `recv_datagrams`", SIX, *READ, "datagrams-64-{}", "naive-{}"),
    Comparison("many packets, plain Python", SIX, *READ, "plain-64-{}", "naive-{}"),
    Comparison("many packets, `serve_protocol`", PROTOCOL, *READ, "served-{}", "protocol-{}"),
    Comparison("many packets sent, `send_mmsg`", LOOP, *SENT, "send-pairs-{}", "send-sendto"),
    Comparison("many sent to one peer, `gso=True`", LOOP, *SENT, "send-gso-{}", "send-sendto"),
    Comparison("an echo server under load", SIX, *ECHO, "echo-ours-{}", "echo-naive-{}"),
    Comparison("a DNS server under load", SIX, *DNS, "dns-ours-{}", "dns-naive-{}"),
    RECEIVER,
    TO_PROTOCOL,
    TO_FRESH,
    Comparison(
        "CPU at 10,000 a second, `recv_datagrams`", SIX, *LOW, "echo-datagrams-{}", "echo-naive-{}"
    ),
    Comparison(
        "CPU at 10,000 a second, `serve_protocol`",
        PROTOCOL,
        *LOW,
        "echo-served-{}",
        "echo-protocol-{}",
    ),
)


def ratio(comparison: Comparison, loop: str, tables: Iterable[Table]) -> float | None:
    """Return our cost on a loop divided by the other's; None if one is missing."""
    for table in tables:
        if table.name == comparison.table:
            cells = {row.key: row.cells.get(comparison.column) for row in table.rows}
            ours = cells.get(comparison.ours.format(loop))
            other = cells.get(comparison.other.format(loop))
            if ours and other:
                cost = ours.median / other.median
                return 1 / cost if comparison.column.endswith("/s") else cost
    return None


def grid(results: Iterable[Result]) -> Grid:
    """Lay out all comparisons, loops side by side."""
    tables = [table for result in results for table in result.tables]
    rows = []
    for comparison in COMPARISONS:
        found = [ratio(comparison, loop, tables) for loop in LOOPS]
        if any(found):
            cells = ["" if value is None else f"{value:.2f}" for value in found]
            rows.append([comparison.what, comparison.to, *cells])
    title = "Our cost divided by the other's, on the same loop; below 1 ours is cheaper"
    return Grid(title, ["what", "to what", *(NAMES[loop] for loop in LOOPS)], rows)


def now_and_then(results: Iterable[Result]) -> str:
    """Say in a line of a list what a receiver costs when nothing queues."""
    tables = [table for result in results for table in result.tables]

    def times(comparison: Comparison) -> str:
        found = {NAMES[loop]: ratio(comparison, loop, tables) for loop in LOOPS}
        *most, last = [f"{value:.2f} ({loop})" for loop, value in found.items() if value]
        return f"{', '.join(most)} and {last}" if most else last

    try:
        to_six, to_protocol = times(RECEIVER), times(TO_PROTOCOL)
    except ValueError:  # nothing was measured
        return report.PLACEHOLDER
    to_fresh = ratio(TO_FRESH, "asyncio", tables)
    return textwrap.fill(
        f"- *A packet now and then, where CPU is all that counts.* At 10,000 packets a second, one"
        f" at a time, a `PacketReceiver` that echoes them takes {to_six} times the CPU of the "
        f"usual six-line loop (wait, then `recvfrom` until the socket is dry), and "
        f"{to_protocol} times that of an `asyncio.DatagramProtocol`, whose callback wakes no "
        f"task."
        + (
            f" In a fresh process asyncio's transport has new memory mapped for each datagram; "
            f"there the receiver takes {to_fresh:.2f} times its CPU."
            if to_fresh
            else ""
        ),
        118,
        subsequent_indent="  ",
    )


def blocks(results: Sequence[Result]) -> dict[str, str]:
    """Return what can stand in a page, as `report.blocks` does."""
    return {
        "summary": report.markdown(grid(results)),
        "now-and-then": now_and_then(results),
    }
