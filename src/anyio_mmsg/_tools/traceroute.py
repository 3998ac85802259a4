"""The way of packets to a host, all hops at once, by what the routers on it report. Linux only.

    python -m anyio_mmsg traceroute example.org
    python -m anyio_mmsg traceroute --family 6 --hops 20 --queries 1 --timeout 1 2001:db8::1
    python -m anyio_mmsg traceroute --size 1472 --json --backend trio 192.0.2.1

It needs no privileges. Each probe is a UDP packet with a hop limit and a port of its own, and one
send_mmsg call sends all of them. Routers where a probe's hops are used up report that by ICMP,
as does the host when it arrives, since nobody listens at those ports. The socket's error queue
says which probe a report is about (icmp_errors=True, IcmpError).

A line is a hop: the routers that reported, with the time of each probe's report, or * where none
came within --timeout seconds. Many routers report only a few times a second, or never. A mark
after a time is what a router reported instead of a used-up hop limit: !H or !N for a host or
network that it can't reach, !P for a protocol, !X where that is forbidden, !F and the longest
packet that passes where --size is too long. With --json each hop is a JSON object.

Ctrl-C or SIGTERM ends the wait for reports. The exit status is 0 if the host was reached, 1 if
not, and 2 after a line on stderr that says why nothing could be sent.
"""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Sequence
from typing import Any

import anyio

from .. import (
    IcmpError,
    PacketBatch,
    SendOptions,
    open_udp_socket,
    recv_errors_nowait,
    recv_mmsg,
    send_mmsg,
)
from .._system.platform import ON_LINUX
from .ending import CommandError
from .options import add_json_option, amount, count, parser_of, whole
from .path import Path, Report, understand
from .running import add_backend_option, run_on, stop_on_signal

FIRST_PORT = 33434  # as traceroutes have it since the first one: nobody listens there
MOST_PROBES = 65536 - FIRST_PORT
# Probes are never fragmented, and go out whatever was learned of the path (linux/in.h, in6.h).
PROBE: dict[int, tuple[int, int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, 10, 3),  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23, 3),  # the same of IPv6
}


async def trace(target: tuple[Any, ...], path: Path, payload: bytes, timeout: float) -> None:
    """Send all probes, and note what is reported within the time.

    Raises:
        CommandError: A probe can't be sent.
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
            raise CommandError(f"{host}: {failure.error.strerror}") from failure.error


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


def fields_of(number: int, reports: list[Report | None], address: str) -> dict[str, Any]:
    """Return a hop for programs."""
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
    return {"to": address, "hop": number, "reports": found}


async def run(options: argparse.Namespace) -> int:
    """Find the host's address, trace the way to it, print it, and return the exit status."""
    try:
        found = await anyio.getaddrinfo(
            options.target, FIRST_PORT, family=options.family, type=socket.SOCK_DGRAM
        )
    except OSError as error:
        raise CommandError(f"{options.target}: {error.strerror or error}") from error
    family, *_, target = found[0]
    path = Path(family, options.hops, options.queries)
    async with anyio.create_task_group() as nursery:
        cancel = nursery.cancel_scope.cancel
        await nursery.start(stop_on_signal, cancel, cancel)
        if not options.json:
            print(f"to {options.target} ({target[0]}), {options.hops} hops at most", flush=True)
        await trace(target, path, bytes(options.size), options.timeout)
        cancel()
    for number in range(1, path.length + 1):
        hop = path.hop(number)
        if options.json:
            print(json.dumps(fields_of(number, hop, target[0])))
        else:
            print(text_of(number, hop))
    return int(not any(report.arrived for report in path.reports.values()))


def main(arguments: Sequence[str]) -> int:
    """Read the command line and run."""
    parser = parser_of("traceroute", __doc__)
    parser.add_argument("target", metavar="HOST", help="a name or an address")
    parser.add_argument("--family", choices=["4", "6"], help="of addresses, if a name has both")
    parser.add_argument("--hops", type=whole(1, 255), default=30, help="the highest hop limit")
    parser.add_argument("--queries", type=count, default=3, help="probes for each hop")
    parser.add_argument("--timeout", type=amount, default=3, help="seconds to wait for reports")
    parser.add_argument("--size", type=whole(0, 65507), default=32, help="bytes of a probe")
    add_json_option(parser, "a line for each hop")
    add_backend_option(parser)
    options = parser.parse_args(arguments)
    if not ON_LINUX:
        parser.error("it needs Linux, which hands over ICMP errors to a socket")
    if options.hops * options.queries > MOST_PROBES:
        parser.error(f"--hops times --queries is more than {MOST_PROBES} probes")
    options.family = {None: 0, "4": socket.AF_INET, "6": socket.AF_INET6}[options.family]
    return run_on(options.backend, run, options)
