"""One trial with the load in its own process: who got what, and where the rest was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.candidates.receivers import OURS, PLAINS
from benchmarks.candidates.receiving_peers import PEERS, QH3_TRANSPORT
from benchmarks.result import Context
from benchmarks.spec import AnySpec
from benchmarks.workers.load import LATE

PAYLOAD = 1232

CHOSEN = [spec for spec in OURS if spec.limit == 64] + PLAINS + PEERS + QH3_TRANSPORT
"""Those in these trials: ours with the default limit, compiled and plain, and every peer."""

SLACK = 0.1
"""Seconds that a receiver has beyond the sending. What still comes in then is received too
(`workers.receive.clocked`), so this only has to outlast the load's start."""

SLOWEST = 10e-6
"""Seconds a packet that a load as fast as it can may take, for the receiver's deadline."""


def rotated(specs: Sequence[AnySpec], turn: int) -> Sequence[AnySpec]:
    """Return all, in a round's order: each starts with another, so that none always follows the
    same one.
    """
    if not specs:
        return specs
    start = turn % len(specs)
    return [*specs[start:], *specs[:start]]


@dataclass(frozen=True)
class Trial:
    """What became of the datagrams of one sending.

    Attributes:
        sent: Datagrams.
        seconds: That the sending took.
        received: What reached the application.
        dropped: What the kernel dropped since the socket's buffer was full (SK_MEMINFO_DROPS).
    """

    sent: int
    seconds: float
    received: int
    dropped: int

    @property
    def library(self) -> int:
        """What the kernel handed over, and the library lost."""
        return self.sent - self.received - self.dropped


def run(context: Context, spec: AnySpec, count: int, rate: float) -> Trial:
    """Send `count` datagrams at `rate` a second, or as fast as can be if 0, to a receiver."""
    children = context.children
    receiver, load = children[spec.key], children.load
    # As long as the load may take at the worst, and then some.
    seconds = SLACK + count * (LATE / rate if rate else SLOWEST)
    receiver.ask("receive", count, seconds, "read")  # answered when it is ready
    sent = load.ask("send", children.port(spec.key), PAYLOAD, count, rate)
    got = receiver.hear()
    return Trial(sent["sent"], sent["seconds"], got["received"], got["dropped"])
