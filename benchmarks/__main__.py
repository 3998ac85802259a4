"""``python -m benchmarks [NAME ...] [--quick] [--out DIR]``; ``--help`` lists the names."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import machine, report, summary
from .children import Children
from .measure import (
    burst,
    dns,
    echo,
    gro,
    http3,
    instructions,
    lossless,
    lowrate,
    memory,
    receive,
    roundtrip,
    send,
    single,
)
from .result import Context, Goal, Result, write_json
from .spec import UnavailableError

BENCHMARKS: dict[str, Callable[[Context], Result]] = {
    "instructions": instructions.run,
    "receive": receive.run,
    "single": single.run,
    "gro": gro.run,
    "send": send.run,
    "roundtrip": roundtrip.run,
    "lowrate": lowrate.run,
    "echo": echo.run,
    "dns": dns.run,
    "http3": http3.run,
    "lossless": lossless.run,
    "burst": burst.run,
    "memory": memory.run,
}
ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "docs" / "performance.md", ROOT / "README.md", ROOT / "docs" / "index.md")
WIDTH = 200
"""Columns of a table that does not go to a terminal."""


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure anyio-mmsg against its peers and the C floor, on this machine.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(BENCHMARKS)}: all, if none is given; goals: print the goals table of "
        "the results; report: write tables of the results into docs/performance.md and README.md, "
        "and draw the pictures",
    )
    parser.add_argument(
        "--quick", action="store_true", help="an instant each: that it works, not how fast"
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds, instead of the default")
    parser.add_argument(
        "--only",
        default="",
        metavar="TEXT[,TEXT]",
        help="for instructions: rows whose key contains a TEXT, such as wake-stream or trio; "
        "results are printed, and not written",
    )
    parser.add_argument(
        "--hold",
        action="store_true",
        help="for instructions: fail if a ratio is worse than benchmarks/bounds.py says",
    )
    parser.add_argument("--machine", default="", help="what to call this machine in the results")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "results",
        help="where the results are written, and read from (default: %(default)s)",
    )
    parser.add_argument(
        "--other",
        type=Path,
        default=Path(__file__).parent / "results" / "other",
        help="for report: results of another machine, if there are any (default: %(default)s)",
    )
    parser.add_argument(
        "--page", type=Path, action="append", help="for report: the page, instead of the two"
    )
    options = parser.parse_args()
    known = [*BENCHMARKS, "goals", "report"]
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(known)}")
    return options


def measure(
    name: str, options: argparse.Namespace, children: Children, console: Console
) -> list[Goal]:
    """Run one benchmark; print its tables, write its results, return its goals."""
    began = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        context = Context(
            children,
            options.quick,
            options.rounds,
            lambda done, total: progress.update(task, completed=done, total=total),
            options.only,
        )
        try:
            result = BENCHMARKS[name](context)
        except UnavailableError as reason:
            console.print(f"{name} can't run here: {reason}\n")
            return []
    result.quick = options.quick
    result.machine = machine.describe(options.machine)
    for table in result.tables:
        console.print(report.rich_grid(report.grid(table)))
    for note in result.notes:
        console.print(note)
    if result.left_out:
        console.print(report.left_out([result]))
    console.print(f"{name}: {time.monotonic() - began:.0f} s\n")
    if not options.only:
        write_json(result, options.out / f"{name}.json")
    if options.hold and result.broken:
        raise RuntimeError("\n".join(["what is held is broken:", *result.broken]))
    return result.goals


def run(
    names: list[str], options: argparse.Namespace, console: Console
) -> tuple[list[Goal], list[str]]:
    """Run benchmarks; return their goals, and the names of those that failed.

    A failure does not stop the others.
    """
    reached: list[Goal] = []
    failed: list[str] = []
    if not names:
        return reached, failed
    console.print(machine.sentence(machine.describe(options.machine)))
    with ExitStack() as stack:
        children = stack.enter_context(Children())
        for name in names:
            try:
                reached += measure(name, options, children, console)
            except RuntimeError as error:
                console.print(f"{name} failed: {error}\n")
                failed.append(name)
                stack.close()  # nobody knows what the processes are about now
                children = stack.enter_context(Children())
    return reached, failed


def goals(options: argparse.Namespace, console: Console) -> None:
    """Print the goals table of the results that there are."""
    results = report.read_results(options.out, list(BENCHMARKS))
    listed = [goal for result in results for goal in result.goals]
    console.print(report.rich_grid(report.goals_grid(listed)))
    console.print(report.machines(results))


def write_report(options: argparse.Namespace, console: Console) -> None:
    """Write the tables of the results into pages, and draw the pictures."""
    from . import picture  # here: who only measures needs no matplotlib

    results = report.read_results(options.out, list(BENCHMARKS))
    found = report.blocks(results, report.read_results(options.other, list(BENCHMARKS)))
    found |= summary.blocks(results)
    for page in options.page or PAGES:
        page.write_text(report.fill(page.read_text("utf-8"), found), encoding="utf-8")
        console.print(f"wrote {page}")
    for name in picture.PICTURES:
        if path := picture.draw(name, results, options.out):
            console.print(f"drew {path}")


def main() -> None:
    """Do what the command line says."""
    options = arguments()
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = [name for name in options.names or BENCHMARKS if name in BENCHMARKS]
    reached, failed = run(chosen, options, console)
    if options.only:
        console.print(report.rich_grid(report.goals_grid(reached)))
    elif chosen or "goals" in options.names:
        goals(options, console)
    if "report" in options.names:
        write_report(options, console)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
