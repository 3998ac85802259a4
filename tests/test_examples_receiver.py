"""The examples of receivers, each run as a user would: fed, stopped, its books checked."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from contextlib import ExitStack

import pytest

from .test_examples import (
    DEADLINE,
    Program,
    each_backend,
    each_host,
    read_terminal,
    running,
    send_all,
    without_signals,
)

pytest.importorskip("rich", reason="rich is not installed; the extra 'examples' has it")

pytestmark = without_signals
LINUX = sys.platform == "linux"
only_linux = pytest.mark.skipif(not LINUX, reason="Linux has it, or tells it")
without_terminals = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
# Sent at once to whoever is slow, more than the kernel's usual buffer takes: so how many of them
# are received is chance. That each is accounted for is not.
FLOOD = 2000


def numbers(text: str, pattern: str) -> tuple[int, ...]:
    """Return the numbers that `pattern` finds, each where it has #; it has to."""
    found = re.search(pattern.replace("+", r"\+").replace("#", "([0-9,]+)"), text)
    assert found, text
    return tuple(int(number.replace(",", "")) for number in found.groups())


def wait_for_all(program: Program, sent: int, pattern: str) -> tuple[int, ...]:
    """Read lines until packets received and dropped by the kernel are what was sent."""
    while True:
        line = program.line()
        if sum(seen := numbers(line, pattern)) == sent:
            assert "\x1b" not in program.seen
            return seen


def terminal_output(name: str, *options: str, packets: int = 100) -> str:
    """Return what a program writes to a terminal before it is stopped; and feed it."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal, ExitStack() as stack:
        with os.fdopen(theirs, "wb") as end:
            program = stack.enter_context(running(name, *options, stdout=end.fileno()))
        output = ""
        while "\n" not in output:
            output += read_terminal(terminal)
        send_all(("127.0.0.1", numbers(output, r"listening on 127.0.0.1:#")[0]), [b"x"] * packets)
        while f" {packets} " not in re.sub(r"\x1b\[[0-9;?]*\w", " ", output):
            piece = read_terminal(terminal)
            assert piece, output
            output += piece
        program.process.send_signal(signal.SIGINT)
        while piece := read_terminal(terminal):
            output += piece
        assert program.process.stderr is not None
        assert (program.process.stderr.read(), program.process.wait()) == ("", 0)
    return output


# pipeline.py

BOOKS = "received # = consumed # + dropped # + queued #"
PIPELINE_LINE = r"received # .*, dropped by kernel # "


@each_backend
@pytest.mark.parametrize("overload", ["block", "drop_newest", "drop_oldest"])
def test_pipeline_accounts_for_each_packet(overload: str, backend: str) -> None:
    # Four packets a millisecond, in batches of 8; room for 7 batches.
    options = ["--workers", "2", "--work", "500", "--batch", "8", "--queue", "3"]
    options += ["--overload", overload, "--backend", backend, "--interval", "0.02"]
    with running("pipeline.py", *options, "--grace", "60") as program:
        send_all(program.address(), [b"x" * 100] * FLOOD)
        seen = wait_for_all(program, FLOOD, PIPELINE_LINE) if LINUX else ()
        lines = program.stop()
    received, consumed, dropped, queued = numbers(lines[-2], BOOKS)
    assert received == consumed + dropped
    assert queued == 0  # there was time to work it off
    assert (dropped == 0) == (overload == "block")
    if LINUX:
        kernel, left = numbers(lines[-1], "dropped by kernel #, left there # bytes")
        assert seen == (received, kernel)
        assert received + kernel == FLOOD
        assert left == 0


@each_backend
@pytest.mark.parametrize("overload", ["block", "drop_newest", "drop_oldest"])
def test_pipeline_that_is_cut_short_tells_what_was_queued(overload: str, backend: str) -> None:
    options = ["--workers", "2", "--work", "1e8", "--batch", "4", "--queue", "3"]
    options += ["--overload", overload, "--backend", backend, "--interval", "0.02"]
    with running("pipeline.py", *options, "--grace", "0") as program:
        send_all(program.address(), [b"x"] * 100)
        # 2 batches at work, 3 in the stream, with "block" one in the hands of `feed`. They need
        # not be full; what has no room then is left in the kernel.
        while numbers(program.line(), PIPELINE_LINE)[0] < 6:
            pass
        lines = program.stop()
    received, consumed, dropped, queued = numbers(lines[-2], BOOKS)
    assert consumed == 0
    assert 5 <= queued <= 4 * 6
    assert received == dropped + queued


@each_backend
def test_pipeline_feeds_itself(backend: str) -> None:
    options = ["--demo", "5000", "--interval", "0.05", "--backend", backend]
    with running("pipeline.py", *options) as program:
        program.line_with("age at work")
        program.process.send_signal(signal.SIGTERM)
        lines = program.end()
    (sent,) = numbers(lines[-3], "^sent #$")
    received, consumed, _, _ = numbers(lines[-2], BOOKS)
    assert received == consumed
    assert 0 < received <= sent


@without_terminals
def test_pipeline_on_a_terminal() -> None:
    output = terminal_output("pipeline.py", "--interval", "0.05")
    assert "batches in the stream" in output
    assert output.count("\r\n") > 10
    assert "received 100 = consumed 100 + dropped 0 + queued 0" in output


# udp_top.py

TOP_LINE = "in all # packets, # dropped by kernel"


@each_backend
@each_host
def test_udp_top_counts(host: str, backend: str) -> None:
    options = ["--port", "0", "--host", host, "--interval", "0.02", "--backend", backend]
    with running("udp_top.py", *options) as program:
        address = program.address()
        send_all(address, [b"x" * size for size in range(50)] + [b"x" * 9999])
        if LINUX:
            wait_for_all(program, 51, TOP_LINE)
        else:
            program.line_with("in all 51 packets")
        lines = program.stop()
    assert numbers(lines[-4], "#.# s: # packets, # bytes")[2:] == (51, sum(range(50)) + 9216)
    assert "truncated 1," in lines[-3]
    assert lines[-2].startswith("top senders of 1 in the table; ")
    assert lines[-1].split() == ["51", "100.0", "%", host]


@only_linux
def test_udp_top_has_a_bound_on_senders() -> None:
    """Everybody is somebody else, but for two: who are found, in a table of 10."""
    senders = [f"127.1.{number // 250}.{1 + number % 250}" for number in range(600)]
    options = ["--port", "0", "--host", "127.0.0.1", "--interval", "0.02", "--senders", "10"]
    with running("udp_top.py", *options) as program, ExitStack() as stack:
        address = program.address()
        heavy = []
        for host in ("127.0.0.2", "127.0.0.3"):
            heavy.append(stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)))
            heavy[-1].bind((host, 0))
        sent = 0
        for count, host in enumerate(senders):
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.bind((host, 0))
                sock.sendto(b"forged", address)
            for sock in heavy[: 1 + count % 2]:
                sock.sendto(b"heavy", address)
                sent += 1
            sent += 1
            if count % 30 == 29:  # lest the kernel drop some
                assert wait_for_all(program, sent, TOP_LINE) == (sent, 0)
        lines = program.stop()
    heading = next(number for number, line in enumerate(lines) if line.startswith("top senders"))
    size, too_low = numbers(lines[heading], "of # in the table; each sent up to # packets more")
    assert size <= 20
    assert too_low <= sent / 11
    for line, host, count in zip(lines[heading + 1 :], ("127.0.0.2", "127.0.0.3"), (600, 300)):  # noqa: B905
        assert line.split()[-1] == host
        assert count - too_low <= int(line.split()[0]) <= count


@only_linux
@pytest.mark.parametrize(
    ("sources", "heard"), [([], 7), (["127.0.0.1"], 7), (["192.0.2.1", "192.0.2.2"], 0)]
)
def test_udp_top_joins_a_group(sources: list[str], heard: int) -> None:
    options = ["--port", "0", "--group", "239.192.7.7", "--interface", "lo", "--ports"]
    options += [f"--source={source}" for source in sources]
    with running("udp_top.py", *options, "--interval", "0.02") as program:
        group = program.address()
        assert group[0] == "239.192.7.7"
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            host = socket.inet_aton("127.0.0.1")
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, host)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
            sock.bind(("127.0.0.1", 0))
            for _ in range(7):
                sock.sendto(b"news", group)
            port = sock.getsockname()[1]
        for _ in range(2):  # the second of two looks began after all were sent
            wait_for_all(program, heard, TOP_LINE)
        lines = program.stop()
    summary = "\n".join(lines)
    assert f" {heard} packets, {4 * heard} bytes " in summary
    assert (f"  127.0.0.1 {port}" in summary) == (heard > 0)


@without_terminals
def test_udp_top_on_a_terminal() -> None:
    options = ["--port", "0", "--host", "127.0.0.1", "--interval", "0.05"]
    output = terminal_output("udp_top.py", *options)
    assert "top senders" in output
    assert "packets in all" in output
    assert " 100 packets, 100 bytes " in output


# reuseport_workers.py

WORKERS_LINE = "in all # packets, # dropped by kernel"


@only_linux
@each_backend
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
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
def test_reuseport_workers_that_fail_end_all() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))  # without SO_REUSEPORT: it is not shared
        options = ["--workers", "3", "--port", str(sock.getsockname()[1])]
        with running("reuseport_workers.py", *options) as program:
            output, errors = program.process.communicate(timeout=DEADLINE)
    assert program.process.returncode == 1
    assert output.startswith("worker 0: 0 packets, 0 dropped by kernel, failed with status 1\n")
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
def test_reuseport_workers_on_a_terminal() -> None:
    output = terminal_output("reuseport_workers.py", "--workers", "2", "--interval", "0.05")
    assert "packets/s" in output
    assert "all: 100 packets, 100 bytes, 0 dropped by kernel" in output
