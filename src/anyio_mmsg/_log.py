"""What an operator has to know, through `logging`. Nothing is logged per packet.

No handler is installed here: where the program has none either, Python prints warnings.
"""

from __future__ import annotations

import logging

SYSTEM = logging.getLogger("anyio_mmsg.system")
"""What the machine refuses, or grants less of than was asked for."""

RECEIVER = logging.getLogger("anyio_mmsg.receiver")
"""What keeps a receiver from handing out all packets, whole and in time."""
