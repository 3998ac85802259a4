"""Instructions a packet: a measure that no machine bends.

Each row runs under ``valgrind --tool=callgrind`` for some turns, and for more. The difference, by
packet, less the same of the harness alone, is what it costs in user space.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.bounds import MARGIN, RATIOS, Ratio
from benchmarks.candidates.counted import (
    CALLS,
    FULL,
    HARNESS,
    HARNESS_TURNS,
    ROWS,
    SPECS,
    CountedSpec,
    alone,
)
from benchmarks.children import HERE, python
from benchmarks.result import Context, Goal, Result, Table
from benchmarks.spec import LOOPS, WARM, UnavailableError
from benchmarks.stats import Summary

TURNS, MANY_TURNS = (100, 100, 500), (10, 10, 80)
QUICK_TURNS = (5, 5, 10)
"""To warm up, of the short run, and of the long one: with one packet a turn, with many, or for an
instant."""

SECONDS = 900.0  # against hanging: ten times what it takes

Turns: TypeAlias = tuple[int, int, int]

SETTLED = {"PYTHONHASHSEED": "0", **WARM}
"""What makes runs equal: hashes, and the state of the allocator."""


@dataclass(frozen=True)
class Counts:
    """What was counted.

    Attributes:
        packet: Instructions a packet, by key, the harness included.
        missing: Why rows were left out, by key.
    """

    packet: dict[str, float]
    missing: dict[str, str]

    def own(self, key: str) -> float | None:
        """Return a row's instructions a packet, without the harness's."""
        harness = alone(SPECS[key])
        if key not in self.packet or harness not in self.packet:
            return None
        return self.packet[key] - self.packet[harness]

    def ratio(self, row: str, base: str) -> float | None:
        """Divide a row by another."""
        own, other = self.own(row), self.own(base)
        return None if own is None or other is None else own / other


def valgrind() -> str:
    """Find valgrind.

    Raises:
        UnavailableError: There is none.
    """
    found = shutil.which("valgrind")
    if sys.platform != "linux" or found is None:
        raise UnavailableError("valgrind is not installed (apt install valgrind)")
    return found


def chosen(only: str) -> list[CountedSpec]:
    """Return the rows whose key has a text of `only`, with what they are compared with."""
    texts = only.split(",")
    wanted = {spec.key for spec in ROWS if any(text in spec.key for text in texts)}
    for ratio in RATIOS:
        for row, base, *_ in pairs(ratio):
            if row in wanted:
                wanted.add(base)
    wanted |= {alone(SPECS[key]) for key in wanted}
    return [spec for spec in ROWS + HARNESS if spec.key in wanted]


def pairs(ratio: Ratio) -> Iterable[tuple[str, str, str, int]]:
    """Return the keys of a ratio's two rows for each loop, the loop, and its place in `Bounds`."""
    if len(ratio.held) == 1:
        yield ratio.row, ratio.base, "", 0
        return
    for place, loop in enumerate(LOOPS[: len(ratio.held)]):
        yield f"{ratio.row}-{loop}", f"{ratio.base}-{loop}", loop, place


def start(
    specs: Sequence[CountedSpec], turns: Callable[[CountedSpec], Turns], directory: Path
) -> subprocess.Popen[str]:
    """Start to count rows, which all run in the same environment."""
    rows = (":".join([spec.key, *map(str, turns(spec))]) for spec in specs)
    worker = python("instructions", *rows)
    command = [valgrind(), "--tool=callgrind", "--quiet", "--dump-before=getpriority"]
    return subprocess.Popen(
        [*command, f"--callgrind-out-file={directory}/%p", *worker],
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
        env={**os.environ, **SETTLED, **specs[0].environment},
    )


def instructions(directory: Path, process: int, dump: int) -> int:
    """Read what callgrind wrote down at a mark."""
    with (directory / f"{process}.{dump}").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("totals:"):
                return int(line.split()[1])
    raise RuntimeError("callgrind wrote no totals")


def count(context: Context, specs: Sequence[CountedSpec]) -> Counts:
    """Count rows, in as many processes as there are cores."""
    found = Counts({}, {})

    def turns(spec: CountedSpec) -> Turns:
        if context.quick:
            return QUICK_TURNS
        return TURNS if spec.limit == 1 else MANY_TURNS

    able: dict[bool, list[CountedSpec]] = {False: [], True: []}
    for spec in specs:
        if reason := context.children.lacks(spec):
            found.missing[spec.key] = reason
        else:
            able[bool(spec.environment)].append(spec)
    jobs = 2 if context.children.cores > 1 else 1
    parts = [able[False][i::jobs] for i in range(jobs)] + [able[True]]
    done = 0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        running = [start(part, turns, directory) for part in parts if part]
        try:
            for process in running:
                for line in process.communicate(timeout=SECONDS)[0].splitlines():
                    answer = json.loads(line)
                    note(found, answer, turns(SPECS[answer["key"]]), directory)
                    done += 1
                context.progress(done, sum(map(len, able.values())))
                if process.returncode:
                    raise RuntimeError("a row could not be counted; see above")
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"counting took more than {SECONDS:.0f} seconds") from None
        finally:
            for process in running:
                process.kill()
                process.wait()
    return found


def note(found: Counts, line: dict[str, Any], turns: Turns, directory: Path) -> None:
    """Note what a row's process said."""
    key = line["key"]
    if reason := line.get("missing"):
        found.missing[key] = reason
        return
    short, long = (instructions(directory, line["pid"], dump) for dump in (2, 3))
    found.packet[key] = (long - short) / (turns[2] - turns[1]) / SPECS[key].limit


def exact(value: float | None) -> Summary | None:
    """Summarize what has no spread."""
    return None if value is None else Summary(value, value, value)


TABLES = {
    "wake": "A packet that wakes its receiver",
    "full": f"{FULL} packets a wake, read",
    "dns": "A query that wakes a DNS server, and its answer",
    "recv": "A call that receives a packet, without waiting",
    "send": "A call that sends a packet, without waiting",
    "answer": "A call that sends a packet, with a checkpoint",
}
UNIT = "instructions a packet"


def run(context: Context) -> Result:
    """Count all rows, or those that were asked for."""
    specs = chosen(context.only)
    valgrind()
    found = count(context, specs)
    left_out: dict[str, list[str]] = {}
    for spec in specs:
        if reason := found.missing.get(spec.key):
            name = f"{spec.label}, {spec.loop}" if spec.loop else spec.label
            left_out.setdefault(reason, []).append(name)
    result = Result("instructions", "Instructions", left_out=left_out)
    for what, title in TABLES.items():
        table = Table(f"instructions-{what}", title, UNIT, "lower", ["instructions"])
        for spec in specs:
            if spec.key.startswith(f"{what}-") and spec in ROWS:
                table.add(spec, {"instructions": exact(found.own(spec.key))})
        for spec in specs:  # last: it is no candidate
            if spec.key.startswith(f"{what}-") and spec not in ROWS:
                table.add(spec, {"instructions": exact(found.packet.get(spec.key))})
        result.tables += [table] if table.rows else []
    for ratio in RATIOS:
        for row, base, loop, place in pairs(ratio):
            measured = found.ratio(row, base)
            if measured is None:
                continue
            if ratio.goal is not None:
                to = f"{ratio.to}, instructions"
                result.goals.append(Goal(ratio.what, to, loop, ratio.goal[place], exact(measured)))
            most = ratio.held[place] * (1 + MARGIN)
            if measured > most and not context.quick:
                where = f" on {loop}" if loop else ""
                result.broken.append(
                    f"{ratio.what}{where}: {measured:.3f} times the instructions of {ratio.to}; "
                    f"held is {ratio.held[place]:g} and {MARGIN:.0%} (benchmarks/bounds.py)"
                )
    result.notes = [
        "Counted by callgrind: the instructions that a process runs in user space. It counts "
        "neither the kernel's work, which is most of a system call, nor misses of caches and "
        "branches: fewer instructions are not always less time.",
        f"A task beside the receiver sends a packet of 1,232 bytes ({FULL}, a query) and yields "
        f"until it was seen. That harness alone, with {HARNESS_TURNS} turns of the loop each, was "
        "counted too and is subtracted; its row says what it is. A callback that sees a packet "
        "after one turn can therefore cost about nothing, or less.",
        f"A run of {TURNS[1]} packets is subtracted from one of {TURNS[2]}, so that what happens "
        f"once drops out; of batches of {FULL}, and of {CALLS} calls that don't wait, "
        f"{MANY_TURNS[1]} from {MANY_TURNS[2]}. Hashes, Trio's shuffling and the allocator's "
        "state are fixed, so that counts repeat to less than a percent.",
    ]
    return result
