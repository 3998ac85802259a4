"""An echo server under load, end to end: packets a second that come back.

The load, in a process of its own and on a core of its own, keeps a window of packets on their way
there and back: it sends a burst for each that returned. It is the same for all, and costs less
than any server: its bursts are one call each, and it takes what came back by `recv_mmsg_nowait`.
The table has the share of its core that a server used, which shows what the limit was.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.candidates.receiving_peers import SIX_LINES
from benchmarks.candidates.serving_peers import echoes, key
from benchmarks.result import Context, Figures, Result, Table, per_loop
from benchmarks.spec import WARM_NOTE, AnySpec
from benchmarks.stats import Summary
from benchmarks.workers.load import STALL

from .trial import PAYLOAD, rotated

WINDOWS = (64, 512)
"""Packets on their way: fewer than the 100 that AnyIO's queue holds, and many."""

BUFFER = 8 * 2**20  # bytes to ask for; nothing is lost in the kernel
SECONDS = 0.4  # a visit
QUICK_SECONDS = 0.02
ROUNDS = 4  # and one more before, uncounted
RATE, BUSY, LOST = "packets/s", "server's CPU, %", "lost, %"

ALL = echoes(
    "ours",
    "gso",
    "plain",
    "served",
    "naive",
    "naive64",
    "protocol",
    "protocol-fresh",
    "aiofastnet",
    "qh3",
    "sock",
    "anyio",
    "socket",
)


def visit(context: Context, spec: AnySpec, window: int, found: Figures) -> None:
    """Have a server serve for a while."""
    children = context.children
    server = children[spec.key]
    server.ask("serve")
    seconds = QUICK_SECONDS if context.quick else SECONDS
    flood = children.load.ask("flood", children.port(spec.key), PAYLOAD, window, seconds)
    served = server.ask("stop")
    found.add(flood["echoed"] / flood["seconds"], spec.key, window, RATE)
    found.add(min(1.0, served["cpu"] / flood["seconds"]) * 100, spec.key, window, BUSY)
    sent = flood["echoed"] + flood["lost"]
    found.add(flood["lost"] / sent * 100 if sent else None, spec.key, window, LOST)


def run(context: Context) -> Result:
    """Measure all servers, round after round."""
    children = context.children
    specs = children.start(ALL, BUFFER)
    rounds = context.steps(ROUNDS)
    found = Figures()
    for turn in context.turns(rounds):
        if turn == 1:
            found = Figures()
        for spec in rotated(specs, turn):
            for window in WINDOWS:
                visit(context, spec, window, found)
        context.progress(turn + 1, rounds + 1)

    result = Result("echo", "Echo server under load", left_out=children.left_out(ALL))
    for window in WINDOWS:
        title = f"{result.title}, {window} on their way"
        table = Table(f"echo-{window}", title, "", "higher", [RATE, BUSY, LOST])
        for spec in specs:
            cells = {label: found.summary(spec.key, window, label) for label in table.columns}
            table.add(spec, cells)
        result.tables.append(table)

    def compared(kind: str) -> Callable[[str], Summary | None]:
        return lambda loop: found.ratio(
            (key("echo", kind, loop), 512, RATE), (key("echo", "naive", loop), 512, RATE)
        )

    for kind, text, bound in (("ours", "", 1.25), ("gso", " with `gso=True`", 1.8)):
        result.goals += per_loop(
            f"echo, window 512{text}",
            f"{SIX_LINES} with `sendto`",
            bound,
            compared(kind),
            at_most=False,
        )
    result.notes = [
        f"{PAYLOAD:,} bytes a packet, receive buffers of {children.granted:,} bytes (SO_RCVBUF). "
        "The client sends a packet for each that came back.",
        f"A packet that does not come back counts as lost after {STALL * 1e3:.0f} ms. On asyncio "
        "and uvloop, AnyIO's UDPSocket has a queue of 100 datagrams and drops the rest.",
        f"The {SIX_LINES} gives no other task a turn while there are packets.",
        WARM_NOTE,
    ]
    return result
