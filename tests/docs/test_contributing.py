"""CONTRIBUTING.md: its example of a new test is one that passes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .blocks import ROOT, executed, python_blocks, runs

(EXAMPLE,) = python_blocks("CONTRIBUTING.md")

IMPORTS = """
import pytest
from anyio_mmsg import PacketBatch, ReceiveEngine, recv_mmsg
from tests.conftest import anyio_backend, engine, inet
from tests.helpers import Family
"""


@runs(EXAMPLE)
def test_the_example(tmp_path: Path) -> None:
    executed.add(EXAMPLE.place)
    program = tmp_path / "test_example.py"
    program.write_text(f"{IMPORTS}\n{EXAMPLE.text}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", str(tmp_path), str(program)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
