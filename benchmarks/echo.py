"""An echo server under load, end to end: packets a second that come back.

The load, in a process of its own and on a core of its own, keeps a window of packets on their way
there and back: it sends a burst for each that returned. It is the same for all, and costs less
than any server: its bursts are one call each, and it takes what came back by `recv_mmsg_nowait`.
What a server's process used of its core is told, as it says what the limit was.
"""

from __future__ import annotations

from collections import defaultdict

from .report import Bar, Context, Result, identity, name, spread, times
from .sender import STALL
from .servers import ECHO
from .spec import LUCKY_NOTE, AnySpec
from .stats import Summary, ratio, summarize
from .trial import PAYLOAD, rotated

WINDOWS = (64, 512)
"""Packets on their way: fewer than the 100 that AnyIO's queue holds, and many."""

BUFFER = 8 * 2**20  # bytes to ask for; nothing is lost in the kernel
SECONDS = 0.4  # a visit
QUICK_SECONDS = 0.03
ROUNDS = 7  # and one more before, uncounted
QUICK_ROUNDS = 1


class Measurements:
    """What was found by server and window, round by round."""

    def __init__(self) -> None:
        self.rates: defaultdict[tuple[str, int], list[float | None]] = defaultdict(list)
        self.busy: defaultdict[tuple[str, int], list[float | None]] = defaultdict(list)
        self.lost: defaultdict[tuple[str, int], int] = defaultdict(int)

    def visit(self, context: Context, spec: AnySpec, window: int) -> None:
        """Have a server serve for a while."""
        children = context.children
        server, cell = children[spec.key], (spec.key, window)
        server.ask("serve")
        seconds = QUICK_SECONDS if context.quick else SECONDS
        flood = children.sender.ask("flood", children.port(spec.key), PAYLOAD, window, seconds)
        served = server.ask("stop")
        self.rates[cell].append(flood["echoed"] / flood["seconds"])
        self.busy[cell].append(min(1.0, served["cpu"] / flood["seconds"]))
        self.lost[cell] += flood["lost"]

    def to_anyio(self, spec: AnySpec, window: int) -> Summary | None:
        """Compare with AnyIO's sockets on the same loop, round by round."""
        base = self.rates.get((f"echo-anyio-{spec.loop}", window))
        return ratio(self.rates.get((spec.key, window)), base)


def run(context: Context) -> Result:
    """Measure all servers, round after round."""
    children = context.children
    specs = children.available(ECHO)
    granted = children.start(specs, BUFFER)
    rounds = context.steps(ROUNDS, QUICK_ROUNDS)
    found = Measurements()
    for turn in range(rounds + 1):
        if turn == 1:
            found = Measurements()
        for spec in rotated(specs, turn):
            for window in WINDOWS:
                found.visit(context, spec, window)
        context.progress(turn + 1, rounds + 1)
    return report(specs, found, granted)


def report(specs: list[AnySpec], found: Measurements, granted: int) -> Result:
    """Make tables and rows of it."""
    result = Result("echo", "Echo server under load", "packets a second")
    result.notes = [
        f"{PAYLOAD} bytes a packet, receive buffers of {granted:,} bytes (SO_RCVBUF); as many "
        "packets on their way as the window says.",
        "Busy: what the server's process used of its core. x: the median of each round's ratio "
        "to AnyIO's UDPSocket on the same loop.",
        "Lost packets are those that did not come back; until that is known the window is closed, "
        f"which takes {STALL * 1e3:.0f} ms. AnyIO's UDPSocket has a queue of 100 datagrams on "
        "asyncio and uvloop, and drops the rest.",
        "The plain loop gives no other task a turn while there are packets.",
        LUCKY_NOTE,
    ]
    header = ["server"]
    for window in WINDOWS:
        header += [f"window {window}, packets/s", "x", "busy", "lost"]
    rows = []
    for spec in specs:
        row = [name(spec)]
        for window in WINDOWS:
            cell = (spec.key, window)
            rate, busy = summarize(found.rates[cell]), summarize(found.busy[cell])
            to_anyio = found.to_anyio(spec, window)
            assert rate is not None
            assert busy is not None
            row += [spread(rate), times(to_anyio), f"{busy.median:.0%}", f"{found.lost[cell]:,}"]
            result.rows.append(
                {
                    **identity(spec, "server"),
                    "payload": PAYLOAD,
                    "window": window,
                    "rate": rate.as_json(),
                    "to_anyio": to_anyio.as_json() if to_anyio else None,
                    "busy": busy.as_json(),
                    "lost": found.lost[cell],
                }
            )
        rows.append(row)
    result.tables.append((f"{result.title}, {PAYLOAD} bytes", header, rows))
    for window in WINDOWS:
        result.bars[f"window {window}"] = [
            Bar(name(spec), spec.kind, summarize(found.rates[spec.key, window])) for spec in specs
        ]
    return result
