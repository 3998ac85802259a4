"""From results to words: tables for the terminal and for pages, the goals, who is better where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table as RichTable

from . import machine
from .result import Goal, Result, Row, Table, read_json
from .spec import LOOPS
from .stats import Summary

NAMES = {"asyncio": "asyncio", "uvloop": "uvloop", "trio": "Trio", "": ""}
NOT_MEASURED = "not measured"
CLEARLY = 1.05  # what is less apart is level
LOSSES = 1.0  # percent of packets; who loses more than that is not better


@dataclass(frozen=True)
class Grid:
    """Cells to print: a title, a header, and rows."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def number(value: float) -> str:
    """Write a number with three digits or more, and thousands separated."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(summary: Summary | None) -> str:
    """Write a median, and half the distance of its quartiles in percent of it."""
    if summary is None:
        return ""
    text = number(summary.median)
    return text if summary.low == summary.high else f"{text} ±{summary.percent:.0f}%"


def grid(table: Table) -> Grid:
    """Lay out a table: loops side by side if there is one column, else candidates in rows."""
    way = f"{table.better} is better" if table.better else ""
    title = ", ".join(text for text in (table.title, table.unit, way) if text)
    if len(table.columns) > 1:
        return Grid(
            title,
            ["", "loop", *table.columns],
            [
                [row.label, NAMES[row.loop], *(spread(row.cells.get(c)) for c in table.columns)]
                for row in table.rows
            ],
        )
    (column,) = table.columns
    by_label: dict[str, dict[str, Row]] = {}
    for row in table.rows:
        by_label.setdefault(row.label, {})[row.loop] = row
    rows = []
    for label, found in by_label.items():
        rows.append([label])
        for loop in LOOPS:
            row_of = found.get(loop) or found.get("")  # what needs no loop is the same on all
            rows[-1].append(spread(row_of.cells[column]) if row_of else "")
    return Grid(title, ["", *(NAMES[loop] for loop in LOOPS)], rows)


def verdict(goal: Goal) -> str:
    """Write what was measured, and whether it will do."""
    if goal.measured is None:
        return NOT_MEASURED
    text = f"{goal.measured.median:.2f}"
    if goal.measured.low != goal.measured.high:
        text += f" ±{goal.measured.percent:.0f}%"
    if goal.met:
        return f"{text}, met"
    off = abs(goal.measured.median / goal.bound - 1)
    return f"{text}, missed by {off:.0%}" if off >= 0.01 else f"{text}, missed by {off:.1%}"


def goals_grid(goals: Iterable[Goal]) -> Grid:
    """Lay out goals: a row for each, loops side by side."""
    goals = list(goals)
    names = _names(goals)
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for goal in goals:
        rows.setdefault(names[goal.what, goal.to], {})[goal.loop] = verdict(goal)
    return Grid(
        "Goals: ratios within each round, medians",
        ["what", "to what", "goal", *(NAMES[loop] for loop in LOOPS)],
        [
            [
                *key,
                *(
                    found.get(loop, found.get("", "") if loop == LOOPS[0] else "")
                    for loop in LOOPS
                ),
            ]
            for key, found in rows.items()
        ],
    )


def held(results: Sequence[Result], others: Sequence[Result]) -> str:
    """Say which goals were met on this machine, and which on another."""
    if not others:
        return "These figures are of one machine."
    columns = []
    for of in (results, others):
        met: dict[tuple[str, str, str], list[bool]] = {}
        goals = [goal for result in of for goal in result.goals]
        names = _names(goals)
        for goal in goals:
            met.setdefault(names[goal.what, goal.to], []).append(bool(goal.met))
        columns.append(met)
    first, second = columns
    rows = [
        [*key, *(f"{sum(met.get(key, []))} of {len(loops)}" for met in (first, second))]
        for key, loops in first.items()
    ]
    header = ["what", "to what", "goal", "here", "there"]
    grid = Grid("On how many loops a goal is met", header, rows)
    return f"{markdown(grid)}\n\nThere: {machines(others)}"


def _names(goals: Iterable[Goal]) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Name goals by what is compared, and their bounds: one, or one for each loop."""
    bounds: dict[tuple[str, str], list[Goal]] = {}
    for goal in goals:
        bounds.setdefault((goal.what, goal.to), []).append(goal)
    names = {}
    for (what, to), found in bounds.items():
        values = [f"{goal.bound:g}" for goal in found]
        text = values[0] if len(set(values)) == 1 else " / ".join(values)
        names[what, to] = what, to, f"at {'most' if found[0].at_most else 'least'} {text}"
    return names


def rich_grid(cells: Grid) -> RichTable:
    """Lay cells out for the terminal."""
    table = RichTable(title=cells.title, title_justify="left", title_style="bold")
    for column, heading in enumerate(cells.header):
        table.add_column(heading, justify="right" if column else "left", overflow="fold")
    for row in cells.rows:
        table.add_row(*(cell.replace("`", "") for cell in row))
    return table


def markdown(cells: Grid) -> str:
    """Lay cells out for a page."""
    lines = [f"| {' | '.join(cells.header)} |", f"|{'---|' * len(cells.header)}"]
    lines += [f"| {' | '.join(row)} |" for row in cells.rows]
    return f"*{cells.title}*\n\n" + "\n".join(re.sub(r"\|  (?=\|)", "| ", line) for line in lines)


def better_elsewhere(results: Iterable[Result]) -> Grid:
    """Find each figure in which a peer on the same loop is clearly better than all of ours.

    Percentiles beyond the median, footnotes and what loses packets are left out.
    """
    rows = []
    for table in (table for result in results for table in result.tables if table.better):
        for column in table.columns:
            if "Footnote" in table.title or column.startswith(("p99", "lost", "server's CPU, %")):
                continue
            # A column may go the other way than its table: of a rate, the processor's part.
            lower = table.better == "lower" or "CPU" in column
            cells = [_better(table, column, loop, lower=lower) for loop in LOOPS]
            if not any(row.loop for row in table.rows):  # the same on all loops: once is enough
                cells[1:] = [""] * (len(LOOPS) - 1)
            if any(cells):
                what = table.title if len(table.columns) == 1 else f"{table.title}: {column}"
                rows.append([what, *cells])
    title = f"A peer is more than {CLEARLY - 1:.0%} better than the best of ours on the same loop"
    return Grid(title, ["what", *(NAMES[loop] for loop in LOOPS)], rows)


def _better(table: Table, column: str, loop: str, *, lower: bool) -> str:
    """Name the best peer on a loop with its figure and ours, if it is better than ours."""
    found = [
        row
        for row in table.rows
        if row.loop in (loop, "")
        and column in row.cells
        and all(cell.median < LOSSES for name, cell in row.cells.items() if "lost" in name)
    ]
    ours = [
        row.cells[column].median
        for row in found
        if row.kind in ("ours", "plain") and "linger" not in row.label  # which gives up latency
    ]
    peers = {
        row.cells[column].median: row.label
        for row in found
        if row.kind == "peer" and "alone" not in row.label
    }
    if not ours or not peers:
        return ""
    choose = min if lower else max
    own, value = choose(ours), choose(peers)
    if choose(own, value) == own or max(own, value) < CLEARLY * min(own, value):
        return ""
    return f"{peers[value]} {number(value)}, ours {number(own)}"


def left_out(results: Iterable[Result]) -> str:
    """Say what was not measured, and why."""
    found: dict[str, list[str]] = {}
    for result in results:
        for reason, names in result.left_out.items():
            known = found.setdefault(reason, [])
            known += [name for name in names if name not in known]
    lines = [f"- {reason}: {'; '.join(names)}" for reason, names in found.items()]
    return "\n".join(["Not measured:", "", *lines]) if lines else "Nothing was left out."


def read_results(directory: Path, order: Sequence[str]) -> list[Result]:
    """Read the results that there are, in the order of the benchmarks."""
    paths = [directory / f"{name}.json" for name in order]
    return [read_json(path) for path in paths if path.exists()]


def machines(results: Iterable[Result]) -> str:
    """Name what the results are of."""
    names: dict[str, list[str]] = {}
    for result in results:
        text = machine.sentence(result.machine)
        text += " A quick run: these figures mean nothing." if result.quick else ""
        names.setdefault(text, []).append(result.name)
    if len(names) == 1:
        return next(iter(names))
    return "\n\n".join(f"{', '.join(of)}: {text}" for text, of in names.items())


def blocks(results: Sequence[Result], others: Sequence[Result] = ()) -> dict[str, str]:
    """Return what can stand in a page, by the name in its marker.

    Args:
        results: Of this machine.
        others: Of another machine, for `held`.
    """
    found = {
        "machine": machines(results),
        "goals": markdown(goals_grid(goal for result in results for goal in result.goals)),
        "held": held(results, others),
        "better": markdown(better_elsewhere(results)),
        "left-out": left_out(results),
    }
    for result in results:
        found[f"notes-{result.name}"] = "\n".join(f"- {note}" for note in result.notes)
        for table in result.tables:
            found[table.name] = markdown(grid(table))
    return found


MARKED = re.compile(
    r"(?P<begin><!-- benchmarks: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- /benchmarks -->)",
    re.DOTALL,
)
PLACEHOLDER = "*Not measured yet.*"


def fill(page: str, found: dict[str, str]) -> str:
    """Write blocks between their markers: ``<!-- benchmarks: NAME -->``."""

    def block(match: re.Match[str]) -> str:
        return f"{match['begin']}{found.get(match['name'], PLACEHOLDER)}\n{match['end']}"

    return MARKED.sub(block, page)
