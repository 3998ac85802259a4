"""Counting instructions: that it repeats, what it leaves out, and that what is held is held."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("rich", reason="the benchmarks need the group 'bench'")

from benchmarks import bounds
from benchmarks.bounds import MARGIN, Ratio
from benchmarks.candidates.counted import ROWS, SPECS, alone
from benchmarks.children import Children
from benchmarks.measure import instructions
from benchmarks.measure.instructions import Counts, chosen, count, pairs
from benchmarks.result import Context
from benchmarks.spec import UnavailableError

counting = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("valgrind") is None,
    reason="valgrind is not installed",
)


def context(children: Children, only: str, *, quick: bool = True) -> Context:
    return Context(children, quick, None, lambda done, total: None, only)


def test_every_ratio_is_between_rows_that_exist() -> None:
    for ratio in bounds.RATIOS:
        for row, base, _, place in pairs(ratio):
            assert row in SPECS
            assert base in SPECS
            assert ratio.held[place] > 0
            assert ratio.goal is None or ratio.goal[place] > 0


def test_every_row_has_its_harness() -> None:
    for spec in ROWS:
        assert SPECS[alone(spec)].limit == spec.limit
        assert SPECS[alone(spec)].loop == spec.loop


def test_a_part_brings_what_it_is_compared_with() -> None:
    keys = {spec.key for spec in chosen("wake-stream-trio")}
    assert keys == {"wake-stream-trio", "wake-naive-trio", "wake-alone-trio"}
    assert len(chosen("")) == len(SPECS)


def test_the_harness_is_subtracted() -> None:
    found = Counts({"recv-ours": 900.0, "recv-recvfrom": 500.0, "recv-alone": 100.0}, {})
    assert found.own("recv-ours") == 800
    assert found.ratio("recv-ours", "recv-recvfrom") == 2
    assert found.own("send-ours") is None


def test_what_is_worse_than_held_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Counts({"recv-ours": 900.0, "recv-recvfrom": 500.0, "recv-alone": 100.0}, {})
    monkeypatch.setattr(instructions, "count", lambda context, specs: found)
    monkeypatch.setattr(instructions, "valgrind", lambda: "valgrind")
    for held, broken in ((2 / (1 + MARGIN) + 0.01, 0), (2 / (1 + MARGIN) - 0.01, 1)):
        ratio = Ratio("ours", "`recvfrom`", "recv-ours", "recv-recvfrom", (1.5,), (held,))
        monkeypatch.setattr(instructions, "RATIOS", (ratio,))
        result = instructions.run(context(Children(), "recv", quick=False))
        assert len(result.broken) == broken
        assert [goal.met for goal in result.goals] == [False]


def test_says_that_it_needs_valgrind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="apt install valgrind"):
        instructions.run(context(Children(), "recv"))


@counting
def test_counts_repeat_to_a_percent() -> None:
    with Children() as children:
        specs = chosen("recv-recvfrom") + chosen("wake-stream-trio")
        first, second = (count(context(children, ""), specs) for _ in range(2))
    assert first.packet.keys() == second.packet.keys() == {spec.key for spec in specs}
    for key, value in first.packet.items():
        assert value == pytest.approx(second.packet[key], rel=0.01)
        assert value > 100
