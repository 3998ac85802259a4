"""udp_top.py, run as a user would: fed, stopped, its counts checked."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from .helpers import (
    LINUX,
    each_backend,
    each_host,
    numbers,
    only_linux,
    running,
    send_all,
    terminal_output,
    wait_for_all,
    without_signals,
    without_terminals,
)

pytestmark = without_signals


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
