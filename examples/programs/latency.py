"""Measure how long datagrams take: to this machine, and then to this program.

    python -m pip install -e '.[trio]' rich
    python examples/programs/latency.py
    python examples/programs/latency.py loopback --packets 20000 --rate 5000
    python examples/programs/latency.py receive --host 0.0.0.0 --port 9999
    python examples/programs/latency.py send 192.0.2.7 9999 --rate 100

The sender puts a sequence number and its clock into each datagram. The receiver (Linux) compares
that with the kernel's timestamp of the arrival: the one-way delay. Beside it stands how long the
datagram then waited in the socket, until this program had it: that is the program's own doing.
Without a command, or with `loopback`, both run here for some seconds. On a terminal the table is
live; elsewhere it prints a line at each interval.

What the figures are worth: a one-way delay between two machines is as good as their clocks agree.
With NTP over the internet that is some milliseconds, too coarse for a local network; with PTP it
can be below a microsecond. If one clock is behind, delays are wrong by that much, perhaps
negative. On one machine there is one clock, and only a correction of it disturbs. Linux begins to
stamp arrivals some time after the first socket asked for it (a moment; other programs may have
asked before). Until then it stamps packets when they are read: their time in the socket counts
as delay. Hardware timestamps of network cards are not used. p50 and p99 are within 2 %.

Lost are the numbers that are missing between the lowest and the highest that came of a sender;
what was lost at either end can't be known here. Ctrl-C or SIGTERM stops it: what has arrived is
still counted, then it prints a summary. A second signal ends it at once. The exit status is 0.
"""

from __future__ import annotations

import argparse
import secrets
import socket
import struct
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import anyio
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    PACKET_DATA_SIZE,
    PacketBatchPool,
    PacketReceiver,
    ReceiverStatistics,
    open_udp_socket,
    send_mmsg_nowait,
)
from shared import (
    Rate,
    SequenceNumbers,
    Spread,
    add_backend_option,
    announce,
    losses,
    run_on,
    show_at_intervals,
    stop_on_signal,
    text_of,
)

if TYPE_CHECKING:
    from rich.table import Table

# A datagram: a mark, the sender (a random number for each run), the datagram's number, the time.
HEADER = struct.Struct("!4sQQQ")
MAGIC = b"lat1"
LOOPBACK = "loopback"  # a command
NAMES = "one-way delay", "then in the socket"


class Probe(NamedTuple):
    """What a datagram says."""

    sender: int
    number: int
    sent: int  # nanoseconds since 1970, by the sender's clock

    def pack(self, size: int) -> bytes:
        """Return the datagram, of `size` bytes."""
        return HEADER.pack(MAGIC, *self).ljust(size, b"\0")


def read_probe(data: memoryview) -> Probe | None:
    """Return what a datagram says, or None if it is not one of this program's."""
    if len(data) < HEADER.size:
        return None
    magic, sender, number, sent = HEADER.unpack_from(data)
    return Probe(sender, number, sent) if magic == MAGIC else None


@dataclass
class Look:
    """What is shown: of an interval, and in all."""

    rate: float
    packets: int
    lost: int
    recent: tuple[Spread, Spread]
    total: tuple[Spread, Spread]

    def line(self) -> str:
        """Return it for a log."""
        texts = [f"{self.rate:,.0f} packets/s"]
        for name, spread in zip(NAMES, self.recent, strict=True):
            least, median, high, most = spread.texts()
            texts.append(f"{name} min {least} p50 {median} p99 {high} max {most}")
        return f"{', '.join(texts)}; in all {self.packets:,} packets, {self.lost:,} lost"

    def table(self) -> Table:
        """Return it for a terminal."""
        from rich.table import Table

        screen, times = Table.grid(), Table(box=None, padding=(0, 2, 0, 0))
        times.add_column("", no_wrap=True)
        for name in ("min", "p50", "p99", "max"):
            times.add_column(name, justify="right", no_wrap=True)
        for when, spreads in (("now", self.recent), ("in all", self.total)):
            for name, spread in zip(NAMES, spreads, strict=True):
                times.add_row(f"{name}, {when}", *spread.texts())
        counts = f"[bold]{self.packets:,}[/] packets in all, [bold]{self.lost:,}[/] lost"
        screen.add_row(f"[bold]{self.rate:,.0f}[/] packets/s, {counts}")
        screen.add_row(times)
        screen.add_row("[dim]Ctrl-C quits")
        return screen


class Meter:
    """Counts datagrams, and their times: since the last look, and in all."""

    def __init__(self, started: float) -> None:
        self.rate = Rate(started)
        self.packets = self.foreign = self.unstamped = 0
        self.numbers = SequenceNumbers()
        self.recent, self.total = (Spread(), Spread()), (Spread(), Spread())

    def count(self, datagrams: Iterable[tuple[memoryview, int | None]], now: int) -> None:
        """Count datagrams with the kernel's timestamps; `now` is when they were read."""
        delays: list[int] = []
        waits: list[int] = []
        for data, arrived in datagrams:
            probe = read_probe(data)
            if probe is None:
                self.foreign += 1
                continue
            self.packets += 1
            self.numbers.add(probe.sender, probe.number)
            if arrived is None:
                self.unstamped += 1
                continue
            delays.append(arrived - probe.sent)
            waits.append(now - arrived)
        self.recent[0].add(delays)
        self.recent[1].add(waits)

    def look(self) -> Look:
        """Return what to show now."""
        recent, self.recent = self.recent, (Spread(), Spread())
        for total, spread in zip(self.total, recent, strict=True):
            total.merge(spread)
        rate = self.rate.since_last_look(anyio.current_time(), self.packets)
        return Look(rate, self.packets, self.numbers.missing(), recent, self.total)

    def summarize(self, seen: ReceiverStatistics) -> None:
        """Print what came in all."""
        last = self.look()
        print(f"{last.packets:,} packets, {last.lost:,} lost, {losses(seen)}")
        if self.foreign or self.unstamped:
            print(f"not of this program: {self.foreign:,}, no timestamp: {self.unstamped:,}")
        print(f"{'':<18}" + "".join(f"{name:>12}" for name in ("min", "p50", "p99", "max")))
        for name, spread in zip(NAMES, last.total, strict=True):
            print(f"{name:<18}" + "".join(f"{text:>12}" for text in spread.texts()))
        if last.total[0].least < 0:
            behind = text_of(-last.total[0].least)
            print(f"arrived before it was sent: the clocks differ by {behind} or more")


class Sender:
    """Sends datagrams at a steady rate."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.name = secrets.randbits(64)
        self.sent = self.refused = 0
        self.stopping = anyio.Event()

    async def work(self, host: str, port: int) -> None:
        """Send until `stopping` is set, or all were sent."""
        with await open_udp_socket(remote_host=host, remote_port=port) as sock:
            started, tried = anyio.current_time(), 0
            while tried != self.options.packets and not self.stopping.is_set():
                due = started + tried / self.options.rate
                if (early := due - anyio.current_time()) > 0:
                    with anyio.move_on_after(early):
                        await self.stopping.wait()
                    continue
                await checkpoint()
                self.send(sock)
                tried += 1

    def send(self, sock: socket.socket) -> None:
        """Send one datagram, with nothing between its stamp and the send."""
        probe = Probe(self.name, self.sent, time.time_ns())
        try:
            result = send_mmsg_nowait(sock, [(probe.pack(self.options.size), None)])
        except anyio.WouldBlock:  # the socket's buffer is full; a wait would spoil the stamp
            self.refused += 1
            return
        self.refused += len(result.failures)  # nobody listens, or the like
        self.sent += result.sent

    def summarize(self) -> None:
        """Print what was sent."""
        print(f"sent {self.sent:,}, refused {self.refused:,}", flush=True)


async def send(options: argparse.Namespace) -> None:
    """Send to a receiver elsewhere."""
    sender = Sender(options)
    async with anyio.create_task_group() as nursery:
        cancel = nursery.cancel_scope.cancel
        await nursery.start(stop_on_signal, sender.stopping.set, cancel)
        await sender.work(options.to, options.port)
        cancel()
    sender.summarize()


async def receive(options: argparse.Namespace) -> None:
    """Measure until Ctrl-C; with the command `loopback`, what this program itself sends."""
    sock = await open_udp_socket(
        options.host, options.port, timestamps=True, receive_buffer_size=options.buffer
    )
    # One batch is enough: it is given back before the next is asked for.
    receiver = PacketReceiver(sock, PacketBatchPool(1, ancillary=True))
    meter = Meter(anyio.current_time())
    sender = Sender(options) if options.command == LOOPBACK else None
    stop = receiver.stop if sender is None else sender.stopping.set
    async with receiver, anyio.create_task_group() as nursery:
        await nursery.start(stop_on_signal, stop, nursery.cancel_scope.cancel)
        announce(sock)
        nursery.start_soon(show_at_intervals, options.interval, meter.look)
        if sender is not None:
            nursery.start_soon(send_here, sender, receiver, sock.getsockname())
        async for batch in receiver:
            now = time.time_ns()
            with batch:
                meter.count(zip(batch.payloads(), batch.timestamps(), strict=True), now)
        nursery.cancel_scope.cancel()
    if sender is not None:
        sender.summarize()
    meter.summarize(receiver.statistics())


async def send_here(sender: Sender, receiver: PacketReceiver, to: tuple[str, int]) -> None:
    """Send over loopback, where what was sent has arrived; then end the stream."""
    await sender.work(*to[:2])
    receiver.stop()


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    both = commands.add_parser(LOOPBACK, help="send to this program itself; the default")
    receiving = commands.add_parser("receive", help="measure what arrives")
    sending = commands.add_parser("send", help="send to a receiver elsewhere")
    receiving.add_argument("--host", default="0.0.0.0", help="the address to listen on")
    receiving.add_argument("--port", type=int, default=9999, help="0 for any free one")
    sending.add_argument("to", metavar="HOST", help="where the receiver runs")
    sending.add_argument("port", metavar="PORT", type=int)
    both.set_defaults(host="127.0.0.1", port=0)
    for command, packets in ((both, 5000), (sending, None)):
        command.add_argument("--packets", type=int, default=packets, help="to send, then stop")
        command.add_argument("--rate", type=float, default=1000, help="packets a second")
        command.add_argument("--size", type=int, default=64, help="bytes of a datagram")
    for command in (both, receiving):
        command.add_argument("--buffer", type=int, help="bytes of the kernel's buffer to ask for")
        command.add_argument("--interval", type=float, default=1, help="seconds between looks")
    for command in (both, receiving, sending):
        add_backend_option(command)
    given = sys.argv[1:]
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given = [LOOPBACK, *given]
    options = parser.parse_args(given)
    if options.command != "receive":
        counts = options.rate > 0 and (options.packets is None or options.packets > 0)
        if not counts or not HEADER.size <= options.size <= PACKET_DATA_SIZE:
            size = f"{HEADER.size} to {PACKET_DATA_SIZE}"
            parser.error(f"--rate and --packets are above 0, --size {size}")
    if options.command != "send" and sys.platform != "linux":
        parser.error("the receiver needs the timestamps of Linux; send works everywhere")
    run_on(options.backend, send if options.command == "send" else receive, options)


if __name__ == "__main__":
    main()
