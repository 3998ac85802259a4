"""The benchmarks run, for an instant: whether they still work, not how fast anything is."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

pytest.importorskip("rich", reason="the benchmarks need the group 'bench'")
pytest.importorskip("matplotlib", reason="the benchmarks need the group 'bench'")

from benchmarks.candidates import (
    counted,
    http3_servers,
    receivers,
    receiving_peers,
    senders,
    serving_peers,
    singles,
    trains,
    veth,
)
from benchmarks.measure import echo, lowrate, receive, roundtrip, send, trial
from benchmarks.report import goals_grid
from benchmarks.result import Result, read_json
from benchmarks.spec import LOOPS, AnySpec

from .conftest import ROOT, QuickRun, benchmarks

NAMES = (
    "instructions",
    "receive",
    "single",
    "gro",
    "send",
    "roundtrip",
    "lowrate",
    "echo",
    "dns",
    "http3",
    "lossless",
    "burst",
    "memory",
)
MEASURED: dict[str, list[AnySpec]] = {
    "instructions": list(counted.ROWS),
    "receive": list(receive.ALL),
    "single": [*singles.SINGLES, *singles.AWAITED],
    "gro": [*trains.TRAINS, *trains.CONTROL, *veth.VETH],
    "send": list(send.ALL),
    "roundtrip": list(roundtrip.ALL),
    "lowrate": list(lowrate.ALL),
    "echo": list(echo.ALL),
    "dns": list(serving_peers.DNS),
    "http3": list(http3_servers.HTTP3),
    "lossless": list(trial.CHOSEN),
    "burst": list(trial.CHOSEN),
}
GOALS = {
    "instructions": 5,
    "receive": 13,
    "single": 2,
    "gro": 7,
    "send": 4,
    "roundtrip": 4,
    "lowrate": 3,
    "echo": 2,
    "dns": 3,
    "http3": 1,
    "lossless": 1,
}
"""Rows of the goals table, by benchmark."""


def result(quick_run: QuickRun, name: str) -> Result:
    path = quick_run.out / f"{name}.json"
    needed = {
        "dns": "dnsperf or dnspython",
        "http3": "aioquic or qh3",
        "instructions": "valgrind",
    }
    if name in needed and not path.exists():
        assert f"{name} can't run here" in quick_run.stdout
        pytest.skip(f"{needed[name]} is not installed")
    return read_json(path)


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is_of(quick_run: QuickRun, name: str) -> None:
    found = result(quick_run, name)
    assert found.quick
    assert found.machine["name"] == "a test"
    for key in ("processor", "cores", "system", "python"):
        assert found.machine[key]
    assert found.machine["versions"]["anyio"]


@pytest.mark.parametrize("name", NAMES)
def test_is_compact(quick_run: QuickRun, name: str) -> None:
    found = result(quick_run, name)
    rows = sum(len(table.rows) for table in found.tables)
    text = (quick_run.out / f"{name}.json").read_text("utf-8")
    assert len(text.splitlines()) <= 30 + 2 * len(found.tables) + rows + len(found.goals)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_a_median_and_its_spread(quick_run: QuickRun, name: str) -> None:
    for table in result(quick_run, name).tables:
        assert table.rows
        for row in table.rows:
            assert set(row.cells) <= set(table.columns)
            for cell in row.cells.values():
                assert all(map(math.isfinite, cell.as_json()))
                assert cell.low <= cell.median <= cell.high


@pytest.mark.parametrize("name", MEASURED)
def test_measures_everyone_or_says_why_not(quick_run: QuickRun, name: str) -> None:
    found = result(quick_run, name)
    measured = {row.key for table in found.tables for row in table.rows}
    left_out = {who for names in found.left_out.values() for who in names}
    assert all(found.left_out)  # no reason is empty
    for spec in MEASURED[name]:
        who = f"{spec.label}, {spec.loop}" if spec.loop else spec.label
        # A peer may lose packets in each of the few rounds, and has no figure then.
        assert spec.key in measured or who in left_out or spec.kind == "peer", spec.key


@pytest.mark.parametrize("name", GOALS)
def test_speaks_of_its_goals(quick_run: QuickRun, name: str) -> None:
    found = result(quick_run, name)
    grid = goals_grid(found.goals)
    assert len(grid.rows) == GOALS[name]
    for goal in found.goals:
        assert goal.loop in (*LOOPS, "")
        assert goal.bound > 0
        if goal.measured is None:  # then somebody is not there, or lost packets
            continue
        assert goal.met in (True, False)


def test_the_goals_table_is_printed(quick_run: QuickRun) -> None:
    assert "Goals" in quick_run.stdout
    assert "A quick run: these figures mean nothing." in quick_run.stdout


def tables(quick_run: QuickRun) -> set[str]:
    """Return the names of all tables."""
    return {
        table.name for path in quick_run.out.glob("*.json") for table in read_json(path).tables
    }


def test_report_fills_the_page_and_draws(quick_run: QuickRun, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text("utf-8"), encoding="utf-8")
    for name in NAMES:
        if (path := quick_run.out / f"{name}.json").exists():
            shutil.copy(path, tmp_path)
    pictures: dict[str, str] = {}
    for _ in range(2):
        done = benchmarks("report", "--out", tmp_path, "--page", page)
        assert done.returncode == 0, done.stderr
        for name in ("receive", "echo"):
            svg = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
            assert svg.startswith("<?xml")
            assert pictures.setdefault(name, svg) == svg  # the same bytes for the same numbers
            assert "is better)" in svg
            assert "six-line recvfrom loop" in svg
    text = page.read_text("utf-8")
    everything = {"dns.json", "http3.json", "instructions.json"} <= {
        path.name for path in tmp_path.iterdir()
    }
    if everything and "roundtrip-two" in tables(quick_run):
        assert "Not measured yet" not in text
    assert "| six-line recvfrom loop |" in text
    assert "| what | to what | goal | asyncio | uvloop | Trio |" in text


def test_every_figure_has_its_place_in_the_page(quick_run: QuickRun) -> None:
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    for path in quick_run.out.glob("*.json"):
        found = read_json(path)
        for name in (*(table.name for table in found.tables), f"notes-{found.name}"):
            assert f"<!-- benchmarks: {name} -->" in page


def test_committed_results_are_of_full_runs() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert json.loads(path.read_text("utf-8"))["quick"] is False


def test_keys_are_unique() -> None:
    for specs in (
        receivers.FLOORS + receivers.OURS + receivers.STREAMS + receivers.PORTABLE,
        receivers.PLAINS + receiving_peers.PEERS + receiving_peers.COLD,
        senders.FLOORS + senders.OURS + senders.PEERS,
        singles.SINGLES + singles.AWAITED,
    ):
        assert len({spec.key for spec in specs}) == len(specs)


def test_dns_says_what_it_needs(tmp_path: Path) -> None:
    done = benchmarks("dns", "--quick", "--out", tmp_path, PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "apt install dnsperf" in done.stdout
    assert not (tmp_path / "dns.json").exists()


def test_linger() -> None:
    options = ("--loops", "asyncio", "trio", "--rates", 1000, "--seconds", 0.05, "--rounds", 1)
    done = benchmarks(*options, module="benchmarks.linger")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[-2:]] == ["asyncio", "trio"]


def test_unknown_name() -> None:
    done = benchmarks("recieve")
    assert done.returncode == 2
    assert "no benchmark 'recieve'" in done.stderr
