"""An echo server (RFC 862) over UDP: what comes goes back to its sender, a batch at a time.

    python -m pip install -e '.[trio]'
    python examples/echo.py --port 7777
    python examples/echo.py --host ::1 --port 0 --backend trio --interval 1

Talk to it from another terminal:

    nc -u 127.0.0.1 7777
    socat - UDP:127.0.0.1:7777

`--port 0` listens on any free port, `--backend` is asyncio, trio or uvloop. Replies are sent from
the ring that the packets came into; nothing is copied. A slot holds the longest datagram that
there is, so none is cut. A reply that the system refuses is counted by its errno, and does not
hold up others. While the socket's send buffer is full nothing is received, and packets queue in
the kernel. Ctrl-C stops it, and it prints what it did in all; the exit status is 0 then.

Two servers that answer each other's answers do so for ever, once somebody has forged a packet
from one to the other. So packets from ports below 1024, where such services are (echo, daytime,
chargen, DNS ...), and from this server's own port number get no answer. That is no protection
from a server on another port, nor does it hinder those who forge a victim's address: leave
it on 127.0.0.1, or behind a packet filter. Give `--host` one address: bound to all of a machine
that has several, the kernel would choose the one that a reply comes from.
"""

from __future__ import annotations

import argparse
import errno
import signal
import socket
import sys
from collections import Counter
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskStatus

from anyio_mmsg import (
    Packet,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    SendResult,
    open_udp_socket,
    send_mmsg,
)

SLOT_SIZE = 65527  # any datagram over IPv6; over IPv4 they have 65507 at most
# Port 0 is not one of them: who forges that gets no answer by sendto(2), and is counted for it.
WELL_KNOWN_PORTS = range(1, 1024)


@dataclass
class Report:
    """Says how it goes, as totals and the rate since it said so last."""

    receiver: PacketReceiver
    started: float
    echoed: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    not_answered: int = 0
    unsent: int = 0  # when it was stopped
    _packets: int = 0
    _since: float = 0.0

    def add(self, packets: int, result: SendResult) -> None:
        """Count what became of replies."""
        self.echoed += result.sent
        self.unsent += packets - result.handled
        self.refused.update(result.errors)

    def line(self, now: float, *, last: bool = False) -> str:
        """Return a line; the last one has the rate of the whole time."""
        seen = self.receiver.statistics()
        since, before = (self.started, 0) if last else (self._since or self.started, self._packets)
        rate = (seen.packets - before) / max(now - since, 1e-9)
        self._packets, self._since = seen.packets, now
        refused = ", ".join(
            f"{count:,} {errno.errorcode.get(number, number)}"
            for number, count in sorted(self.refused.items())
        )
        kernel = "unknown" if seen.dropped_by_kernel is None else f"{seen.dropped_by_kernel:,}"
        return (
            f"{'in all' if last else '--'} {seen.packets:,} packets ({rate:,.0f}/s), "
            f"{seen.bytes:,} bytes, {seen.batches:,} batches: echoed {self.echoed:,}, "
            f"not answered {self.not_answered:,}, unsent {self.unsent:,}, "
            f"refused {sum(self.refused.values()):,}{f' ({refused})' if refused else ''}; "
            f"dropped by kernel {kernel}"
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
            finally:  # if it was stopped, then that is how far it got
                report.add(len(replies), result)


async def show(report: Report, interval: float) -> None:
    """Print a line at each interval."""
    while True:
        await anyio.sleep(interval)
        print(report.line(anyio.current_time()), flush=True)


async def stop_on_signal(
    scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Cancel the scope when Ctrl-C is pressed."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        scope.cancel()


async def run(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C, then print what was done."""
    sock = await open_udp_socket(options.host, options.port, receive_buffer_size=options.buffer)
    # One batch, of 4 MB, is enough: nothing is received while it is sent back.
    receiver = PacketReceiver(sock, PacketBatchPool(1, slot_size=SLOT_SIZE))
    report = Report(receiver, anyio.current_time())
    async with receiver:
        async with anyio.create_task_group() as nursery:
            if sys.platform != "win32":  # asyncio has no signal handlers there
                await nursery.start(stop_on_signal, nursery.cancel_scope)
            host, port = sock.getsockname()[:2]
            print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", flush=True)
            nursery.start_soon(show, report, options.interval)
            nursery.start_soon(echo, sock, report)
        print(report.line(anyio.current_time(), last=True), flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=7777, help="0 for any free one")
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio", "uvloop"])
    parser.add_argument("--interval", type=float, default=10, help="seconds between reports")
    parser.add_argument("--buffer", type=int, help="bytes of the kernel's buffer to ask for")
    options = parser.parse_args()
    anyio.run(
        run,
        options,
        backend="trio" if options.backend == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if options.backend == "uvloop" else {},
    )


if __name__ == "__main__":
    main()
