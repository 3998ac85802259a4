"""``python -m tests.trust.hostile [--report FILE]``: prints tables, or writes them into a page."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from anyio_mmsg._packets import compiled
from benchmarks.machine import describe, sentence

from ..soak.channel import BACKENDS
from ..soak.report import grid
from . import costs, floods

BEGIN, END = "<!-- hostile: begin -->", "<!-- hostile: end -->"
KINDS = {True: "compiled", False: "plain"}


def say(what: str) -> None:
    """Report progress."""
    print(what, file=sys.stderr, flush=True)


def costs_table(kinds: list[bool]) -> str:
    """Return what packets cost that are made to cost much."""
    found = {}
    for kind in kinds:
        say(f"costs, {KINDS[kind]}")
        found[kind] = costs.measure(kind)
    rows = [["CPU time a packet", *(KINDS[kind] for kind in kinds)]]
    for name in found[kinds[0]]:
        pairs = [found[kind][name] for kind in kinds]
        cells = [f"{odd:,.0f} ns to {usual:,.0f}: {odd / usual:.2f}" for usual, odd in pairs]
        rows.append([name, *cells])
    return grid(rows)


def _three(numbers: list[float]) -> str:
    return " / ".join(f"{number:.2f}" for number in numbers)


def floods_table(kinds: list[bool], seconds: float) -> str:
    """Return what other tasks feel of a flood."""
    rows = [
        [
            "p50 / p99 / most, in ms",
            *(
                f"{what}, {KINDS[kind]}"
                for what in ("turn, CPU time", "timer late")
                for kind in kinds
            ),
        ]
    ]
    for backend in loops():
        for name in floods.CONSUMERS:
            turns, lates = [], []
            for kind in kinds:
                say(f"flood, {backend}, {name}, {KINDS[kind]}")
                late, turn = floods.measure(backend, name, seconds, kind)
                turns.append(_three(turn))
                lates.append(_three(late))
            rows.append([f"{backend}, {name}", *turns, *lates])
    return grid(rows)


def ends_table(kinds: list[bool]) -> str:
    """Return how long a receiver takes to end under a flood."""
    rows = [["least / most of 5, in ms", *(KINDS[kind] for kind in kinds)]]
    for backend in loops():
        for how in ("stop", "aclose"):
            say(f"end, {backend}, {how}")
            cells = []
            for kind in kinds:
                found = floods.measure(backend, how, 0, kind)
                cells.append(f"{min(found):.2f} / {max(found):.2f}")
            rows.append([f"{backend}, `{how}()`", *cells])
    return grid(rows)


def loops() -> Iterator[str]:
    """Give the event loops that there are here."""
    for backend in BACKENDS:
        if backend != "uvloop" or find_spec("uvloop"):
            yield backend


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.trust.hostile",
        description="Measure what hostile senders can do. Needs Linux; takes some minutes.",
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of each flood (default: 1)")
    parser.add_argument("--report", type=Path, help=f"a page with {BEGIN} and {END} in it")
    parser.add_argument("--note", default="", help="a sentence for the page, about the machine")
    options = parser.parse_args()
    if sys.platform != "linux":
        say("this needs Linux")
        return 2
    kinds = [True, False][not compiled :]
    date = time.strftime("%Y-%m-%d", time.gmtime())
    text = "\n\n".join(
        [
            f"{date}: {sentence(describe())} {options.note}".rstrip(),
            costs_table(kinds),
            floods_table(kinds, options.seconds),
            ends_table(kinds),
        ]
    )
    print(text)
    if options.report:
        page = options.report.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            say(f"{options.report} has no {BEGIN} and {END}")
            return 1
        options.report.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
