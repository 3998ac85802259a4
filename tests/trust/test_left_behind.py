"""Leaks, failing allocations, canaries: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import anyio_mmsg

ROOT = Path(__file__).parent.parent.parent
PACKAGE = str(Path(anyio_mmsg.__file__).parent.parent)

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts what CPython counts"),
]


def exercise(*arguments: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.trust.exercise", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(Path(anyio_mmsg.__file__).parent.parent), *sys.path]
            ),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


def test_nothing_leaks() -> None:
    exercise("leaks")


def test_nothing_leaks_under_the_debug_allocator() -> None:
    exercise("leaks", PYTHONMALLOC="debug")


def test_the_count_of_leaks_counts() -> None:
    with pytest.raises(AssertionError, match="leaks_on_purpose"):
        exercise("leaks", ANYIO_MMSG_LEAK="1")


def test_every_allocation_may_fail() -> None:
    pytest.importorskip("_testcapi", reason="this Python has no failing allocations")
    exercise("memory")


def test_every_allocation_may_fail_under_the_debug_allocator() -> None:
    pytest.importorskip("_testcapi", reason="this Python has no failing allocations")
    exercise("memory", PYTHONMALLOC="debug")
