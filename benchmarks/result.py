"""What a benchmark hands back, and its JSON: medians and spread only."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .children import Children
from .spec import LOOPS, AnySpec, Kind
from .stats import Rounds, Summary, difference, ratio, summarize


@dataclass
class Context:
    """What a benchmark works with.

    Attributes:
        children: The candidates' processes.
        quick: Run for an instant: see that it works, believe no number.
        rounds: How many interleaved rounds; None for the benchmark's own choice.
        progress: Called with (done, total) after each measurement.
        only: Texts, with commas between them, of which keys of rows have to contain one, where a
            benchmark can leave rows out.
    """

    children: Children
    quick: bool
    rounds: int | None
    progress: Callable[[int, int], None]
    only: str = ""

    def steps(self, full: int) -> int:
        """Return the number of rounds: as the user says, or that of a full or a quick run."""
        return self.rounds or (1 if self.quick else full)

    def turns(self, rounds: int) -> range:
        """Return the numbers of the rounds. Round 0 is for warming up, and does not count."""
        return range(1 if self.quick else 0, rounds + 1)


@dataclass(frozen=True)
class Goal:
    """A bound that the project sets itself, on one loop.

    Attributes:
        what: Of ours.
        to: What it is compared with.
        loop: On which loop; "" for what needs none.
        bound: Of the ratio, or the difference.
        measured: That, within each round; None if one of the two could not be measured.
        at_most: Whether the bound is the most or the least.
    """

    what: str
    to: str
    loop: str
    bound: float
    measured: Summary | None
    at_most: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the median keeps to the bound; None if it was not measured."""
        if self.measured is None:
            return None
        median = self.measured.median
        return median <= self.bound if self.at_most else median >= self.bound


@dataclass(frozen=True)
class Row:
    """A candidate's line in a table."""

    key: str
    label: str
    loop: str
    kind: Kind
    cells: dict[str, Summary]


@dataclass
class Table:
    """Figures of some candidates, in columns.

    Attributes:
        name: Names it in docs/performance.md.
        title: What was measured.
        unit: Of the cells, if all have one.
        better: Which way.
        columns: In their order.
        rows: In their order.
    """

    name: str
    title: str
    unit: str
    better: Literal["lower", "higher", ""]
    columns: list[str]
    rows: list[Row] = field(default_factory=list)

    def add(self, spec: AnySpec, cells: dict[str, Summary | None], label: str = "") -> None:
        """Add a candidate's row, if there is anything in it."""
        known = {column: cell for column, cell in cells.items() if cell is not None}
        if known:
            self.rows.append(Row(spec.key, label or spec.label, spec.loop, spec.kind, known))


@dataclass
class Result:
    """A benchmark's outcome.

    Attributes:
        name: Of the benchmark, and of its file.
        title: What was measured.
        notes: What a reader has to know besides.
        tables: The figures.
        goals: Those that this benchmark measures.
        left_out: Candidates that can't run here, by the reason.
        quick: Whether the figures are of a quick run, and mean nothing.
        machine: What it ran on (`machine.describe`).
        broken: Ratios that are worse than what is held (`bounds`), in words; not in the JSON.
    """

    name: str
    title: str
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    quick: bool = False
    machine: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


class Figures:
    """Values by candidate and whatever else distinguishes measurements, one for each round."""

    def __init__(self) -> None:
        self.rounds: defaultdict[tuple[Any, ...], list[float | None]] = defaultdict(list)

    def add(self, value: float | None, *cell: Any) -> None:
        """Note a round's value."""
        self.rounds[cell].append(value)

    def get(self, *cell: Any) -> Rounds | None:
        """Return the rounds of a cell; None if it was not measured."""
        return self.rounds.get(cell)

    def summary(self, *cell: Any) -> Summary | None:
        """Summarize a cell."""
        return summarize(self.rounds.get(cell))

    def ratio(self, cell: tuple[Any, ...], base: tuple[Any, ...]) -> Summary | None:
        """Compare two cells, round by round."""
        return ratio(self.rounds.get(cell), self.rounds.get(base))

    def difference(self, cell: tuple[Any, ...], base: tuple[Any, ...]) -> Summary | None:
        """Subtract a cell from another, round by round."""
        return difference(self.rounds.get(cell), self.rounds.get(base))


def per_loop(
    what: str,
    to: str,
    bound: float | Sequence[float],
    measured: Callable[[str], Summary | None],
    *,
    at_most: bool = True,
    loops: Iterable[str] = LOOPS,
) -> list[Goal]:
    """Return a goal for each loop, with one bound or one for each."""
    loops = list(loops)
    bounds = bound if isinstance(bound, Sequence) else [bound] * len(loops)
    return [
        Goal(what, to, loop, most, measured(loop), at_most)
        for loop, most in zip(loops, bounds, strict=True)
    ]


def write_json(result: Result, path: Path) -> None:
    """Write a result: a line for each row and each goal, so that a change can be read."""
    head = {
        "benchmark": result.name,
        "title": result.title,
        "quick": result.quick,
        "machine": result.machine,
        "notes": result.notes,
        "left_out": result.left_out,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    goals = [
        {
            "what": goal.what,
            "to": goal.to,
            "loop": goal.loop,
            "bound": goal.bound,
            "at_most": goal.at_most,
            "measured": goal.measured.as_json() if goal.measured else None,
        }
        for goal in result.goals
    ]
    lines += ['"goals": [', *_lines(goals), "],", '"tables": [']
    for number, table in enumerate(result.tables):
        about = {key: getattr(table, key) for key in ("name", "title", "unit", "better")}
        rows = [
            {
                "key": row.key,
                "label": row.label,
                "loop": row.loop,
                "kind": row.kind,
                "cells": {column: cell.as_json() for column, cell in row.cells.items()},
            }
            for row in table.rows
        ]
        begin = json.dumps({**about, "columns": table.columns})[:-1] + ', "rows": ['
        lines += [begin, *_lines(rows), "]}" + ("," if number + 1 < len(result.tables) else "")]
    path.write_text("{\n" + "\n".join([*lines, "]"]) + "\n}\n", encoding="utf-8")


def _lines(values: list[dict[str, Any]]) -> list[str]:
    last = len(values) - 1
    return [json.dumps(value) + ("," if i < last else "") for i, value in enumerate(values)]


def read_json(path: Path) -> Result:
    """Read what `write_json` wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))
    result = Result(
        document["benchmark"],
        document["title"],
        document["notes"],
        left_out=document["left_out"],
        quick=document["quick"],
        machine=document["machine"],
    )
    for goal in document["goals"]:
        measured = Summary(*goal.pop("measured")) if goal["measured"] else goal.pop("measured")
        result.goals.append(Goal(**goal, measured=measured))
    for table in document["tables"]:
        rows = table.pop("rows")
        result.tables.append(Table(**table))
        for row in rows:
            cells = {column: Summary(*cell) for column, cell in row.pop("cells").items()}
            result.tables[-1].rows.append(Row(**row, cells=cells))
    return result
