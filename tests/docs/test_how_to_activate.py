"""docs/how-to/socket-activation.md: a program that gets its socket from whoever starts it."""

from __future__ import annotations

import configparser
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .blocks import as_child, blocks, client, executed, free_port, interrupt, python_blocks, runs

PAGE = "docs/how-to/socket-activation.md"
(PROGRAM,) = python_blocks(PAGE)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")

# What systemd does between fork and exec (sd_listen_fds(3)).
START = """
import os, sys
descriptor, pid = int(sys.argv[1]), sys.argv[2]
os.dup2(descriptor, 3, inheritable=True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=pid or str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-W", "error", *sys.argv[3:]])
"""


@contextmanager
def started(
    folder: Path, sock: socket.socket, text: str, pid: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Run the page's program with a socket, as systemd starts it."""
    executed.add(PROGRAM.place)
    program = folder / "collector.py"
    program.write_text(text, encoding="utf-8")
    command = [sys.executable, "-c", START, str(sock.fileno()), pid, str(program)]
    child = subprocess.Popen(
        command,
        pass_fds=[sock.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@runs(PROGRAM)
@pytest.mark.parametrize(
    "run",
    [
        "anyio.run(main)",
        'anyio.run(main, backend="trio")',
        'anyio.run(main, backend_options={"use_uvloop": True})',
    ],
    ids=["asyncio", "trio", "uvloop"],
)
def test_nothing_is_lost_by_a_restart(run: str, tmp_path: Path) -> None:
    text = PROGRAM.replace("anyio.run(main)", run).text
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sock,
        socket.socket(type=socket.SOCK_DGRAM) as us,
    ):
        sock.bind(("127.0.0.1", 0))
        us.connect(sock.getsockname())
        us.send(b"before it runs")
        for first in (b"before it runs", b"while nobody runs"):
            with started(tmp_path, sock, text) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == f"{first!r}\n"
                us.send(b"while it runs")
                assert child.stdout.readline() == "b'while it runs'\n"
                assert interrupt(child, signal.SIGTERM) == ""
                assert child.returncode == 0
            us.send(b"while nobody runs")
        assert sock.getsockopt(socket.IPPROTO_IP, 11)  # icmp_errors, which stay with the socket


@runs(PROGRAM)
def test_sockets_of_another_process(tmp_path: Path) -> None:
    """They are not taken for its own: it opens one, as if it was started by hand."""
    port = free_port()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        text = PROGRAM.replace(9999, port).text
        with started(tmp_path, sock, text, pid="1") as child, client(port, child, b"hello"):
            assert child.stdout is not None
            assert child.stdout.readline() == "b'hello'\n"
            assert interrupt(child, signal.SIGTERM) == ""


@runs(PROGRAM)
def test_started_by_hand() -> None:
    port = free_port()
    with as_child(PROGRAM.replace(9999, port)) as child, client(port, child, b"hello"):
        assert child.stdout is not None
        assert child.stdout.readline() == "b'hello'\n"
        assert interrupt(child, signal.SIGTERM) == ""


def test_the_units() -> None:
    """They are of the form that systemd reads, and belong together."""
    units = []
    for block in blocks(PAGE):
        if block.language == "ini":
            unit = configparser.ConfigParser()
            unit.optionxform = str  # type: ignore[assignment,method-assign]
            unit.read_string(block.text)
            units.append(unit)
    ours, program = units
    assert ours["Socket"]["ListenDatagram"].endswith(":9999")
    assert program["Unit"]["Requires"] == "collector.socket"
    assert program["Service"]["ExecStart"].startswith("/")
