"""The command traceroute: the way to this machine, and in three networks with a router.

The networks are those of tests/errors/test_network.py. A process of its own makes them: this file.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

import pytest

from anyio_mmsg._tools.path import Path, Report
from anyio_mmsg._tools.traceroute import text_of

from ..errors.test_network import MTU, World
from ..examples.helpers import each_backend, each_host, only_linux, running
from ..send.test_network import MISSING, own_network

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = only_linux


@each_backend
@each_host
def test_this_machine(host: str, backend: str) -> None:
    with running("traceroute", host, "--backend", backend, "--queries", "2") as program:
        first, hop = program.end()
    assert first == f"to {host} ({host}), 30 hops at most"
    assert re.fullmatch(rf" 1  {host}  [0-9.]+ ms  [0-9.]+ ms", hop)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("no.such.host.invalid",), "no.such.host.invalid: "),
        (("--hops", "256"), "--hops: 256 is not 1 to 255"),
        (("--queries", "0"), "--queries: 0 is not 1 to "),
        (("--size", "65508"), "--size: 65508 is not 0 to 65507"),
    ],
)
def test_what_is_wrong_is_one_line(options: tuple[str, ...], words: str) -> None:
    with running("traceroute", *options) as program:
        assert program.process.stderr is not None
        assert words in program.process.stderr.read().splitlines()[-1]
        assert program.process.wait() == 2


def test_only_the_first_report_about_a_probe_counts() -> None:
    path = Path(2, hops=3, queries=2)
    path.add(0, Report("a", 1.0))
    path.add(0, Report("b", 2.0))
    path.add(-1, Report("forged", 1.0))
    path.add(6, Report("forged", 1.0))
    path.add(3, Report("c", 1.0, arrived=True))
    assert (path.length, path.is_known) == (2, False)
    assert text_of(1, path.hop(1)) == " 1  a  1000.00 ms  *"
    path.add(1, Report("a", 1.0))
    path.add(2, Report("c", 1.0, "!X"))
    assert path.is_known


@pytest.mark.parametrize("version", ["inet", "inet6"])
def test_a_network_with_a_router(version: str) -> None:
    command = [*own_network(), sys.executable, "-W", "error", "-m", __name__, version]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    if done.returncode == MISSING:
        pytest.skip(done.stdout.strip())
    assert (done.stdout, done.stderr, done.returncode) == ("played\n", "", 0)


# What runs in networks of its own


def traced(target: str, status: int, *options: str) -> list[list[Any]]:
    """Run the program; return what it reports of each hop."""
    command = [sys.executable, "-W", "error", "-m", "anyio_mmsg", "traceroute", target, "--json"]
    command += ["--timeout", "20", "--queries", "2", "--hops", "4", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", status), done
    hops = [json.loads(line) for line in done.stdout.splitlines()]
    assert [hop["hop"] for hop in hops] == list(range(1, len(hops) + 1))
    return [[(r["host"], r["mark"], r["arrived"]) for r in hop["reports"]] for hop in hops]


def main(version: str) -> None:
    with ExitStack() as stack:
        world = World(version, stack)
        far, near = world.server, world.router
        # A router looks for a route before it looks at the hops. Without one it reports one packet
        # a second (net.ipv4.route.error_cost), counting other reports too. So this comes first.
        nowhere = traced(world.nowhere, 1, "--hops", "1", "--queries", "1")
        assert nowhere == [[(near, "!N", False)]]
        for backend in filter(importlib.util.find_spec, ("asyncio", "trio")):
            both = ["--backend", backend]
            assert traced(far, 0, *both) == [[(near, "", False)] * 2, [(far, "", True)] * 2]
            # A hop is used up before a router looks at the length, so the second one tells.
            long = traced(far, 1, "--size", "1400", *both)
            assert long == [[(near, "", False)] * 2, [(near, f"!F-{MTU}", False)] * 2]
    print("played")


if __name__ == "__main__":
    main(*sys.argv[1:])
