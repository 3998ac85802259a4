"""The one record of what a send has done so far. The compiled twin is in _compiled/record.c."""

from __future__ import annotations

from typing import Any


class Record:
    """Counts what was sent, and has what was refused.

    `sent` derives from one state, which one store changes: a signal handler may raise between
    any two bytecodes, and the state is right all the same.

    Attributes:
        failures: A list of the packets that were refused.
    """

    __slots__ = ("_state",)

    # How many were sent; a list with an item for each that was sent since; the failures.
    _state: tuple[int, list[int], list[Any]]

    def __init__(self, sent: int = 0, failures: list[Any] | None = None) -> None:
        self._state = sent, [], [] if failures is None else failures

    @property
    def sent(self) -> int:
        """How many packets the system took."""
        before, taken, _ = self._state
        return before + len(taken)

    @property
    def failures(self) -> list[Any]:
        """Those that it refused, in order."""
        return self._state[2]

    def _restart(self) -> None:
        """Start again: nothing was sent."""
        self._state = 0, [], []

    def _watch(self, taken: list[int]) -> None:
        """Count the items of `taken` too, now and whenever one is added."""
        before, old, failures = self._state
        self._state = before + len(old), taken, failures
