"""A relay: what comes to one UDP port is sent on to many destinations.

    python -m pip install -e '.[trio]'
    python examples/relay.py --port 5000 --to 127.0.0.1:5001 --to 127.0.0.1:5002
    python examples/relay.py --host ::1 --port 5000 --to '[::1]:5001' --backend trio --interval 1

Watch it from other terminals:

    nc -u -l 127.0.0.1 5001
    echo hello | nc -u -w0 127.0.0.1 5000

`--port 0` listens on any free port, `--backend` is asyncio, trio or uvloop. `--gso` has the kernel
cut packets of one size out of large ones, at a fraction of the cost where they are of one size (on
Linux; `python -m benchmarks send` tells). Names are looked up once, at the start. Ctrl-C stops it,
and it prints what each destination got; the exit status is 0 then.

A batch goes out in one `send_mmsg` call, to all destinations. Its alternative is a
`multi_target_send` for each packet. That has the fixed cost of a call for each, too much for a few
destinations; for dozens of them, or payloads of many kilobytes, it is the faster one, since it
copies a payload once and not for each destination.

What the system refuses to send is counted by destination, and does not hold up others. But UDP
does not tell whether anybody listens: a destination that is there no more counts as sent to.
For some three seconds at a time Linux keeps packets to a host of the local network that does not
say where it is, and charges them to the send buffer. So that buffer has room for such a queue for
each destination, as far as net.core.wmem_max lets it; when it is full, all wait.

Packets are sent from a socket of their own, which nobody reads: what destinations answer
is not relayed. A destination that is the relay's own port is refused, since that would go round
for ever; two relays that send to each other do that too, and are for you to avoid.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
import signal
import socket
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskStatus

from anyio_mmsg import (
    PacketBatchPool,
    PacketReceiver,
    SendResult,
    open_udp_socket,
    send_mmsg,
)

SLOT_SIZE = 65527  # any datagram over IPv6, so that none is sent on without its end
BATCH = 64  # packets
NEIGHBOUR_QUEUE = 212_992  # bytes, as the kernel counts them (arp(7), unres_qlen_bytes)


class RefusedError(Exception):
    """A command line that can't work. Its text says why."""


@dataclass
class Destination:
    """Where packets are sent on to, and what became of them."""

    name: str  # as it was given
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
    """Look up destinations, HOST:PORT or [HOST]:PORT; all get addresses of one family.

    Raises:
        RefusedError: One is malformed or unknown, or they have no family in common.
    """
    # Not anyio.getaddrinfo: it writes the scope of a link-local address into the host. Nothing
    # else runs yet that this could block.
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
        except (OSError, UnicodeError) as error:  # the latter for what can't be a name
            raise RefusedError(f"{name}: {error}") from error
        found[name] = {family: address for family, _, _, _, address in reversed(answers)}
    for family in next(iter(found.values())):
        if all(family in addresses for addresses in found.values()):
            return [Destination(name, family, found[name][family]) for name in found]
    raise RefusedError("the destinations are not all IPv4 or all IPv6; run a relay for each kind")


def leads_back(destination: Destination, listening: Any) -> bool:
    """Whether a destination is the address that the relay listens on, or one of these."""
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
            return False  # it is not this machine's
    return True


def _host(address: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    host = ipaddress.ip_address(address[0])
    return getattr(host, "ipv4_mapped", None) or host


@dataclass
class Relay:
    """The sockets, the destinations, and the count of what happened."""

    receiver: PacketReceiver
    out: socket.socket
    destinations: list[Destination]
    gso: bool
    started: float
    _packets: int = 0
    _since: float = 0.0

    async def work(self) -> None:
        """Send on what arrives: one wait, a batch of packets, one call for all of the copies."""
        async for batch in self.receiver:
            with batch:
                payloads = batch.payloads()
                result = SendResult()
                try:
                    # By destination, then by packet: so GSO finds runs to one destination.
                    await send_mmsg(
                        self.out,
                        [(data, to.address) for to in self.destinations for data in payloads],
                        gso=self.gso,
                        result=result,
                    )
                finally:  # if it was stopped, then that is how far it got
                    self.count(len(payloads), result)

    def count(self, packets: int, result: SendResult) -> None:
        """Tell destinations what became of their copies of so many packets."""
        for index, to in enumerate(self.destinations):
            handled = min(max(result.handled - index * packets, 0), packets)
            to.sent += handled
            to.unsent += packets - handled
        for failure in result.failures:
            to = self.destinations[failure.index // packets]
            number = failure.error.errno or 0
            to.refused[errno.errorcode.get(number, str(number))] += 1
            to.sent -= 1

    def line(self, now: float, *, last: bool = False) -> str:
        """Return totals, and the rate since the last line; the last has that of all the time."""
        seen = self.receiver.statistics()
        since, before = (self.started, 0) if last else (self._since or self.started, self._packets)
        rate = (seen.packets - before) / max(now - since, 1e-9)
        self._packets, self._since = seen.packets, now
        kernel = "unknown" if seen.dropped_by_kernel is None else f"{seen.dropped_by_kernel:,}"
        refused = sum(sum(to.refused.values()) for to in self.destinations)
        return (
            f"{'in all' if last else '--'} {seen.packets:,} packets ({rate:,.0f}/s), "
            f"{seen.bytes:,} bytes, {seen.batches:,} batches: "
            f"sent on {sum(to.sent for to in self.destinations):,}, refused {refused:,}; "
            f"dropped by kernel {kernel}"
        )

    async def show(self, interval: float) -> None:
        """Print a line at each interval."""
        while True:
            await anyio.sleep(interval)
            print(self.line(anyio.current_time()), flush=True)


async def stop_on_signal(
    scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Cancel the scope when Ctrl-C is pressed."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        scope.cancel()


async def run(options: argparse.Namespace, destinations: list[Destination]) -> None:
    """Relay until Ctrl-C, then print what each destination got."""
    sock = await open_udp_socket(options.host, options.port, receive_buffer_size=options.buffer)
    # One batch, of 4 MB, is enough: nothing is received while it is sent on.
    receiver = PacketReceiver(sock, PacketBatchPool(1, BATCH, SLOT_SIZE))
    async with receiver:
        for to in destinations:
            if leads_back(to, sock.getsockname()):
                raise RefusedError(f"{to.name} is where the relay listens: that would be a loop")
        with await open_udp_socket(family=destinations[0].family) as out:
            wanted = min(NEIGHBOUR_QUEUE * len(destinations), 2**30 - 1)  # half a C int
            with contextlib.suppress(OSError):
                out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, wanted)
            relay = Relay(receiver, out, destinations, options.gso, anyio.current_time())
            async with anyio.create_task_group() as nursery:
                if sys.platform != "win32":  # asyncio has no signal handlers there
                    await nursery.start(stop_on_signal, nursery.cancel_scope)
                host, port = sock.getsockname()[:2]
                print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", flush=True)
                nursery.start_soon(relay.show, options.interval)
                nursery.start_soon(relay.work)
    print(relay.line(anyio.current_time(), last=True), *destinations, sep="\n", flush=True)


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
    parser.add_argument("--gso", action="store_true", help="have the kernel cut packets of a size")
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio", "uvloop"])
    parser.add_argument("--interval", type=float, default=10, help="seconds between reports")
    parser.add_argument("--buffer", type=int, help="bytes of the kernel's buffer to ask for")
    options = parser.parse_args()
    try:
        anyio.run(
            run,
            options,
            resolve(options.to),
            backend="trio" if options.backend == "trio" else "asyncio",
            backend_options={"use_uvloop": True} if options.backend == "uvloop" else {},
        )
    except RefusedError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
