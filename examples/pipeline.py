"""Receive, queue, work: a receiver, a memory stream and workers in one nursery, watched live.

    python -m pip install -e '.[examples]'
    python examples/pipeline.py --demo 20000 --work 400 --overload drop_oldest
    python examples/pipeline.py --host 127.0.0.1 --port 9999 --workers 8 --overload block

`--demo` feeds it with so many packets a second, and `--work` lets the workers wait so many
microseconds for each, as they would for a database: by the numbers above they get half of the
packets done, and what becomes of the other half is the policy's choice. "block" leaves them in
the kernel, which drops them; "drop_newest" and "drop_oldest" drop them here. See what each does
to the age of the packets that workers get.

On a terminal the table is live; elsewhere a line is printed at each interval. Ctrl-C stops it:
what was received is worked off, for a while (a second Ctrl-C cuts that short), and the books are
closed to the packet. The exit status is 0, or 1 if they do not balance.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream

from anyio_mmsg import (
    PACKET_DATA_SIZE,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    feed,
    open_udp_socket,
)

if TYPE_CHECKING:
    from rich.table import Table

STAMP = struct.Struct("!d")  # what a packet of the demonstration begins with: when it was sent
TICK = 0.002  # seconds between two bursts of the demonstration: small ones, for the kernel


@dataclass
class Pipeline:
    """What is where, and the counts that the library does not keep."""

    receiver: PacketReceiver
    stream: MemoryObjectReceiveStream[PacketBatch]
    sent: int = 0  # by the demonstration
    in_work: int = 0
    queued: int = 0  # when workers were cut short
    consumed: int = 0
    age: float = 0.0  # of the packet that a worker took last, in seconds

    def counts(self) -> dict[str, int]:
        """Return packets by what became of them."""
        seen = self.receiver.statistics()
        return {
            "received": seen.packets,
            "consumed": self.consumed,
            "dropped": seen.dropped,
            "dropped by kernel": seen.dropped_by_kernel or 0,
        }

    def state(self) -> dict[str, str]:
        """Return what is neither a count nor a rate."""
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


async def work(
    stream: MemoryObjectReceiveStream[PacketBatch], seconds: float, pipeline: Pipeline
) -> None:
    """Take batches until the stream ends. A batch is the worker's until it is closed."""
    async with stream:
        async for batch in stream:
            with batch:
                count = len(batch)
                pipeline.in_work += count
                if pipeline.sent and batch[0].size >= STAMP.size:
                    pipeline.age = time.monotonic() - STAMP.unpack_from(batch[0].data)[0]
                await anyio.sleep(seconds * count)  # here your own work would be
                pipeline.in_work -= count
                pipeline.consumed += count


async def demonstrate(
    address: tuple[str, int], rate: float, pipeline: Pipeline, until: anyio.CancelScope
) -> None:
    """Send so many packets a second, in bursts."""
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


async def show(pipeline: Pipeline, interval: float) -> None:
    """On a terminal a table that is written over; elsewhere a line at each interval."""
    with contextlib.ExitStack() as stack:
        live = None
        if sys.stdout.isatty():
            from rich.live import Live

            live = stack.enter_context(Live(auto_refresh=False))
        before, then = pipeline.counts(), anyio.current_time()
        while True:
            await anyio.sleep(interval)
            counts, now = pipeline.counts(), anyio.current_time()
            rates = {what: (counts[what] - before[what]) / (now - then) for what in counts}
            before, then = counts, now
            if live is None:
                parts = [f"{what} {counts[what]:,} ({rates[what]:,.0f}/s)" for what in counts]
                if pipeline.sent:
                    parts.append(f"age at work {1000 * pipeline.age:.1f} ms")
                print(", ".join(parts), flush=True)
            else:
                live.update(table(counts, rates, pipeline.state()), refresh=True)


def table(counts: dict[str, int], rates: dict[str, float], state: dict[str, str]) -> Table:
    """Return all there is to see."""
    from rich.table import Table

    rows = Table("", "packets/s", "packets", min_width=50)
    for column in rows.columns[1:]:
        column.justify = "right"
    for what, count in counts.items():
        rows.add_row(what, f"{rates[what]:,.0f}", f"{count:,}")
    rows.add_section()
    for what, value in state.items():
        rows.add_row(what, "", value)
    return rows


async def stop_on_signal(
    pipeline: Pipeline,
    sending: anyio.CancelScope,
    workers: anyio.CancelScope,
    grace: float,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """At Ctrl-C end the receiver: then `feed` ends, and so do the workers, as they are done."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        sending.cancel()
        await pipeline.receiver.aclose()
        with anyio.move_on_after(grace):
            await anext(signals)  # from who can't wait
        workers.cancel()


async def run(options: argparse.Namespace) -> int:
    """Run the pipeline until Ctrl-C; return the exit status."""
    sock = await open_udp_socket(options.host, options.port, receive_buffer_size=options.buffer)
    host, port = sock.getsockname()[:2]
    # As many as can be in use: in the stream, at work, in the hands of feed, at the receiver.
    pool = PacketBatchPool(options.queue + options.workers + 2, options.batch)
    send_stream, stream = anyio.create_memory_object_stream[PacketBatch](options.queue)
    pipeline = Pipeline(PacketReceiver(sock, pool, limit=options.batch), stream)
    oldest = stream if options.overload == "drop_oldest" else None
    policy = partial(feed, overload=options.overload, oldest=oldest)
    sending = anyio.CancelScope()

    async with pipeline.receiver, anyio.create_task_group() as around:
        async with stream, anyio.create_task_group() as nursery:
            nursery.start_soon(policy, pipeline.receiver, send_stream)
            async with anyio.create_task_group() as workers:
                if sys.platform != "win32":  # asyncio has no signal handlers there
                    scopes = sending, workers.cancel_scope
                    await around.start(stop_on_signal, pipeline, *scopes, options.grace)
                print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", flush=True)
                around.start_soon(show, pipeline, options.interval)
                if options.demo:
                    around.start_soon(demonstrate, (host, port), options.demo, pipeline, sending)
                for _ in range(options.workers):
                    workers.start_soon(work, stream.clone(), options.work / 1e6, pipeline)
            async for batch in stream:  # if they were cut short: what is left, till feed has ended
                with batch:
                    pipeline.queued += len(batch)
        around.cancel_scope.cancel()
    return summarize(pipeline)


def summarize(pipeline: Pipeline) -> int:
    """Print what became of each packet; return 1 if that leaves any of them out, else 0."""
    seen, consumed = pipeline.receiver.statistics(), pipeline.consumed
    queued = pipeline.queued + pipeline.in_work
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
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio", "uvloop"])
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
    return anyio.run(
        run,
        options,
        backend="trio" if options.backend == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if options.backend == "uvloop" else {},
    )


if __name__ == "__main__":
    sys.exit(main())
