"""How long a receiver may sleep while it lingers for a fuller batch.

Waiting for the socket wakes the task for each packet, which costs more than the packet. Sleeping
first, and then taking what has come, wakes it once a slice. That needs to know how fast packets
come, since none may be lost meanwhile.
"""

from __future__ import annotations

import math
import socket

from .._system.memory import socket_memory

TIMER_RESOLUTION = 0.001
"""Seconds. The event loops wait with epoll_wait(2), which counts milliseconds and is given the
next whole one. No task sleeps for less, and a sleep may be this much too long."""

LONGEST_SLICE = 0.005
"""The most seconds that a full batch may be late. Arbitrary: 200 wakes a second cost next to
nothing, so a longer slice would save nothing."""


def check_linger(linger: float) -> None:
    """Raise TypeError or ValueError for a number of seconds that nobody can linger for."""
    if isinstance(linger, bool) or not isinstance(linger, (int, float)):
        raise TypeError(f"linger is a {type(linger).__name__}; give seconds")
    if not linger >= 0:
        raise ValueError(f"linger is {linger}; give seconds, 0 for not at all")


class Pace:
    """How fast packets came lately, and how long one may sleep at that rate.

    Args:
        linger: Seconds to linger for a batch.
        sock: The socket that is received from.

    Attributes:
        slice: Seconds to sleep at most: half of `linger`, at least `TIMER_RESOLUTION` and at most
            `LONGEST_SLICE`. With shorter slices the task wakes more often and saves less. No
            packet waits longer for it, since no sleep goes on past the end of `linger`.
    """

    def __init__(self, linger: float, sock: socket.socket) -> None:
        self.slice = min(max(linger / 2, TIMER_RESOLUTION), LONGEST_SLICE)
        self._room = _half_of_the_buffer(sock)
        # Per second. Unknown at first: infinitely fast, so that nobody sleeps until it is known.
        self._packets = self._bytes = math.inf

    def pause(self, missing: float) -> float:
        """Return how many seconds to sleep before the next read; 0 to wait for the socket.

        Nobody sleeps longer than it takes to fill the batch or half of the kernel's buffer.

        Args:
            missing: How many packets the batch has room for.
        """
        seconds = min(self.slice, missing / self._packets)
        # The other half of the buffer is for packets that come faster than they did.
        seconds = min(seconds, self._room / self._bytes - TIMER_RESOLUTION)
        return seconds if seconds >= TIMER_RESOLUTION else 0.0

    def saw_batch(self, sizes: list[int], seconds: float) -> None:
        """Note that packets of these sizes came in so much time."""
        self._packets, self._bytes = _rates(sizes, seconds)

    def saw_slice(self, sizes: list[int], seconds: float) -> None:
        """Note the same for a part of a batch: it counts if they came faster than the last."""
        packets, octets = _rates(sizes, seconds)
        self._packets, self._bytes = max(self._packets, packets), max(self._bytes, octets)


def _rates(sizes: list[int], seconds: float) -> tuple[float, float]:
    """Packets per second, and the bytes of the kernel's buffer that they take."""
    if seconds <= 0:
        return math.inf, math.inf
    return len(sizes) / seconds, _charge(len(sizes), sum(sizes)) / seconds


def _charge(packets: int, octets: int) -> int:
    """Bytes that Linux charges for packets of one size: some 2,300 for one of 1232.

    That is the power of 2 which the data and 400 bytes for headers and struct skb_shared_info fit
    into, and 256 for struct sk_buff.
    """
    return packets * (256 + (1 << (octets // packets + 399).bit_length()))


def _half_of_the_buffer(sock: socket.socket) -> float:
    """Bytes; 0 where a number of packets limits it instead: for AF_UNIX 10 by default."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return 0.0
    memory = socket_memory(sock)
    size = memory.size if memory else sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return size / 2
