"""The way of packets to a host, all hops at once, by what the routers on it report. Linux only.

    python -m pip install -e '.[trio]'
    python examples/programs/traceroute.py example.org
    python examples/programs/traceroute.py --family 6 --hops 20 --queries 1 --timeout 1 2001:db8::1
    python examples/programs/traceroute.py --size 1472 --json --backend trio 192.0.2.1

It needs no privileges. Each probe is a UDP packet with a hop limit and a port of its own, and one
`send_mmsg` call sends all of them. Routers where a probe's hops are used up report that by ICMP,
as does the host when it arrives, since nobody listens at those ports. The socket's error queue
says which probe a report is about (`icmp_errors=True`, `IcmpError`).

A line is a hop: the routers that reported, with the time of each probe's report, or * where none
came within `--timeout` seconds. Many routers report only a few times a second, or never. A mark
after a time is what a router reported instead of a used-up hop limit: !H or !N for a host or
network that it can't reach, !P for a protocol, !X where that is forbidden, !F and the longest
packet that passes where `--size` is too long. With `--json` each hop is a JSON object. The exit
status is 0 if the host was reached, 1 if not, and 2 if nothing could be sent.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

import anyio

from anyio_mmsg import (
    IcmpError,
    PacketBatch,
    SendOptions,
    open_udp_socket,
    recv_errors_nowait,
    recv_mmsg,
    send_mmsg,
)
from shared import add_backend_option, run_on

FIRST_PORT = 33434  # as traceroutes have it since the first one: nobody listens there
MOST_PROBES = 65536 - FIRST_PORT
# Types of ICMP (RFC 792) and ICMPv6 (RFC 4443): the hop limit was used up; the packet is too long.
USED_UP: dict[int, int] = {socket.AF_INET: 11, socket.AF_INET6: 3}
NO_PORT: dict[int, tuple[int, int]] = {socket.AF_INET: (3, 3), socket.AF_INET6: (1, 4)}
# Probes are never fragmented, and go out whatever was learned of the path (linux/in.h, in6.h).
PROBE: dict[int, tuple[int, int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, 10, 3),  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23, 3),  # the same of IPv6
}
MARKS: dict[int, dict[tuple[int, int], str]] = {
    socket.AF_INET: {(3, 0): "!N", (3, 1): "!H", (3, 2): "!P", (3, 9): "!X", (3, 10): "!X"},
    socket.AF_INET6: {(1, 0): "!N", (1, 1): "!X", (1, 3): "!H"},
}


@dataclass
class Report:
    """What came of one probe."""

    host: str
    seconds: float
    mark: str = ""
    arrived: bool = False


@dataclass
class Path:
    """What is known of the way to a host.

    Args:
        family: Of its addresses, AF_INET or AF_INET6.
        hops: The highest hop limit that is tried.
        queries: Probes for each.

    Attributes:
        reports: By probe, in the order of hops.
    """

    family: int
    hops: int
    queries: int
    reports: dict[int, Report] = field(default_factory=dict)

    @property
    def probes(self) -> range:
        """The numbers of all probes."""
        return range(self.hops * self.queries)

    def hop_of(self, probe: int) -> int:
        """Return the hop limit of a probe."""
        return probe // self.queries + 1

    def add(self, probe: int, report: Report) -> None:
        """Note the first report about a probe; others are ignored."""
        if probe in self.probes:
            self.reports.setdefault(probe, report)

    @property
    def length(self) -> int:
        """The hop at which the way ends, as far as is known; else `hops`."""
        ends = [
            self.hop_of(probe)
            for probe, report in self.reports.items()
            if report.arrived or report.mark
        ]
        return min(ends, default=self.hops)

    @property
    def is_known(self) -> bool:
        """Whether there is a report about each probe up to the end."""
        return all(probe in self.reports for probe in range(self.length * self.queries))

    def hop(self, number: int) -> list[Report | None]:
        """Return what came of each probe of a hop."""
        first = (number - 1) * self.queries
        return [self.reports.get(probe) for probe in range(first, first + self.queries)]


def understand(error: IcmpError, family: int, seconds: float) -> Report:
    """Return what an error says about its probe."""
    what = error.icmp_type, error.icmp_code
    host = error.offender or "this machine"
    if error.mtu is not None:
        return Report(host, seconds, f"!F-{error.mtu}")
    if what[0] == USED_UP[family]:
        return Report(host, seconds)
    if what == NO_PORT[family]:
        return Report(host, seconds, arrived=True)
    return Report(host, seconds, MARKS[family].get(what, f"!<{what[0]}-{what[1]}>"))


async def trace(target: tuple[Any, ...], path: Path, payload: bytes, timeout: float) -> None:
    """Send all probes, and note what is reported within the time.

    Raises:
        OSError: A probe can't be sent.
    """
    sock = await open_udp_socket(family=path.family, icmp_errors=True, receive_buffer_size=1 << 20)
    with sock:
        # Not `dont_fragment=True`: that refuses what this machine has learned to be too long.
        sock.setsockopt(*PROBE[path.family])
        started = anyio.current_time()
        await send_probes(sock, target, path, payload)
        with anyio.move_on_after(timeout):
            while not path.is_known:
                await take_reports(sock, path, started)


async def send_probes(
    sock: socket.socket, target: tuple[Any, ...], path: Path, payload: bytes
) -> None:
    """Send a probe to each port, with its hop limit: all hops at once."""
    host, _, *scope = target
    result = await send_mmsg(
        sock,
        [
            (
                payload,
                (host, FIRST_PORT + probe, *scope),
                SendOptions(hop_limit=path.hop_of(probe)),
            )
            for probe in path.probes
        ],
    )
    for failure in result.failures:
        if not isinstance(failure.error, IcmpError):
            raise failure.error


async def take_reports(sock: socket.socket, path: Path, started: float) -> None:
    """Wait for reports, or for an answer of the host itself, and note them."""
    errors: list[IcmpError] = []
    with PacketBatch() as answers:
        try:
            await recv_mmsg(sock, answers)
        except IcmpError as oldest:
            errors = [oldest, *recv_errors_nowait(sock)]
        seconds = anyio.current_time() - started
        for host, port, *_ in answers.addresses():
            path.add(port - FIRST_PORT, Report(host, seconds, arrived=True))
    for error in errors:
        if isinstance(error.destination, tuple):
            report = understand(error, path.family, seconds)
            path.add(error.destination[1] - FIRST_PORT, report)


def text_of(number: int, reports: list[Report | None]) -> str:
    """Return a hop as a line: each router once, then the times of its reports."""
    parts = [f"{number:2}"]
    before = None
    for report in reports:
        if report is None:
            parts.append("*")
            continue
        if report.host != before:
            parts.append(report.host)
            before = report.host
        parts.append(f"{report.seconds * 1e3:.2f} ms")
        if report.mark:
            parts.append(report.mark)
    return "  ".join(parts)


def json_of(number: int, reports: list[Report | None]) -> str:
    """Return a hop as JSON."""
    found = [
        report
        and {
            "host": report.host,
            "ms": round(report.seconds * 1e3, 3),
            "mark": report.mark,
            "arrived": report.arrived,
        }
        for report in reports
    ]
    return json.dumps({"hop": number, "reports": found})


async def run(options: argparse.Namespace) -> int:
    """Find the host's address, trace the way to it, print it, and return the exit status."""
    try:
        found = await anyio.getaddrinfo(
            options.target, FIRST_PORT, family=options.family, type=socket.SOCK_DGRAM
        )
        family, *_, target = found[0]
        path = Path(family, options.hops, options.queries)
        if not options.json:
            print(f"to {options.target} ({target[0]}), {options.hops} hops at most", flush=True)
        await trace(target, path, bytes(options.size), options.timeout)
    except OSError as error:
        print(f"{options.target}: {error.strerror or error}", file=sys.stderr)
        return 2
    for number in range(1, path.length + 1):
        print((json_of if options.json else text_of)(number, path.hop(number)))
    return int(not any(report.arrived for report in path.reports.values()))


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", nargs="?", default="127.0.0.1", help="a name or an address")
    parser.add_argument("--family", choices=["4", "6"], help="of addresses, if a name has both")
    parser.add_argument("--hops", type=int, default=30, help="the highest hop limit, 1 to 255")
    parser.add_argument("--queries", type=int, default=3, help="probes for each hop")
    parser.add_argument("--timeout", type=float, default=3, help="seconds to wait for reports")
    parser.add_argument("--size", type=int, default=32, help="bytes of a probe's payload")
    parser.add_argument("--json", action="store_true", help="print JSON, an object a hop")
    add_backend_option(parser)
    options = parser.parse_args()
    if sys.platform != "linux":
        parser.error("it needs Linux, which hands over ICMP errors to a socket")
    if not 1 <= options.hops <= 255:
        parser.error("--hops has to be 1 to 255")
    if options.queries < 1 or options.hops * options.queries > MOST_PROBES:
        parser.error(f"--queries has to be at least 1, with --hops {MOST_PROBES} probes at most")
    if not 0 <= options.size <= 65507:
        parser.error("--size has to be 0 to 65507")
    options.family = {None: 0, "4": socket.AF_INET, "6": socket.AF_INET6}[options.family]
    return run_on(options.backend, run, options)


if __name__ == "__main__":
    sys.exit(main())
