"""The command top, run as a user would: fed, stopped, its counts checked."""

from __future__ import annotations

import dataclasses
import json
import signal
import socket
from typing import Any

import pytest

from anyio_mmsg import ReceiverStatistics
from anyio_mmsg._tools.interval import Interval
from anyio_mmsg._tools.monitor import Monitor
from anyio_mmsg._tools.senders import TopSenders
from anyio_mmsg.testing import ScriptedReceiver

from ..examples.helpers import (
    BUFFER,
    LINUX,
    client,
    drawn,
    each_backend,
    each_host,
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


TOP_LINE = "in all # packets, # dropped by kernel"


@each_backend
@each_host
def test_top_counts(host: str, backend: str) -> None:
    options = ["--port", "0", "--host", host, "--interval", "0.02", "--backend", backend]
    with running("top", *options) as program:
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


@each_backend
@each_signal
def test_top_counts_what_waits_when_it_is_stopped(how: signal.Signals, backend: str) -> None:
    options = ["--port", "0", "--host", "127.0.0.1", "--backend", backend, "--buffer", BUFFER]
    with running("top", *options) as program:
        address = program.address()
        with program.held():
            send_all(address, [b"x" * 10] * 500)
            program.process.send_signal(how)
        lines = program.end()
    assert numbers(lines[-4], "#.# s: # packets, # bytes")[2:] == (500, 5000)


@pytest.mark.anyio
async def test_top_has_a_bound_on_senders(capsys: pytest.CaptureFixture[str]) -> None:
    """Everybody is somebody else, but for two: who are found, in a table of 10."""
    script, sent = [], 0
    heavy = ["192.0.2.2", "192.0.2.3"]
    for number in range(600):
        hosts = [f"198.18.{number // 250}.{number % 250}", *heavy[: 1 + number % 2]]
        script.append([(b"x", (host, 9)) for host in hosts])
        sent += len(script[-1])
    async with ScriptedReceiver(script) as receiver:
        monitor = Monitor(receiver, 10, False, "Ctrl-C quits")
        await monitor.receive()
        assert len(monitor.total.counts) <= 20
        assert f"in all {sent:,} packets, unknown dropped by kernel" in monitor.look().line()
        whole = monitor.whole()
        after_a_second = dataclasses.replace(whole.now, time=whole.before.time + 1)
        print(dataclasses.replace(whole, now=after_a_second).summary())
    lines = capsys.readouterr().out.splitlines()
    assert numbers(lines[0], "1.0 s: # packets, # bytes") == (sent, sent)
    heading = next(number for number, line in enumerate(lines) if line.startswith("top senders"))
    size, too_low = numbers(lines[heading], "of # in the table; each sent up to # packets more")
    assert size <= 20
    assert too_low <= sent / 11
    for line, host, count in zip(lines[heading + 1 :], heavy, (600, 300)):  # noqa: B905
        assert line.split()[-1] == host
        assert count - too_low <= int(line.split()[0]) <= count


@only_linux
@pytest.mark.parametrize(
    ("sources", "heard"), [([], 7), (["127.0.0.1"], 7), (["192.0.2.1", "192.0.2.2"], 0)]
)
def test_top_joins_a_group(sources: list[str], heard: int) -> None:
    options = ["--port", "0", "--group", "239.192.7.7", "--interface", "lo", "--ports"]
    options += [f"--source={source}" for source in sources]
    with running("top", *options, "--interval", "0.02") as program:
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


def send_train(sock: socket.socket, address: tuple[str, int], packets: int, size: int) -> None:
    """Send packets of one size as one message (UDP GSO), which loopback keeps whole."""
    sock.setsockopt(17, 103, size)  # SOL_UDP, UDP_SEGMENT; linux/udp.h
    sock.sendto(b"x" * (packets * size), address)


@only_linux
@each_backend
@each_host
def test_top_counts_trains(host: str, backend: str) -> None:
    options = ["--port", "0", "--host", host, "--interval", "0.02", "--backend", backend, "--gro"]
    options += ["--buffer", BUFFER]
    with running("top", *options) as program, client(host) as sock:
        address = program.address()
        for _ in range(3):
            send_train(sock, address, 50, 1000)
        send_all(address, [b"x" * 9999, b"", b"x"])
        pattern = "in all # packets in # messages, # dropped by kernel"
        while numbers(line := program.line(), pattern)[0] != 153:
            pass
        assert numbers(line, pattern) == (153, 6, 0)
        assert ", packets a message " in line
        lines = program.stop()
    heading = next(n for n, line in enumerate(lines) if " s: " in line and " packets, " in line)
    assert numbers(lines[heading], "#.# s: # packets, # bytes")[2:] == (153, 160_000)
    assert "truncated 0," in lines[heading + 1]
    assert lines[heading + 2] == "came in 6 messages, 25.5 packets each"
    assert lines[-1].split() == ["153", "100.0", "%", host]


@only_linux
def test_top_says_at_least_of_dropped_trains() -> None:
    options = ["--port", "0", "--host", "127.0.0.1", "--interval", "0.02", "--gro"]
    options += ["--buffer", "65536"]
    with running("top", *options) as program, client("127.0.0.1") as sock:
        address = program.address()
        with program.held():
            for _ in range(20):  # 20 times 50,000 bytes, where 131,072 are granted
                send_train(sock, address, 50, 1000)
        pattern = "in all # packets in # messages, at least # dropped by kernel"
        while " at least " not in (line := program.line()):
            pass
        while sum(numbers(line, pattern)[1:]) != 20:
            line = program.line()
        packets, messages, dropped = numbers(line, pattern)
        assert packets == 50 * messages
        assert dropped > 0
        lines = program.stop()
    assert any(line.endswith("; a dropped train counts as one packet") for line in lines)


@without_terminals
@without_rich
@only_linux
def test_top_shows_messages_on_a_terminal() -> None:
    options = ["--port", "0", "--host", "127.0.0.1", "--interval", "0.05", "--gro"]
    output = terminal_output("top", *options)
    assert "packets a message" in output
    assert "messages in all" in output
    assert "came in 100 messages, 1.0 packets each" in output


@without_terminals
@without_rich
@each_backend
def test_top_on_a_terminal(backend: str) -> None:
    options = ["--port", "0", "--host", "127.0.0.1", "--interval", "0.05", "--backend", backend]
    output = terminal_output("top", *options)
    assert "top senders" in output
    assert "packets in all" in output
    assert "Ctrl-C quits" in output
    assert " 100 packets, 100 bytes " in output


@without_terminals
@without_rich
@each_backend
@pytest.mark.parametrize("key", ["q", "Q", "xq"])
def test_top_quits_with_q(key: str, backend: str) -> None:
    options = ["--port", "0", "--host", "127.0.0.1", "--interval", "0.05", "--backend", backend]
    output = terminal_output("top", *options, keys=key)
    assert "q quits" in output
    assert " 100 packets, 100 bytes " in output


def look() -> Interval:
    """What is shown of a busy port, whose senders have long addresses."""
    zeros: dict[str, Any] = {
        field.name: 0
        for field in dataclasses.fields(ReceiverStatistics)
        if field.default is dataclasses.MISSING
    }
    seen = ReceiverStatistics(**{**zeros, "transient_errors": {}})
    now = dataclasses.replace(
        seen,
        packets=123_456_789,
        bytes=123_456_789_000,
        batches=2_000_000,
        full_batches=1_900_000,
        truncated=1_234_567,
        dropped_by_kernel=98_765_432,
        buffer_used=1_000_000,
        buffer_size=8_000_000,
        time=1.0,
    )
    senders = TopSenders(1000)
    senders.add([f"2001:db8:1111:2222:3333:4444:5555:{n:x} {50000 + n}" for n in range(20)] * 99)
    return Interval(seen, now, senders, "q quits")


@without_rich
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_top_fits_a_narrow_terminal(columns: int) -> None:
    """Nothing is cut: each figure with its name, each sender with its rate and share."""
    text = drawn(look().table(), columns)
    lines = text.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= columns
    for figure in (
        "123,456,789 packets/s",
        "987,654.312 Mbit/s",
        "98,765,432 dropped by kernel/s",
        "95 % full batches",
        "12 % kernel's buffer",
        "123,456,789 packets in all",
    ):
        assert any(figure in " ".join(line.split()) for line in lines), text
    shown = [line for line in lines if "2001:db8:1111:2222:3333" in line]
    assert len(shown) == 10
    assert all(line.split()[-3:] == ["99", "0.0", "%"] for line in shown), text
    assert "q quits" in lines[-1]
    assert "\N{HORIZONTAL ELLIPSIS}" not in text


@each_backend
@pytest.mark.parametrize("ports", [False, True])
def test_top_as_json(ports: bool, backend: str) -> None:
    options = ["--port", "0", "--host", "127.0.0.1", "--interval", "0.02", "--backend", backend]
    options += ["--ports"] if ports else []
    with running("top", *options, "--json") as program, client("127.0.0.1") as sock:
        assert program.process.stderr is not None
        address = numbers(program.process.stderr.readline(), "^listening on 127.0.0.1:#$")
        for size in range(10):
            sock.sendto(b"x" * size, ("127.0.0.1", *address))
        sender = {"host": "127.0.0.1", **({"port": sock.getsockname()[1]} if ports else {})}
        seen: list[dict[str, Any]] = []
        while sum(document["packets"] for document in seen) != 10:
            seen.append(json.loads(program.line()))
        *more, whole = map(json.loads, program.stop())
    seen += more
    assert {document["kind"] for document in seen} == {"interval"}
    assert sum(document["bytes"] for document in seen) == sum(range(10))
    assert (whole["kind"], whole["packets"], whole["bytes"]) == ("summary", 10, sum(range(10)))
    assert whole["senders"] == [{**sender, "packets": 10}]
    assert (whole["truncated"], whole["messages"], whole["senders_too_low"]) == (0, None, 0)
    assert whole["dropped_by_kernel"] == (0 if LINUX else None)
    for document in seen:
        assert document.keys() == whole.keys()
        rate = document["packets"] / document["seconds"]
        assert document["packets_per_second"] == pytest.approx(rate, rel=0.01)
