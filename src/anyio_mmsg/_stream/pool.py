"""Batches that are made once and used again: lent, closed, lent again.

The pool keeps `Slots`, and makes a thin `PacketBatch` for each loan. Which slots are lent is said
by one dictionary alone, from a place in the pool to the loan. Its changes are single steps in C
(`setdefault`, `pop`), so that an interrupt, a finalizer or another thread never sees half a step.
A loan is over when its batch was closed, or is dead: that much is known even if an interrupt has
kept a finalizer from its work.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast
from weakref import ref

import anyio

from .._arguments import whole_number
from .._compat import RunSoon, checkpoint, run_soon
from .._packets import Slots
from .._packets.batch import NUM_RCVMMSGS, PACKET_DATA_SIZE, PacketBatch, new_slots


@dataclass(frozen=True)
class PoolStatistics:
    """A `PacketBatchPool` at one moment.

    Attributes:
        size: Batches that there may be at the most.
        free: Those that `PacketBatchPool.acquire_nowait` can return, made already or not.
        lent: Those that consumers have, or have lost and Python or something that uses their
            memory still holds.
        leaked: How often a batch was dropped without being closed. The pool takes it back when
            Python collects it, or later, when nothing uses its memory any longer.
        waiting: Tasks in `PacketBatchPool.acquire`.
    """

    size: int
    free: int
    lent: int
    leaked: int
    waiting: int


class _Loan:
    """What ends the loan of a batch.

    Attributes:
        place: Where in the pool its slots are.
        batch: The batch, as long as it lives.
        begun: Whether the batch has its slots, so that it is over once it is closed.
        lost: Whether the batch was dropped without being closed.
        on_loss: Called with the number of packets in the batch if it is lost.
    """

    __slots__ = ("_pool", "batch", "begun", "lost", "on_loss", "place")

    def __init__(self, pool: ref[PacketBatchPool], place: int, batch: PacketBatch) -> None:
        self._pool = pool  # weakly, since the pool has its loans
        self.place = place
        self.batch = ref(batch)
        self.begun = self.lost = False
        self.on_loss: Callable[[int], object] | None = None

    def end(self, slots: Slots) -> None:
        """See `anyio_mmsg._packets.batch.Lease`."""
        pool = self._pool()
        if pool is not None:
            pool._end(self)

    def lose(self, slots: Slots | None) -> None:
        """Have the pool take back slots that nobody can close any longer; None for none."""
        pool = self._pool()
        if pool is not None:
            pool._lose(self, slots)


class _LentBatch(PacketBatch):
    """A batch of a pool, which notices how it ends."""

    _lease: _Loan | None

    def __del__(self) -> None:
        if self._lease is not None:
            self._lease.lose(None if self.closed else self._slots)


def on_loss(batch: PacketBatch, count: Callable[[int], object] | None) -> None:
    """Have `count` called with the packets of a lent batch if it is lost: dropped and not closed.

    It is called in a finalizer, so anywhere and at any time.
    """
    cast(_Loan, batch._lease).on_loss = count


class _Waiter:
    """A task in `PacketBatchPool.acquire`. It lives no longer than the call."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.batch: PacketBatch | None = None


class PacketBatchPool:
    """A bounded number of `PacketBatch`es, each made when first needed, then used again.

    So memory is bounded: `size` * `capacity` * `slot_size` bytes of slots, and per
    slot some 800 bytes of Python objects and headers beside (``python -m benchmarks memory``).

    A batch that was acquired belongs to the consumer until it is closed, by ``with batch:`` or
    ``batch.close()``; then it goes back. Using it after that raises ValueError, also when its
    memory was lent again: that is another `PacketBatch` object. A pool belongs to one event loop.
    Its batches may be handed to another thread, and closed there; `statistics` may be asked from
    there too.

    Args:
        size: The most batches that there may be, at least 1.
        capacity: As for `PacketBatch`, of each.
        slot_size: As for `PacketBatch`, of each.
        engine: As for `PacketBatch`, of each.
        gro: As for `PacketBatch`, of each: for a socket that was opened with ``gro=True``. The
            slots then have 65,535 bytes, which take up memory only as far as they were used.
        ancillary: As for `PacketBatch`, of each: with room for control data.

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
        gro: bool = False,
        ancillary: bool = False,
    ) -> None:
        self._size = whole_number("size", size, 1, "give the number of batches, at least 1")
        self._new = partial(new_slots, capacity, slot_size, engine, gro, ancillary)
        # By place, each made by the first loan of it; one at once, which checks the arguments.
        self._slots: dict[int, Slots] = {0: self._new()}
        self._capacity = self._slots[0].capacity
        self._lent: dict[int, _Loan] = {}  # by place
        self._some_are_lost = False  # perhaps
        self._leaked: Counter[str] = Counter()
        self._waiters: deque[ref[_Waiter]] = deque()
        self._run_soon: RunSoon | None = None
        self._thread = threading.get_ident()  # of the event loop
        self._self: ref[PacketBatchPool] = ref(self)

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
        """How many batches `acquire_nowait` can return now."""
        if self._lent:  # perhaps by loans that are over
            self._take_back_the_lost()
        return self._size - len(self._lent)

    def __repr__(self) -> str:
        try:  # changes nothing, so that any thread may ask; `free` takes back what was lost
            return (
                f"<PacketBatchPool size={self._size} capacity={self._capacity} "
                f"lent={len(self._lent)} waiting={self._count_waiters()}>"
            )
        except AttributeError:
            return "<PacketBatchPool, not made yet>"

    async def acquire(self) -> PacketBatch:
        """Return a free batch; wait until there is one. First come, first served.

        A checkpoint, always. If it is cancelled, no batch is taken.

        Raises:
            RuntimeError: Tasks of an event loop in another thread wait for a batch.
        """
        await checkpoint()
        thread = threading.get_ident()
        if thread != self._thread:
            self._move_in(thread)
        batch = None if self._waiters else self._lend()
        if batch is not None:
            return batch
        waiter = _Waiter()
        place_in_line = ref(waiter)
        self._run_soon = run_soon()
        try:
            self._waiters.append(place_in_line)
            self._serve()  # a batch may have come back before anybody could know of us
            await waiter.event.wait()
        except BaseException:
            granted, waiter.batch = waiter.batch, None
            if granted is not None:
                granted.close()
            raise
        finally:
            self._leave(place_in_line)
        return cast(PacketBatch, waiter.batch)

    def _move_in(self, thread: int) -> None:
        """Serve the event loop of another thread from now on, if nobody waits in the last one."""
        if self._count_waiters():
            raise RuntimeError(
                "tasks in another thread wait for a batch of this pool; make a pool for each "
                "event loop"
            )
        self._thread = thread

    def _count_waiters(self) -> int:
        """Return how many tasks wait; an interrupt may have kept others from leaving the line."""
        return sum([place_in_line() is not None for place_in_line in tuple(self._waiters)])

    def _leave(self, place_in_line: ref[_Waiter]) -> None:
        if place_in_line in self._waiters:
            self._waiters.remove(place_in_line)

    def acquire_nowait(self) -> PacketBatch:
        """Return a free batch.

        Raises:
            anyio.WouldBlock: None is free, or those that are free go to tasks that wait.
        """
        if self._waiters:
            self._serve()
        batch = self._lend()
        if batch is None:
            raise anyio.WouldBlock
        return batch

    def statistics(self) -> PoolStatistics:
        """Return how many batches are where."""
        free = self.free
        leaked, waiting = self._leaked["batches"], self._count_waiters()
        return PoolStatistics(self._size, free, self._size - free, leaked, waiting)

    def _lend(self) -> PacketBatch | None:
        lent = self._lent
        if (self._some_are_lost or len(lent) >= self._size) and not self.free:
            return None
        for place in range(self._size):
            if place not in lent:
                batch = _LentBatch.__new__(_LentBatch)
                batch._lease = loan = _Loan(self._self, place, batch)
                # From here on the batch ends the loan, whatever becomes of this call.
                if lent.setdefault(place, loan) is loan:
                    try:
                        slots = self._slots_at(place)
                        if slots.held:  # read while another thread closed their last batch
                            slots.take_back(None)
                        batch._slots = slots
                    except MemoryError:
                        self._end(loan)
                        raise
                    loan.begun = True
                    return batch
        return None

    def _slots_at(self, place: int) -> Slots:
        slots = self._slots.get(place)
        if slots is None:
            slots = self._slots[place] = self._new()
        return slots

    def _serve(self) -> None:
        """Give free batches to tasks that wait, in their order. In the event loop's thread."""
        try:
            for place_in_line in tuple(self._waiters):
                waiter = place_in_line()
                if waiter is None:  # an interrupt kept it from leaving
                    self._leave(place_in_line)
                    continue
                if waiter.batch is None:
                    waiter.batch = self._lend()
                    if waiter.batch is None:
                        return
                waiter.event.set()
        except BaseException:
            self._wake()  # the tasks that were not reached
            raise

    # The ends of a loan: in any thread, in a finalizer, at any time

    def _end(self, loan: _Loan) -> None:
        if self._lent.get(loan.place) is loan:
            self._lent.pop(loan.place)
        self._wake()

    def _lose(self, loan: _Loan, slots: Slots | None) -> None:
        """Count what was lost. The slots are taken back in the event loop's thread."""
        if self._lent.get(loan.place) is not loan or loan.lost:
            return
        packets = 0
        if slots is not None:
            if slots.record is not None:  # of an interrupted receive
                slots.source.settle(slots)
            packets = slots.held
        loan.lost = self._some_are_lost = True
        if slots is not None:  # else an interrupt came between the end of a batch and of its loan
            self._leaked.update(("batches",))
            if loan.on_loss is not None:
                loan.on_loss(packets)
        self._wake()

    def _wake(self) -> None:
        """Have the event loop serve the tasks that wait."""
        if self._waiters and self._run_soon is not None:
            self._run_soon(self._serve)

    def _take_back_the_lost(self) -> None:
        if threading.get_ident() != self._thread:  # where nothing else does it meanwhile
            return
        self._some_are_lost = False
        for loan in tuple(self._lent.values()):
            if loan.lost or self._is_over(loan):
                slots = self._slots.get(loan.place)
                try:
                    if slots is not None:
                        slots.take_back(None)
                except BufferError:  # something still uses its memory; it is tried again
                    self._some_are_lost = True
                else:
                    self._lent.pop(loan.place, None)

    def _is_over(self, loan: _Loan) -> bool:
        """Whether an interrupt has kept the end of a loan from what it had to do."""
        # No variable has the batch: a frame that is interrupted here would keep it.
        if loan.batch() is None:
            self._lose(loan, self._slots.get(loan.place))
            return True
        return loan.begun and getattr(loan.batch(), "closed", True)
