"""Receive, queue, work: a receiver, a memory stream and workers in one nursery, watched live.

    python -m pip install -e '.[trio]' rich
    python examples/programs/pipeline.py --demo 20000 --work 400 --overload drop_oldest
    python examples/programs/pipeline.py --host 127.0.0.1 --port 9999 --workers 8 --overload block

`--demo 20000` feeds it with 20,000 packets a second. `--work 400` lets the workers wait 400
microseconds for each packet, as they would for a database. With the numbers above they can work
off half of the packets, and the policy decides about the other half. "block" leaves them in the
kernel, which drops them; "drop_newest" and "drop_oldest" drop them here. Watch what each does to
the age of the packets that the workers get.

On a terminal the table is live; elsewhere it prints a line at each interval. Ctrl-C or SIGTERM
stops it: what has arrived is still received and worked off, for `--grace` seconds at most; a
second signal cuts that short. Then it prints what became of each packet, and says so if something
is left. The exit status is 0, or 1 if the counts don't add up.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import struct
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from anyio_mmsg import (
    PACKET_DATA_SIZE,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    feed,
    open_udp_socket,
)
from shared import (
    OneLineErrors,
    add_backend_option,
    announce,
    run_on,
    show_at_intervals,
    stop_on_signal,
)

if TYPE_CHECKING:
    from rich.table import Table

# What fills an Ethernet frame: 1500 - 20 (IPv4) - 8 (UDP). The library's default, 1232, would cut
# it. A longer packet is cut, and counted as truncated.
SLOT_SIZE = 1472
STAMP = struct.Struct("!d")  # what a packet of the demonstration begins with: when it was sent
TICK = 0.002  # seconds between two bursts of the demonstration; short, so that bursts are small


@dataclass
class Pipeline:
    """The receiver, the stream, and the counts that the library does not keep."""

    receiver: PacketReceiver
    stream: MemoryObjectReceiveStream[PacketBatch]
    sent: int = 0  # by the demonstration
    in_work: int = 0
    queued: int = 0  # left in the stream when the workers were cut short
    consumed: int = 0
    age: float = 0.0  # of the packet that a worker took last, in seconds

    def __post_init__(self) -> None:
        self._last = anyio.current_time(), self.counts()

    def counts(self) -> dict[str, int]:
        """Return how many packets were received, consumed and dropped."""
        seen = self.receiver.statistics()
        return {
            "received": seen.packets,
            "consumed": self.consumed,
            "dropped": seen.dropped,
            "dropped by kernel": seen.dropped_by_kernel or 0,
        }

    def state(self) -> dict[str, str]:
        """Return the figures that are neither counts nor rates."""
        seen, pool = self.receiver.statistics(), self.receiver.pool.statistics()
        waiting = self.stream.statistics()
        return {
            "batches in the stream": (
                f"{waiting.current_buffer_used} of {waiting.max_buffer_size:g}"
            ),
            "batches in use": f"{pool.lent} of {pool.size}",
            "packets a batch": f"{seen.packets / max(1, seen.batches):.1f}",
            "full batches": f"{100 * seen.full_batches / max(1, seen.batches):.0f} %",
            "kernel's buffer": f"{100 * (seen.buffer_used or 0) / (seen.buffer_size or 1):.0f} %",
            "age at work": f"{1000 * self.age:.1f} ms" if self.sent else "-",
        }

    def look(self) -> Look:
        """Return all there is to see, with rates since the last look."""
        (then, before), self._last = self._last, (anyio.current_time(), self.counts())
        now, counts = self._last
        seconds = max(now - then, 1e-9)
        rates = {what: (counts[what] - before[what]) / seconds for what in counts}
        return Look(counts, rates, self.state())


@dataclass
class Look:
    """What happened up to one moment."""

    counts: dict[str, int]
    rates: dict[str, float]  # a second, by what is counted
    state: dict[str, str]

    def line(self) -> str:
        """Return it for a log."""
        parts = [f"{what} {n:,} ({self.rates[what]:,.0f}/s)" for what, n in self.counts.items()]
        if (age := self.state["age at work"]) != "-":
            parts.append(f"age at work {age}")
        return ", ".join(parts)

    def table(self) -> Table:
        """Return it for a terminal."""
        from rich.table import Table

        rows = Table("", "packets/s", "packets", min_width=50)
        for column in rows.columns[1:]:
            column.justify = "right"
        for what, count in self.counts.items():
            rows.add_row(what, f"{self.rates[what]:,.0f}", f"{count:,}")
        rows.add_section()
        for what, value in self.state.items():
            rows.add_row(what, "", value)
        return rows


async def work(
    stream: MemoryObjectReceiveStream[PacketBatch], seconds: float, pipeline: Pipeline
) -> None:
    """Take batches until the stream ends. A batch belongs to the worker until it is closed."""
    async with stream:
        async for batch in stream:
            with batch:
                count = len(batch)
                pipeline.in_work += count
                if pipeline.sent and batch[0].size >= STAMP.size:
                    pipeline.age = time.monotonic() - STAMP.unpack_from(batch[0].data)[0]
                await anyio.sleep(seconds * count)  # replace it by your own work
                pipeline.in_work -= count
                pipeline.consumed += count


async def demonstrate(
    address: tuple[str, int], rate: float, pipeline: Pipeline, until: anyio.CancelScope
) -> None:
    """Send `rate` packets a second, in bursts."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with until, socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(address)
        started = anyio.current_time()
        while not until.cancel_called:
            due = int((anyio.current_time() - started) * rate)
            with contextlib.suppress(BlockingIOError):  # the rest of the burst at the next tick
                while pipeline.sent < due:
                    sock.send(STAMP.pack(time.monotonic()).ljust(PACKET_DATA_SIZE, b"."))
                    pipeline.sent += 1
            await anyio.sleep(TICK)


async def run(options: argparse.Namespace) -> int:
    """Run the pipeline until Ctrl-C; return the exit status."""
    sock = await open_udp_socket(options.host, options.port, receive_buffer_size=options.buffer)
    # As many as can be in use: in the stream, at work, one that feed holds, one at the receiver.
    pool = PacketBatchPool(options.queue + options.workers + 2, options.batch, SLOT_SIZE)
    send_stream, stream = anyio.create_memory_object_stream[PacketBatch](options.queue)
    receiver = PacketReceiver(sock, pool, limit=options.batch)
    pipeline = Pipeline(receiver, stream)
    oldest = stream if options.overload == "drop_oldest" else None
    policy = partial(feed, overload=options.overload, drop_from=oldest)
    sending = anyio.CancelScope()

    async with receiver, anyio.create_task_group() as around:
        async with stream, anyio.create_task_group() as nursery:
            nursery.start_soon(policy, receiver, send_stream)
            # Of its own: before AnyIO 4.5 a group that waits for its tasks heeds no new deadline.
            with anyio.CancelScope() as in_time:
                async with anyio.create_task_group() as workers:

                    def stop() -> None:
                        """End the receiver: then `feed` ends, the stream, and the workers."""
                        sending.cancel()
                        receiver.stop()
                        in_time.deadline = anyio.current_time() + options.grace

                    await around.start(stop_on_signal, stop, in_time.cancel)
                    announce(sock)
                    around.start_soon(show_at_intervals, options.interval, pipeline.look)
                    if options.demo:
                        address = sock.getsockname()[:2]
                        around.start_soon(demonstrate, address, options.demo, pipeline, sending)
                    for _ in range(options.workers):
                        workers.start_soon(work, stream.clone(), options.work / 1e6, pipeline)
            # If the workers were cut short: this ends feed, and counts what the kernel still has.
            await receiver.aclose()
            async for batch in stream:
                with batch:
                    pipeline.queued += len(batch)
        around.cancel_scope.cancel()
    return summarize(pipeline)


def summarize(pipeline: Pipeline) -> int:
    """Print what became of each packet; return 1 if that doesn't add up, else 0."""
    seen, consumed = pipeline.receiver.statistics(), pipeline.consumed
    queued = pipeline.queued + pipeline.in_work
    if queued or seen.unread:
        print(f"left: {queued:,} packets not worked off, {seen.unread:,} not even received")
    if pipeline.sent:
        print(f"sent {pipeline.sent:,}")
    print(
        f"received {seen.packets:,} = consumed {consumed:,} + dropped {seen.dropped:,} "
        f"+ queued {queued:,}"
    )
    kernel = "unknown" if seen.dropped_by_kernel is None else f"{seen.dropped_by_kernel:,}"
    errors = sum(seen.transient_errors.values())
    print(
        f"dropped by kernel {kernel}, left there {seen.buffer_used or 0:,} bytes, "
        f"truncated {seen.truncated:,}, transient errors {errors:,}"
    )
    return int(seen.packets != consumed + seen.dropped + queued)


def main() -> int:
    """Read the command line, run, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    add_backend_option(parser)
    parser.add_argument(
        "--overload", default="block", choices=["block", "drop_newest", "drop_oldest"]
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--work", type=float, default=0, help="microseconds for each packet")
    parser.add_argument("--queue", type=int, default=8, help="batches that may wait for workers")
    parser.add_argument("--batch", type=int, default=64, help="packets of a batch, at most")
    parser.add_argument("--buffer", type=int, help="bytes of the kernel's buffer to ask for")
    parser.add_argument("--demo", type=float, default=0, help="packets a second to send itself")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between two looks")
    parser.add_argument("--grace", type=float, default=2, help="seconds to work off the rest")
    options = parser.parse_args()
    if min(options.workers, options.queue, options.batch) < 1:
        parser.error("--workers, --queue and --batch have to be at least 1")
    return run_on(options.backend, run, options)


if __name__ == "__main__":
    with OneLineErrors():
        sys.exit(main())
