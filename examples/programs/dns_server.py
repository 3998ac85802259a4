"""A DNS server: answers for one zone, from a zone file, over UDP in batches.

    python -m pip install -e '.[trio]' dnspython
    python examples/programs/dns_server.py --port 5353
    python examples/programs/dns_server.py --host 0.0.0.0 --port 5353 --zone my.zone --backend trio

Ask it from another terminal:

    dig -p 5353 @127.0.0.1 www.example.org
    dnsperf -p 5353 -s 127.0.0.1 -d queries.txt     (lines like "www.example.org A")

Without `--zone` it serves example.zone, which is next to it. `--port 0` listens on any free port.
`--backend` is asyncio, trio or uvloop. With `--host 0.0.0.0`, or `::` for IPv6 (and IPv4, where
that is the system's default), it listens at all addresses of the machine, and answers from the
one that was asked: clients ignore answers from another. That needs Linux; elsewhere give one.

Ctrl-C or SIGTERM stops it: queries that have arrived are still answered, then it prints totals. A
second signal ends it at once. The exit status is 0.

This file is the server: each wait brings a batch of queries, and one call sends all their answers.
The package dns_answers, next to it, makes the answers: bytes to bytes, without a socket or an
event loop. A question that was asked before costs it a slice, a look into a dict and a
concatenation; others are looked up in the zone, with dnspython.

It serves data, no more: no TCP (an answer that doesn't fit says so by TC, but the client can't ask
again by TCP), no zone transfers, no updates, no DNSSEC (signatures are records like any other), no
response rate limiting. Don't put it on the Internet.
"""

from __future__ import annotations

import argparse
import errno
import socket
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from anyio_mmsg import PacketBatchPool, PacketReceiver, open_udp_socket, send_mmsg
from shared import (
    OneLineErrors,
    Rate,
    add_backend_option,
    announce,
    losses,
    print_at_intervals,
    run_on,
    stop_on_signal,
)

with OneLineErrors():  # they need dnspython
    from dns_answers import Answerer, load

BATCH = 256  # queries: fewer waits than with 64, and about what the kernel's buffer holds
EVERYWHERE = {"0.0.0.0", "::"}  # as hosts of sockets that are bound to all addresses
# Queries of 4096 bytes, which used to be the usual EDNS size, still fit. A longer one is cut, so
# it is malformed and gets FORMERR.
SLOT_SIZE = 4096
SAMPLE = Path(__file__).with_name("example.zone")


@dataclass
class Report:
    """What the server did, as one line of totals."""

    answerer: Answerer
    receiver: PacketReceiver
    rate: Rate
    send_failures: Counter[int] = field(default_factory=Counter)

    def line(self, *, last: bool = False) -> str:
        """Return totals and the rate since the last line; the last line has the overall rate."""
        seen, now = self.answerer.statistics(), anyio.current_time()
        rate = self.rate.since_start if last else self.rate.since_last_look
        failures = {errno.errorcode.get(n, str(n)): c for n, c in self.send_failures.items()}
        answers = [f"{count:,} {rcode}" for rcode, count in sorted(seen.answers.items())]
        return (
            f"{'in all' if last else '--'} {seen.queries:,} queries "
            f"({rate(now, seen.queries):,.0f}/s): "
            f"{', '.join(answers) or 'no answers'}; malformed {sum_and_parts(seen.malformed)}, "
            f"dropped {sum_and_parts(seen.dropped)}, send failures {sum_and_parts(failures)}, "
            f"{losses(self.receiver.statistics())}"
        )


def sum_and_parts(counts: Mapping[str, int]) -> str:
    """Return a sum, and what it is made of."""
    parts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
    return f"{sum(counts.values()):,}" + (f" ({parts})" if parts else "")


async def answer_all(sock: socket.socket, report: Report, everywhere: bool) -> None:
    """Answer what arrives: one wait, a batch of queries, one call for all of their answers."""
    answer = report.answerer.answer
    async for batch in report.receiver:
        with batch:
            # By columns, which is quicker than packet by packet. An answer that is to come from
            # where its query was sent to needs the packet, which knows that.
            askers = batch if everywhere else batch.addresses()
            replies = [
                (reply, asker)
                for data, asker in zip(batch.payloads(), askers, strict=True)
                if (reply := answer(data)) is not None
            ]
            if replies:
                result = await send_mmsg(sock, replies, reply_from_destination=everywhere)
                report.send_failures.update(result.errors)


async def serve(
    sock: socket.socket,
    answerer: Answerer,
    *,
    interval: float = 10,
    batch: int = BATCH,
) -> None:
    """Answer what comes to a socket until Ctrl-C, then close it and print what was done.

    Args:
        sock: As `open_socket` gives it.
        answerer: Makes the answers.
        interval: Seconds between two lines of statistics.
        batch: The most queries in a batch.
    """
    everywhere = needs_destinations(sock.getsockname()[0])
    # One batch is enough: nothing is received while it is answered.
    pool = PacketBatchPool(1, batch, SLOT_SIZE, ancillary=everywhere)
    receiver = PacketReceiver(sock, pool, limit=batch)
    report = Report(answerer, receiver, Rate(anyio.current_time()))
    async with receiver, anyio.create_task_group() as nursery:
        await nursery.start(stop_on_signal, receiver.stop, nursery.cancel_scope.cancel)
        announce(sock)
        nursery.start_soon(print_at_intervals, interval, report.line)
        await answer_all(sock, report, everywhere)
        nursery.cancel_scope.cancel()
    print(report.line(last=True), flush=True)


def needs_destinations(host: str) -> bool:
    """Return whether answers have to name their source, and can: Linux has what it takes."""
    return host in EVERYWHERE and sys.platform == "linux"


async def open_socket(host: str, port: int, buffer: int | None = None) -> socket.socket:
    """Return a socket for `serve`."""
    destinations = needs_destinations(host)
    return await open_udp_socket(host, port, receive_buffer_size=buffer, destinations=destinations)


async def run(options: argparse.Namespace, answerer: Answerer) -> None:
    """Open the socket and serve."""
    sock = await open_socket(options.host, options.port, options.buffer)
    await serve(sock, answerer, interval=options.interval, batch=options.batch)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=5353, help="0 for any free one")
    parser.add_argument("--zone", type=Path, default=SAMPLE, help="the zone file")
    add_backend_option(parser)
    parser.add_argument("--interval", type=float, default=10, help="seconds between reports")
    parser.add_argument("--batch", type=int, default=BATCH, help="the most queries in a batch")
    parser.add_argument("--buffer", type=int, help="bytes of the kernel's buffer to ask for")
    options = parser.parse_args()
    if options.batch < 1:
        parser.error("--batch has to be at least 1")
    try:
        answerer = load(options.zone)
    except ValueError as error:
        parser.error(str(error))
    run_on(options.backend, run, options, answerer)


if __name__ == "__main__":
    with OneLineErrors():
        main()
