"""What a receiver reports to the operator, once each, through `logging`."""

from __future__ import annotations

import socket
import sys
from collections import Counter

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


def report_waiting(receiver: str, size: int, holders: Counter[str]) -> None:
    """Report that a receiver has waited long for a batch of its pool.

    Args:
        receiver: Which one.
        size: How many batches the pool has.
        holders: Who has got them, and how many each.
    """
    places = "`python -X dev` shows where they were received"
    if sys.flags.dev_mode:
        each = [f"{place} ({count})" for place, count in holders.most_common()]
        places = f"They were received at {', '.join(each)}"
    RECEIVER.warning(
        "%s waits for a batch: consumers have all %d of its pool, so packets queue in the kernel, "
        "where room ends. Give each batch back, by `with batch:`; if consumers need them for "
        "long, give the receiver more: PacketBatchPool(size=...). %s. This is reported once",
        receiver,
        size,
        places,
    )
