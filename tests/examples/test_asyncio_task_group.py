"""asyncio_task_group.py, the statsd server: fed by a real client, and by what the field sends."""

from __future__ import annotations

import re

import pytest

from .helpers import each_host, running, send_all, without_signals, without_uvloop

each_loop = pytest.mark.parametrize(
    "loop", [[], pytest.param(["--uvloop"], marks=without_uvloop)], ids=["asyncio", "uvloop"]
)


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
