"""Throughput as RFC 2544 section 26.1 defines it: the highest rate at which nothing is lost.

A sender in its own process sends at a set rate; a binary search finds the highest at which a
receiver's application gets every packet of a trial, data and address read. All have equal socket
buffers. A trial is far shorter than the RFC's 60 seconds; rounds are repeated instead. A trial
that lost little is made once more, so that a moment in which the system ran something else does
not count.
"""

from __future__ import annotations

from . import trial
from .receivers import ours_key
from .report import Bar, Context, Goal, Result, identity, name, number, spread
from .spec import LOOPS, AnySpec
from .stats import ratio, summarize

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
QUICK_ROUNDS = 1


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
    specs = children.available(trial.CHOSEN)
    granted = children.start(specs, BUFFER)
    highest = ceiling(context, specs[0])
    rounds = context.steps(ROUNDS, QUICK_ROUNDS)
    rates: dict[str, list[float | None]] = {spec.key: [] for spec in specs}
    lossy: dict[str, trial.Trial] = {}
    done = 0
    for _ in range(rounds):
        for spec in specs:
            found = Search(context, spec, highest)
            rates[spec.key].append(found.rate)
            if found.lossy:
                lossy[spec.key] = found.lossy
            done += 1
            context.progress(done, rounds * len(specs))

    result = Result("rate", "Highest rate without loss", "packets a second")
    result.notes = [
        f"{trial.PAYLOAD} bytes a packet, receive buffers of {granted:,} bytes (SO_RCVBUF). The "
        f"search goes up to {number(highest)} packets a second, about what the sender can do.",
        "Lost: of the packets sent in the last round's trial just above the highest rate.",
    ]
    rows = []
    for spec in specs:
        rate, loss = summarize(rates[spec.key]), lossy.get(spec.key)
        rows.append(
            [
                name(spec),
                spread(rate),
                f"{loss.sent:,}" if loss else "-",
                f"{loss.dropped:,}" if loss else "-",
                f"{loss.library:,}" if loss else "-",
            ]
        )
        result.rows.append(
            {
                **identity(spec),
                "rate": rate.as_json() if rate else None,
                "payload": trial.PAYLOAD,
                "ceiling": round(highest),
                "above": {
                    "sent": loss.sent,
                    "lost_in_kernel": loss.dropped,
                    "lost_in_library": loss.library,
                }
                if loss
                else None,
            }
        )
    header = ("receiver", "packets/s", "then sent", "lost in kernel", "lost in library")
    result.tables.append((result.title, header, rows))
    result.bars[f"{trial.PAYLOAD} bytes"] = [
        Bar(name(spec), spec.kind, summarize(rates[spec.key])) for spec in specs
    ]
    peers = [rates[spec.key] for spec in specs if spec.kind == "peer"]
    best = [max(value or 0.0 for value in turn) for turn in zip(*peers, strict=True)]
    result.goals = [
        Goal(
            f"loss-free rate to the best peer's of any loop: {loop}",
            ratio(rates.get(ours_key("recvmmsg", 64, loop)), best),
            1.0,
            at_most=False,
        )
        for loop in LOOPS
    ]
    return result
