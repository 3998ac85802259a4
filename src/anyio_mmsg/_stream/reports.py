"""What a receiver reports to the operator, once each, through `logging`."""

from __future__ import annotations

import socket

from .._log import RECEIVER
from .._packets import Slots
from .._packets.packet import UNKNOWN_WIRE_SIZE


def report_cut(sock: socket.socket, slots: Slots) -> None:
    """Report that the receiver of a socket has cut a packet, the longest that is in `slots`."""
    size = max(slots.wire_sizes())
    known = size < UNKNOWN_WIRE_SIZE
    RECEIVER.warning(
        "the receiver at %r has cut a packet%s to the %s bytes of a slot, and its end is lost. "
        "Give the receiver longer slots: PacketBatchPool(slot_size=%s). "
        "ReceiverStatistics.truncated counts such packets; this is reported once",
        sock.getsockname(),
        f" of {size:,} bytes" if known else "",
        f"{slots.slot_size:,}",
        size if known else "...",
    )
