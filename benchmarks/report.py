"""What a benchmark hands back, and how that becomes tables and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from .children import Children
from .spec import AnySpec
from .stats import Summary


class Unavailable(Exception):  # noqa: N818  # it is no error
    """A benchmark can't run here; its text says what it needs."""


@dataclass
class Context:
    """What a benchmark works with.

    Attributes:
        children: The receivers' processes.
        quick: Run for an instant: see that it works, believe no number.
        rounds: How many interleaved rounds; None for the benchmark's own choice.
        progress: Called with (done, total) after each measurement.
    """

    children: Children
    quick: bool
    rounds: int | None
    progress: Callable[[int, int], None]

    def steps(self, full: int, quick: int) -> int:
        """Return the number of rounds: as the user says, or that of a full or a quick run."""
        return self.rounds or (quick if self.quick else full)


@dataclass
class Goal:
    """A bound that the project sets itself."""

    text: str
    measured: Summary | None
    bound: float
    at_most: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the median keeps to the bound; None if it was not measured."""
        if self.measured is None:
            return None
        median = self.measured.median
        return median <= self.bound if self.at_most else median >= self.bound


@dataclass
class Bar:
    """One bar of a plot."""

    label: str
    kind: str
    value: Summary | None


@dataclass
class Result:
    """A benchmark's outcome.

    Attributes:
        name: Of the benchmark, and of its files.
        title: What was measured, for tables and the plot.
        unit: Of the bars.
        tables: Each a title, a header, and rows of cells.
        rows: The measurements, for the JSON.
        bars: For the plot, by panel.
        notes: What a reader has to know besides.
        goals: Those that this benchmark can tell of.
    """

    name: str
    title: str
    unit: str
    tables: list[tuple[str, Sequence[str], list[list[str]]]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    bars: dict[str, list[Bar]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)


def identity(spec: AnySpec, role: str = "receiver") -> dict[str, Any]:
    """Return the JSON fields that name a receiver, or what is measured instead."""
    return {
        role: spec.key,
        "label": spec.label,
        "loop": spec.loop,
        "kind": spec.kind,
        "limit": spec.limit,
    }


def name(spec: AnySpec) -> str:
    """Return a receiver's name for people."""
    return f"{spec.label}, {spec.loop}" if spec.loop else spec.label


def number(value: float) -> str:
    """Write a number with three digits or more, and thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(summary: Summary | None) -> str:
    """Write a median, and half the distance of its quartiles in percent of it."""
    if summary is None:
        return "-"
    percent = (summary.high - summary.low) / 2 / summary.median * 100 if summary.median else 0
    return f"{number(summary.median)} ±{percent:.0f}%"


def times(summary: Summary | None) -> str:
    """Write a ratio."""
    return "-" if summary is None else f"{summary.median:.2f}x"


def rich_table(title: str, header: Sequence[str], rows: list[list[str]]) -> Table:
    """Lay out a table for the terminal; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column, heading in enumerate(header):
        table.add_column(heading, justify="right" if column else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def goals_table(goals: list[Goal]) -> Table:
    """Lay out the goals."""
    verdicts = {True: "yes", False: "no", None: "not measured"}
    rows = [
        [
            goal.text,
            f"{'<=' if goal.at_most else '>='} {goal.bound:g}",
            spread(goal.measured),
            verdicts[goal.met],
        ]
        for goal in goals
    ]
    return rich_table("Goals", ("goal", "bound", "measured", "met"), rows)


def write_json(result: Result, machine: dict[str, Any], quick: bool, path: Path) -> None:
    """Write a result, with the machine that it is of."""
    document = {
        "benchmark": result.name,
        "title": result.title,
        "unit": result.unit,
        "quick": quick,
        "machine": machine,
        "notes": result.notes,
        "goals": [
            {
                "goal": goal.text,
                "bound": goal.bound,
                "at_most": goal.at_most,
                "measured": goal.measured.as_json() if goal.measured else None,
                "met": goal.met,
            }
            for goal in result.goals
        ],
        "results": result.rows,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
