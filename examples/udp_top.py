"""Watch a UDP port or a multicast group: rates, drops, the top senders.

    python -m pip install -e '.[examples]'
    python examples/udp_top.py --port 9999
    python examples/udp_top.py --port 5000 --group 239.1.2.3 --interface eth0
    python examples/udp_top.py --port 5000 --group 232.1.2.3 --source 192.0.2.1 --source 192.0.2.2

It shows packets and bits per second (of payload), what the kernel dropped, how full batches are,
and who sends most, by address, or with `--ports` by address and port. On a terminal the picture is
live; elsewhere a line is printed at each interval. Senders can be forged, so the table of them has
a fixed size (`--senders`), and tells how far its counts may be too low for it. Ctrl-C stops it,
with a summary. The exit status is 0 then.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from anyio_mmsg import (
    MulticastGroup,
    PacketBatchPool,
    PacketReceiver,
    ReceiverStatistics,
    open_udp_socket,
)

if TYPE_CHECKING:
    from rich.table import Table

SLOT_SIZE = 9216  # a jumbo frame; longer datagrams count as truncated
SHOWN = 10  # senders


@dataclass
class TopSenders:
    """Counts of the most frequent senders, in a table that does not grow with their number.

    The algorithm of Misra and Gries (1982), as Agarwal et al. merge such tables ("Mergeable
    summaries", 2012): a table that is twice too long is cut by the count of the first sender that
    does not stay. So each count is at most `too_low` below the truth and never above it; who
    sent more than one packet in `limit` + 1 is in the table.
    """

    limit: int
    counts: Counter[str] = field(default_factory=Counter)
    too_low: int = 0

    def add(self, senders: list[str]) -> None:
        """Count a batch's senders."""
        self.counts.update(senders)
        if len(self.counts) > 2 * self.limit:
            cut = self.counts.most_common(self.limit + 1)[-1][1]
            self.counts = Counter({who: n - cut for who, n in self.counts.items() if n > cut})
            self.too_low += cut


@dataclass
class Interval:
    """What happened between two looks."""

    seconds: float
    before: ReceiverStatistics
    now: ReceiverStatistics
    senders: TopSenders

    def rate(self, of: Callable[[ReceiverStatistics], int | None]) -> float:
        """Return how much more there is of something, by second."""
        return ((of(self.now) or 0) - (of(self.before) or 0)) / max(self.seconds, 1e-9)

    def figures(self) -> dict[str, str]:
        """Return what to show, by name."""
        batches = self.now.batches - self.before.batches
        full = self.now.full_batches - self.before.full_batches
        packets = self.now.packets - self.before.packets
        used, size = self.now.buffer_used, self.now.buffer_size
        return {
            "packets/s": f"{self.rate(lambda seen: seen.packets):,.0f}",
            "Mbit/s": f"{self.rate(lambda seen: seen.bytes) * 8 / 1e6:,.3f}",
            "dropped by kernel/s": f"{self.rate(lambda seen: seen.dropped_by_kernel):,.0f}",
            "packets a batch": f"{packets / max(1, batches):.1f}",
            "full batches": f"{100 * full / max(1, batches):.0f} %",
            "kernel's buffer": "-" if used is None or not size else f"{100 * used / size:.0f} %",
            "truncated": f"{self.now.truncated:,}",
        }

    def line(self) -> str:
        """Return it for those who read lines."""
        first = self.senders.counts.most_common(1)
        top = f", top {first[0][0]}" if first else ""
        total = f"{self.now.packets:,} packets, {kernel_drops(self.now)} dropped by kernel"
        return ", ".join(f"{name} {value}" for name, value in self.figures().items()) + (
            f"{top}; in all {total}"
        )

    def table(self) -> Table:
        """Return it for those who watch a terminal."""
        from rich.table import Table

        figures, senders, both = Table.grid(padding=(0, 2)), Table(box=None), Table.grid()
        for name, value in {
            **self.figures(),
            "packets in all": f"{self.now.packets:,}",
            "dropped by kernel": kernel_drops(self.now),
        }.items():
            figures.add_row(f"[bold]{value}", name)
        figures.columns[0].justify = "right"
        senders.add_column("top senders")
        senders.add_column("packets/s", justify="right")
        senders.add_column("share", justify="right")
        packets = max(1, self.now.packets - self.before.packets)
        for who, count in self.senders.counts.most_common(SHOWN):
            share, rate = 100 * count / packets, count / max(self.seconds, 1e-9)
            senders.add_row(who, f"{rate:,.0f}", f"{share:.1f} %")
        both.add_row(figures, senders)
        both.columns[0].width = 40
        return both


def kernel_drops(seen: ReceiverStatistics) -> str:
    """Return the number, if the system tells it."""
    return "unknown" if seen.dropped_by_kernel is None else f"{seen.dropped_by_kernel:,}"


@dataclass
class Monitor:
    """The receiver, and who sent what it got: since the last look, and in all."""

    receiver: PacketReceiver
    limit: int
    by_port: bool
    recent: TopSenders = field(init=False)
    total: TopSenders = field(init=False)

    def __post_init__(self) -> None:
        self.recent, self.total = TopSenders(self.limit), TopSenders(self.limit)

    async def receive(self) -> None:
        """Count what arrives."""
        async for batch in self.receiver:
            with batch:
                if self.by_port:
                    senders = [f"{address[0]} {address[1]}" for address in batch.addresses()]
                else:
                    senders = [address[0] for address in batch.addresses()]
                self.recent.add(senders)
                self.total.add(senders)

    async def show(self, interval: float) -> None:
        """On a terminal a picture that is drawn over; elsewhere a line at each interval."""
        with contextlib.ExitStack() as stack:
            live = None
            if sys.stdout.isatty():
                from rich.live import Live

                live = stack.enter_context(Live(auto_refresh=False))
            before, then = self.receiver.statistics(), anyio.current_time()
            while True:
                await anyio.sleep(interval)
                now, seen = anyio.current_time(), self.receiver.statistics()
                picture = Interval(now - then, before, seen, self.recent)
                before, then, self.recent = seen, now, TopSenders(self.limit)
                if live is None:
                    print(picture.line(), flush=True)
                else:
                    live.update(picture.table(), refresh=True)

    def summarize(self, seconds: float) -> None:
        """Print what came in all."""
        seen = self.receiver.statistics()
        rate, bits = seen.packets / seconds, 8 * seen.bytes / seconds
        print(
            f"{seconds:.1f} s: {seen.packets:,} packets, {seen.bytes:,} bytes "
            f"({rate:,.0f} packets/s, {bits / 1e6:,.3f} Mbit/s)"
        )
        print(
            f"dropped by kernel {kernel_drops(seen)}, truncated {seen.truncated:,}, "
            f"packets a batch {seen.packets / max(1, seen.batches):.1f}, "
            f"the largest {seen.largest_batch}"
        )
        print(
            f"top senders of {len(self.total.counts):,} in the table; "
            f"each sent up to {self.total.too_low:,} packets more than it says"
        )
        for who, count in self.total.counts.most_common(SHOWN):
            print(f"{count:>12,}  {100 * count / max(1, seen.packets):5.1f} %  {who}")


async def open_socket(options: argparse.Namespace) -> socket.socket:
    """Open the socket that the command line asks for."""
    groups = [
        MulticastGroup(options.group, options.interface, source)
        for source in (options.source or [None])
        if options.group
    ]
    host, family = options.host, socket.AF_UNSPEC
    if options.group and host is None:
        if ":" in options.group:
            family = socket.AF_INET6
        elif sys.platform != "win32":
            host = options.group  # so that what is sent to other groups does not get in
    return await open_udp_socket(
        host,
        options.port,
        family=family,
        receive_buffer_size=options.buffer,
        multicast_groups=groups,
    )


async def run(options: argparse.Namespace) -> None:
    """Watch until Ctrl-C."""
    sock = await open_socket(options)
    # One batch is enough: it is given back before the next is asked for.
    receiver = PacketReceiver(sock, PacketBatchPool(1, slot_size=SLOT_SIZE))
    monitor = Monitor(receiver, options.senders, options.ports)
    started = anyio.current_time()
    async with receiver, anyio.create_task_group() as nursery:
        with contextlib.ExitStack() as stack:
            signals = None
            if sys.platform != "win32":  # asyncio has no signal handlers there
                signals = stack.enter_context(
                    anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM)
                )
            host, port = sock.getsockname()[:2]
            print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", flush=True)
            nursery.start_soon(monitor.receive)
            nursery.start_soon(monitor.show, options.interval)
            if signals is None:
                await anyio.sleep_forever()
            else:
                await anext(signals)
            nursery.cancel_scope.cancel()
    monitor.summarize(anyio.current_time() - started)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", help="the address to listen on; all of IPv4 without")
    parser.add_argument("--port", type=int, required=True, help="0 for any free one")
    parser.add_argument("--group", help="a multicast group to join, 239.1.2.3 or ff02::1:2")
    parser.add_argument("--interface", help="the interface to hear the group on")
    parser.add_argument("--source", action="append", help="hear only this sender to the group")
    parser.add_argument("--senders", type=int, default=1000, help="size of the table of senders")
    parser.add_argument("--ports", action="store_true", help="tell a sender's ports apart")
    parser.add_argument("--buffer", type=int, help="bytes of the kernel's buffer to ask for")
    parser.add_argument("--interval", type=float, default=1, help="seconds between two looks")
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio", "uvloop"])
    options = parser.parse_args()
    if options.senders < 1:
        parser.error("--senders has to be at least 1")
    if options.group is None and (options.interface or options.source):
        parser.error("--interface and --source are for a --group")
    anyio.run(
        run,
        options,
        backend="trio" if options.backend == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if options.backend == "uvloop" else {},
    )


if __name__ == "__main__":
    main()
