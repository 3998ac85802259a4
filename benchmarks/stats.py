"""Medians and quartiles of rounds, and ratios within the same round: all the statistics here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Rounds = Sequence["float | None"]
"""A value for each round; None for a round in which it could not be measured."""


@dataclass(frozen=True)
class Summary:
    """The median of some rounds, and their spread: the first and the third quartile."""

    median: float
    low: float
    high: float

    def as_json(self) -> list[float]:
        """Return the three, rounded to four digits, which is beyond any precision here."""
        return [float(f"{value:.4g}") for value in (self.median, self.low, self.high)]

    @property
    def percent(self) -> float:
        """Half the distance of the quartiles, in percent of the median."""
        return (self.high - self.low) / 2 / self.median * 100 if self.median else 0.0


def summarize(values: Rounds | None) -> Summary | None:
    """Summarize the rounds that have a value; None if none has one."""
    known = [value for value in values or () if value is not None]
    if not known:
        return None
    if len(known) == 1:
        return Summary(known[0], known[0], known[0])
    low, median, high = statistics.quantiles(known, n=4, method="inclusive")
    return Summary(median, low, high)


def ratio(values: Rounds | None, base: Rounds | None) -> Summary | None:
    """Summarize each round's value by the same round's base; None if no round has both."""
    if values is None or base is None:
        return None
    pairs = zip(values, base, strict=True)
    return summarize([v / b for v, b in pairs if v is not None and b])


def difference(values: Rounds | None, base: Rounds | None) -> Summary | None:
    """Summarize each round's value less the same round's base; None if no round has both."""
    if values is None or base is None:
        return None
    pairs = zip(values, base, strict=True)
    return summarize([v - b for v, b in pairs if v is not None and b is not None])


def best(candidates: Sequence[Rounds], *, lowest: bool) -> list[float | None]:
    """Return each round's best value of several candidates."""
    choose = min if lowest else max
    return [
        choose((value for value in turn if value is not None), default=None)
        for turn in zip(*candidates, strict=True)
    ]
