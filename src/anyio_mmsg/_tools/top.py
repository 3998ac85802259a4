"""Watch a UDP port or a multicast group: rates, drops, the top senders.

    python -m anyio_mmsg top --port 9999
    python -m anyio_mmsg top --port 5000 --group 239.1.2.3 --interface eth0
    python -m anyio_mmsg top --port 5000 --group 232.1.2.3 --source 192.0.2.1 --source 192.0.2.2
    python -m anyio_mmsg top --port 9999 --gro
    python -m anyio_mmsg top --port 9999 --json

It shows packets and bits per second (of payload), what the kernel dropped, how full batches are,
and the top senders, by address, or with --ports by address and port. On a terminal the picture
is live (it needs anyio-mmsg[tools]); elsewhere it prints a line at each interval. Anybody can
forge senders, so the table of them has a fixed size (--senders), and the summary says by how much
its counts may be too low. With --gro (Linux) the kernel hands over trains, many packets of one
flow as one message, which costs less: it then shows messages beside packets. As many of the one
as of the other: no trains.

Ctrl-C or SIGTERM stops it, and on a terminal the key q: what has arrived is still counted, then
it prints a summary. A second signal ends it at once. The exit status is 0, or 2 after a line on
stderr that says what kept it from work.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence

import anyio

from .. import MulticastGroup, PacketBatchPool, PacketReceiver, open_udp_socket
from .._system.platform import ON_LINUX, ON_WINDOWS
from .ending import wrong_arguments
from .interval import Messages
from .keys import single_keys, stop_on_q
from .monitor import Monitor
from .options import add_json_option, amount, count, parser_of, port
from .running import add_backend_option, run_on, stop_on_signal
from .showing import announce, choose_form, print_json, show_at_intervals

# More than the payload of a jumbo frame. Longer datagrams are counted, as truncated. With the
# library's default, 1232, what fills an Ethernet frame (1472) would count as truncated.
SLOT_SIZE = 9216


def main(arguments: Sequence[str]) -> int:
    """Read the command line and run."""
    parser = parser_of("top", __doc__)
    parser.add_argument("--host", help="the address to listen on; default: all of IPv4")
    parser.add_argument("--port", type=port, required=True, help="0 for any free one")
    parser.add_argument("--group", help="a multicast group to join, 239.1.2.3 or ff02::1:2")
    parser.add_argument("--interface", help="the interface to hear the group on")
    parser.add_argument("--source", action="append", help="hear only this sender to the group")
    parser.add_argument("--senders", type=count, default=1000, help="size of the table of senders")
    parser.add_argument("--ports", action="store_true", help="count a sender's ports separately")
    parser.add_argument("--gro", action="store_true", help="let the kernel coalesce packets")
    parser.add_argument("--buffer", type=count, help="bytes of the kernel's buffer to ask for")
    parser.add_argument("--interval", type=amount, default=1, help="seconds between two looks")
    add_json_option(parser, "a line at each interval, and one for the whole at the end")
    add_backend_option(parser)
    options = parser.parse_args(arguments)
    if options.gro and not ON_LINUX:
        parser.error("--gro needs Linux")
    if options.group is None and (options.interface or options.source):
        parser.error("--interface and --source are for a --group")
    run_on(options.backend, watch, options)
    return 0


async def watch(options: argparse.Namespace) -> None:
    """Watch until Ctrl-C or q."""
    form = choose_form(options.json)
    sock = await open_socket(options)
    # One batch is enough: it is given back before the next is asked for.
    pool = PacketBatchPool(1, gro=True) if options.gro else PacketBatchPool(1, slot_size=SLOT_SIZE)
    receiver = PacketReceiver(sock, pool)
    with single_keys() as have_keys:
        how_to_quit = "q quits" if have_keys else "Ctrl-C quits"
        messages = Messages() if options.gro else None
        monitor = Monitor(receiver, options.senders, options.ports, how_to_quit, messages)
        async with receiver, anyio.create_task_group() as nursery:
            await nursery.start(stop_on_signal, receiver.stop, nursery.cancel_scope.cancel)
            announce(sock, form)
            nursery.start_soon(show_at_intervals, options.interval, monitor.look, form)
            if have_keys:
                nursery.start_soon(stop_on_q, receiver.stop)
            await monitor.receive()
            nursery.cancel_scope.cancel()
    whole = monitor.whole()
    if form == "json":
        print_json("summary", whole.fields())
    else:
        print(whole.summary())


async def open_socket(options: argparse.Namespace) -> socket.socket:
    """Open the socket that the command line asks for."""
    host, family = options.host, socket.AF_UNSPEC
    if options.group and host is None:
        if ":" in options.group:
            family = socket.AF_INET6
        elif not ON_WINDOWS:
            host = options.group  # so that packets to other groups on this port stay out
    with wrong_arguments():
        groups = [
            MulticastGroup(options.group, options.interface, source)
            for source in (options.source or [None])
            if options.group
        ]
        return await open_udp_socket(
            host,
            options.port,
            family=family,
            receive_buffer_size=options.buffer,
            multicast_groups=groups,
            gro=options.gro,
        )
