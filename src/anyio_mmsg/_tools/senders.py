"""The most frequent senders, in a table of bounded size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class TopSenders:
    """Counts of the most frequent senders, in a table that does not grow with their number.

    The algorithm of Misra and Gries (1982), as Agarwal et al. merge such tables ("Mergeable
    summaries", 2012): when a table is twice as long as it should be, the count of the first
    sender that has to go is subtracted from all counts. So each count is at most `too_low` below
    the truth and never above it, and a sender of more than one packet in `limit` + 1 is in the
    table.
    """

    limit: int
    counts: Counter[str] = field(default_factory=Counter)
    too_low: int = 0

    def add(self, senders: list[str]) -> None:
        """Count a batch's senders."""
        self.counts.update(senders)
        if len(self.counts) > 2 * self.limit:
            cut = self.counts.most_common(self.limit + 1)[-1][1]
            self.counts = Counter({who: n - cut for who, n in self.counts.items() if n > cut})
            self.too_low += cut
