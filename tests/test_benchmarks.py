"""The benchmarks run, for an instant: whether they still work, not how fast anything is."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich", reason="the benchmarks need the extra named bench")
pytest.importorskip("matplotlib", reason="the benchmarks need the extra named bench")

ROOT = Path(__file__).parent.parent
NAMES = ("drain", "rate", "roundtrip", "burst", "memory")
SECONDS = 120  # against hanging; it takes about ten
PEERS = {"protocol-asyncio", "anyio-asyncio"}  # those that run on every platform and version
LINUX = sys.platform == "linux"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("results")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks", "--quick", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Goals" in done.stdout
    for name in NAMES:
        svg = (out / f"{name}.svg").read_text(encoding="utf-8")
        assert svg.startswith("<?xml")
        assert "<dc:date>" not in svg
    return {name: json.loads((out / f"{name}.json").read_text("utf-8")) for name in NAMES}


def wanted() -> set[str]:
    engines = ("recvmmsg", "recvfrom_into") if LINUX else ("recvfrom_into",)
    return {f"ours-{engine}-64-{loop}" for engine in engines for loop in ("asyncio", "trio")}


def positive(summary: dict[str, float]) -> None:
    assert summary["rounds"] >= 1
    assert 0 < summary["low"] <= summary["median"] <= summary["high"]
    assert math.isfinite(summary["high"])


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_ran_on(results: dict[str, Any], name: str) -> None:
    machine = results[name]["machine"]
    assert machine["processor"]
    assert machine["system"]
    assert machine["python"]
    assert machine["versions"]["anyio"]
    assert results[name]["quick"] is True


@pytest.mark.parametrize("name", ["drain", "rate", "roundtrip", "burst"])
def test_has_every_receiver(results: dict[str, Any], name: str) -> None:
    assert {row["receiver"] for row in results[name]["results"]} >= wanted() | PEERS


def test_drain(results: dict[str, Any]) -> None:
    for row in results["drain"]["results"]:
        if row["lost"]:
            assert row["receiver"] == "anyio-uvloop"  # its queue of 100; see the notes
        else:
            positive(row["ns"])


def test_rate(results: dict[str, Any]) -> None:
    for row in results["rate"]["results"]:
        assert row["rate"]["median"] >= 0  # a machine in distress may lose at every rate
        if row["above"]:
            assert row["above"]["lost_in_kernel"] + row["above"]["lost_in_library"] > 0


def test_round_trip(results: dict[str, Any]) -> None:
    for row in results["roundtrip"]["results"]:
        for summary in row["microseconds"].values():
            positive(summary)


def test_burst(results: dict[str, Any]) -> None:
    for row in results["burst"]["results"]:
        positive(row["received"])
        if row["kind"] == "ours":
            assert row["lost_in_library"] == 0
            accounted = row["received"]["median"] + row["lost_in_kernel"]
            assert not LINUX or accounted == row["sent"]


def test_memory(results: dict[str, Any]) -> None:
    for row in results["memory"]["results"]:
        assert all(beyond > 0 for beyond in row["bytes_a_slot_beyond_the_payload"].values())
        assert row["packets"] > 0
        assert not LINUX or all(point["bytes"] > 0 for point in row["rss"])


def test_unknown_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "dran"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert "no benchmark 'dran'" in done.stderr
