"""A statsd server on asyncio: adds up the metrics it gets, and prints a report now and then.

    python -m pip install -e .
    python examples/asyncio_task_group.py --host 127.0.0.1 --port 8125 --interval 10

Feed it from another terminal, with any statsd client or by hand:

    pip install statsd && python -c "import statsd; statsd.StatsClient().incr('a')"
    echo 'a:1|c' | nc -u -w0 127.0.0.1 8125

It knows counters (`a:1|c`, sampled `a:1|c|@0.1`), gauges (`b:7|g`, changed by `b:+2|g`), timers
(`c:320|ms`, and `h` for the same) and sets (`d:anna|s`), several in a packet on lines of their
own. A bad line is counted and the last one shown. `--uvloop` runs it on uvloop, `--port 0`
listens on any free port. Ctrl-C stops it: what has arrived is still counted, and the last report
printed. The exit status is 0 then.

The task group is AnyIO's, which asyncio.TaskGroup (Python 3.11) is a younger sister of: it is
there on Python 3.10 too, and it has a cancel scope, with which the stop is one call.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import math
import re
import signal
import socket
import sys
import time
from dataclasses import dataclass, field

import anyio

from anyio_mmsg import PacketBatch, recv_mmsg, recv_mmsg_nowait

SLOT_SIZE = 8192  # clients keep to 512 or 1432 bytes, those on loopback to 8192 at most
RECEIVE_BUFFER = 2**20  # bytes; the kernel's usual 208 KiB is full soon if packets come in bursts
NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
METRIC = re.compile(
    rf"(?P<name>[^:|\s]+):(?:(?P<number>{NUMBER})\|(?P<kind>c|g|ms|h)|(?P<member>[^|]+)\|s)"
    rf"(?:\|@(?P<rate>{NUMBER}))?"
)


@dataclass
class Metrics:
    """What came since the last report, and all gauges."""

    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    timers: dict[str, list[float]] = field(default_factory=dict)
    timer_counts: dict[str, float] = field(default_factory=dict)  # with those not sampled
    sets: dict[str, set[str]] = field(default_factory=dict)
    packets: int = 0
    metrics: int = 0
    bad_lines: int = 0
    last_bad_line: str = ""
    since: float = field(default_factory=time.monotonic)

    def add_packet(self, data: memoryview) -> None:
        """Add the metrics of a packet, one on each line."""
        self.packets += 1
        for line in str(data, "utf-8", "backslashreplace").split("\n"):
            if self.add(line):
                self.metrics += 1
            elif line:
                self.bad_lines += 1
                self.last_bad_line = line

    def add(self, line: str) -> bool:
        """Add a metric; return whether the line was one."""
        metric = METRIC.fullmatch(line)
        if metric is None or not line.isprintable():
            return False
        name = metric["name"]
        number, rate = float(metric["number"] or 0), float(metric["rate"] or 1)
        if not (math.isfinite(number) and 0 < rate <= 1):
            return False
        if metric["member"]:
            self.sets.setdefault(name, set()).add(metric["member"])
        elif metric["kind"] == "c":
            self.counters[name] = self.counters.get(name, 0.0) + number / rate
        elif metric["kind"] == "g":
            change = metric["number"][0] in "+-"
            self.gauges[name] = number + (self.gauges.get(name, 0.0) if change else 0.0)
        else:
            self.timers.setdefault(name, []).append(number)
            self.timer_counts[name] = self.timer_counts.get(name, 0.0) + 1 / rate
        return True

    def flush(self) -> str:
        """Return the report of the time since the last one, and start anew. Gauges stay."""
        now = time.monotonic()
        seconds = max(now - self.since, 1e-9)
        report = [f"-- {seconds:.1f} s: {self.metrics} metrics in {self.packets} packets"]
        if self.bad_lines:
            report[0] += f", {self.bad_lines} bad lines, the last {self.last_bad_line[:200]!a}"
        for name, value in sorted(self.counters.items()):
            report.append(f"counter {name} {value:.10g} ({value / seconds:.4g}/s)")
        for name, value in sorted(self.gauges.items()):
            report.append(f"gauge   {name} {value:.10g}")
        for name, values in sorted(self.timers.items()):
            values.sort()
            report.append(
                f"timer   {name} {self.timer_counts[name]:.10g} times, min {values[0]:.6g}, "
                f"mean {sum(values) / len(values):.6g}, median {percentile(values, 50):.6g}, "
                f"90 % {percentile(values, 90):.6g}, 99 % {percentile(values, 99):.6g}, "
                f"max {values[-1]:.6g} ms"
            )
        for name, members in sorted(self.sets.items()):
            report.append(f"set     {name} {len(members)} different")
        for table in (self.counters, self.timers, self.timer_counts, self.sets):
            table.clear()
        self.packets = self.metrics = self.bad_lines = 0
        self.since = now
        return "\n".join(report)


def percentile(ordered: list[float], percent: int) -> float:
    """Return the smallest value that `percent` of all are at or below (nearest rank)."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


async def receive(sock: socket.socket, batch: PacketBatch, metrics: Metrics) -> None:
    """Add up what arrives: one wait, then a batch of packets."""
    while True:
        await recv_mmsg(sock, batch)
        for packet in batch:
            metrics.add_packet(packet.data)
        batch.clear()


async def report(interval: float, metrics: Metrics) -> None:
    """Print a report at each interval."""
    due = anyio.current_time()
    while True:
        due += interval  # not "now and so many seconds": the reports would drift
        await anyio.sleep_until(due)
        print(metrics.flush(), flush=True)


async def serve(host: str, port: int, interval: float) -> None:
    """Receive and report until Ctrl-C, then print the last report."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    batch, metrics = PacketBatch(slot_size=SLOT_SIZE), Metrics()
    with socket.socket(family, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(address)
        sock.setblocking(False)
        async with anyio.create_task_group() as group:
            if sys.platform != "win32":  # asyncio has no signal handlers there
                for number in (signal.SIGINT, signal.SIGTERM):
                    asyncio.get_running_loop().add_signal_handler(
                        number, group.cancel_scope.cancel
                    )
            host, port = sock.getsockname()[:2]
            print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", flush=True)
            group.start_soon(receive, sock, batch, metrics)
            group.start_soon(report, interval, metrics)
        # What came before the stop; one batch of it, since senders may never pause.
        with contextlib.suppress(anyio.WouldBlock):
            recv_mmsg_nowait(sock, batch)
        for packet in batch:
            metrics.add_packet(packet.data)
    print(metrics.flush(), flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8125, help="0 for any free one")
    parser.add_argument("--interval", type=float, default=10, help="seconds between reports")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a letter is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    server = serve(options.host, options.port, options.interval)
    if options.uvloop:
        import uvloop

        uvloop.run(server)
    else:
        asyncio.run(server)


if __name__ == "__main__":
    main()
