"""A fixed part of the storm; tests/trust/storm.py says how to run a long one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import anyio_mmsg

pytestmark = pytest.mark.thorough

PACKAGE = str(Path(anyio_mmsg.__file__).parent.parent)


@pytest.mark.skipif(sys.platform != "linux", reason="the shim stands in for Linux's calls")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to build the shim with")
@pytest.mark.parametrize("seed", [1, 100_000])
def test_calls_that_fail_and_lie(seed: int, trust_rounds: int) -> None:
    command = ["--seed", str(seed), "--rounds", str(300 * trust_rounds)]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.trust.storm", *command],
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([PACKAGE, *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all accounted for" in done.stdout
