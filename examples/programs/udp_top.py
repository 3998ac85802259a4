"""Watch a UDP port or a multicast group: rates, drops, the top senders.

    python -m pip install -e '.[trio]' rich
    python examples/programs/udp_top.py --port 9999
    python examples/programs/udp_top.py --port 5000 --group 239.1.2.3 --interface eth0
    python examples/programs/udp_top.py --port 5000 --group 232.1.2.3 --source 192.0.2.1
    python examples/programs/udp_top.py --port 9999 --gro

It shows packets and bits per second (of payload), what the kernel dropped, how full batches are,
and the top senders, by address, or with `--ports` by address and port. On a terminal the picture
is live; elsewhere it prints a line at each interval. Anybody can forge senders, so the table of
them has a fixed size (`--senders`), and the summary says by how much its counts may be too low.
With `--gro` (Linux) the kernel hands over trains, many packets of one flow as one message, which
costs less: it then shows messages beside packets. As many of the one as of the other: no trains.

Ctrl-C or SIGTERM stops it, and on a terminal the key `q`: what has arrived is still counted, then
it prints a summary. A second signal ends it at once. The exit status is 0.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio

from anyio_mmsg import (
    MulticastGroup,
    PacketBatchPool,
    PacketReceiver,
    ReceiverStatistics,
    open_udp_socket,
)
from shared import (
    add_backend_option,
    announce,
    losses,
    run_on,
    show_at_intervals,
    stop_on_signal,
)

if TYPE_CHECKING:
    from rich.table import Table

# More than the payload of a jumbo frame. Longer datagrams are counted, as truncated. With the
# library's default, 1232, what fills an Ethernet frame (1472) would count as truncated.
SLOT_SIZE = 9216
SHOWN = 10  # senders
WAIT_READABLE = getattr(anyio, "wait_readable", None)  # since AnyIO 4.7


@dataclass
class TopSenders:
    """Counts of the most frequent senders, in a table that does not grow with their number.

    The algorithm of Misra and Gries (1982), as Agarwal et al. merge such tables ("Mergeable
    summaries", 2012): when a table is twice as long as it should be, the count of the first
    sender that has to go is subtracted from all counts. So each count is at most `too_low` below
    the truth and never above it, and a sender of more than one packet in `limit` + 1 is in the
    table.
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
class Messages:
    """How many messages of the kernel the packets came in: since the last look, and in all."""

    recent: int = 0
    total: int = 0


@dataclass
class Interval:
    """What happened between two looks."""

    seconds: float
    before: ReceiverStatistics
    now: ReceiverStatistics
    senders: TopSenders
    how_to_quit: str
    messages: Messages | None = None  # with --gro

    def rate(self, of: Callable[[ReceiverStatistics], int | None]) -> float:
        """Return by how much something grew, per second."""
        return ((of(self.now) or 0) - (of(self.before) or 0)) / max(self.seconds, 1e-9)

    def figures(self) -> dict[str, str]:
        """Return the figures to show, by name."""
        batches = self.now.batches - self.before.batches
        full = self.now.full_batches - self.before.full_batches
        packets = self.now.packets - self.before.packets
        used, size = self.now.buffer_used, self.now.buffer_size
        figures = {
            "packets/s": f"{self.rate(lambda seen: seen.packets):,.0f}",
            "Mbit/s": f"{self.rate(lambda seen: seen.bytes) * 8 / 1e6:,.3f}",
            "dropped by kernel/s": f"{self.rate(lambda seen: seen.dropped_by_kernel):,.0f}",
            "packets a batch": f"{packets / max(1, batches):.1f}",
            "full batches": f"{100 * full / max(1, batches):.0f} %",
            "kernel's buffer": "-" if used is None or not size else f"{100 * used / size:.0f} %",
            "truncated": f"{self.now.truncated:,}",
        }
        if self.messages is not None:
            figures["packets a message"] = f"{packets / max(1, self.messages.recent):.1f}"
        return figures

    def line(self) -> str:
        """Return it for a log."""
        first = self.senders.counts.most_common(1)
        top = f", top {first[0][0]}" if first else ""
        came = "" if self.messages is None else f" in {self.messages.total:,} messages"
        total = f"{self.now.packets:,} packets{came}, {self.dropped()} dropped by kernel"
        return ", ".join(f"{name} {value}" for name, value in self.figures().items()) + (
            f"{top}; in all {total}"
        )

    def dropped(self) -> str:
        """Return how many packets the kernel dropped, if the system counts them."""
        count = self.now.dropped_by_kernel
        if count is None:
            return "unknown"
        at_least = "at least " if count and self.messages is not None else ""
        return f"{at_least}{count:,}"  # it counts a train as one

    def table(self) -> Table:
        """Return it for a terminal, of 60 columns or more."""
        from rich.columns import Columns
        from rich.table import Table

        figures, senders = Table.grid(padding=(0, 1)), Table(box=None, padding=(0, 2, 0, 0))
        values = {**self.figures(), "packets in all": f"{self.now.packets:,}"}
        if self.messages is not None:
            values["messages in all"] = f"{self.messages.total:,}"
        values["dropped by kernel"] = self.dropped()
        for name, value in values.items():
            figures.add_row(f"[bold]{value}", name)
        figures.columns[0].justify = "right"
        figures.columns[0].no_wrap = figures.columns[1].no_wrap = True
        senders.add_column("top senders", overflow="fold")
        senders.add_column("packets/s", justify="right", no_wrap=True)
        senders.add_column("share", justify="right", no_wrap=True)
        packets = max(1, self.now.packets - self.before.packets)
        for who, count in self.senders.counts.most_common(SHOWN):
            share, rate = 100 * count / packets, count / max(self.seconds, 1e-9)
            senders.add_row(who, f"{rate:,.0f}", f"{share:.1f} %")
        screen = Table.grid()
        # Side by side if there is room, else one below the other.
        screen.add_row(Columns([figures, senders], padding=(1, 3)))
        screen.add_row(f"[dim]{self.how_to_quit}")
        return screen


@dataclass
class Monitor:
    """The receiver, and the senders of its packets: since the last look, and in all."""

    receiver: PacketReceiver
    limit: int
    by_port: bool
    how_to_quit: str
    messages: Messages | None = None  # with --gro
    recent: TopSenders = field(init=False)
    total: TopSenders = field(init=False)

    def __post_init__(self) -> None:
        self.recent, self.total = TopSenders(self.limit), TopSenders(self.limit)
        self._last = anyio.current_time(), self.receiver.statistics()

    async def receive(self) -> None:
        """Count what arrives."""
        async for batch in self.receiver:
            with batch:
                if self.messages is not None:
                    count = batch.capacity - batch.free  # each message fills one slot
                    self.messages.recent += count
                    self.messages.total += count
                if self.by_port:
                    senders = [f"{address[0]} {address[1]}" for address in batch.addresses()]
                else:
                    senders = [address[0] for address in batch.addresses()]
                self.recent.add(senders)
                self.total.add(senders)

    def look(self) -> Interval:
        """Return what happened since the last look."""
        (then, before), self._last = self._last, (anyio.current_time(), self.receiver.statistics())
        senders, self.recent = self.recent, TopSenders(self.limit)
        now, seen = self._last
        messages = None
        if self.messages is not None:
            messages = replace(self.messages)
            self.messages.recent = 0
        return Interval(now - then, before, seen, senders, self.how_to_quit, messages)

    def summarize(self, seconds: float) -> None:
        """Print what came in all."""
        seen = self.receiver.statistics()
        rate, bits = seen.packets / seconds, 8 * seen.bytes / seconds
        print(
            f"{seconds:.1f} s: {seen.packets:,} packets, {seen.bytes:,} bytes "
            f"({rate:,.0f} packets/s, {bits / 1e6:,.3f} Mbit/s)"
        )
        print(
            f"{losses(seen)}, truncated {seen.truncated:,}, "
            f"packets a batch {seen.packets / max(1, seen.batches):.1f}, "
            f"the largest {seen.largest_batch}"
        )
        if self.messages is not None:
            print(
                f"came in {self.messages.total:,} messages, "
                f"{seen.packets / max(1, self.messages.total):.1f} packets each"
                + ("; a dropped train counts as one packet" if seen.dropped_by_kernel else "")
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
            host = options.group  # so that packets to other groups on this port stay out
    return await open_udp_socket(
        host,
        options.port,
        family=family,
        receive_buffer_size=options.buffer,
        multicast_groups=groups,
        gro=options.gro,
    )


@contextlib.contextmanager
def single_keys() -> Iterator[bool]:
    """Let the terminal give each key at once, without Enter; False where that is unavailable."""
    keys_can_be_had = WAIT_READABLE is not None and sys.stdin.isatty() and sys.stdout.isatty()
    if sys.platform == "win32" or not keys_can_be_had or in_background():
        yield False
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def in_background() -> bool:
    """Return whether this is a background job, which the terminal would stop for using it."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp()
    except OSError:  # it is not the terminal that controls this process
        return False


async def stop_on_q(stop: Callable[[], object]) -> None:
    """Call `stop` when the key q is pressed."""
    while WAIT_READABLE is not None:
        await WAIT_READABLE(sys.stdin.fileno())
        keys = os.read(sys.stdin.fileno(), 64)
        if b"q" in keys.lower():
            stop()
        if not keys:  # the terminal was closed
            return


async def run(options: argparse.Namespace) -> None:
    """Watch until Ctrl-C or q."""
    sock = await open_socket(options)
    # One batch is enough: it is given back before the next is asked for.
    pool = PacketBatchPool(1, gro=True) if options.gro else PacketBatchPool(1, slot_size=SLOT_SIZE)
    receiver = PacketReceiver(sock, pool)
    started = anyio.current_time()
    with single_keys() as have_keys:
        how_to_quit = "q quits" if have_keys else "Ctrl-C quits"
        messages = Messages() if options.gro else None
        monitor = Monitor(receiver, options.senders, options.ports, how_to_quit, messages)
        async with receiver, anyio.create_task_group() as nursery:
            await nursery.start(stop_on_signal, receiver.stop, nursery.cancel_scope.cancel)
            announce(sock)
            nursery.start_soon(show_at_intervals, options.interval, monitor.look)
            if have_keys:
                nursery.start_soon(stop_on_q, receiver.stop)
            await monitor.receive()
            nursery.cancel_scope.cancel()
    monitor.summarize(anyio.current_time() - started)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", help="the address to listen on; default: all of IPv4")
    parser.add_argument("--port", type=int, required=True, help="0 for any free one")
    parser.add_argument("--group", help="a multicast group to join, 239.1.2.3 or ff02::1:2")
    parser.add_argument("--interface", help="the interface to hear the group on")
    parser.add_argument("--source", action="append", help="hear only this sender to the group")
    parser.add_argument("--senders", type=int, default=1000, help="size of the table of senders")
    parser.add_argument("--ports", action="store_true", help="count a sender's ports separately")
    parser.add_argument("--gro", action="store_true", help="let the kernel coalesce packets")
    parser.add_argument("--buffer", type=int, help="bytes of the kernel's buffer to ask for")
    parser.add_argument("--interval", type=float, default=1, help="seconds between two looks")
    add_backend_option(parser)
    options = parser.parse_args()
    if options.senders < 1:
        parser.error("--senders has to be at least 1")
    if options.gro and sys.platform != "linux":
        parser.error("--gro needs Linux")
    if options.group is None and (options.interface or options.source):
        parser.error("--interface and --source are for a --group")
    run_on(options.backend, run, options)


if __name__ == "__main__":
    main()
