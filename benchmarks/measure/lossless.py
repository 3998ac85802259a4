"""Throughput as RFC 2544 section 26.1 defines it: the highest rate at which nothing is lost.

A sender in its own process sends at a set rate; a binary search finds the highest at which a
receiver's application gets every packet of a trial, data and address read. All have equal socket
buffers. A trial is far shorter than the RFC's 60 seconds; rounds are repeated instead. A trial
that lost little is made once more, so that a moment in which the system ran something else does
not count.
"""

from __future__ import annotations

from benchmarks.candidates.receivers import ours_key
from benchmarks.result import Context, Result, Table, per_loop
from benchmarks.spec import AnySpec
from benchmarks.stats import best, ratio, summarize

from . import trial

BUFFER = 2 * 2**20
"""Bytes of receive buffer to ask for: with that, some 1,800 packets, a receiver outlives the
moments in which the system runs something else, and no trial fits into it as a whole."""

SECONDS = 0.15  # of sending, in a trial
QUICK_SECONDS = 0.02
LOWEST = 2_000.0  # packets a second; where a search begins, below any receiver here
RATIO = 1.08  # the search ends when its bounds are this near
QUICK_RATIO = 100.0
LITTLE = 0.1  # the share of packets up to which a loss is called little
SHORT = 0.97
"""A trial whose sender came to less than this share of the rate says nothing of that rate."""

ROUNDS = 3


class Search:
    """The highest rate that a receiver bears, in one round.

    Attributes:
        rate: Packets a second, as sent; 0 if even the lowest lost some.
        lossy: The trial at the lowest rate at which some were lost; None if none was.
    """

    def __init__(self, context: Context, spec: AnySpec, ceiling: float) -> None:
        self.context = context
        self.spec = spec
        self.rate = 0.0
        self.lossy: trial.Trial | None = None
        near = QUICK_RATIO if context.quick else RATIO
        low, high = LOWEST, ceiling
        if self._bears(ceiling):
            return
        while high / low > near:
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self._bears(middle) else (low, middle)
        if not self.rate:
            self._bears(low)

    def _bears(self, rate: float) -> bool:
        seconds = QUICK_SECONDS if self.context.quick else SECONDS
        count = max(64, int(rate * seconds))
        done = trial.run(self.context, self.spec, count, rate)
        if 0 < done.sent - done.received < LITTLE * done.sent:
            done = trial.run(self.context, self.spec, count, rate)
        if done.received == done.sent:
            self.rate = max(self.rate, done.sent / done.seconds)
            return True
        self.lossy = done
        return False


def ceiling(context: Context, spec: AnySpec) -> float:
    """Return what the sender can do at most, whoever receives."""
    count = 2_000 if context.quick else 100_000
    done = trial.run(context, spec, count, 0)
    return SHORT * done.sent / done.seconds


def run(context: Context) -> Result:
    """Search for each receiver, round after round."""
    children = context.children
    specs = children.start(trial.CHOSEN, BUFFER)
    highest = ceiling(context, specs[0])
    rounds = context.steps(ROUNDS)
    rates: dict[str, list[float | None]] = {spec.key: [] for spec in specs}
    lossy: dict[str, trial.Trial] = {}
    for turn in range(rounds):
        for number, spec in enumerate(trial.rotated(specs, turn), 1):
            found = Search(context, spec, highest)
            rates[spec.key].append(found.rate)
            if found.lossy:
                lossy[spec.key] = found.lossy
            context.progress(turn * len(specs) + number, rounds * len(specs))

    result = Result(
        "lossless", "Highest rate without loss", left_out=children.left_out(trial.CHOSEN)
    )
    table = Table("lossless", result.title, "packets a second", "higher", ["packets/s"])
    for spec in specs:
        table.add(spec, {"packets/s": summarize(rates[spec.key])})
    result.tables.append(table)
    result.notes = [
        f"{trial.PAYLOAD:,} bytes a packet, receive buffers of {children.granted:,} bytes "
        f"(SO_RCVBUF). The sender reaches {highest:,.0f} packets a second, which is the highest "
        "rate that was tried.",
    ]
    for label, losses in (
        ("the kernel, since the buffer was full", {k: t.dropped for k, t in lossy.items()}),
        ("the library", {k: t.library for k, t in lossy.items()}),
    ):
        names = [f"{s.label}, {s.loop}" for s in specs if losses.get(s.key)]
        if names:
            result.notes.append(f"Just above that rate, lost by {label}: {'; '.join(names)}.")
    fastest = best([rates[spec.key] for spec in specs if spec.kind == "peer"], lowest=False)
    result.goals = per_loop(
        "loss-free rate",
        "best peer on any loop, the six lines included",
        1.2,
        lambda loop: ratio(rates.get(ours_key(64, loop)), fastest),
        at_most=False,
    )
    return result
