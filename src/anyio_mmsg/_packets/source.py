"""`Source`: what slots ask their engine."""

from __future__ import annotations

from typing import Protocol

from .packet import Address, Control


class Source(Protocol):
    """Knows who sent the packets in slots: the engine that filled them."""

    def addresses(self, first: int, count: int) -> list[Address]:
        """Return the senders of the packets in `count` slots from `first` on."""
        ...

    def control(self, slot: int) -> Control | None:
        """Return the `Control` of the packet in a slot, or None if it keeps none.

        Raises:
            ValueError: The control data was cut.
        """
        ...
