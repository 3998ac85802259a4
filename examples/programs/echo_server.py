"""An echo server (RFC 862) over UDP: each datagram goes back to its sender, a batch at a time.

    python -m pip install -e '.[trio]'
    python examples/programs/echo_server.py --port 7777
    python examples/programs/echo_server.py --host ::1 --port 0 --backend trio --interval 1

Talk to it from another terminal:

    nc -u 127.0.0.1 7777
    socat - UDP:127.0.0.1:7777

`--port 0` listens on any free port. `--backend` is asyncio, trio or uvloop. Replies are sent from
the ring that received the packets, without a copy. A slot holds the longest possible datagram, so
none is cut. A reply that the system refuses is counted by its errno, and the other replies still
go out. While the socket's send buffer is full the server receives nothing, and packets queue in
the kernel.

Ctrl-C or SIGTERM stops it: what has arrived is still answered, then it prints totals. A second
signal ends it at once; the totals then say what was not answered. The exit status is 0.

One forged packet could make two echo servers answer each other for ever. So packets from ports
below 1024, where such services are (echo, daytime, chargen, DNS ...), and from this server's own
port number get no answer. That does not protect it from a server on another port, nor a victim
whose address somebody forges: leave it on 127.0.0.1, or behind a packet filter. Give `--host` one
address: on a machine with several, a server bound to all of them may reply from the wrong one.
"""

from __future__ import annotations

import argparse
import errno
import socket
from collections import Counter
from dataclasses import dataclass, field

import anyio

from anyio_mmsg import (
    Packet,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    SendResult,
    open_udp_socket,
    send_mmsg,
)
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

SLOT_SIZE = 65527  # any datagram over IPv6; over IPv4 the most is 65507
# Port 0 is not in here: sendto(2) refuses a reply to it, and that is counted.
WELL_KNOWN_PORTS = range(1, 1024)


@dataclass
class Report:
    """What the server did, as one line of totals."""

    receiver: PacketReceiver
    rate: Rate
    echoed: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    not_answered: int = 0
    unsent: int = 0  # when it was stopped

    def add(self, packets: int, result: SendResult) -> None:
        """Count what became of the replies to some packets."""
        self.echoed += result.sent
        self.unsent += packets - result.handled
        self.refused.update(result.errors)

    def line(self, *, last: bool = False) -> str:
        """Return totals and the rate since the last line; the last line has the overall rate."""
        seen, now = self.receiver.statistics(), anyio.current_time()
        rate = self.rate.since_start if last else self.rate.since_last_look
        refused = ", ".join(
            f"{count:,} {errno.errorcode.get(number, number)}"
            for number, count in sorted(self.refused.items())
        )
        return (
            f"{'in all' if last else '--'} {seen.packets:,} packets "
            f"({rate(now, seen.packets):,.0f}/s), "
            f"{seen.bytes:,} bytes, {seen.batches:,} batches: echoed {self.echoed:,}, "
            f"not answered {self.not_answered:,}, unsent {self.unsent:,}, "
            f"refused {sum(self.refused.values()):,}{f' ({refused})' if refused else ''}; "
            f"{losses(seen)}"
        )


async def echo(sock: socket.socket, report: Report) -> None:
    """Send back what arrives: one wait, a batch of packets, one call for all of the replies."""
    looping = {sock.getsockname()[1], *WELL_KNOWN_PORTS}
    async for batch in report.receiver:
        with batch:
            replies: PacketBatch | list[Packet] = batch
            if not looping.isdisjoint(address[1] for address in batch.addresses()):
                replies = [packet for packet in batch if packet.address[1] not in looping]
                report.not_answered += len(batch) - len(replies)
            result = SendResult()
            try:
                await send_mmsg(sock, replies, result=result)
            finally:  # a cancelled call fills in `result` too: it says how far it got
                report.add(len(replies), result)


async def run(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C, then print what was done."""
    sock = await open_udp_socket(options.host, options.port, receive_buffer_size=options.buffer)
    # One batch, of 4 MB, is enough: nothing is received while its replies are sent.
    receiver = PacketReceiver(sock, PacketBatchPool(1, slot_size=SLOT_SIZE))
    report = Report(receiver, Rate(anyio.current_time()))
    async with receiver, anyio.create_task_group() as nursery:
        await nursery.start(stop_on_signal, receiver.stop, nursery.cancel_scope.cancel)
        announce(sock)
        nursery.start_soon(print_at_intervals, options.interval, report.line)
        await echo(sock, report)
        nursery.cancel_scope.cancel()
    print(report.line(last=True), flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=7777, help="0 for any free one")
    add_backend_option(parser)
    parser.add_argument("--interval", type=float, default=10, help="seconds between reports")
    parser.add_argument("--buffer", type=int, help="bytes of the kernel's buffer to ask for")
    options = parser.parse_args()
    run_on(options.backend, run, options)


if __name__ == "__main__":
    with OneLineErrors():
        main()
