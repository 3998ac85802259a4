"""The command latency as a user runs it, and its parts; what a clock decides is not asserted."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from anyio_mmsg import PacketReceiver
from anyio_mmsg._tools.meter import Counts, Look, Meter
from anyio_mmsg._tools.probes import Probe, read_probe
from anyio_mmsg._tools.sequence_numbers import SequenceNumbers
from anyio_mmsg._tools.spread import Spread, text_of

from ..examples.helpers import (
    BUFFER,
    DEADLINE,
    Program,
    client,
    documents,
    drawn,
    each_backend,
    each_host,
    each_signal,
    numbers,
    only_linux,
    running,
    terminal_output,
    without_rich,
    without_signals,
    without_terminals,
)

pytestmark = without_signals
COUNTS = "# packets, # lost, dropped by kernel #"
TIME = r"-?[0-9.,]+ (us|ms|s)"


@contextmanager
def receiving(*options: str, backend: str = "asyncio") -> Iterator[Program]:
    """The receiver, at any free port."""
    with running("latency", "receive", "--port", "0", "--backend", backend, *options) as program:
        yield program


def assert_table(lines: list[str]) -> None:
    """The lines have four times for each of the two figures."""
    heading, delay, wait = lines[:3]
    assert heading.split() == ["min", "p50", "p99", "max"]
    assert re.fullmatch(rf"one-way delay( +{TIME}){{4}}", delay)
    assert re.fullmatch(rf"then in the socket( +{TIME}){{4}}", wait)


@only_linux
@each_backend
def test_latency_over_loopback(backend: str) -> None:
    options = ["--packets", "300", "--rate", "3000", "--backend", backend]
    with running("latency", *options) as program:
        program.address()
        lines = program.end()
    sent = next(number for number, line in enumerate(lines) if line.startswith("sent "))
    assert lines[sent] == "sent 300, refused 0"
    received, lost, dropped = numbers(lines[sent + 1], COUNTS)
    assert received + dropped == 300
    assert lost <= dropped  # the last ones may be among them, which it can't know
    assert_table(lines[sent + 2 :])


@only_linux
@each_backend
@each_signal
def test_latency_over_loopback_stops(how: signal.Signals, backend: str) -> None:
    options = ["loopback", "--packets", "1000000000", "--interval", "0.02", "--backend", backend]
    with running("latency", *options) as program:
        program.address()
        while numbers(program.line(), "in all # packets, # lost")[0] == 0:
            pass
        lines = program.stop(how)
    sent = next(number for number, line in enumerate(lines) if line.startswith("sent "))
    received, _, dropped = numbers(lines[sent + 1], COUNTS)
    assert numbers(lines[sent], "sent #, refused #") == (received + dropped, 0)


@only_linux
@each_backend
@each_host
def test_latency_from_one_process_to_another(host: str, backend: str) -> None:
    options = ["--host", host, "--interval", "0.02", "--buffer", BUFFER]
    with receiving(*options, backend=backend) as program:
        port = str(program.address()[1])
        options = ["--packets", "100", "--rate", "1000", "--size", "1232", "--backend", backend]
        with running("latency", "send", host, port, *options) as sender:
            assert sender.end() == ["sent 100, refused 0"]
        while numbers(line := program.line(), "in all # packets, # lost") != (100, 0):
            pass
        assert re.search(rf"one-way delay min (-|{TIME}) p50 ", line)
        lines = program.stop()
    lines = lines[next(n for n, line in enumerate(lines) if line.startswith("100 packets")) :]
    assert numbers(lines[0], COUNTS) == (100, 0, 0)
    assert_table(lines[1:])


@only_linux
@each_backend
@each_signal
def test_latency_counts_what_waits_when_it_is_stopped(how: signal.Signals, backend: str) -> None:
    with receiving("--host", "127.0.0.1", backend=backend) as program, client("127.0.0.1") as sock:
        address = program.address()
        with program.held():
            for number in (5, 6, 9, 7, 2):
                sock.sendto(Probe(1, number, 1).pack(64), address)
            sock.sendto(b"something else", address)
            program.process.send_signal(how)
        lines = program.end()
    text = "\n".join(lines)
    assert numbers(text, COUNTS) == (5, 3, 0)  # 3, 4 and 8
    assert "not of this program: 1, no timestamp: 0" in text


@only_linux
def test_latency_shows_a_receiver_without_packets() -> None:
    with receiving("--host", "127.0.0.1", "--interval", "0.02") as program:
        program.address()
        assert "one-way delay min - p50 - p99 - max -" in program.line()
        lines = program.stop()
    assert lines[-2].split() == ["one-way", "delay", "-", "-", "-", "-"]


@each_backend
def test_latency_sends_until_it_is_stopped(backend: str) -> None:
    with client("127.0.0.1") as sock:
        port = str(sock.getsockname()[1])
        options = ["--rate", "1000", "--size", "28", "--backend", backend]
        with running("latency", "send", "127.0.0.1", port, *options) as program:
            data = [memoryview(sock.recv(99)) for _ in range(20)]
            probes = [probe for datagram in data if (probe := read_probe(datagram))]
            program.stop()
    assert [probe.number for probe in probes] == list(range(20))
    assert len({probe.sender for probe in probes}) == 1


def test_latency_counts_what_nobody_takes() -> None:
    with client("127.0.0.1") as sock:
        port = str(sock.getsockname()[1])
    with running("latency", "send", "127.0.0.1", port, "--packets", "20") as program:
        (line,) = program.end()
    sent, refused = numbers(line, "sent #, refused #")
    assert sent + refused == 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rate", "0"], "--rate: 0 is not above 0"),
        (["--rate", "nan"], "--rate: nan is not above 0"),
        (["--packets", "0"], "--packets: 0 is not 1 to "),
        (["--packets", "many"], "--packets: invalid number value: 'many'"),
        (["--size", "27"], "--size: 27 is not 28 to 1232"),
        (["--size", "1233"], "--size: 1233 is not 28 to 1232"),
    ],
)
def test_latency_refuses_numbers_that_make_no_sense(options: list[str], words: str) -> None:
    with running("latency", "send", "127.0.0.1", "9", *options) as program:
        output, errors = program.process.communicate(timeout=DEADLINE)
    assert (program.process.returncode, output) == (2, "")
    assert words in errors.splitlines()[-1]


@only_linux
@without_terminals
@without_rich
def test_latency_on_a_terminal() -> None:
    options = ["receive", "--host", "127.0.0.1", "--port", "0", "--interval", "0.05"]
    output = terminal_output("latency", *options, payload=Probe(1, 7, 1).pack(28))
    assert "one-way delay" in output
    assert "then in the socket" in output
    assert "Ctrl-C quits" in output


@without_rich
@pytest.mark.parametrize("columns", [40, 80])
def test_latency_fits_a_narrow_terminal(columns: int) -> None:
    """Nothing is cut, and each name stands above its figures."""
    times = Spread()
    times.add([-9_990_000, 5_000_000, 999_900])
    look = Look(1.0, Counts(12_345), Counts(9_876_543, 1_234), (times, times), (times, times))
    text = drawn(look.table(), columns)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "12,345 packets/s, 9,876,543 in all, 1,234" in " ".join(lines)
    figures = "-9.99 ms 999.4 us 4.98 ms 5.00 ms"
    for name in ("one-way delay", "then in the socket"):
        first = lines.index(name)
        assert lines[first + 1] == "min p50 p99 max"
        assert lines[first + 2] == f"now {figures}"
        assert lines[first + 3] == f"all {figures}"


@only_linux
@each_backend
def test_latency_as_json(backend: str) -> None:
    options = ["--packets", "300", "--rate", "3000", "--interval", "0.02", "--backend", backend]
    *intervals, whole = documents("latency", *options)
    assert {document["kind"] for document in intervals} == {"interval"}
    assert (whole["kind"], whole["sent"], whole["refused"]) == ("summary", 300, 0)
    assert whole["packets"] + whole["dropped_by_kernel"] == 300
    assert whole["foreign"] == 0
    assert sum(document["packets"] for document in intervals) <= whole["packets"]
    for name in ("delay_ns", "in_socket_ns"):
        figures = whole[name]
        assert list(figures) == ["min", "p50", "p99", "max"]
        assert list(figures.values()) == sorted(figures.values())
        assert all(document[name] is None for document in intervals if not document["packets"])


def test_what_latency_sends_as_json() -> None:
    with client("127.0.0.1") as sock:
        to = map(str, sock.getsockname())
        (whole,) = documents("latency", "send", *to, "--packets", "3")
    assert (whole["kind"], whole["sent"], whole["refused"]) == ("summary", 3, 0)


# Its parts


def test_a_probe_can_be_read_back() -> None:
    probe = Probe(2**64 - 1, 3, 2**63)
    assert read_probe(memoryview(probe.pack(28))) == probe
    assert read_probe(memoryview(probe.pack(1232))) == probe
    assert len(probe.pack(1232)) == 1232


@pytest.mark.parametrize("data", [b"", b"lat1", b"lat1" + bytes(23), b"lat2" + bytes(24)])
def test_what_is_not_a_probe_is_known(data: bytes) -> None:
    assert read_probe(memoryview(data)) is None


def test_a_meter_counts() -> None:
    meter = Meter(0.0)
    data = [memoryview(Probe(1, number, 1_000_000).pack(28)) for number in (0, 1, 3)]
    meter.count(zip(data, [1_010_000, 999_000, None], strict=True), 1_050_000)
    meter.count([(memoryview(b"else"), 5)], 1_050_000)
    delay, wait = meter.recent
    assert (delay.least, delay.most, wait.least, wait.most) == (-1_000, 10_000, 40_000, 51_000)
    assert (meter.packets, meter.foreign, meter.unstamped, meter.numbers.missing()) == (3, 1, 1, 1)


@pytest.mark.anyio
async def test_a_meter_says_so_if_clocks_differ(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter(0.0)
    data = memoryview(Probe(1, 0, 9_000_000).pack(28))
    meter.count([(data, 1_000_000)], 1_010_000)
    with client("127.0.0.1") as sock:
        sock.setblocking(False)
        async with PacketReceiver(sock) as receiver:
            print(meter.whole().summary(receiver.statistics()))
    *_, delay, wait, last = capsys.readouterr().out.splitlines()
    assert delay.split("  ")[-1].strip() == "-8.00 ms"
    assert wait.split("  ")[-1].strip() == "10.0 us"
    assert last == "arrived before it was sent: the clocks differ by 8.00 ms or more"


def test_quantiles_are_within_two_percent() -> None:
    times = [random.Random(n).randrange(-(10**6), 10 ** (3 + n % 7)) for n in range(5000)]
    spread = Spread()
    for start in range(0, 5000, 100):
        part = Spread()
        part.add(times[start : start + 100])
        spread.merge(part)
    times.sort()
    assert (spread.least, spread.most) == (times[0], times[-1])
    for share in (0.01, 0.5, 0.9, 0.99, 1):
        exact = times[int(share * 5000) - 1]
        assert abs(spread.quantile(share) - exact) <= abs(exact) / 50
    assert len(spread.counts) < 64 * 2 * 30


def test_a_spread_of_few_times() -> None:
    spread = Spread()
    spread.add([])
    assert spread.texts() == ["-"] * 4
    spread.add([1_999])
    assert spread.texts() == ["2.0 us"] * 4


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "0.0 us"),
        (999_900, "999.9 us"),
        (-1_500_000, "-1.50 ms"),
        (2 * 10**9, "2.00 s"),
        (12_345 * 10**9, "12,345.00 s"),
        (12_345 * 86_400 * 10**9, "12,345.00 days"),
    ],
)
def test_times_have_a_unit_that_suits(time: float, text: str) -> None:
    assert text_of(time) == text


def test_missing_numbers_are_counted_of_each_sender() -> None:
    seen = SequenceNumbers()
    assert seen.missing() == 0
    for sender in range(200):  # more than are remembered
        for number in random.Random(sender).sample([10, 11, 13, 16], 4):
            seen.add(sender, number)
    assert seen.missing() == 200 * 3
    seen.add(199, 13)  # again, which hides one
    assert seen.missing() == 200 * 3 - 1
    for _ in range(9):
        seen.add(199, 13)
    assert seen.missing() == 199 * 3
