"""One packet at a time, there and back: the echo is the receiver's, the clock the sender's.

Both processes share a core. With a core each, most of the time would be the waking of an idle
one, the same for all, and in a virtual machine many times what the receivers differ by.
"""

from __future__ import annotations

import statistics

from . import trial
from .receivers import ours_key
from .report import Bar, Context, Goal, Result, identity, name, spread
from .spec import LOOPS
from .stats import Summary, ratio, summarize

BUFFER = 2 * 2**20
ECHOES = 2_000  # a round and receiver: p99.9 is then the second slowest
QUICK_ECHOES = 100
WARM_UP = 50  # before, uncounted
ROUNDS = 7
QUICK_ROUNDS = 1
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
SECONDS = 20.0  # until a receiver gives up to wait for more


def percentile(ordered: list[int], share: float) -> float:
    """Return the value that `share` of them do not exceed."""
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def run(context: Context) -> Result:
    """Send, wait, and count the time."""
    children = context.children
    specs = children.available(trial.CHOSEN)
    children.start(specs, BUFFER)
    children.share_core(True)
    rounds = context.steps(ROUNDS, QUICK_ROUNDS)
    echoes = QUICK_ECHOES if context.quick else ECHOES
    found: dict[tuple[str, str], list[float | None]] = {}
    lost = dict.fromkeys((spec.key for spec in specs), 0)
    done = 0
    for _ in range(rounds):
        for spec in specs:
            count = echoes + WARM_UP
            children[spec.key].ask("receive", count, SECONDS, "echo")
            answer = children.sender.ask("ping", children.port(spec.key), trial.PAYLOAD, count)
            children[spec.key].hear()
            lost[spec.key] += answer["lost"]
            ordered = sorted(answer["ns"][WARM_UP:])
            for label, share in PERCENTILES.items():
                value = percentile(ordered, share) / 1_000 if ordered else None
                found.setdefault((spec.key, label), []).append(value)
            done += 1
            context.progress(done, rounds * len(specs))
    children.share_core(False)

    result = Result("roundtrip", "Round trip, one packet at a time", "microseconds")
    result.notes.append(
        "The reply is the same plain nonblocking sendto for every receiver, so that what differs "
        "is the receiving alone. Both processes share a core."
    )
    rows = []
    for spec in specs:
        summaries = {label: summarize(found[spec.key, label]) for label in PERCENTILES}
        rows.append([name(spec), *map(spread, summaries.values())])
        result.rows.append(
            {
                **identity(spec),
                "payload": trial.PAYLOAD,
                "lost": lost[spec.key],
                "microseconds": {
                    label: summary.as_json() if summary else None
                    for label, summary in summaries.items()
                },
            }
        )
    header = ["receiver", *PERCENTILES]
    result.tables.append((f"{result.title}, microseconds", header, rows))
    for label in ("p50", "p99"):
        result.bars[label] = [
            Bar(name(spec), spec.kind, summarize(found[spec.key, label])) for spec in specs
        ]

    def median(key: str) -> float:
        return statistics.median(value for value in found[key, "p50"] if value is not None)

    for loop in LOOPS:
        peers = [
            spec.key for spec in specs if spec.kind == "peer" and spec.loop == loop and spec.awaits
        ]
        measured: Summary | None = None
        text = f"round trip p50 to the fastest peer that awaits: {loop}"
        ours = found.get((ours_key("recvmmsg", 64, loop), "p50"))
        if ours and peers:
            fastest = min(peers, key=median)
            measured = ratio(ours, found[fastest, "p50"])
            text += f" ({fastest})"
        result.goals.append(Goal(text, measured, 1.0))
    return result
