"""Echo servers at rates far below what they bear: processor and latency.

A busy client sends evenly and takes what comes back, with a clock for each packet; the server has
a core of its own. Here there is little to batch, and the question is what a packet alone costs.
"""

from __future__ import annotations

from benchmarks.candidates.receiving_peers import SIX_LINES
from benchmarks.candidates.serving_peers import echoes, key
from benchmarks.result import Context, Figures, Goal, Result, Table
from benchmarks.spec import LOOPS, WARM_NOTE

from .roundtrip import percentile
from .trial import PAYLOAD, rotated

RATES = (1_000, 10_000, 100_000)
SECONDS = 0.3  # a visit
QUICK_SECONDS = 0.02
ROUNDS = 8
BUFFER = 8 * 2**20
CPU, P50, P99, LOST = "CPU, %", "p50, us", "p99, us", "lost, %"

ALL = echoes(
    "ours",
    "datagrams",
    "plain",
    "stream",
    "linger",
    "served",
    "naive",
    "protocol",
    "protocol-fresh",
    "aiofastnet",
    "qh3",
    "anyio",
    "socket",
)


def goals(found: Figures) -> list[Goal]:
    """Compare a `PacketReceiver` with what its loop has, which is nothing on Trio."""
    listed = []
    for label, text, rates, bounds in (
        (CPU, "CPU", RATES[:2], (0.95, 1.35, 1.1)),
        (P50, "p50", RATES[1:2], (1.1, 1.1, 1.1)),
    ):
        for rate in rates:
            for loop, bound in zip(LOOPS, bounds, strict=True):
                base = key("echo", "naive" if loop == "trio" else "protocol", loop)
                measured = found.ratio(
                    (key("echo", "stream", loop), rate, label), (base, rate, label)
                )
                what = f"echo at {rate:,}/s by `PacketReceiver`, {text}"
                to = f"`DatagramProtocol`; on Trio the {SIX_LINES}"
                listed.append(Goal(what, to, loop, bound, measured))
    return listed


def run(context: Context) -> Result:
    """Measure all servers at each rate."""
    children = context.children
    specs = children.start(ALL, BUFFER)
    rounds = context.steps(ROUNDS)
    found = Figures()
    for turn in range(rounds):
        for spec in rotated(specs, turn):
            for rate in RATES:
                server = children[spec.key]
                count = int(rate * (QUICK_SECONDS if context.quick else SECONDS))
                server.ask("serve")
                port = children.port(spec.key)
                answer = children.load.ask("pace", port, PAYLOAD, count, rate)
                served = server.ask("stop")
                ordered = sorted(answer["ns"])
                found.add(served["cpu"] / served["seconds"] * 100, spec.key, rate, CPU)
                for label, share in ((P50, 0.5), (P99, 0.99)):
                    value = percentile(ordered, share) / 1e3 if ordered else None
                    found.add(value, spec.key, rate, label)
                found.add(answer["lost"] / count * 100, spec.key, rate, LOST)
        context.progress(turn + 1, rounds)
    result = Result("lowrate", "Echo at low rates", left_out=children.left_out(ALL))
    for rate in RATES:
        title = f"Echo at {rate:,} packets a second"
        table = Table(f"lowrate-{rate}", title, "", "lower", [CPU, P50, P99, LOST])
        for spec in specs:
            table.add(
                spec, {label: found.summary(spec.key, rate, label) for label in table.columns}
            )
        result.tables.append(table)
    result.goals = goals(found)
    result.notes = [
        f"{PAYLOAD:,} bytes a packet. CPU is the server's, in percent of one core. On asyncio and "
        "uvloop, AnyIO's UDPSocket has a queue of 100 datagrams and drops the rest.",
        WARM_NOTE,
    ]
    return result
