"""Batches that are made once and used again: lent, closed, lent again.

The pool keeps `Slots`, and makes a thin `PacketBatch` for each loan. `_lent` is the only record of
loans: they are its keys. A loan ends by one step in C that names it, ``_lent.pop(loan)``; whoever
gets the slots from that may lend them again. So no interrupt, finalizer or other thread can end
somebody else's loan, or lend slots twice. Slots that are not lent are in `_free`. An interrupt may
lose slots on their way from `_lent` to `_free`; then the pool makes new ones.

Each count at the end of a loan has a mark, an iterator of one item. The step that counts takes
the mark, so that nothing is counted twice.
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
from .._packets.batch import (
    NUM_RCVMMSGS,
    PACKET_DATA_SIZE,
    PacketBatch,
    ReceiveEngine,
    new_slots,
    settle,
)
from .loans import LentBatch, Loan, hold, lend, new_loan
from .lost import NOBODY, SOMEBODY, caller, name


@dataclass(frozen=True)
class PoolStatistics:
    """A `PacketBatchPool` at one moment.

    Attributes:
        size: The most batches that the pool may have.
        free: Batches that `PacketBatchPool.acquire_nowait` can return, made already or not.
        lent: Batches that consumers have. A batch that was dropped counts until Python has
            collected it and nothing uses its memory any longer.
        leaked: How often a batch was dropped without being closed. The pool takes it back when
            Python collects it, or later, when nothing uses its memory any longer.
        waiting: Tasks in `PacketBatchPool.acquire`.
    """

    size: int
    free: int
    lent: int
    leaked: int
    waiting: int


PATIENCE = 1.0
"""Seconds that a receiver waits for a batch of its pool before it is reported. Arbitrary: longer
than a consumer that works is away, and short enough that whoever looks for the reason sees it."""


class _Waiter:
    """A task in `PacketBatchPool.acquire`. It lives no longer than the call."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.batch: PacketBatch | None = None


class PacketBatchPool:
    """A bounded number of `PacketBatch`es, each made when first needed, then used again.

    So memory is bounded: `size` * `capacity` * `slot_size` bytes of slots, and per slot some 800
    more bytes of Python objects and headers (``python -m benchmarks memory``); with ``gro=True``
    up to 35 KB more, some 270 bytes a packet of the longest train that the slot held.

    A batch that was acquired belongs to the consumer until it is closed, by ``with batch:`` or
    ``batch.close()``; then it goes back. Using it after that raises ValueError, also when its
    memory was lent again: that is another `PacketBatch` object. A batch that a consumer drops
    without closing it is a ResourceWarning, which Python's development mode (``-X dev``) shows,
    with the place where the batch was received. A pool belongs to one event loop.
    Its batches may be handed to another thread, and closed there; `statistics` may be asked from
    there too.

    Args:
        size: The most batches that the pool may have, at least 1.
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
        engine: ReceiveEngine = "auto",
        gro: bool = False,
        ancillary: bool = False,
    ) -> None:
        self._size = whole_number("size", size, 1, "give the number of batches, at least 1")
        self._new = partial(new_slots, capacity, slot_size, engine, gro, ancillary)
        first = self._new()  # at once, which checks the arguments
        self._capacity = first.capacity
        self._free: deque[Slots] = deque([first], self._size)  # the others are made when needed
        self._lent: dict[Loan, Slots] = {}
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
        batch = await self._acquire(None)
        hold(batch, SOMEBODY or caller())
        return batch

    async def _acquire(self, report: Callable[[], object] | None) -> PacketBatch:
        """Do what `acquire` does, for whoever hands the batch on.

        Args:
            report: Called if that takes longer than `PATIENCE`, once.
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
            self._serve()  # a batch may have come back before we were in the line
            if report is not None:
                with anyio.move_on_after(PATIENCE):
                    await waiter.event.wait()
            if not waiter.event.is_set():
                if report is not None:
                    report()
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
            anyio.WouldBlock: No batch is free, or the free ones go to tasks that wait.
        """
        batch = self._acquire_nowait()
        if batch is None:
            raise anyio.WouldBlock
        hold(batch, SOMEBODY or caller())
        return batch

    def _acquire_nowait(self) -> PacketBatch | None:
        """Do what `acquire_nowait` does, for whoever hands the batch on; None if none is free."""
        batch = lend(self, LentBatch, Loan) if lend else None
        if batch is not None:
            return batch
        if self._waiters:
            self._serve()
        return self._lend()

    def _holders(self) -> Counter[str]:
        """Return who has got batches, and how many, for a message."""
        holders = [loan.holder or NOBODY for loan in tuple(self._lent)]
        return Counter(name(holder) for holder in holders if holder)

    def statistics(self) -> PoolStatistics:
        """Return how many batches are where."""
        free = self.free
        leaked, waiting = self._leaked["batches"], self._count_waiters()
        return PoolStatistics(self._size, free, self._size - free, leaked, waiting)

    def _lend(self) -> PacketBatch | None:
        lent = self._lent
        if (self._some_are_lost or len(lent) >= self._size) and not self.free:
            return None
        try:
            slots = self._free.pop()
        except IndexError:
            slots = self._new()
        if slots.held:  # read while another thread closed their last batch
            slots.take_back(None)
        batch, loan = new_loan(self._self, slots)
        # From here on the batch ends the loan, whatever becomes of this call.
        lent[loan] = slots
        if len(lent) > self._size:  # a signal handler has lent the last one meanwhile
            batch.close()
            return None
        return batch

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

    def _lose(self, loan: Loan) -> None:
        """Count what was lost. The slots are taken back in the event loop's thread."""
        self._count_loss(loan)
        self._some_are_lost = True
        self._wake()

    def _count_loss(self, loan: Loan) -> None:
        slots = self._lent.get(loan)
        if slots is not None:
            # Slots are taken back, and lent again, only after the loss was counted, whoever
            # counts it. So as long as the mark can be taken, they still hold the lost packets.
            settle(slots)  # what an interrupted receive has read
            loan.count_dropped(slots.held)
            loan.count_leak(self._leaked)

    def _wake(self) -> None:
        """Have the event loop serve the tasks that wait."""
        if self._waiters and self._run_soon is not None:
            self._run_soon(self._serve)

    def _take_back_the_lost(self) -> None:
        if threading.get_ident() != self._thread:  # where nothing else does it meanwhile
            return
        self._some_are_lost = False
        for loan in tuple(self._lent):
            if loan.over:
                if loan.lost:
                    self._count_loss(loan)
                self._take_over(loan)

    def _take_over(self, loan: Loan) -> None:
        """Replace a batch whose loan is over by one of our own, and close that."""
        slots = self._lent.pop(loan, None)
        if slots is None:
            return  # it was ended meanwhile
        batch, own = new_loan(self._self, slots)
        own.count_leak(Counter())  # that was done, for the one before
        self._lent[own] = slots
        try:
            batch.close()
        except BufferError:  # something still uses its memory; it is tried again
            batch._lease = None  # it says nothing when it dies, which would wake who waits
            self._some_are_lost = True
