"""Measure how long datagrams take: to this machine, and then to this program.

    python -m anyio_mmsg latency
    python -m anyio_mmsg latency loopback --packets 20000 --rate 5000
    python -m anyio_mmsg latency receive --host 0.0.0.0 --port 9999
    python -m anyio_mmsg latency send 192.0.2.7 9999 --rate 100
    python -m anyio_mmsg latency receive --port 9999 --json

The sender puts a sequence number and its clock into each datagram. The receiver (Linux) compares
that with the kernel's timestamp of the arrival: the one-way delay. Beside it stands how long the
datagram then waited in the socket, until this program had it: that is the program's own doing.
Without a command, or with "loopback", both run here for some seconds. On a terminal the table is
live (it needs anyio-mmsg[tools]); elsewhere it prints a line at each interval.

What the figures are worth: a one-way delay between two machines is as good as their clocks agree.
With NTP over the internet that is some milliseconds, too coarse for a local network; with PTP it
can be below a microsecond. If one clock is behind, delays are wrong by that much, perhaps
negative. On one machine there is one clock, and only a correction of it disturbs. Linux begins to
stamp arrivals some time after the first socket asked for it (a moment; other programs may have
asked before). Until then it stamps packets when they are read: their time in the socket counts
as delay. Hardware timestamps of network cards are not used. p50 and p99 are within 2 %.

Lost are the numbers that are missing between the lowest and the highest that came of a sender;
what was lost at either end can't be known here. Ctrl-C or SIGTERM stops it: what has arrived is
still counted, then it prints a summary. A second signal ends it at once. The exit status is 0, or
2 after a line on stderr that says what kept it from work.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import anyio

from .. import PACKET_DATA_SIZE, PacketBatchPool, PacketReceiver, open_udp_socket
from .._system.platform import ON_LINUX
from .ending import wrong_arguments
from .meter import Meter
from .options import add_json_option, amount, count, parser_of, port, whole
from .probes import HEADER, Sender
from .running import add_backend_option, run_on, stop_on_signal
from .showing import announce, choose_form, print_json, show_at_intervals

LOOPBACK = "loopback"  # a command
size = whole(HEADER.size, PACKET_DATA_SIZE)


def main(arguments: Sequence[str]) -> int:
    """Read the command line and run."""
    parser = parser_of("latency", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    both = commands.add_parser(LOOPBACK, help="send to this program itself; the default")
    receiving = commands.add_parser("receive", help="measure what arrives")
    sending = commands.add_parser("send", help="send to a receiver elsewhere")
    receiving.add_argument("--host", default="0.0.0.0", help="the address to listen on")
    receiving.add_argument("--port", type=port, default=9999, help="0 for any free one")
    sending.add_argument("to", metavar="HOST", help="where the receiver runs")
    sending.add_argument("port", metavar="PORT", type=port)
    both.set_defaults(host="127.0.0.1", port=0)
    for command, packets in ((both, 5000), (sending, None)):
        command.add_argument("--packets", type=count, default=packets, help="to send, then stop")
        command.add_argument("--rate", type=amount, default=1000, help="packets a second")
        command.add_argument("--size", type=size, default=64, help="bytes of a datagram")
    for command in (both, receiving):
        command.add_argument(
            "--buffer", type=count, help="bytes of the kernel's buffer to ask for"
        )
        command.add_argument("--interval", type=amount, default=1, help="seconds between looks")
        add_json_option(command, "a line at each interval, and one for the whole at the end")
    add_json_option(sending, "a line at the end")
    for command in (both, receiving, sending):
        add_backend_option(command)
    given = list(arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given = [LOOPBACK, *given]
    options = parser.parse_args(given)
    if options.command != "send" and not ON_LINUX:
        parser.error("the receiver needs the timestamps of Linux; send works everywhere")
    run_on(options.backend, send if options.command == "send" else receive, options)
    return 0


def sender_of(options: argparse.Namespace) -> Sender:
    """Return the sender that the command line asks for."""
    return Sender(options.rate, options.size, options.packets)


async def send(options: argparse.Namespace) -> None:
    """Send to a receiver elsewhere."""
    sender = sender_of(options)
    async with anyio.create_task_group() as nursery:
        cancel = nursery.cancel_scope.cancel
        await nursery.start(stop_on_signal, sender.stopping.set, cancel)
        with wrong_arguments():
            await sender.work(options.to, options.port)
        cancel()
    if options.json:
        print_json("summary", sender.fields())
    else:
        print(sender.summary())


async def receive(options: argparse.Namespace) -> None:
    """Measure until Ctrl-C; with the command `loopback`, what this program itself sends."""
    form = choose_form(options.json)
    with wrong_arguments():
        sock = await open_udp_socket(
            options.host, options.port, timestamps=True, receive_buffer_size=options.buffer
        )
    # One batch is enough: it is given back before the next is asked for.
    receiver = PacketReceiver(sock, PacketBatchPool(1, ancillary=True))
    meter = Meter(anyio.current_time())
    sender = sender_of(options) if options.command == LOOPBACK else None
    stop = receiver.stop if sender is None else sender.stopping.set
    async with receiver, anyio.create_task_group() as nursery:
        await nursery.start(stop_on_signal, stop, nursery.cancel_scope.cancel)
        announce(sock, form)
        nursery.start_soon(show_at_intervals, options.interval, meter.look, form)
        if sender is not None:
            nursery.start_soon(send_here, sender, receiver, sock.getsockname())
        async for batch in receiver:
            now = time.time_ns()
            with batch:
                meter.count(zip(batch.payloads(), batch.timestamps(), strict=True), now)
        nursery.cancel_scope.cancel()
    whole, seen = meter.whole(), receiver.statistics()
    if form == "json":
        fields = {**whole.fields(), "dropped_by_kernel": seen.dropped_by_kernel}
        print_json("summary", fields | (sender.fields() if sender else {}))
    else:
        if sender:
            print(sender.summary())
        print(whole.summary(seen))


async def send_here(sender: Sender, receiver: PacketReceiver, to: tuple[str, int]) -> None:
    """Send over loopback, where what was sent has arrived; then end the stream."""
    await sender.work(*to[:2])
    receiver.stop()
