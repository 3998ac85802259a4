"""One packet at a time, there and back: client and server each on a core of its own.

The client waits in the kernel for the echo. What is compared is the time, and what the server's
process used of the processor. On one shared core, the second table, the client's own waking is a
part of all figures, and who tries at once before waiting always wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.candidates.receiving_peers import SIX_LINES
from benchmarks.candidates.serving_peers import echoes, key
from benchmarks.result import Context, Figures, Result, Table, per_loop
from benchmarks.spec import WARM_NOTE, AnySpec
from benchmarks.stats import Summary

from . import trial

BUFFER = 2 * 2**20
ECHOES = 2_000  # a round and server
QUICK_ECHOES = 60
WARM_UP = 50  # before, uncounted
ROUNDS = 7
SHARED_ROUNDS = 3
PERCENTILES = {"p50, us": 0.5, "p99, us": 0.99}
CPU = "server's CPU, us"

ALL = echoes(
    "ours",
    "sendto",
    "plain",
    "served",
    "naive",
    "protocol",
    "aiofastnet",
    "sock",
    "anyio",
    "socket",
)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that `share` of them do not exceed."""
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def measure(
    context: Context, specs: Sequence[AnySpec], rounds: int, where: str, found: Figures
) -> None:
    """Send, wait, and count the time."""
    children = context.children
    echoes = QUICK_ECHOES if context.quick else ECHOES
    for turn in range(rounds):
        for spec in trial.rotated(specs, turn):
            server, count = children[spec.key], echoes + WARM_UP
            server.ask("serve")
            answer = children.load.ask("ping", children.port(spec.key), trial.PAYLOAD, count)
            cpu = server.ask("stop")["cpu"]
            ordered = sorted(answer["ns"][WARM_UP:])
            for label, share in PERCENTILES.items():
                value = percentile(ordered, share) / 1e3 if ordered else None
                found.add(value, spec.key, where, label)
            found.add(cpu * 1e6 / len(answer["ns"]) if ordered else None, spec.key, where, CPU)
        context.progress(turn + 1, rounds)


def run(context: Context) -> Result:
    """Measure on two cores, then on one."""
    children = context.children
    specs = children.start(ALL, BUFFER)
    found = Figures()
    result = Result("roundtrip", "Round trip, one packet at a time")
    result.left_out = children.left_out(ALL)
    if children.cores > 1:
        measure(context, specs, context.steps(ROUNDS), "two", found)
    else:
        result.left_out["it needs two cores"] = ["round trips on two cores"]
    children.share_core(True)
    measure(context, specs, context.steps(SHARED_ROUNDS), "one", found)
    children.share_core(False)
    for where, text in (("two", result.title), ("one", "Footnote: the same on one shared core")):
        table = Table(f"roundtrip-{where}", text, "", "lower", [*PERCENTILES, CPU])
        for spec in specs:
            table.add(
                spec, {label: found.summary(spec.key, where, label) for label in table.columns}
            )
        if table.rows:
            result.tables.append(table)

    def compared(kind: str, label: str) -> Callable[[str], Summary | None]:
        return lambda loop: found.ratio(
            (key("echo", kind, loop), "two", label), (key("echo", "naive", loop), "two", label)
        )

    for kind, text in (("ours", "answers by `send_mmsg`"), ("sendto", "answers by `sendto`")):
        for label in ("p50, us", CPU):
            result.goals += per_loop(
                f"round trip, two cores, {label.partition(',')[0]}, {text}",
                "wait, `recvfrom` and `sendto`",
                1.1,
                compared(kind, label),
            )
    result.notes = [
        f"{trial.PAYLOAD:,} bytes a packet; {SIX_LINES} with `sendto`. The server's CPU is the "
        "CPU time of its process per round trip.",
        WARM_NOTE,
    ]
    return result
