"""The examples, each run as a user would: a process of its own, fed and stopped from outside."""

from __future__ import annotations

import ast
import importlib.util
import os
import random
import re
import shlex
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

import pytest

from .helpers import have_ipv6

EXAMPLES = Path(__file__).parent.parent / "examples"
DEADLINE = 60  # seconds for a program; all of them end within a few, on a machine at rest

without_uvloop = pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None,
    reason="uvloop is not installed (it has no build for it)",
)
without_ipv6 = pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
without_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="a process can't be sent Ctrl-C alone on Windows"
)
without_logger = pytest.mark.skipif(
    shutil.which("logger") is None, reason="the logger command is not installed"
)
each_backend = pytest.mark.parametrize(
    "backend", ["asyncio", "trio", pytest.param("uvloop", marks=without_uvloop)]
)
each_host = pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=without_ipv6)])
each_loop = pytest.mark.parametrize(
    "loop", [[], pytest.param(["--uvloop"], marks=without_uvloop)], ids=["asyncio", "uvloop"]
)


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
        """Return where it listens; its first line tells."""
        found = re.fullmatch(r"listening on \[?([^]]+?)\]?:(\d+)", self.line())
        assert found
        return found[1], int(found[2])

    def end(self) -> list[str]:
        """Wait for its end, which has to be clean; return the lines of its output till then."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        rest = self.process.stdout.read()
        errors = self.process.stderr.read()
        assert (errors, self.process.wait()) == ("", 0), f"after:\n{self.seen}{rest}"
        return rest.splitlines()

    def stop(self) -> list[str]:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.end()


@contextmanager
def running(name: str, *options: str, stdout: int = subprocess.PIPE) -> Iterator[Program]:
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *options],
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        # The letters of the parent's locale must not matter.
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    ) as process:
        watchdog = threading.Timer(DEADLINE, process.kill)
        watchdog.start()
        try:
            yield Program(process)
        finally:
            watchdog.cancel()
            watchdog.join()
            process.kill()


def send_all(address: tuple[str, int], payloads: list[bytes]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        for payload in payloads:
            sock.sendto(payload, address)


# All of them


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_the_commands_in_the_first_lines_are_understood(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    commands = re.findall(rf"^ +python examples/{re.escape(path.name)}(.*)$", docstring, re.M)
    assert commands
    for options in commands:
        with running(path.name, *shlex.split(options), "--help") as program:
            assert program.end()[0].startswith(f"usage: {path.name}")


# loopback.py


def table(lines: list[str]) -> dict[str, tuple[int, ...]]:
    """Return by backend: packets, batches, lost and corrupt."""
    heading = lines.index(next(line for line in lines if line.startswith("backend ")))
    rows = [line.replace(",", "").split() for line in lines[heading + 1 :]]
    return {row[0]: tuple(int(row[column]) for column in (1, 2, 5, 6)) for row in rows}


@each_backend
def test_loopback_loses_nothing(backend: str, engine: str) -> None:
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
        cwd=EXAMPLES,
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


def read_terminal(terminal: FileIO) -> str:
    try:
        return terminal.read(4096).decode()
    except OSError:  # EIO: how Linux says that nobody has the other end any more
        return ""


# trio_nursery.py


@without_signals
@without_logger
@each_host
def test_syslog_from_the_logger_command(host: str) -> None:
    with running("trio_nursery.py", "--host", host, "--port", "0") as program:
        listening, port = program.address()
        assert listening == host
        logger = ["logger", "-n", host, "-P", str(port), "-d", "-t", "door"]
        for options in (
            ["--rfc5424", "--msgid", "ID7", "-p", "local3.err", "it's open \u2713"],
            ["--rfc5424", "--sd-id", "bell@1", "--sd-param", r'tone="a\]b"', "it rang"],
            ["--rfc3164", "-p", "user.crit", "--id=99", "it burns"],
            ["--rfc3164", "\x1b[31mred"],
        ):
            subprocess.run([*logger, *options], check=True, timeout=DEADLINE)
        lines = program.stop()
    word = r"\S+"
    for line, expected in zip(
        lines,
        [
            rf"local3\.err {word}T{word} {word} door\[-\] ID7 \[.*\] it's open \u2713",
            rf"user\.notice {word}T{word} {word} door\[-\] - .*\[bell@1 tone='a\]b'\] it rang",
            rf"user\.crit \w+ +\d+ [0-9:]+ {word} door\[99\] - it burns",
            rf"user\.notice \w+ +\d+ [0-9:]+ {word} door\[-\] - \\x1b\[31mred",
            r"-- 4 messages \(1 crit, 1 err, 2 notice\), 0 malformed, 0 truncated",
        ],
        strict=True,
    ):
        assert re.fullmatch(expected, line)


@without_signals
def test_syslog_reads_what_the_rfcs_show_and_survives_the_rest() -> None:
    cases = [
        (  # RFC 5424 section 6.5, examples 1 to 4
            b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - "
            b"\xef\xbb\xbf'su root' failed for lonvick on /dev/pts/8",
            "auth.crit 2003-10-11T22:14:15.003Z mymachine.example.com su[-] ID47 "
            "'su root' failed for lonvick on /dev/pts/8",
        ),
        (
            b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - "
            b"%% It's time to make the do-nuts.",
            "local4.notice 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc[8710] - "
            "%% It's time to make the do-nuts.",
        ),
        (
            b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 "
            b'[exampleSDID@32473 iut="3" eventSource="Application"] \xef\xbb\xbfAn entry',
            "local4.notice 2003-10-11T22:14:15.003Z mymachine.example.com evntslog[-] ID47 "
            "[exampleSDID@32473 iut='3' eventSource='Application'] An entry",
        ),
        (
            b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 "
            b'[exampleSDID@32473 iut="3"][examplePriority@32473 class="high"]',
            "local4.notice 2003-10-11T22:14:15.003Z mymachine.example.com evntslog[-] ID47 "
            "[exampleSDID@32473 iut='3'] [examplePriority@32473 class='high'] ",
        ),
        # its section 6.3.3: escapes in a value, and an element without parameters
        (
            rb'<0>1 - - - - - [a b="\"\\\]\n"][c] x',
            r"""kern.emerg - - -[-] - [a b='"\\]\\n'] [c] x""",
        ),
        (b"<191>1 - - - - - -", "local7.debug - - -[-] - "),
        # RFC 3164 section 5.4
        (
            b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            "auth.crit Oct 11 22:14:15 mymachine su[-] - "
            "'su root' failed for lonvick on /dev/pts/8",
        ),
        (
            b"<13>Feb  5 17:32:18 ::1 Use the BFG!",
            "user.notice Feb  5 17:32:18 ::1 -[-] - Use the BFG!",
        ),
        (b"<13>Feb  5 17:32:18 h cron[7]: ok\n\0", "user.notice Feb  5 17:32:18 h cron[7] - ok"),
        (b"<13>3 disks: failed", "user.notice - - -[-] - 3 disks: failed"),
        (b"<13>", "user.notice - - -[-] - "),
        # Bytes that mean nothing in UTF-8, and characters that steer terminals
        (
            b"<13>\xff\xc3(\0\x1b[2J\r\nx\xe2\x80\xae",
            r"user.notice - - -[-] - \xff\xc3(\x00\x1b[2J\r\nx\u202e",
        ),
        # Malformed: no PRI or a wrong one, RFC 5424 begun and not kept, nothing at all
        (b"no \x07PRI", r"malformed, from 127.0.0.1: b'no \x07PRI'"),
        (b"<192>x", "malformed, from 127.0.0.1: b'<192>x'"),
        (b"<013>x", "malformed, from 127.0.0.1: b'<013>x'"),
        (b"<\xd9\xa1>x", r"malformed, from 127.0.0.1: b'<\xd9\xa1>x'"),
        (b"<13>1 - - - - - [a", "malformed, from 127.0.0.1: b'<13>1 - - - - - [a'"),
        (
            b'<13>1 - - - - - [a b="]"]',
            "malformed, from 127.0.0.1: b'<13>1 - - - - - [a b=\"]\"]'",
        ),
        (b"<13>1 yesterday - - - - -", "malformed, from 127.0.0.1: b'<13>1 yesterday - - - - -'"),
        (b"", "malformed, from 127.0.0.1: b''"),
    ]
    with running("trio_nursery.py", "--port", "0") as program:
        address = program.address()
        send_all(address, [payload for payload, _ in cases])
        for _, expected in cases:
            assert program.line() == expected
        send_all(address, [b"<13>" + b"x" * 9000])
        assert program.line().endswith("xx ... (truncated, 9004 bytes)")

        dice = random.Random(5424)
        pieces = [
            b"<13>",
            b"1 ",
            b"- ",
            b"[a",
            b' b="',
            b'"',
            b"]",
            b"\\",
            b"\xef\xbb\xbf",
            b"\xff",
        ]
        for _ in range(20):
            noise = [
                b"".join(dice.choices(pieces, k=dice.randrange(30))) + dice.randbytes(8)
                for _ in range(40)
            ]
            send_all(address, [*noise, b"<14>still here"])
            program.line_with("user.info - - -[-] - still here")
        summary = program.stop()[-1]
    counted = re.fullmatch(r"-- (\d+) messages \(.*\), (\d+) malformed, 1 truncated", summary)
    assert counted
    assert int(counted[1]) + int(counted[2]) == len(cases) + 1 + 20 * 41


@without_signals
def test_syslog_prints_a_summary_at_each_interval() -> None:
    with running("trio_nursery.py", "--port", "0", "--interval", "0.05") as program:
        send_all(program.address(), [b"<11>one", b"two"])
        program.line_with("-- 1 messages (1 err), 1 malformed, 0 truncated")
        assert program.stop()[-1] == "-- 1 messages (1 err), 1 malformed, 0 truncated"


# asyncio_task_group.py


@without_signals
@each_host
@each_loop
def test_statsd_from_the_statsd_client(host: str, loop: list[str]) -> None:
    statsd = pytest.importorskip("statsd", reason="the statsd client is not installed")
    options = ["--host", host, "--port", "0", "--interval", "3600", *loop]
    with running("asyncio_task_group.py", *options) as program:
        listening, port = program.address()
        client = statsd.StatsClient(host, port, prefix="web", ipv6=":" in host)
        client.incr("hits", 5)
        client.decr("hits", 2)
        client.gauge("queue", 10)
        client.gauge("queue", -4, delta=True)
        client.gauge("depth", -7)  # a pipeline: to 0, then down
        client.set("users", "anna")
        client.set("users", "bert")
        client.set("users", "anna")
        with client.pipeline() as pipeline:
            for milliseconds in range(1, 101):
                pipeline.timing("load", milliseconds)
        with client.timer("work"):
            pass
        client.close()
        heading, *lines = program.stop()
    assert listening == host
    assert re.fullmatch(r"-- \d+\.\d s: 110 metrics in \d+ packets", heading)
    assert re.fullmatch(r"counter web\.hits 3 \(.*/s\)", lines[0])
    assert lines[1:4] == [
        "gauge   web.depth -7",
        "gauge   web.queue 6",
        "timer   web.load 100 times, min 1, mean 50.5, median 50, 90 % 90, 99 % 99, max 100 ms",
    ]
    assert lines[4].startswith("timer   web.work 1 times, ")
    assert lines[5:] == ["set     web.users 2 different"]


@without_signals
@each_loop
def test_statsd_counts_bad_lines_and_survives_them(loop: list[str]) -> None:
    good = [
        b"a:1|c|@0.1\na:2|c\na:-1|c\n",
        b"t:1e2|ms|@0.5\nt:.5|h\ng:+3|g\ng:-1.5|g",
        "s:x:y|s\ns:né|s".encode(),
        b"s:\xff|s",
        b"",
    ]
    bad = [
        b"a", b"a:|c", b":1|c", b"a:1|x", b"a:1|c|@0", b"a:1|c|@2", b"a:1|c|@nan", b"a:nan|g",
        b"a:1e999|c", b"a:1_0|c", b"a:\xd9\xa1|c", b"\xff\x00:1|c", b"a b:1|c", b"a:1|c\r",
        b"a:" + b"1" * 8000 + b"|c", b"a:1|s|@", b"\x1b[2J",
    ]  # fmt: skip
    options = ["--port", "0", "--interval", "3600", *loop]
    with running("asyncio_task_group.py", *options) as program:
        send_all(program.address(), [*bad, *good])
        heading, counter, *lines = program.stop()
    assert re.sub(r"\d+\.\d s", "time", heading) == (
        f"-- time: 10 metrics in {len(bad) + len(good)} packets, "
        rf"{len(bad)} bad lines, the last '\x1b[2J'"
    )
    assert counter.startswith("counter a 11 (")
    assert lines == [
        "gauge   g 1.5",
        "timer   t 3 times, min 0.5, mean 50.25, median 0.5, 90 % 100, 99 % 100, max 100 ms",
        "set     s 3 different",
    ]


@without_signals
@each_loop
def test_statsd_reports_at_each_interval_and_keeps_gauges(loop: list[str]) -> None:
    with running("asyncio_task_group.py", "--port", "0", "--interval", "0.05", *loop) as program:
        send_all(program.address(), [b"hits:1|c\nqueue:4|g\nload:3|ms\nusers:x|s\nbad"])
        program.line_with("1 bad lines")
        assert program.line().startswith("counter hits 1 (")
        program.line_with("set     users 1 different")
        assert re.fullmatch(r"-- \d+\.\d s: 0 metrics in 0 packets", program.line())
        assert program.line() == "gauge   queue 4"
        assert program.line().startswith("-- ")
        assert program.stop()[-1] == "gauge   queue 4"


# exact.py


@each_backend
def test_exact_keeps_what_came_before_the_deadline(backend: str) -> None:
    with running("exact.py", "--backend", backend) as program:
        assert program.address()[0] == "127.0.0.1"
        told = [line.strip() for line in program.end() if not line[0].isdigit()]
    assert told == [
        "4 received; the batch holds 4 of 8: a b c d",
        "timed out: True; the batch holds 5 of 8: e f g h i",
        "3 received; the batch holds 8 of 8: e f g h i j k l",
        "TimeoutError; the batch holds 2 of 8: m n",
        "At the end the batch holds 2 of 8: m n",
    ]


@without_signals
@each_backend
def test_exact_is_stopped_by_ctrl_c(backend: str) -> None:
    with running("exact.py", "--backend", backend, "--deadline", "600") as program:
        program.line_with("2. Too few")
        assert program.stop()[-1].startswith("At the end the batch holds ")
