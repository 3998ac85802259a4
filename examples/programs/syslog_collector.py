r"""A syslog collector on Trio: prints each message it receives, and a summary now and then.

    python -m pip install -e '.[trio]'
    python examples/programs/syslog_collector.py --host 127.0.0.1 --port 5514

Feed it from another terminal, with the `logger` command of Linux:

    logger -n 127.0.0.1 -P 5514 -d --rfc5424 'text'
    logger -n 127.0.0.1 -P 5514 -d --rfc3164 'text'

`--host ::1` listens on IPv6, `--port 0` on any free port. It prints one line for each message:

    facility.severity timestamp host app[pid] msgid [structured data] text

It reads RFC 5424, and the older BSD format that RFC 3164 describes, as programs really write it:
`syslog_messages` beside this file has the rules.

A message that names no host gets the address of its sender (RFC 3164 section 4.3.2). That includes
"-", which is how RFC 5424 section 6.2.4 writes a host that is not known.

A message that is neither format is counted and shown escaped. A datagram longer than a slot is
cut; its line says so, and the summary counts it.

Ctrl-C or SIGTERM stops it: what has arrived is still printed, then the last summary. A second
signal ends it at once, and it says how many packets that left. The exit status is 0.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections import Counter
from dataclasses import dataclass, field

from anyio_mmsg import Packet, PacketBatchPool, PacketReceiver, open_udp_socket
from shared import (
    OneLineErrors,
    announce,
    escape_what_cannot_be_printed,
    left,
    print_at_intervals,
    stop_on_signal,
)
from syslog_messages import SEVERITIES, parse

with OneLineErrors():
    import trio

# RFC 5426 section 3.2 asks for at least 2048 bytes, and for more if possible. 8 KiB is the longest
# message that rsyslog takes by default. The library's default, 1232, would cut many messages.
SLOT_SIZE = 8192
RECEIVE_BUFFER = 2**20  # bytes; the usual 208 KiB fill up quickly when packets come in bursts


@dataclass
class Statistics:
    """The counts so far."""

    messages: int = 0
    malformed: int = 0
    truncated: int = 0
    severities: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        parts = [f"{self.severities[name]} {name}" for name in SEVERITIES if self.severities[name]]
        return (
            f"-- {self.messages} messages ({', '.join(parts) or 'none'}), "
            f"{self.malformed} malformed, {self.truncated} truncated"
        )


def collect(packet: Packet, statistics: Statistics) -> None:
    """Print and count one packet."""
    data, source = bytes(packet.data), packet.address[0]
    end = f" ... (truncated, {packet.wire_size} bytes)" if packet.truncated else ""
    statistics.truncated += packet.truncated
    message = parse(data, source)
    if message is None:
        statistics.malformed += 1
        print(f"malformed, from {source}: {data!r}{end}")
    else:
        statistics.messages += 1
        statistics.severities[message.severity] += 1
        print(f"{message}{end}")


async def serve(host: str, port: int, interval: float) -> None:
    """Receive and report until Ctrl-C, then print the last summary."""
    statistics = Statistics()
    sock = await open_udp_socket(host, port)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)  # or what is allowed
    # One batch is enough: nothing is received while its messages are printed.
    receiver = PacketReceiver(sock, PacketBatchPool(1, slot_size=SLOT_SIZE))
    async with receiver, trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, receiver.stop, nursery.cancel_scope.cancel)
        announce(sock)
        nursery.start_soon(print_at_intervals, interval, lambda: statistics)
        async for batch in receiver:
            with batch:
                for packet in batch:
                    collect(packet, statistics)
            sys.stdout.flush()
        nursery.cancel_scope.cancel()
    if count := left(receiver.statistics()):
        print(f"left: {count} packets")
    print(statistics, flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=5514, help="0 for any free one")
    parser.add_argument("--interval", type=float, default=10, help="seconds between summaries")
    options = parser.parse_args()
    escape_what_cannot_be_printed()
    trio.run(serve, options.host, options.port, options.interval)


if __name__ == "__main__":
    with OneLineErrors():
        main()
