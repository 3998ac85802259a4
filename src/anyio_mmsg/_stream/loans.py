"""What a pool lends, and how the end of a loan is noticed and counted.

With the compiled module the usual loan and its usual end are one step in C each, see
_compiled/loan.c. Anything unusual is left to what is here and in pool.py, which are the reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from .._load import module
from .._packets import Slots
from .._packets.batch import _CLOSED, PacketBatch
from .lost import Holder, warn

if TYPE_CHECKING:
    from .pool import PacketBatchPool


class LoanFields(ref[PacketBatch]):
    """What C knows of a `Loan`; the twin is in _compiled/loan.c."""

    pool: ref[PacketBatchPool]
    dropped: Counter[str] | None = None
    holder: Holder | None = None
    _lost = False

    @property
    def lost(self) -> bool:
        """See `Loan`."""
        return self._lost or self() is None

    @lost.setter
    def lost(self, lost: bool) -> None:
        self._lost = lost

    @property
    def over(self) -> bool:
        """See `Loan`."""
        # No variable refers to the batch: a frame that is interrupted here would keep it alive.
        return self.lost or getattr(self(), "closed", True)

    def end(self, slots: Slots) -> None:
        """See `anyio_mmsg._packets.batch.Lease`. If it is over already, nothing happens."""
        pool = self.pool()
        if pool is not None:
            ours = pool._lent.pop(cast("Loan", self), None)
            if ours is not None:
                pool._free.append(ours)
            if pool._waiters:
                pool._wake()


class LentFields:
    """What C does for a `LentBatch`; likewise."""

    _lease: Any
    _slots: Slots

    def __del__(self) -> None:
        loan: Loan | None = self._lease
        if loan is not None:
            pool = loan.pool()
            slots = self._slots
            lost = slots is not _CLOSED  # else an interrupt kept it from ending its loan
            if lost:
                loan.lost = True
            self._slots = _CLOSED  # they are somebody else's soon; another finalizer may have us
            if pool is not None and lost:
                pool._lose(loan)
            elif pool is not None:
                loan.end(slots)
            if lost and loan.holder:
                warn(loan.holder, self)


_LoanFields = LoanFields
_LentFields = LentFields
if not TYPE_CHECKING:
    _LoanFields = getattr(module, "LoanFields", LoanFields)
    _LentFields = getattr(module, "LentFields", LentFields)


class Loan(_LoanFields):
    """A batch that is lent. It does not keep the batch alive.

    Attributes:
        pool: Weakly, since the pool has its loans.
        dropped: Where its packets are counted if it is lost, unless `count_dropped` has counted
            them; None if nowhere. A finalizer counts, so anywhere and at any time.
        holder: Who has got the batch; None until somebody has.
        lost: Whether the batch was collected, and had not been closed.
        over: Whether it is lost or closed: an interrupt may have kept it from saying so.
    """

    def count_leak(self, leaked: Counter[str]) -> None:
        """Count the batch as leaked, unless that was done before."""
        leaked.update(self._mark("batches"))

    def count_dropped(self, packets: int) -> None:
        """Count packets of the batch as dropped, unless that was done before."""
        dropped = self.dropped
        if dropped is not None:
            mark = self._mark("packets")
            # Counter counts in C what an iterable gives; the mark is taken in the same step.
            dropped.update(chain.from_iterable(map(repeat, mark, (packets,))))

    def _mark(self, name: str) -> Iterator[str]:
        """Return the one mark of that name, which is taken or not."""
        mark: Iterator[str] = vars(self).setdefault(name, iter((name,)))
        return mark


class LentBatch(_LentFields, PacketBatch):
    """A batch of a pool, which notices that it is collected."""

    # What C takes from here.

    _closed_slots = _CLOSED
    _close_slowly = PacketBatch.close

    def _lose(self, loan: Loan) -> None:
        """Do what comes after the loss of this batch, which its finalizer has noted."""
        pool = loan.pool()
        if pool is not None:
            pool._lose(loan)
        if loan.holder:
            warn(loan.holder, self)


lend: Callable[[Any, type[LentBatch], type[Loan]], LentBatch | None] | None
lend = getattr(module, "lend", None)
"""Makes a usual loan of a pool in one step; returns None for any other. This is None itself
without the compiled module."""

_new_object = LentBatch.__new__


def new_loan(pool: ref[PacketBatchPool], slots: Slots) -> tuple[LentBatch, Loan]:
    """Return a batch of slots that are to be lent, and its loan, which is to be noted."""
    batch = _new_object(LentBatch)
    loan = Loan(batch)
    loan.pool = pool
    batch._lease = loan  # now that it is whole: from here on the finalizer asks it
    batch._slots = slots
    return batch, loan


def hold(batch: PacketBatch, holder: Holder) -> None:
    """Note who has got a lent batch."""
    loan: Any = batch._lease
    loan.holder = holder


def count_dropped(batch: PacketBatch, packets: int) -> None:
    """Count packets of a batch as dropped, once, where its loan says.

    If an interrupt keeps the caller from closing the batch, it is lost, and still counts once.
    """
    loan: Any = batch._lease
    loan.count_dropped(packets)
