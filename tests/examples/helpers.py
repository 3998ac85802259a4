"""How the examples are run: each in a process of its own, fed and stopped from outside."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import have_ipv6, without_trio

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PROGRAMS = EXAMPLES / "programs"
DEADLINE = 60  # seconds for a program; all of them end within a few, on a machine at rest
# Bytes for 500 small packets: Linux grants twice as many, and charges 768 for each. More than that
# may be forbidden (net.core.rmem_max), and would be warned of.
BUFFER = "212992"
LINUX = sys.platform == "linux"
CUT = r"the receiver at .* has cut a packet of .*\n"  # is logged once

# Other systems send no more than 9216 bytes at once by default (net.inet.udp.maxdgram).
LARGEST = {"127.0.0.1": 65507, "::1": 65527} if LINUX else {"127.0.0.1": 9216, "::1": 9216}

without_uvloop = pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None,
    reason="uvloop is not installed (it has no build for it)",
)
without_rich = pytest.mark.skipif(
    importlib.util.find_spec("rich") is None,
    reason="rich is not installed; the group 'bench' has it",
)
without_ipv6 = pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
without_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="a process can't be sent Ctrl-C alone on Windows"
)
without_terminals = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no pseudo-terminals"
)
without_nc = pytest.mark.skipif(shutil.which("nc") is None, reason="nc is not installed")
only_linux = pytest.mark.skipif(not LINUX, reason="other systems lack it, or behave differently")
each_backend = pytest.mark.parametrize(
    "backend",
    [
        "asyncio",
        pytest.param("trio", marks=without_trio),
        pytest.param("uvloop", marks=without_uvloop),
    ],
)
each_host = pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=without_ipv6)])
each_signal = pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])


def load(name: str) -> Any:
    """Import a module of the examples. Any: type checkers don't look for modules there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PROGRAMS)
        return importlib.import_module(name)


class Program:
    """An example at work. It is killed at the deadline, so that no read waits for ever."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.seen = ""

    def line(self) -> str:
        """Return the next line of its output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.seen += line
        assert line, f"it ended after:\n{self.seen}"
        return line.rstrip("\n")

    def line_with(self, text: str) -> str:
        """Return the next line that has `text` in it."""
        while text not in (line := self.line()):
            pass
        return line

    def address(self) -> tuple[str, int]:
        """Return where it listens, which its first line says."""
        found = re.fullmatch(r"listening on \[?([^]]+?)\]?:(\d+)", self.line())
        assert found
        return found[1], int(found[2])

    def end(self, logged: str = "") -> list[str]:
        """Wait for its end, which has to be clean; return the lines of its output till then.

        `logged` is a pattern of what the library has logged.
        """
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        rest = self.process.stdout.read()
        errors = self.process.stderr.read()
        unexpected = "" if re.fullmatch(logged, errors) else errors or f"not logged: {logged}"
        assert (unexpected, self.process.wait()) == ("", 0), f"after:\n{self.seen}{rest}"
        return rest.splitlines()

    def stop(self, how: signal.Signals = signal.SIGINT, *, logged: str = "") -> list[str]:
        """Press Ctrl-C, or send another signal; return the lines of its output till its end."""
        self.process.send_signal(how)
        return self.end(logged)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the process: what is sent to it in the block arrives at once when it goes on."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # returns when it has stopped
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def running(
    name: str, *options: str, stdout: int = subprocess.PIPE, stdin: int | None = None
) -> Iterator[Program]:
    """Run an example or a command; kill it at the end of the block, or at the deadline.

    Args:
        name: An example's file, seen from `PROGRAMS`, a command of ``python -m anyio_mmsg``, or
            "-c" for code.
        options: What follows on the command line.
        stdout: Where its output goes.
        stdin: Where its input comes from.
    """
    what = [str(PROGRAMS / name)] if name.endswith(".py") else ["-m", "anyio_mmsg", name]
    if name == "-c":
        what = [name]
    with killed_in_time(
        subprocess.Popen(
            [sys.executable, "-W", "error", *what, *options],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            # The letters of the parent's locale must not matter.
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )
    ) as program:
        yield program


@contextmanager
def command(*arguments: str) -> Iterator[Program]:
    """Run a command to talk to; kill it at the end of the block, or at the deadline."""
    with (
        subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="ascii"
        ) as process,
        killed_in_time(process),
    ):
        yield Program(process)


@contextmanager
def killed_in_time(process: subprocess.Popen[str]) -> Iterator[Program]:
    """Kill a process at the end of the block, or at the deadline."""
    watchdog = threading.Timer(DEADLINE, process.kill)
    watchdog.start()
    try:
        with process:
            try:
                yield Program(process)
            finally:
                process.kill()
    finally:
        watchdog.cancel()
        watchdog.join()


def send_all(address: tuple[str, int], payloads: list[bytes]) -> None:
    """Send payloads, from one socket."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        for payload in payloads:
            sock.sendto(payload, address)


@contextmanager
def client(host: str, port: int = 0) -> Iterator[socket.socket]:
    """A socket on `host`; nothing that it does lasts for ever."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE)
        sock.bind((host, port))
        yield sock


def payloads_up_to(largest: int) -> list[bytes]:
    """Return payloads of the sizes at which something could go wrong."""
    sizes = [0, 1, 1232, 1233, largest - 1, largest, 0, 2]
    return [random.Random(size).randbytes(size) for size in sizes]


def has_nothing(sock: socket.socket, flags: int = 0) -> bool:
    """Return whether nothing has come; loopback delivers within the send."""
    sock.setblocking(False)
    try:
        sock.recv(1, flags)
    except BlockingIOError:
        return True
    return False


def numbers(text: str, pattern: str) -> tuple[int, ...]:
    """Return the numbers that `pattern` finds, one for each #; it has to be found."""
    found = re.search(pattern.replace("+", r"\+").replace("#", "([0-9,]+)"), text)
    assert found, text
    return tuple(int(number.replace(",", "")) for number in found.groups())


def wait_for_all(program: Program, sent: int, pattern: str) -> tuple[int, ...]:
    """Read lines until packets received and dropped by the kernel add up to what was sent."""
    while True:
        line = program.line()
        if sum(seen := numbers(line, pattern)) == sent:
            assert "\x1b" not in program.seen
            return seen


def read_terminal(terminal: FileIO) -> str:
    """Return what a program wrote to a terminal, "" at its end."""
    try:
        return terminal.read(4096).decode()
    except OSError:  # EIO: on Linux, the other end of the terminal is closed
        return ""


def without_escapes(output: str) -> str:
    """Return what a terminal shows, without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)


def drawn(table: Any, columns: int) -> str:
    """Return a table of rich as a terminal of so many columns shows it."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=columns, record=True)
    console.print(table)
    return console.export_text()


def documents(name: str, *options: str) -> list[dict[str, Any]]:
    """Run a command that ends by itself; return its lines of JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "anyio_mmsg", name, *options, "--json"],
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def terminal_output(
    name: str,
    *options: str,
    packets: int = 100,
    payload: bytes = b"x",
    keys: str = "",
    columns: int = 80,
) -> str:
    """Feed a program and return what it writes to a terminal, until it is stopped.

    It is stopped by Ctrl-C, or by the keys.
    """
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with os.fdopen(ours, "r+b", buffering=0) as terminal, ExitStack() as stack:
        with os.fdopen(theirs, "wb") as end:
            stdin = end.fileno() if keys else None
            program = stack.enter_context(
                running(name, *options, stdout=end.fileno(), stdin=stdin)
            )
        output = ""
        while "\n" not in output:
            output += read_terminal(terminal)
        port = numbers(output, r"listening on 127.0.0.1:#")[0]
        send_all(("127.0.0.1", port), [payload] * packets)
        while f" {packets} " not in without_escapes(output):
            piece = read_terminal(terminal)
            assert piece, output
            output += piece
        if keys:
            terminal.write(keys.encode())
        else:
            program.process.send_signal(signal.SIGINT)
        while piece := read_terminal(terminal):
            output += piece
        assert program.process.stderr is not None
        assert (program.process.stderr.read(), program.process.wait()) == ("", 0)
    return output
