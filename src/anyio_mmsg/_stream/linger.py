"""Lingering for a fuller batch: how long a receiver may sleep meanwhile, and how it waits.

Waiting for the socket wakes the task for each packet, which costs more than the packet. Sleeping
first, and then taking what has come, wakes it once a slice. That needs to know how fast packets
come, since none may be lost meanwhile.
"""

from __future__ import annotations

import math
import socket
import time
from typing import Protocol

import anyio

from .._compat import checkpoint
from .._packets.batch import PacketBatch
from .._system.memory import socket_memory
from .port import Port, Prospect

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


class Fills(Protocol):
    """What fills batches. A receiver does."""

    _port: Port
    _outlook: Prospect
    _limit: int

    @property
    def stopped(self) -> bool: ...
    @property
    def closed(self) -> bool: ...

    def _read(self) -> int:
        """Read what there is into the batch that is being filled; return how many packets."""
        ...

    def _missing(self, batch: PacketBatch) -> int:
        """Return how many messages more a batch may have."""
        ...


class Linger:
    """How one receiver lingers.

    Args:
        seconds: For a batch.
        sock: The socket that is received from.
    """

    def __init__(self, seconds: float, sock: socket.socket) -> None:
        self._seconds = seconds
        self._pace = Pace(seconds, sock)
        self._since: float | None = None  # when it began for a batch, if that was cancelled
        self._scope: anyio.CancelScope | None = None  # that a task sleeps in

    def end(self) -> None:
        """Wake a task that lingers. In the event loop's thread."""
        if self._scope is not None:
            self._scope.cancel()

    async def fill_up(self, receiver: Fills, batch: PacketBatch) -> None:
        """Receive more, until the batch is full or the time is over, or after a call of `end`."""
        # Below `TIMER_RESOLUTION` nobody sleeps, and a test's clock, which only advances while
        # all tasks sleep, would stand still.
        clock = time.monotonic if self._seconds < TIMER_RESOLUTION else anyio.current_time
        began = self._since
        if began is None:
            began = self._since = clock()
        deadline = began + self._seconds
        try:
            if self._seconds < TIMER_RESOLUTION:
                while clock() < deadline and not receiver.stopped:
                    receiver._read()
                    if receiver._missing(batch) <= 0:
                        break
                    await checkpoint()
            else:
                try:
                    with anyio.CancelScope(deadline=deadline) as scope:
                        self._scope = scope
                        await self._fill_in_slices(receiver, batch, deadline)
                finally:
                    self._scope = None
                if scope.cancelled_caught and not receiver.closed:
                    receiver._read()  # what came in the last slice
                self._pace.saw_batch(batch.sizes(), anyio.current_time() - began)
        except OSError as error:
            receiver._port.defer_error(error)  # after packets: the next call's
        self._since = None

    async def _fill_in_slices(self, receiver: Fills, batch: PacketBatch, deadline: float) -> None:
        while (missing := receiver._missing(batch)) > 0 and not receiver.stopped:
            now = anyio.current_time()
            # If trains stay as long:
            packets = missing * len(batch) / (receiver._limit - missing)
            pause = min(self._pace.pause(packets), deadline - now)
            if pause > 0:
                await anyio.sleep(pause)
                if taken := receiver._read():
                    self._pace.saw_slice(batch.sizes()[-taken:], anyio.current_time() - now)
                    continue
            if receiver._outlook.more:
                await checkpoint()
                receiver._read()
            else:
                await receiver._port.wait()
