"""loopback.py, run as a user would."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from contextlib import ExitStack

import pytest

from anyio_mmsg import ReceiveEngine

from .helpers import DEADLINE, PROGRAMS, each_backend, read_terminal, running, without_signals


def table(lines: list[str]) -> dict[str, tuple[int, ...]]:
    """Return by backend: packets, batches, lost and corrupt."""
    heading = lines.index(next(line for line in lines if line.startswith("backend ")))
    rows = [line.replace(",", "").split() for line in lines[heading + 1 :]]
    return {row[0]: tuple(int(row[column]) for column in (1, 2, 5, 6)) for row in rows}


@each_backend
def test_loopback_loses_nothing(backend: str, engine: ReceiveEngine) -> None:
    with running(
        "loopback.py", "--packets", "5000", "--backend", backend, "--engine", engine
    ) as program:
        lines = program.end()
    packets, batches, lost, corrupt = table(lines)[backend]
    assert (packets, lost, corrupt) == (5000, 0, 0)
    assert 5000 / 64 <= batches <= 5000
    # Into a pipe: whole lines, at most one for each quarter and one at the end.
    progress = lines[: lines.index("")]
    assert re.fullmatch(r" *\w+: +0 of 5,000 packets,   0 %", progress[0])
    assert re.fullmatch(r" *\w+: +5,000 of 5,000 packets, 100 %", progress[-1])
    assert len(progress) <= 5


def test_loopback_runs_on_all_that_is_installed() -> None:
    with running("loopback.py", "--packets", "1000") as program:
        rows = table(program.end())
    uvloop = ["uvloop"] if importlib.util.find_spec("uvloop") else []
    assert list(rows) == ["asyncio", "trio", *uvloop]


def test_loopback_runs_on_the_backends_asked_for() -> None:
    with running(
        "loopback.py", "--packets", "1000", "--backend", "trio", "--backend", "asyncio"
    ) as program:
        assert list(table(program.end())) == ["trio", "asyncio"]


@pytest.mark.parametrize(
    ("fault", "lost", "corrupt"),
    [
        pytest.param(
            "whole = loopback.make_packet; "
            "loopback.make_packet = lambda number: whole(number)[: -1 if number == 7 else None]",
            range(1),
            range(1, 2),
            id="a byte is missing",
        ),
        pytest.param(
            "loopback.PACKET_OVERHEAD = -2000", range(1, 5000), range(1), id="it does not wait"
        ),
    ],
)
def test_loopback_tells_what_went_wrong(fault: str, lost: range, corrupt: range) -> None:
    faulty = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-c"),
            f"import sys, loopback; loopback.PATIENCE = 0.2; {fault}; sys.exit(loopback.main())",
            *("--packets", "5000", "--backend", "asyncio"),
        ],
        cwd=PROGRAMS,
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE,
    )
    assert (faulty.returncode, faulty.stderr) == (1, "")
    packets, _, was_lost, was_corrupt = table(faulty.stdout.splitlines())["asyncio"]
    assert packets == 5000
    assert was_lost in lost
    assert was_corrupt in corrupt


@without_signals
@each_backend
def test_loopback_is_stopped_by_ctrl_c(backend: str) -> None:
    options = ["--packets", "20000000", "--backend", backend, "--backend", "asyncio"]
    with running("loopback.py", *options) as program:
        program.line()
        rows = table(program.stop())
    # What was sent has arrived, and the second run was not begun.
    assert list(rows) == [backend]
    packets, _, lost, corrupt = rows[backend]
    assert packets < 20_000_000
    assert (lost, corrupt) == (0, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals on Windows")
def test_loopback_shows_its_progress_in_one_line_on_a_terminal() -> None:
    ours, theirs = os.openpty()
    options = ["--packets", "20000", "--backend", "trio"]
    with os.fdopen(ours, "rb", buffering=0) as terminal, ExitStack() as stack:
        with os.fdopen(theirs, "wb") as end:
            program = stack.enter_context(running("loopback.py", *options, stdout=end.fileno()))
        output = ""
        while piece := read_terminal(terminal):
            output += piece
        assert program.process.wait() == 0
    first, *rest = output.split("\r\n")
    assert re.fullmatch(r"(\r    trio: +[0-9,]+ of 20,000 packets, +\d+ %){2,}", first)
    assert table(rest[:-1])["trio"][0] == 20_000
