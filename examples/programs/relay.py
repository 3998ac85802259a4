"""A relay: each datagram that arrives at one UDP port goes on to many destinations.

    python -m pip install -e '.[trio]'
    python examples/programs/relay.py --port 5000 --to 127.0.0.1:5001 --to 127.0.0.1:5002
    python examples/programs/relay.py --host ::1 --port 5000 --to '[::1]:5001' --backend trio

Watch it from other terminals:

    nc -u -l 127.0.0.1 5001
    echo hello | nc -u -w1 127.0.0.1 5000

`--port 0` listens on any free port. `--backend` is asyncio, trio or uvloop. `--gso` lets the
kernel split large sends into packets of one size, which is much cheaper where packets are of one
size (Linux only; measure it with `python -m benchmarks send`). Names are looked up once, at the
start.

Ctrl-C or SIGTERM stops it: what has arrived is still sent on, then it prints what each destination
got. A second signal ends it at once; "unsent" and "left" then say what did not go out. The
exit status is 0.

A batch goes out in one `send_mmsg` call, to all destinations. The alternative is one
`multi_target_send` for each packet. It pays the fixed cost of a call for each packet, which is too
much for a few destinations. For dozens of them, or payloads of many kilobytes, it is faster, since
it copies a payload once and not once for each destination.

A packet that the system refuses to send is counted for its destination, and the other packets
still go out. UDP does not say whether anybody listens, so packets to a destination that is gone
count as sent. If a host of the local network does not answer ARP, Linux keeps packets to it for
about three seconds and charges them to the send buffer. So that buffer is made large enough for
one such queue for each destination, as far as net.core.wmem_max allows; when it is full, all
destinations wait.

The relay sends from a socket of its own, which nobody reads: answers of destinations are not
relayed. A destination that is the relay's own port is refused, since its packets would go round
for ever. Two relays that send to each other would do that too: avoid it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import anyio

from anyio_mmsg import (
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

SLOT_SIZE = 65527  # any datagram over IPv6, so that none is cut and sent on
BATCH = 64  # packets
NEIGHBOUR_QUEUE = 212_992  # bytes, as the kernel counts them (arp(7), unres_qlen_bytes)


class RefusedError(Exception):
    """The command line asks for what can't work. The text says why."""


@dataclass
class Destination:
    """A peer that packets are sent on to, and what became of them."""

    name: str  # as given on the command line
    family: int
    address: Any  # as `socket.sendto` takes it
    sent: int = 0
    unsent: int = 0  # when it was stopped
    refused: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        refused = ", ".join(f"{count:,} {name}" for name, count in sorted(self.refused.items()))
        return (
            f"{self.name}: sent {self.sent:,}, unsent {self.unsent:,}, "
            f"refused {sum(self.refused.values()):,}{f' ({refused})' if refused else ''}"
        )


def resolve(names: list[str]) -> list[Destination]:
    """Look up destinations, each HOST:PORT or [HOST]:PORT, in one address family for all.

    Raises:
        RefusedError: One is malformed or unknown, or they have no family in common.
    """
    # Not anyio.getaddrinfo, which moves the scope of a link-local address into the host. This one
    # blocks, but nothing else runs yet.
    found = {}
    for name in names:
        host, _, port = name.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise RefusedError(f"{name}: write an IPv6 address as [ADDRESS]:PORT")
        if not (host and port.isdecimal() and 0 < int(port) < 65536):
            raise RefusedError(f"{name}: give HOST:PORT, the port from 1 to 65535")
        try:
            answers = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: what can't be encoded as a name
            raise RefusedError(f"{name}: {error}") from error
        found[name] = {family: address for family, _, _, _, address in reversed(answers)}
    for family in next(iter(found.values())):
        if all(family in addresses for addresses in found.values()):
            return [Destination(name, family, found[name][family]) for name in found]
    raise RefusedError("the destinations are not all IPv4 or all IPv6; run a relay for each kind")


def leads_back(destination: Destination, listening: Any) -> bool:
    """Return whether a destination is an address that the relay listens on."""
    host, own = _host(destination.address), _host(listening)
    if destination.address[1] != listening[1]:
        return False
    if host.is_unspecified or host == own:
        return True
    if not own.is_unspecified:
        return False
    with socket.socket(destination.family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((destination.address[0], 0, *destination.address[2:]))
        except OSError:
            return False  # it is not an address of this machine
    return True


def _host(address: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    host = ipaddress.ip_address(address[0])
    return getattr(host, "ipv4_mapped", None) or host


@dataclass
class Relay:
    """The sockets, the destinations, and the counts of what happened."""

    receiver: PacketReceiver
    out: socket.socket
    destinations: list[Destination]
    gso: bool
    rate: Rate

    async def work(self) -> None:
        """Send on what arrives: one wait, a batch of packets, one call for all of the copies."""
        async for batch in self.receiver:
            with batch:
                payloads = batch.payloads()
                result = SendResult()
                try:
                    # By destination, then by packet, so that GSO finds runs to one destination.
                    await send_mmsg(
                        self.out,
                        [(data, to.address) for to in self.destinations for data in payloads],
                        gso=self.gso,
                        result=result,
                    )
                finally:  # a cancelled call fills in `result` too: it says how far it got
                    self.count(len(payloads), result)

    def count(self, packets: int, result: SendResult) -> None:
        """Count for each destination what became of its copies of some packets."""
        for index, to in enumerate(self.destinations):
            handled = min(max(result.handled - index * packets, 0), packets)
            to.sent += handled
            to.unsent += packets - handled
        for failure in result.failures:
            to = self.destinations[failure.index // packets]
            number = failure.error.errno or 0
            to.refused[errno.errorcode.get(number, str(number))] += 1
            to.sent -= 1

    def line(self, *, last: bool = False) -> str:
        """Return totals and the rate since the last line; the last line has the overall rate."""
        seen, now = self.receiver.statistics(), anyio.current_time()
        rate = self.rate.since_start if last else self.rate.since_last_look
        refused = sum(sum(to.refused.values()) for to in self.destinations)
        return (
            f"{'in all' if last else '--'} {seen.packets:,} packets "
            f"({rate(now, seen.packets):,.0f}/s), "
            f"{seen.bytes:,} bytes, {seen.batches:,} batches: "
            f"sent on {sum(to.sent for to in self.destinations):,}, refused {refused:,}; "
            f"{losses(seen)}"
        )


async def run(options: argparse.Namespace, destinations: list[Destination]) -> None:
    """Relay until Ctrl-C, then print what each destination got."""
    sock = await open_udp_socket(options.host, options.port, receive_buffer_size=options.buffer)
    # One batch, of 4 MB, is enough: nothing is received while its packets are sent on.
    receiver = PacketReceiver(sock, PacketBatchPool(1, BATCH, SLOT_SIZE))
    async with receiver:
        for to in destinations:
            if leads_back(to, sock.getsockname()):
                raise RefusedError(f"{to.name} is where the relay listens: that would be a loop")
        with await open_udp_socket(family=destinations[0].family) as out:
            wanted = min(NEIGHBOUR_QUEUE * len(destinations), 2**30 - 1)  # half a C int
            with contextlib.suppress(OSError):
                out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, wanted)
            relay = Relay(receiver, out, destinations, options.gso, Rate(anyio.current_time()))
            async with anyio.create_task_group() as nursery:
                await nursery.start(stop_on_signal, receiver.stop, nursery.cancel_scope.cancel)
                announce(sock)
                nursery.start_soon(print_at_intervals, options.interval, relay.line)
                await relay.work()
                nursery.cancel_scope.cancel()
    print(relay.line(last=True), *destinations, sep="\n", flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=5000, help="0 for any free one")
    parser.add_argument(
        "--to",
        action="append",
        required=True,
        metavar="HOST:PORT",
        help="a destination, [HOST]:PORT for an IPv6 address; again for each further one",
    )
    parser.add_argument("--gso", action="store_true", help="let the kernel split large sends")
    add_backend_option(parser)
    parser.add_argument("--interval", type=float, default=10, help="seconds between reports")
    parser.add_argument("--buffer", type=int, help="bytes of the kernel's buffer to ask for")
    options = parser.parse_args()
    try:
        run_on(options.backend, run, options, resolve(options.to))
    except RefusedError as error:
        parser.error(str(error))


if __name__ == "__main__":
    with OneLineErrors():
        main()
