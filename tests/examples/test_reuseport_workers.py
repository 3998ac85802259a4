"""reuseport_workers.py, run as a user would: fed, stopped, its counts checked."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from .helpers import (
    BUFFER,
    DEADLINE,
    each_backend,
    each_signal,
    numbers,
    only_linux,
    running,
    send_all,
    terminal_output,
    wait_for_all,
    without_rich,
    without_signals,
    without_terminals,
)

pytestmark = without_signals


WORKERS_LINE = "in all # packets, # dropped by kernel"


@only_linux
@each_backend
@each_signal
def test_reuseport_workers_share(
    how: signal.Signals, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")  # in the workers too
    options = ["--workers", "2", "--pin", "--interval", "0.02", "--backend", backend]
    with running("reuseport_workers.py", *options) as program:
        address = program.address()
        for _ in range(40):  # senders: that all of them get one worker is less likely than 1e-11
            send_all(address, [b"x" * 10] * 50)
        seen = wait_for_all(program, 2000, WORKERS_LINE)
        program.process.send_signal(how)
        lines = program.end()
    counts = [
        numbers(line, "worker [01]: # packets, # dropped by kernel") for line in lines[-3:-1]
    ]
    packets, size, dropped = numbers(lines[-1], "all: # packets, # bytes, # dropped by kernel")
    assert seen == (packets, dropped)
    assert size == 10 * packets
    assert (packets, dropped) == tuple(map(sum, zip(*counts, strict=True)))
    assert all(packets for packets, _ in counts)


@only_linux
@each_backend
def test_reuseport_workers_handle_what_waits_when_they_are_stopped(backend: str) -> None:
    """A worker is held; what was sent to it waits when the parent asks it to end."""
    options = ["--workers", "1", "--interval", "0.02", "--buffer", BUFFER]
    with running("reuseport_workers.py", *options, "--backend", backend) as program:
        address = program.address()
        (worker,) = children_of(program.process.pid)
        os.kill(worker, signal.SIGSTOP)
        try:
            wait_for_status(worker, r"^State:\s*T")
            send_all(address, [b"x"] * 500)
            program.process.send_signal(signal.SIGTERM)
            wait_for_status(worker, r"^ShdPnd:\s*[0-9a-f]*[4-7c-f][0-9a-f]{3}$")  # bit 14: SIGTERM
        finally:
            os.kill(worker, signal.SIGCONT)
        lines = program.end()
    assert lines[-1] == "all: 500 packets, 500 bytes, 0 dropped by kernel"


@only_linux
def test_reuseport_workers_are_killed_at_a_second_signal() -> None:
    options = ["--workers", "2", "--interval", "0.02"]
    with running("reuseport_workers.py", *options) as program:
        program.address()
        workers = children_of(program.process.pid)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)  # so that they don't end before
            wait_for_status(worker, r"^State:\s*T")
        with program.held():
            program.process.send_signal(signal.SIGTERM)
            program.process.send_signal(signal.SIGINT)
        output, errors = program.process.communicate(timeout=DEADLINE)
    assert (program.process.returncode, errors) == (1, "")
    assert len(re.findall("dropped by kernel, killed$", output, re.M)) == 2


def children_of(process: int) -> list[int]:
    """Return the processes that a process started."""
    lists = list(Path(f"/proc/{process}/task").glob("*/children"))  # one for each thread
    if not lists:
        pytest.skip("this kernel does not list a process's children")
    return [int(child) for path in lists for child in path.read_text().split()]


def wait_for_status(process: int, pattern: str) -> None:
    """Return when a line of a process's status, as Linux gives it, is like that."""
    deadline = time.monotonic() + DEADLINE
    while not re.search(pattern, Path(f"/proc/{process}/status").read_text(), re.M):
        assert time.monotonic() < deadline


@only_linux
def test_reuseport_workers_that_fail_end_all() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))  # without SO_REUSEPORT: it is not shared
        options = ["--workers", "3", "--port", str(sock.getsockname()[1])]
        with running("reuseport_workers.py", *options) as program:
            output, errors = program.process.communicate(timeout=DEADLINE)
    assert program.process.returncode == 1
    assert output.startswith("worker 0: 0 packets, 0 dropped by kernel, failed with status 2\n")
    assert "Address already in use" in errors


@only_linux
def test_reuseport_workers_end_with_their_parent() -> None:
    options = ["--workers", "2", "--interval", "0.02"]
    with running("reuseport_workers.py", *options) as program:
        address = program.address()
        program.process.kill()
        # The end of this pipe, which the workers have too, is theirs.
        program.process.communicate(timeout=DEADLINE)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(address)


@only_linux
@without_terminals
@without_rich
def test_reuseport_workers_on_a_terminal() -> None:
    output = terminal_output("reuseport_workers.py", "--workers", "2", "--interval", "0.05")
    assert "packets/s" in output
    assert "all: 100 packets, 100 bytes, 0 dropped by kernel" in output
