"""Batches that are made once and used again: lent, closed, lent again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import anyio

from .._arguments import whole_number
from .._batch import NUM_RCVMMSGS, PACKET_DATA_SIZE, PacketBatch


def on_loss(batch: PacketBatch, count: Callable[[int], None] | None) -> None:
    """Have `count` called with the packets of a lent batch if it is lost: dropped and not closed.

    It is called in a finalizer, so anywhere and at any time.
    """
    batch._on_loss = count


@dataclass(frozen=True)
class PoolStatistics:
    """A `PacketBatchPool` at one moment.

    Attributes:
        size: Batches that there may be at the most.
        free: Those that can be had at once, made already or not.
        lent: Those that consumers have, or have lost for good (see `leaked`).
        leaked: How often a batch was dropped without being closed. It is taken back when Python
            collects it, unless that happens in another thread, or something still uses its memory.
        waiting: Tasks in `PacketBatchPool.acquire`.
    """

    size: int
    free: int
    lent: int
    leaked: int
    waiting: int


class LentBatch(PacketBatch):
    """A batch of a pool, which minds how it ends."""

    def __del__(self) -> None:
        give_back = vars(self).get("_give_back")
        if give_back is not None:  # it was neither idle, nor refused at its making
            cast("PacketBatchPool", give_back.__self__)._recover(self)


class PacketBatchPool:
    """A bounded number of `PacketBatch`es, each made when first needed, then used again.

    So there is a ceiling on memory: `size` * `capacity` * `slot_size` bytes of slots, and per
    slot some 800 bytes of Python objects and headers beside (`python -m benchmarks memory`).

    A batch that was acquired belongs to the consumer until it is closed, by ``with batch:`` or
    ``batch.close()``; then it goes back. Who still uses it after that gets a ValueError, also
    when its memory was lent again: that is another `PacketBatch` object. A pool and its batches
    belong to one event loop.

    Args:
        size: The most batches that there may be, at least 1.
        capacity: As for `PacketBatch`, of each.
        slot_size: As for `PacketBatch`, of each.
        engine: As for `PacketBatch`, of each.

    Raises:
        TypeError: As for `PacketBatch`.
        ValueError: `size` is below 1; otherwise as for `PacketBatch`.
    """

    def __init__(
        self,
        size: int = 8,
        capacity: int = NUM_RCVMMSGS,
        slot_size: int = PACKET_DATA_SIZE,
        engine: str = "auto",
    ) -> None:
        self._size = whole_number("size", size, 1, "give the number of batches, at least 1")
        self._capacity = capacity
        self._new = partial(LentBatch, capacity, slot_size, engine)
        self._idle = [self._new()]  # at once, so that bad arguments are told here
        self._leaked = 0
        self._semaphore: anyio.Semaphore | None = None
        self._thread = 0

    @property
    def size(self) -> int:
        """The most batches that there may be."""
        return self._size

    @property
    def capacity(self) -> int:
        """Slots of each batch."""
        return self._capacity

    @property
    def free(self) -> int:
        """Batches that can be had at once."""
        return self._available.value

    async def acquire(self) -> PacketBatch:
        """Return a free batch; wait until there is one. First come, first served.

        A checkpoint, always. If it is cancelled, no batch is taken.
        """
        await self._available.acquire()
        return self._lend()

    def acquire_nowait(self) -> PacketBatch:
        """Return a free batch.

        Raises:
            anyio.WouldBlock: There is none.
        """
        (self._semaphore or self._available).acquire_nowait()
        return self._lend()

    def statistics(self) -> PoolStatistics:
        """Return how many batches are where."""
        free = self.free
        waiting = self._available.statistics().tasks_waiting
        return PoolStatistics(self._size, free, self._size - free, self._leaked, waiting)

    @property
    def _available(self) -> anyio.Semaphore:
        if self._semaphore is None:  # made in the event loop, where it is a faster one
            self._semaphore = anyio.Semaphore(self._size, max_value=self._size)
            self._thread = threading.get_ident()
        return self._semaphore

    def _lend(self) -> PacketBatch:
        if self._idle:
            batch = self._idle.pop()
        else:
            try:
                batch = self._new()
            except MemoryError:
                self._available.release()
                raise
        batch._give_back = self._take_back
        return batch

    def _take_back(self, batch: LentBatch) -> None:
        batch._give_back = batch._on_loss = None  # which would keep the pool alive
        self._idle.append(batch)
        (self._semaphore or self._available).release()

    def _recover(self, batch: LentBatch) -> None:
        """Take back a batch that was dropped: from a finalizer, so anywhere and at any time."""
        self._leaked += 1
        if batch._on_loss is not None:
            batch._on_loss(len(batch))
        if threading.get_ident() == self._thread:
            with contextlib.suppress(BufferError):  # something still uses its memory
                batch.close()
