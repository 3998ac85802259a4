"""Control messages that say when a packet came: by the kernel's clock, and by the card's.

The kernel writes them before all others (`sock_recv_cmsgs`, net/socket.c), so the data that
differs from packet to packet comes before the data that is mostly the same. Numbers are Linux's
(asm-generic/socket.h); Python does not name them.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from operator import itemgetter
from typing import TypeAlias

Ancillary: TypeAlias = tuple[int, int, bytes]
"""Level, type and data of one control message, as `socket.recvmsg` gives it."""

# Each exists with 32-bit and with 64-bit seconds. SO_TIMESTAMP has microseconds. SO_TIMESTAMPING
# has three timestamps: the kernel's, an unused one, and the network card's.
SO_TIMESTAMP_OLD, SO_TIMESTAMP_NEW = 29, 63
SO_TIMESTAMPNS_OLD, SO_TIMESTAMPNS_NEW = 35, 64
SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW = 37, 65
TIMESTAMPING_PKTINFO = 58  # of the card that stamped: its index, and the packet's length

_SCALES = {
    SO_TIMESTAMP_OLD: 1000,
    SO_TIMESTAMP_NEW: 1000,
    SO_TIMESTAMPNS_OLD: 1,
    SO_TIMESTAMPNS_NEW: 1,
}
_THREE = (SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW)
_STAMPS = {*_SCALES, *_THREE, TIMESTAMPING_PKTINFO}
_SOFTWARE, _HARDWARE = 0, 2  # which of the three

_SOL_SOCKET = int(socket.SOL_SOCKET)
_first = itemgetter(0)
_TWO_INTS, _TWO_LONGS = struct.Struct("=ii"), struct.Struct("=qq")


def timestamp_of(message: Ancillary) -> int | None:
    """Return the timestamp in nanoseconds if that is what a control message is; else None.

    Seconds and a rest have 64 bits each, or 32 in the old form on 32-bit systems.
    """
    level, kind, data = message
    scale = _SCALES.get(kind) if level == _SOL_SOCKET else None
    if scale is not None:
        if len(data) == 16:
            seconds, rest = _TWO_LONGS.unpack(data)
            return int(seconds * 1_000_000_000 + rest * scale)
        if len(data) == 8:
            seconds, rest = _TWO_INTS.unpack(data)
            return int(seconds * 1_000_000_000 + rest * scale)
    return None


def _one_of_three(messages: Sequence[Ancillary], which: int) -> int | None:
    """Return the kernel's or the card's stamp of SO_TIMESTAMPING; zeros mean that it has none."""
    for _, kind, data in messages[: stamps_in(messages)]:
        if kind in _THREE and len(data) in (24, 48):
            two = _TWO_LONGS if len(data) == 48 else _TWO_INTS
            seconds, rest = two.unpack_from(data, which * two.size)
            return int(seconds * 1_000_000_000 + rest) if seconds or rest else None
    return None


def arrival_of(messages: Sequence[Ancillary]) -> int | None:
    """Return when the kernel took a packet in, in nanoseconds, if its control data says so."""
    for message in messages[: stamps_in(messages)]:
        stamp = timestamp_of(message)
        if stamp is not None:
            return stamp
    return _one_of_three(messages, _SOFTWARE)


def hardware_of(messages: Sequence[Ancillary]) -> int | None:
    """Return when the card took a packet in, in nanoseconds by its clock, if that is there."""
    return _one_of_three(messages, _HARDWARE)


def stamps_in(messages: Sequence[Ancillary]) -> int:
    """Return how many of the messages, from the first on, say when the packet came."""
    for count, (level, kind, _) in enumerate(messages):
        if level != _SOL_SOCKET or kind not in _STAMPS:
            return count
    return len(messages)


def arrivals_of(controls: Sequence[list[Ancillary]]) -> list[int | None]:
    """Return `arrival_of` each, all at once if they are alike."""
    if all(controls):
        levels, kinds, parts = zip(*map(_first, controls))  # noqa: B905
        data, count = b"".join(parts), len(controls)
        if (
            levels.count(_SOL_SOCKET) == kinds.count(SO_TIMESTAMPNS_NEW) == count
            and len(data) == 16 * count
        ):
            numbers = memoryview(data).cast("q").tolist()
            base, seconds = numbers[0] * 1_000_000_000, numbers[::2]
            if seconds.count(seconds[0]) == count:  # the usual case
                return [base + rest for rest in numbers[1::2]]
    return [arrival_of(messages) for messages in controls]
