"""The way to a host, as `traceroute` knows it: hops, and what was reported of each probe."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from .. import IcmpError

# Types of ICMP (RFC 792) and ICMPv6 (RFC 4443): the hop limit was used up; the packet is too long.
USED_UP: dict[int, int] = {socket.AF_INET: 11, socket.AF_INET6: 3}
NO_PORT: dict[int, tuple[int, int]] = {socket.AF_INET: (3, 3), socket.AF_INET6: (1, 4)}
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
