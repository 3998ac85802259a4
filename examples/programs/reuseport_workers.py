"""A port shared by processes, one for each core: the kernel gives each its share of the senders.

    python -m pip install -e '.[trio]' rich
    python examples/programs/reuseport_workers.py --host 127.0.0.1 --port 9999
    python examples/programs/reuseport_workers.py --port 9999 --workers 4 --pin --backend trio

Each worker is a process with an event loop and a socket of its own, all bound to one port by
SO_REUSEPORT. By default Linux chooses the socket by a hash of both ends' addresses and ports, so
one sender's packets all go to one worker, in order; docs/scaling.md describes other ways. (macOS
has the option too, but gives all packets to one of the sockets.) The parent receives nothing: it
starts the workers, shows their rates (live on a terminal, else a line at each interval), and stops
them.

Ctrl-C or SIGTERM stops them all: each worker still handles what has arrived, then the parent
prints a summary. A second signal kills the workers at once, and they count as failed. The exit
status is 0, or 1 if a worker failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import Process, TaskGroup, TaskStatus
from anyio.streams.buffered import BufferedByteReceiveStream

from anyio_mmsg import PacketBatch, PacketBatchPool, PacketReceiver, open_udp_socket
from shared import OneLineErrors, add_backend_option, run_on, show_at_intervals, stop_on_signal

if TYPE_CHECKING:
    from rich.table import Table

# What fills an Ethernet frame: 1500 - 20 (IPv4) - 8 (UDP). The library's default, 1232, would cut
# it. Use more for longer packets.
SLOT_SIZE = 1472
MAX_LINE = 4096  # bytes of a worker's report; a pipe takes this much in one piece (PIPE_BUF)
GRACE = 5.0  # seconds until workers that don't end are killed
COUNTS = "packets", "bytes", "batches", "dropped_by_kernel"


# The worker


def handle(batch: PacketBatch) -> None:
    """Do something with a batch. Replace it by your own work."""


def report(receiver: PacketReceiver, port: int) -> None:
    """Write a line for the parent: the port, the time, and the counts."""
    seen = receiver.statistics()
    counts = {name: getattr(seen, name) or 0 for name in COUNTS}
    line = json.dumps({"port": port, "time": time.monotonic(), **counts})
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), line.encode() + b"\n")
        return
    os.kill(os.getpid(), signal.SIGTERM)  # the parent is gone


async def report_at_intervals(receiver: PacketReceiver, port: int, interval: float) -> None:
    """Report to the parent, the first time at once."""
    while True:
        report(receiver, port)
        await anyio.sleep(interval)


async def work(options: argparse.Namespace) -> int:
    """Receive until the parent sends SIGTERM, or is gone."""
    if sys.platform == "linux" and options.pin:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[options.worker % len(cores)]})
    sock = await open_udp_socket(
        options.host, options.port, reuse_port=True, receive_buffer_size=options.buffer
    )
    port: int = sock.getsockname()[1]
    # One batch is enough: nothing is received while it is handled.
    receiver = PacketReceiver(sock, PacketBatchPool(1, slot_size=SLOT_SIZE))
    async with receiver, anyio.create_task_group() as nursery:
        await nursery.start(stop_on_signal, receiver.stop, nursery.cancel_scope.cancel)
        nursery.start_soon(report_at_intervals, receiver, port, options.interval)
        async for batch in receiver:
            with batch:
                handle(batch)
        nursery.cancel_scope.cancel()
    report(receiver, port)
    return 0


# The parent


@dataclass
class Worker:
    """What the parent knows about a worker: its last report, and the one before."""

    process: Process
    latest: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    status: int | None = None

    def count(self, what: str) -> int:
        """Return what it counted in all."""
        return int(self.latest.get(what, 0))

    def rate(self, what: str) -> float:
        """Return what it counted per second, between its last two reports."""
        if not self.before:
            return 0.0
        seconds = self.latest["time"] - self.before["time"]
        return float((self.latest[what] - self.before[what]) / max(seconds, 1e-9))


@dataclass
class Parent:
    """The workers, by number, and whether they have to end."""

    options: argparse.Namespace
    workers: dict[int, Worker] = field(default_factory=dict)
    stopping: anyio.Event = field(default_factory=anyio.Event)

    async def run_worker(self, number: int, port: int, *, task_status: TaskStatus[int]) -> None:
        """Start a worker and read its reports to the end; pass on its port when it listens."""
        options = self.options
        command = [sys.executable, __file__, "--worker", str(number), "--port", str(port)]
        command += ["--host", options.host, "--backend", options.backend]
        command += ["--interval", str(options.interval)]
        command += ["--buffer", str(options.buffer)] if options.buffer else []
        command += ["--pin"] if options.pin else []
        # In a session of its own a worker gets no Ctrl-C: it ends when the parent asks it to.
        process = await anyio.open_process(
            command, stdin=subprocess.DEVNULL, stderr=None, start_new_session=True
        )
        async with process:
            worker = self.workers[number] = Worker(process)
            if self.stopping.is_set():  # meanwhile
                process.terminate()
            assert process.stdout is not None
            lines = BufferedByteReceiveStream(process.stdout)
            with contextlib.suppress(anyio.IncompleteRead, anyio.EndOfStream):
                while True:
                    latest = json.loads(await lines.receive_until(b"\n", MAX_LINE))
                    worker.before, worker.latest = worker.latest, latest
                    if not worker.before:
                        task_status.started(latest["port"])
            worker.status = await process.wait()
            self.stopping.set()  # a worker that ends earlier has failed
            if not worker.latest:  # it never listened
                task_status.started(0)

    async def end_all(self, everyone: anyio.CancelScope) -> None:
        """When it is time, ask all workers to end, and kill those that don't after a while."""
        await self.stopping.wait()
        for worker in self.workers.values():
            if worker.status is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.terminate()
        await anyio.sleep(GRACE)
        everyone.cancel()

    async def start_all(self, nursery: TaskGroup) -> int:
        """Start the workers; return the port, or 0 if they were stopped meanwhile."""
        port: int = await nursery.start(self.run_worker, 0, self.options.port)
        async with anyio.create_task_group() as starting:
            for number in range(1, self.options.workers):
                if not self.stopping.is_set():
                    starting.start_soon(nursery.start, self.run_worker, number, port)
        return 0 if self.stopping.is_set() else port

    async def run(self) -> int:
        """Run the workers until Ctrl-C; return the exit status."""
        async with anyio.create_task_group() as around:
            async with anyio.create_task_group() as nursery:
                kill = nursery.cancel_scope.cancel
                await around.start(stop_on_signal, self.stopping.set, kill)
                around.start_soon(self.end_all, nursery.cancel_scope)
                if port := await self.start_all(nursery):
                    host = self.options.host
                    where = f"[{host}]" if ":" in host else host
                    print(f"listening on {where}:{port}", flush=True)
                    around.start_soon(show_at_intervals, self.options.interval, lambda: self)
            around.cancel_scope.cancel()
        return self.summarize()

    def total(self, what: str) -> int:
        """Return what all of them counted together."""
        return sum(worker.count(what) for worker in self.workers.values())

    def line(self) -> str:
        """Return the rate of each worker, and what came in all."""
        rates = [worker.rate("packets") for _, worker in sorted(self.workers.items())]
        each = " + ".join(f"{rate:,.0f}" for rate in rates)
        packets, dropped = self.total("packets"), self.total("dropped_by_kernel")
        return (
            f"packets/s {sum(rates):,.0f} = {each}; "
            f"in all {packets:,} packets, {dropped:,} dropped by kernel"
        )

    def table(self) -> Table:
        """Return a row for each worker."""
        from rich.table import Table

        table = Table("worker", "pid", "packets/s", "Mbit/s", "packets", "a batch", "dropped")
        for column in table.columns:
            column.justify = "right"
        for number, worker in sorted(self.workers.items()):
            table.add_row(
                str(number),
                str(worker.process.pid),
                f"{worker.rate('packets'):,.0f}",
                f"{worker.rate('bytes') * 8 / 1e6:,.1f}",
                f"{worker.count('packets'):,}",
                f"{worker.count('packets') / max(1, worker.count('batches')):.1f}",
                f"{worker.count('dropped_by_kernel'):,}",
            )
        return table

    def summarize(self) -> int:
        """Print what each worker received; return 1 if one failed, else 0."""
        failed = 0
        for number, worker in sorted(self.workers.items()):
            # A worker that is stopped before it listens handles no signals yet.
            well = worker.status == 0 or (worker.status == -signal.SIGTERM and not worker.latest)
            failed += not well
            ended = "killed" if worker.status is None else f"failed with status {worker.status}"
            print(
                f"worker {number}: {worker.count('packets'):,} packets, "
                f"{worker.count('dropped_by_kernel'):,} dropped by kernel"
                + ("" if well else f", {ended}")
            )
        print(
            f"all: {self.total('packets'):,} packets, {self.total('bytes'):,} bytes, "
            f"{self.total('dropped_by_kernel'):,} dropped by kernel"
        )
        return 1 if failed else 0


async def supervise(options: argparse.Namespace) -> int:
    """Be the parent."""
    return await Parent(options).run()


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main() -> int:
    """Read the command line, run, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--workers", type=int, default=cores(), help="default: one a core")
    parser.add_argument("--pin", action="store_true", help="keep each to a core (Linux)")
    parser.add_argument("--buffer", type=int, help="bytes of each kernel buffer to ask for")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between two reports")
    add_backend_option(parser)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # it is one, of this number
    options = parser.parse_args()
    if options.workers < 1:
        parser.error("--workers has to be at least 1")
    if not hasattr(socket, "SO_REUSEPORT"):
        parser.error("this platform has no SO_REUSEPORT")
    role = supervise if options.worker is None else work
    return run_on(options.backend, role, options)


if __name__ == "__main__":
    with OneLineErrors():
        sys.exit(main())
