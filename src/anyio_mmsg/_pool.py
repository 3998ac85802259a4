"""Batches that are made once and used again: lent, closed, lent again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from weakref import ref

import anyio

from ._batch import NUM_RCVMMSGS, PACKET_DATA_SIZE, PacketBatch, whole_number


@dataclass(frozen=True)
class PoolStatistics:
    """A `PacketBatchPool` at one moment. Batches are either free, or lent, or leaked.

    Attributes:
        size: Batches that there may be at the most.
        free: Those that can be had at once, made already or not.
        lent: Those that consumers have.
        leaked: Those that were lent and dropped without being closed; they do not come back.
        waiting: Tasks in `PacketBatchPool.acquire`.
    """

    size: int
    free: int
    lent: int
    leaked: int
    waiting: int


class PacketBatchPool:
    """A bounded number of `PacketBatch`es, each made when first needed, then used again.

    So there is a ceiling on memory: `size` * `capacity` * `slot_size` bytes of slots, and per
    slot some hundred bytes of Python objects and headers beside (`benchmarks/` measures them).

    A batch that was acquired belongs to the consumer until it is closed, by ``with batch:`` or
    ``batch.close()``; then it goes back. Who still uses it after that gets a ValueError, also
    when its memory was lent again: that is another `PacketBatch` object.

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
        self._new = partial(PacketBatch, capacity, slot_size, engine)
        self._idle = [self._new()]  # at once, so that bad arguments are told here
        # By number, of batches that were made: weakly the one that is lent, if it is.
        self._lent: list[ref[PacketBatch] | None] = [None]
        self._semaphore: anyio.Semaphore | None = None

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
        leaked = sum(lent is not None and lent() is None for lent in self._lent)
        waiting = self._available.statistics().tasks_waiting
        return PoolStatistics(self._size, free, self._size - free - leaked, leaked, waiting)

    @property
    def _available(self) -> anyio.Semaphore:
        if self._semaphore is None:  # made in the event loop, where it is a faster one
            self._semaphore = anyio.Semaphore(self._size, max_value=self._size)
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
            batch._number = len(self._lent)
            self._lent.append(None)
        batch._give_back = self._take_back
        self._lent[batch._number] = ref(batch)
        return batch

    def _take_back(self, batch: PacketBatch) -> None:
        batch._give_back = None  # which would keep the pool alive
        self._lent[batch._number] = None
        self._idle.append(batch)
        (self._semaphore or self._available).release()
