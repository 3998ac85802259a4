"""1,000 datagrams at once, to a waiting receiver: how many reach the application."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.result import Context, Figures, Result, Table
from benchmarks.spec import AnySpec

from . import trial

DATAGRAMS = 1_000
LARGE = 8 * 2**20  # bytes; holds them all several times over
USUAL = 212_992
"""Bytes of a socket's buffer that nobody asked for anything: net.core.rmem_default of Linux,
where the kernel does not report another."""

ROUNDS = 5


def default_buffer() -> int:
    """Return what a new socket has, as one asks for it: Linux doubles what is asked for."""
    path = Path("/proc/sys/net/core/rmem_default")
    has = int(path.read_text(encoding="utf-8")) if path.exists() else USUAL
    return has // 2 if sys.platform == "linux" else has


def run(context: Context) -> Result:
    """Send bursts."""
    children = context.children
    rounds = context.steps(ROUNDS)
    result = Result("burst", f"{DATAGRAMS:,} datagrams at once")
    found = Figures()
    columns = []
    specs: list[AnySpec] = []
    sizes = ((default_buffer(), "usual"), (LARGE, "large"))
    for size, text in sizes:
        specs = children.start(trial.CHOSEN, size)
        column = f"{text} buffer ({children.granted:,} bytes)"
        columns.append(column)
        for turn in range(rounds):
            for spec in trial.rotated(specs, turn):
                done = trial.run(context, spec, DATAGRAMS, 0)
                found.add(done.received, spec.key, column)
                found.add(done.library, spec.key, "lost by the library")
            context.progress((len(columns) - 1) * rounds + turn + 1, len(sizes) * rounds)
    table = Table("burst", result.title, "datagrams", "", [*columns, "lost by the library"])
    for spec in specs:
        table.add(spec, {column: found.summary(spec.key, column) for column in table.columns})
    result.tables.append(table)
    result.left_out = children.left_out(trial.CHOSEN)
    result.notes.append(
        "The sender is faster than any receiver here. How many packets survive in the usual "
        "buffer depends on how soon the receiver begins to read."
    )
    return result
