"""``python -m benchmarks [NAME ...] [--quick] [--out DIR]``; ``--help`` lists the names."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import burst, dns, drain, echo, machine, memory, rate, roundtrip, send
from .children import Children
from .plot import write_svg
from .report import Context, Result, Unavailable, goals_table, rich_table, write_json

BENCHMARKS: dict[str, Callable[[Context], Result]] = {
    "drain": drain.run,
    "rate": rate.run,
    "roundtrip": roundtrip.run,
    "burst": burst.run,
    "memory": memory.run,
    "send": send.run,
    "echo": echo.run,
    "dns": dns.run,
}

WIDTH = 200
"""Columns of a table that does not go to a terminal."""


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure anyio-mmsg against its peers and the C floor, on this machine.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--quick", action="store_true", help="an instant each: that it works, not how fast"
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds, instead of the default")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "results",
        help="where the JSON and SVG files go (default: %(default)s)",
    )
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    return options


def main() -> None:
    """Run the benchmarks, print tables, write files."""
    options = arguments()
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    described = machine.describe()
    console.print(machine.sentence(described))
    options.out.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Children() as children:
        for name in options.names or BENCHMARKS:
            began = time.monotonic()
            with Progress(*columns, console=Console(stderr=True)) as progress:
                task = progress.add_task(name, total=None)
                context = Context(
                    children,
                    options.quick,
                    options.rounds,
                    lambda done, total, task=task, progress=progress: progress.update(  # type: ignore[misc]
                        task, completed=done, total=total
                    ),
                )
                try:
                    result = BENCHMARKS[name](context)
                except Unavailable as reason:
                    console.print(f"{name} can't run here: {reason}\n")
                    continue
            for table in result.tables:
                console.print(rich_table(*table))
            if result.goals:
                console.print(goals_table(result.goals))
            for note in result.notes:
                console.print(note)
            console.print(f"{name}: {time.monotonic() - began:.0f} s\n")
            write_json(result, described, options.quick, options.out / f"{name}.json")
            write_svg(result, machine.sentence(described), options.out / f"{name}.svg")


if __name__ == "__main__":
    main()
