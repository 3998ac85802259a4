"""One quick run of all benchmarks, for the tests that look at what it wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SECONDS = 1200  # against hanging; it takes about 100


def benchmarks(
    *arguments: object, module: str = "benchmarks", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m benchmarks``, or another module."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@dataclass(frozen=True)
class QuickRun:
    """A run of all benchmarks: what it printed, and where its files are."""

    out: Path
    stdout: str


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> QuickRun:
    out = tmp_path_factory.mktemp("results")
    done = benchmarks("--quick", "--machine", "a test", "--out", out)
    assert done.returncode == 0, done.stderr
    return QuickRun(out, done.stdout)
