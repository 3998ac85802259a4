"""The benchmarks run, for an instant: whether they still work, not how fast anything is."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich", reason="the benchmarks need the extra named bench")
pytest.importorskip("matplotlib", reason="the benchmarks need the extra named bench")

ROOT = Path(__file__).parent.parent
NAMES = ("drain", "rate", "roundtrip", "burst", "memory", "send", "echo")
SECONDS = 180  # against hanging; it takes about 30
PEERS = {"protocol-asyncio", "anyio-asyncio"}  # those that run on every platform and version
LINUX = sys.platform == "linux"

needs_dnsperf = pytest.mark.skipif(shutil.which("dnsperf") is None, reason="no dnsperf here")


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
    names = [*NAMES, *(["dns"] if (out / "dns.json").exists() else [])]
    for name in names:
        svg = (out / f"{name}.svg").read_text(encoding="utf-8")
        assert svg.startswith("<?xml")
        assert "<dc:date>" not in svg
    return {name: json.loads((out / f"{name}.json").read_text("utf-8")) for name in names}


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


def test_send(results: dict[str, Any]) -> None:
    rows = results["send"]["results"]
    for row in rows:
        assert row["lost"] == 0
        positive(row["ns"])
        if LINUX and shutil.which("cc"):
            positive(row["to_floor"])
    ways = [("pairs-sendto", 1), ("pairs-sendto", 1_000)]
    if LINUX:
        ways += [(way, 1) for way in ("pairs-sendmmsg", "batch-sendmmsg", "fan-sendmmsg")]
        ways += [("pairs-sendmmsg", 1_000), ("gso-sendmmsg", 1)]
    measured = {(row["sender"], row["destinations"], row["call"]) for row in rows}
    for loop in ("asyncio", "trio"):
        for way, destinations in ways:
            for call in (64, 1024):
                assert (f"send-{way}-{loop}", destinations, call) in measured
        assert (f"send-anyio-{loop}", 1, 1) in measured
    assert ("send-sendto", 1_000, 1) in measured


def servers(rows: list[dict[str, Any]], what: str) -> None:
    """Check that the servers that run on every platform were measured."""
    kinds = {"ours-asyncio", "ours-trio", "protocol-asyncio", "anyio-asyncio", "anyio-trio"}
    assert {row["server"] for row in rows} >= {f"{what}-{kind}" for kind in kinds}
    for row in rows:
        positive(row["rate"])


def test_echo(results: dict[str, Any]) -> None:
    rows = results["echo"]["results"]
    servers(rows, "echo")
    assert {row["window"] for row in rows} == {64, 512}
    for row in rows:
        assert row["lost"] >= 0  # a machine in distress may seem to lose some
        positive(row["busy"])


@needs_dnsperf
def test_dns(results: dict[str, Any]) -> None:
    if "dns" not in results:
        pytest.skip("dnspython is not installed")
    rows = results["dns"]["results"]
    servers(rows, "dns")
    for row in rows:
        assert row["lost"]["median"] == 0
        for field in ("latency", "deviation", "busy", "dnsperf"):
            positive(row[field])


def test_dns_says_what_it_needs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "dns", "--quick", "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "apt install dnsperf" in done.stdout
    assert not (tmp_path / "dns.json").exists()


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
