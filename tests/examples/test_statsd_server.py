"""statsd_server.py: fed by a real client, and by what the field sends."""

from __future__ import annotations

import math
import re
import signal
import tracemalloc

import pytest

from anyio_mmsg.testing import make_batch

from .helpers import (
    each_host,
    each_signal,
    load,
    numbers,
    running,
    send_all,
    without_signals,
    without_uvloop,
)

each_loop = pytest.mark.parametrize(
    "loop", [[], pytest.param(["--uvloop"], marks=without_uvloop)], ids=["asyncio", "uvloop"]
)


@without_signals
@each_host
@each_loop
def test_statsd_from_the_statsd_client(host: str, loop: list[str]) -> None:
    statsd = pytest.importorskip("statsd", reason="the statsd client is not installed")
    options = ["--host", host, "--port", "0", "--interval", "3600", *loop]
    with running("statsd_server.py", *options) as program:
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
        b"a:1e999|c", b"a:1_0|c", b"a:\xd9\xa1|c", b"\xff\x00:1|c", b"a b:1|c", b"a:1|c\rb:1|c",
        b"a:" + b"1" * 8000 + b"|c", b"a:1|s|@", b"a:0x1|c", b"a:inf|g", b"a:1e301|g",
        b"a:1|c|@0x1", b"a:1|c:2", b"a:1|c:x|c", b"a:1:x|c", b"a:1::2|c", b"a:1:|c", b"a:1|c:",
        b"a:1|c|", b"a:1||c", b"a:1|c|@0.5|@0.5", b"a:1|c|#x|#y", b"a:1|c|x", b"a:1|c|Tx",
        b"a:1|c|#x:2|c", b"a: 1|c", b"_e{5,4}:title|text", b"_sc|name|0", b"\x1b[2J",
    ]  # fmt: skip
    options = ["--port", "0", "--interval", "3600", *loop]
    with running("statsd_server.py", *options) as program:
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


def report_of(*payloads: bytes) -> list[str]:
    """Return a report, without times and rates, which are anybody's guess."""
    example = load("statsd_server")
    metrics = example.Metrics()
    with make_batch(payloads, slot_size=example.SLOT_SIZE) as batch:
        for packet in batch:
            metrics.add_packet(packet.data, packet.truncated)
    report: list[str] = metrics.flush().splitlines()
    report[0] = re.sub(r"\d+\.\d s: ", "", report[0])
    return [re.sub(r" \(\S+/s\)$", "", line) for line in report]


@pytest.mark.parametrize(
    ("payload", "metrics", "report"),
    [
        # Ends of lines, and blanks around them
        (b"a:1|c\r\nb:2|c\r\n", 2, ["counter a 1", "counter b 2"]),
        (b"  a:1|c \t\n\n \r\n\tb:2|c", 2, ["counter a 1", "counter b 2"]),
        # Several metrics in a line, as Etsy's statsd takes them
        (b"a:1|c:2|c", 2, ["counter a 3"]),
        (b"a:1|c|@0.5:2|c|@0.1:3|c", 3, ["counter a 25"]),
        (b"a:1|c:2|g:3|ms:x|s", 4, ["counter a 1", "gauge   a 2"]),
        (b"a:7|g:+2|g:-1|g", 3, ["gauge   a 8"]),
        (b"s:x|s:y|s:x|s", 3, ["set     s 2 different"]),
        # Several values in a metric, and tags, as DogStatsD has them
        (b"a:1:2:3|c", 3, ["counter a 6"]),
        (b"a:1:2|c|@0.5", 2, ["counter a 6"]),
        (b"a:1:2|c:3:4|c", 4, ["counter a 10"]),
        (b"a:5:+2|g", 2, ["gauge   a 7"]),
        (b"s:x:y|s", 1, ["set     s 1 different"]),
        (b"a:1|c|#env:test,web", 1, ["counter a{env:test,web} 1"]),
        (b"a:1|c|#web,env:test|@0.5\na:1|c|@0.5|#env:test,web", 2, ["counter a{env:test,web} 4"]),
        (b"a:1|c|#x\na:2|c|#y\na:4|c|#", 3, ["counter a 4", "counter a{x} 1", "counter a{y} 2"]),
        (b"a:1|c|#u:http://h:8/", 1, ["counter a{u:http://h:8/} 1"]),
        (b"a:1:2|c|@0.5|#x|c:83c0a99c0a54|T1656581400", 2, ["counter a{x} 6"]),
        (b"a:1|c|e:it-false,cn-x|card:low", 1, ["counter a 1"]),
        # Names as clients of Graphite and InfluxDB write them
        (b"a;env=test:1|c", 1, ["counter a;env=test 1"]),
        (b"a,env=test:1|c", 1, ["counter a,env=test 1"]),
        # Odd numbers
        (b"a:1e-400|c\na:-0|c\na:+3|c\na:5.|c", 4, ["counter a 8"]),
    ],
)
def test_statsd_takes_what_deployed_clients_write(
    payload: bytes, metrics: int, report: list[str]
) -> None:
    heading, *lines = report_of(payload)
    assert heading == f"-- {metrics} metrics in 1 packets"
    assert lines[: len(report)] == report


def test_statsd_takes_distributions_as_timers() -> None:
    """DogStatsD's h and d, packed; they may be negative."""
    assert report_of(b"t:1:2|d", b"t:-3|h")[1].startswith("timer   t 3 times, min -3, mean 0, ")


@pytest.mark.parametrize(
    ("end", "counted"),
    [
        pytest.param(b"b:10|c", 0, id="cut within a number"),
        pytest.param(b"b:1|c|@0.10", 0, id="cut within a rate"),
        pytest.param(b"b:1|c\nc:1|c", 1, id="cut behind a line"),
    ],
)
def test_statsd_does_not_count_the_last_line_of_a_truncated_packet(
    end: bytes, counted: int
) -> None:
    """At each place near the end where the slot may cut it: what counts is what was sent."""
    size = load("statsd_server").SLOT_SIZE
    payloads = []
    for cut in range(1, len(end) + 1):
        start = b"a:1|c\n".ljust(size - cut, b"\n") + end
        payloads.append(start.ljust(size + 1, b"0"))
    heading, *lines = report_of(*payloads)
    whole = end.split(b"\n")[0]
    complete = sum(cut > len(whole) for cut in range(1, len(end) + 1)) if counted else 0
    assert heading == (
        f"-- {len(end) + complete} metrics in {len(end)} packets, "
        f"{len(end)} truncated packets without their last line"
    )
    assert lines == [f"counter a {len(end)}", *([f"counter b {complete}"] if complete else [])]


def test_statsd_finite_input_makes_finite_reports() -> None:
    huge = [b"1e300", b"-1e300", b"1.7e308", b"9" * 308, b"1e-300", b"0", b"-0", b"5e-324"]
    payloads = []
    for kind in (b"c", b"g", b"ms", b"h", b"d"):
        for number in huge:
            payloads += [
                b"%s:%s|%s%s" % (name, sign + number, kind, rate)
                for name, sign in ((b"x", b""), (b"y", b"+"))
                for rate in (b"", b"|@1e-300", b"|@5e-324", b"|@0.1")
                if not (sign and number.startswith(b"-"))
            ] * 2
    report = report_of(*payloads)
    assert numbers(report[0], "-- # metrics in # packets, # metrics refused")[0] > 100
    found = re.findall(r"(?<![a-z])-?[0-9][0-9.]*(?:e[+-]?[0-9]+)?", "\n".join(report[1:]))
    assert len(found) > 20
    assert all(math.isfinite(float(number)) for number in found)
    assert not re.search(r"\b(inf|nan)\b", "\n".join(report))


@pytest.mark.parametrize("kind", ["c", "g", "ms", "s"])
def test_statsd_memory_has_a_bound(kind: str) -> None:
    """New names, and new members and values of one name, up to a room of a megabyte."""
    metrics = load("statsd_server").Metrics(room=2**20)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3000):
            payload = f"{'é' * 9}{number}:1|{kind}\n{number}{'x' * 1000}:1|{kind}".encode()
            metrics.add_packet(memoryview(payload))
        for number in range(20_000):
            payload = f"one:{number}{'x' * 10 if kind == 's' else ''}|{kind}".encode()
            metrics.add_packet(memoryview(payload))
        assert tracemalloc.get_traced_memory()[0] - before < 2**20 + 2**17
    finally:
        tracemalloc.stop()
    assert metrics.refused > 3000
    assert metrics.metrics + metrics.refused == 26_000
    # What is known goes on, and there is room again after a report; gauges stay.
    report = metrics.flush()
    assert f", {metrics.refused} metrics refused" not in report.splitlines()[0]
    assert "metrics refused for lack of room" in report.splitlines()[0]
    metrics.add_packet(memoryview(b"another:1|%s" % kind.encode()))
    assert ("another" in metrics.flush()) == (kind != "g")


@without_signals
@each_loop
@each_signal
def test_statsd_counts_what_waits_when_it_is_stopped(how: signal.Signals, loop: list[str]) -> None:
    with running("statsd_server.py", "--port", "0", "--interval", "3600", *loop) as program:
        address = program.address()
        with program.held():
            send_all(address, [b"hits:1|c"] * 500)
            program.process.send_signal(how)
        heading, counter = program.end()
    assert heading.endswith(" s: 500 metrics in 500 packets")
    assert counter.startswith("counter hits 500 (")


@without_signals
@each_loop
def test_statsd_says_what_a_second_signal_leaves(loop: list[str]) -> None:
    with running("statsd_server.py", "--port", "0", "--interval", "3600", *loop) as program:
        address = program.address()
        with program.held():
            send_all(address, [b"hits:1|c"] * 500)
            program.process.send_signal(signal.SIGTERM)
            program.process.send_signal(signal.SIGINT)
        output = "\n".join(program.end())
    left = [int(count) for count in re.findall(r"^left: (\d+) packets$", output, re.M)]
    assert numbers(output, " s: # metrics in # packets")[1] + sum(left) == 500


@without_signals
@each_loop
def test_statsd_reports_at_each_interval_and_keeps_gauges(loop: list[str]) -> None:
    with running("statsd_server.py", "--port", "0", "--interval", "0.05", *loop) as program:
        send_all(program.address(), [b"hits:1|c\nqueue:4|g\nload:3|ms\nusers:x|s\nbad"])
        program.line_with("1 bad lines")
        assert program.line().startswith("counter hits 1 (")
        program.line_with("set     users 1 different")
        assert re.fullmatch(r"-- \d+\.\d s: 0 metrics in 0 packets", program.line())
        assert program.line() == "gauge   queue 4"
        assert program.line().startswith("-- ")
        assert program.stop()[-1] == "gauge   queue 4"
