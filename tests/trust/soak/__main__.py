"""``python -m tests.trust.soak``: see ``--help``, and docs/soak.md for what it found."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import anyio_mmsg
from anyio_mmsg._packets import compiled

from .channel import BACKENDS, PYTHON
from .ledger import Totals
from .leg import PLANTS, Result
from .report import page, summary

GRACE = 180.0
"""Seconds that a leg may take longer than asked, for its start, its last round and a busy
machine. Then it hangs, which is a fault."""


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.trust.soak",
        description="Receive and send at full rate for a long time, and account for every packet. "
        "Needs Linux. Ends with status 1 if something is lost, corrupted, duplicated or leaked.",
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of all together (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of what is random (default: 1)")
    parser.add_argument(
        "--backend", choices=BACKENDS, help="this event loop alone; otherwise each in turn"
    )
    parser.add_argument(
        "--engine",
        choices=("recvmmsg", "recvfrom_into", "plain"),
        help="compiled by this engine, or plain Python; otherwise compiled (recvmmsg), then plain",
    )
    parser.add_argument(
        "--senders", type=int, default=3, help="processes that send (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="event loops at a time (default: %(default)s)"
    )
    parser.add_argument("--report", type=Path, help="write a page in Markdown, if all is well")
    parser.add_argument("--note", default="", help="a sentence for the page, about the machine")
    parser.add_argument(
        "--plant", choices=PLANTS, default="", help="make a fault, to see that it is found"
    )
    return parser.parse_args()


def run_leg(options: argparse.Namespace, backend: str, engine: str, seconds: float) -> Result:
    """Run a process for one event loop and engine; return what it found."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        plain = engine == "plain"
        command = [*PYTHON, "-m", "tests.trust.soak.leg", "--backend", backend]
        command += ["--seconds", str(seconds), "--seed", str(options.seed)]
        command += ["--engine", "auto" if plain else engine, "--senders", str(options.senders)]
        command += ["--plant", options.plant, "--result", str(file)]
        environment = {**os.environ, "ANYIO_MMSG_COMPILED": "0" if plain else "1"}
        ended = "hung"
        try:
            done = subprocess.run(command, env=environment, check=False, timeout=seconds + GRACE)
            ended = f"ended with status {done.returncode}"
        except subprocess.TimeoutExpired:
            pass
        if not file.exists():
            return Result(backend, not plain, engine, fault=f"the process {ended}")
        found = json.loads(file.read_text())
    found["lines"] = {name: Totals(**totals) for name, totals in found["lines"].items()}
    result = Result(**found)
    result.engine = engine
    return result


def main() -> int:
    """Run what was asked for."""
    options = arguments()
    if sys.platform != "linux":
        print("the soak needs Linux", file=sys.stderr)
        return 2
    backends = [options.backend] if options.backend else list(BACKENDS)
    if not options.backend and find_spec("uvloop") is None:
        print("uvloop is not installed, so it is left out")
        backends.remove("uvloop")
    engines = [options.engine] if options.engine else ["recvmmsg", "plain"][not compiled :]
    legs = [(backend, engine) for engine in engines for backend in backends]
    began, minutes = time.time(), options.minutes / len(legs)

    def run(leg: tuple[str, str]) -> Result:
        backend, engine = leg
        print(f"{backend}, {engine}: {minutes:.2g} minutes", flush=True)
        result = run_leg(options, backend, engine, minutes * 60)
        if result.fault:
            print(f"FAULT in {backend}, {engine}: {result.fault}", file=sys.stderr)
            again = f"--backend {backend} --engine {engine} --seed {options.seed} --minutes "
            again += f"{minutes:.3g} --senders {options.senders}"
            again += f" --plant {options.plant}" if options.plant else ""
            print(f"repeat with: python -m tests.trust.soak {again}", file=sys.stderr, flush=True)
        return result

    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(run, legs))
    print(summary(results))
    if any(result.fault for result in results):
        return 1
    print(f"anyio-mmsg in {Path(anyio_mmsg.__file__).parent}: all accounted for, nothing grew")
    if options.report:
        options.report.write_text(page(results, began, options.note), encoding="utf-8")
        print(f"wrote {options.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
