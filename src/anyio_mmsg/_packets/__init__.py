"""The ring of packets: no socket, no AnyIO.

`Packet` and `Slots` come from the compiled module if it was built, otherwise from packet.py and
slots.py, which are the reference. ``ANYIO_MMSG_COMPILED=0`` in the environment
switches the compiled module off.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .packet import Packet
from .slots import Slots
from .trains import TrainSlots

__all__ = ["Packet", "Slots", "compiled", "make_slots", "why_not_compiled"]

why_not_compiled = ""
"""Why the plain Python path is in use; empty where the compiled one is."""

if not TYPE_CHECKING:
    if os.environ.get("ANYIO_MMSG_COMPILED") == "0":
        why_not_compiled = "ANYIO_MMSG_COMPILED=0 switches it off"
    else:
        try:
            from .._compiled import Packet, Slots
        except ImportError:
            why_not_compiled = (
                "it was not built: install anyio-mmsg where there is a C compiler and CPython's "
                "headers"
            )


def make_slots(
    memory: object,
    capacity: int,
    slot_size: int,
    engine: str = "auto",
    scribble: bool = False,
    ancillary: bool = False,
    gro: bool = False,
) -> Slots:
    """Return `Slots`, with `gro` a kind whose slots hold trains; see `Slots` for arguments."""
    if compiled:
        return Slots(memory, capacity, slot_size, engine, scribble, ancillary, gro)  # type: ignore[call-arg]
    kind = TrainSlots if gro else Slots
    return kind(memory, capacity, slot_size, engine, scribble, ancillary)


compiled: bool = not why_not_compiled
"""Whether the compiled module is in use."""
