"""What is missing, by sequence numbers."""

from __future__ import annotations

from dataclasses import dataclass

SENDERS = 64  # are remembered: anybody can forge more


@dataclass
class _Seen:
    """The sequence numbers that came of one sender."""

    lowest: int
    highest: int
    came: int = 0

    @property
    def missing(self) -> int:
        """How many between the lowest and the highest did not come."""
        return max(0, self.highest - self.lowest + 1 - self.came)


class SequenceNumbers:
    """Counts the numbers that are missing, of each sender between the lowest and the highest.

    Their order does not matter. A number that comes twice hides one that is missing. Of many
    senders the first is forgotten, but not what was missing of it.
    """

    def __init__(self) -> None:
        self._senders: dict[int, _Seen] = {}
        self._missing_before = 0  # of senders that were forgotten

    def add(self, sender: int, number: int) -> None:
        """Note that this number of this sender came."""
        seen = self._senders.get(sender)
        if seen is None:
            if len(self._senders) == SENDERS:
                self._missing_before += self._senders.pop(next(iter(self._senders))).missing
            seen = self._senders[sender] = _Seen(number, number)
        seen.lowest, seen.highest = min(seen.lowest, number), max(seen.highest, number)
        seen.came += 1

    def missing(self) -> int:
        """Return how many are missing now."""
        return self._missing_before + sum(seen.missing for seen in self._senders.values())
