"""The ring of packets: no socket, no AnyIO.

`Packet` and `Slots` come from the compiled module if it is in use, otherwise from packet.py and
slots.py, which are the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._load import module, why_not_compiled
from .packet import Packet
from .slots import Slots

__all__ = ["Packet", "Slots", "compiled", "why_not_compiled"]

if not TYPE_CHECKING and module is not None:
    Packet, Slots = module.Packet, module.Slots

compiled: bool = not why_not_compiled
"""Whether the compiled module is in use."""
