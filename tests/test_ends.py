"""Every test ends: a loop that waits for ever ends the run, and says where it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .helpers import attempts

ROOT = Path(__file__).parent.parent


def test_attempts_have_an_end() -> None:
    with pytest.raises(AssertionError, match="within 0 seconds"):
        for _ in attempts(0):
            pass


def test_a_loop_without_an_end_has_one(tmp_path: Path) -> None:
    program = tmp_path / "test_loop.py"
    program.write_text("def test_waits():\n    while True:\n        pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    done = subprocess.run(
        [*command, "-c", os.devnull, str(program)],
        env={**os.environ, "ANYIO_MMSG_TEST_SECONDS": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert f'"{program}", line ' in done.stderr
