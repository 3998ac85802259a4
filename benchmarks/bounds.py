"""The ratios of instructions that the project sets itself as goals, and those that CI holds.

All are to a row of the same table and loop, with the harness subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass

from .candidates.receiving_peers import SIX_LINES

MARGIN = 0.05
"""What a ratio may be above `Ratio.held`. Counts repeat to a part of a percent on one machine;
other builds of Python, libc and of the peers move them by some percent."""

Bounds = tuple[float, ...]
"""Of asyncio, uvloop and Trio; a single one where no loop runs."""


@dataclass(frozen=True)
class Ratio:
    """A ratio between two rows.

    Attributes:
        what: Of ours, in the goals table.
        to: What it is compared with there.
        row: The key of the row without its loop.
        base: The key of the other without its loop.
        goal: The most that it is to be; None: it is no goal.
        held: What it was when it was last written down here. CI fails where it is above that by
            more than `MARGIN`. Whoever makes a ratio better lowers it.
    """

    what: str
    to: str
    row: str
    base: str
    goal: Bounds | None
    held: Bounds


RATIOS: tuple[Ratio, ...] = (
    Ratio(
        "`PacketReceiver` with a pool, a packet a wake",
        SIX_LINES,
        "wake-stream",
        "wake-naive",
        (0.6, 0.75, 1.3),
        (0.33, 0.485, 1.305),
    ),
    Ratio(
        "`recv_mmsg`, a packet a wake",
        SIX_LINES,
        "wake-ours",
        "wake-naive",
        (1.1, 1.2, 1.2),
        (1.02, 1.17, 1.165),
    ),
    Ratio(
        "`recv_datagrams`, a packet a wake",
        SIX_LINES,
        "wake-datagrams",
        "wake-naive",
        (1.1, 1.2, 1.2),
        (1.0, 1.13, 1.1),
    ),
    Ratio(
        "a protocol by `serve_protocol`, a packet a wake",
        SIX_LINES,
        "wake-served",
        "wake-naive",
        None,
        (0.14, 0.05),
    ),
    Ratio(
        "`PacketReceiver` with a pool, 64 a wake",
        SIX_LINES,
        "full-stream",
        "full-naive",
        None,
        (0.184, 0.23, 0.33),
    ),
    Ratio(
        "`recv_mmsg`, 64 a wake",
        SIX_LINES,
        "full-ours",
        "full-naive",
        None,
        (0.167, 0.208, 0.29),
    ),
    Ratio(
        "`recv_datagrams`, 64 a wake",
        SIX_LINES,
        "full-datagrams",
        "full-naive",
        None,
        (0.262, 0.32, 0.416),
    ),
    Ratio(
        "DNS server, a query a wake",
        f"{SIX_LINES} with `sendto`, same answering code",
        "dns-ours",
        "dns-naive",
        None,
        (0.395, 0.61, 1.37),
    ),
    Ratio(
        "one packet by `recv_mmsg_nowait`, read and released",
        "`recvfrom`",
        "recv-ours",
        "recv-recvfrom",
        (1.5,),
        (1.34,),
    ),
    Ratio(
        "one packet by `recv_datagrams_nowait`",
        "`recvfrom`",
        "recv-datagrams",
        "recv-recvfrom",
        None,
        (1.3,),
    ),
    Ratio(
        "one pair by `send_mmsg_nowait`",
        "`sendto`",
        "send-ours",
        "send-sendto",
        (1.3,),
        (1.2,),
    ),
    Ratio(
        "one pair by `send_mmsg`",
        "`sendto` and AnyIO's checkpoint",
        "answer-ours",
        "answer-sendto",
        None,
        (1.0, 1.0, 1.0),
    ),
)
