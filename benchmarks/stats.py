"""Medians and quartiles of rounds, and ratios within the same round: all the statistics here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Summary:
    """The median of some rounds, and their spread: the first and the third quartile."""

    median: float
    low: float
    high: float
    rounds: int

    def as_json(self) -> dict[str, Any]:
        """Return the fields, rounded to four digits, which is beyond any precision here."""
        return {
            key: value if isinstance(value, int) else float(f"{value:.4g}")
            for key, value in asdict(self).items()
        }


def summarize(values: Sequence[float | None]) -> Summary | None:
    """Summarize the rounds that have a value; None if none has one."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    if len(known) == 1:
        return Summary(known[0], known[0], known[0], 1)
    low, median, high = statistics.quantiles(known, n=4, method="inclusive")
    return Summary(median, low, high, len(known))


def ratio(
    values: Sequence[float | None] | None, base: Sequence[float | None] | None
) -> Summary | None:
    """Summarize each round's value by the same round's base; None if no round has both."""
    if values is None or base is None:
        return None
    return summarize(
        [
            value / other
            for value, other in zip(values, base, strict=True)
            if value is not None and other
        ]
    )
