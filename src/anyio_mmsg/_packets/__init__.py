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

__all__ = ["Packet", "Slots", "compiled", "why_not_compiled"]

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

compiled: bool = not why_not_compiled
"""Whether the compiled module is in use."""
