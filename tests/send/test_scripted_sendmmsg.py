"""Runs scripted_sendmmsg.py in a process in which the kernel's answers can be scripted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .kernel import before_libc


@pytest.mark.skipif(
    not before_libc(), reason="this needs the compiled module, and a C compiler for the script"
)
def test_in_a_process_of_its_own() -> None:
    tests = Path(__file__).with_name("scripted_sendmmsg.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, env=before_libc(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
