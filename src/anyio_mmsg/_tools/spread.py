"""Times, as minimum, quantiles and maximum."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

PRECISION = 6  # bits that a Spread keeps of a time, after the first one: so 1/64, or 2 %


@dataclass
class Spread:
    """Minimum, quantiles and maximum of times in ns, in memory that does not grow with them."""

    counts: Counter[int] = field(default_factory=Counter)  # by the time, rounded down
    least: float = math.inf
    most: float = -math.inf

    def add(self, times: list[int]) -> None:
        """Count some times; they may be negative."""
        if times:
            shifts = [max(0, value.bit_length() - PRECISION - 1) for value in times]
            self.counts.update(value >> by << by for value, by in zip(times, shifts, strict=True))
            self.least, self.most = min(self.least, *times), max(self.most, *times)

    def merge(self, other: Spread) -> None:
        """Count what another one has counted."""
        self.counts.update(other.counts)
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def quantile(self, share: float) -> float:
        """Return a time that this share of the times does not exceed, but for the rounding."""
        missing = math.ceil(share * self.counts.total())
        for value in sorted(self.counts):
            missing -= self.counts[value]
            if missing <= 0:
                return max(self.least, value)
        return math.nan

    def figures(self) -> dict[str, float] | None:
        """Return minimum, p50, p99 and maximum, in ns; None if no time was counted."""
        if not self.counts:
            return None
        median, high = self.quantile(0.5), self.quantile(0.99)
        return {"min": self.least, "p50": median, "p99": high, "max": self.most}

    def texts(self) -> list[str]:
        """Return the same, to be shown."""
        figures = self.figures()
        return ["-"] * 4 if figures is None else list(map(text_of, figures.values()))


def text_of(nanoseconds: float) -> str:
    """Return a time in a unit that suits it."""
    for unit, size in (("days", 86400e9), ("s", 1e9), ("ms", 1e6)):
        if abs(nanoseconds) >= size:
            return f"{nanoseconds / size:,.2f} {unit}"
    return f"{nanoseconds / 1e3:.1f} us"
