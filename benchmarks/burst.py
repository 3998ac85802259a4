"""1,000 datagrams at once, to a waiting receiver: how many reach the application."""

from __future__ import annotations

import sys
from pathlib import Path

from . import trial
from .report import Bar, Context, Result, identity, name, spread
from .stats import summarize

DATAGRAMS = 1_000
LARGE = 8 * 2**20  # bytes; holds them all several times over
USUAL = 212_992
"""Bytes of a socket's buffer that nobody asked for anything: net.core.rmem_default of Linux,
where the kernel does not tell another."""

ROUNDS = 7
QUICK_ROUNDS = 1


def default_buffer() -> int:
    """Return what a new socket has, as one asks for it: Linux doubles what is asked for."""
    path = Path("/proc/sys/net/core/rmem_default")
    has = int(path.read_text(encoding="utf-8")) if path.exists() else USUAL
    return has // 2 if sys.platform == "linux" else has


def run(context: Context) -> Result:
    """Send bursts."""
    children = context.children
    specs = children.available(trial.CHOSEN)
    rounds = context.steps(ROUNDS, QUICK_ROUNDS)
    result = Result("burst", f"{DATAGRAMS} datagrams at once", "datagrams received")
    header = ["receiver"]
    rows = [[name(spec)] for spec in specs]
    total, done = 2 * rounds * len(specs), 0
    for size, text in ((default_buffer(), "default buffer"), (LARGE, "large buffer")):
        granted = children.start(specs, size)
        found: dict[str, list[trial.Trial]] = {spec.key: [] for spec in specs}
        for _ in range(rounds):
            for spec in specs:
                found[spec.key].append(trial.run(context, spec, DATAGRAMS, 0))
                done += 1
                context.progress(done, total)
        header += [f"received, {text}", "lost in kernel", "lost in library"]
        bars = result.bars[f"{text}, SO_RCVBUF {granted:,}"] = []
        for spec, row in zip(specs, rows, strict=True):
            trials = found[spec.key]
            received = summarize([one.received for one in trials])
            dropped = summarize([one.dropped for one in trials])
            library = summarize([one.library for one in trials])
            assert received is not None
            assert dropped is not None
            assert library is not None
            row += [spread(received), f"{dropped.median:.0f}", f"{library.median:.0f}"]
            bars.append(Bar(name(spec), spec.kind, received))
            result.rows.append(
                {
                    **identity(spec),
                    "buffer": granted,
                    "sent": DATAGRAMS,
                    "payload": trial.PAYLOAD,
                    "received": received.as_json(),
                    "lost_in_kernel": dropped.median,
                    "lost_in_library": library.median,
                }
            )
    result.tables.append((result.title, header, rows))
    result.notes.append(
        "The sender's bursts of 32 are one call each: it is faster than any receiver here, so "
        "what the default buffer loses says how long a receiver took to begin."
    )
    return result
