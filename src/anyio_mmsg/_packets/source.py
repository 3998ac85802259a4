"""`Source`: what slots ask their engine."""

from __future__ import annotations

from typing import Protocol

from .packet import Address, Control


class Source(Protocol):
    """Knows who sent the packets in slots: the engine that filled them."""

    def addresses(self, first: int, count: int) -> list[Address]:
        """Return the senders of the packets in `count` slots from `first` on."""
        ...

    def timestamp(self, slot: int) -> int | None:
        """Return the timestamp of the packet in a slot, in nanoseconds, if it has one.

        Raises:
            ValueError: The batch keeps no control data, or it was cut.
        """
        ...

    def timestamps(self, first: int, count: int) -> list[int | None]:
        """Return `timestamp` of `count` slots from `first` on; errors likewise."""
        ...

    def control(self, slot: int) -> Control:
        """Return what else the control data of the packet in a slot says.

        Raises:
            ValueError: As for `timestamp`.
        """
        ...
