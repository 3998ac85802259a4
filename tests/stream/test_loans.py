"""Loans as one step in C: what is unusual is left to Python, what is wrong harms no memory."""

from __future__ import annotations

import gc
from collections import deque
from typing import Any
from weakref import WeakSet, ref

import pytest

from anyio_mmsg import PacketBatch, PacketBatchPool, _load
from anyio_mmsg._stream import loans
from anyio_mmsg._stream.loans import LentBatch, Loan

from ..helpers import Family, drain, loses_batches

in_c = pytest.mark.skipif(loans.lend is None, reason="needs the compiled module on Linux")
module: Any = _load.module


def lend(pool: Any) -> Any:
    assert loans.lend is not None
    return loans.lend(pool, LentBatch, Loan)


def counts(pool: PacketBatchPool) -> tuple[int, int, int]:
    seen = pool.statistics()
    return seen.free, seen.lent, seen.leaked


@in_c
def test_the_usual_loan_is_made_and_ended_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = PacketBatchPool(2, 4, 16)
    monkeypatch.setattr(pool, "_lend", None)
    monkeypatch.setattr(LentBatch, "_close_slowly", None)
    for _ in range(3):
        with pool.acquire_nowait() as one:
            assert counts(pool) == (1, 1, 0)
            assert isinstance(one, PacketBatch)
        assert one.closed
        assert counts(pool) == (2, 0, 0)


@in_c
def test_left_to_python(inet: Family) -> None:
    pool = PacketBatchPool(2, 4, 16)
    one = lend(pool)
    assert lend(pool) is None  # the second one's memory is to be made
    one.close()
    pool._waiters.append(ref(one))
    assert lend(pool) is None  # some wait
    pool._waiters.clear()
    pool._some_are_lost = True
    assert lend(pool) is None
    pool._some_are_lost = False
    receiver, sender = inet.pair()
    stray = PacketBatch(4, 16)
    sender.send(b"x")
    drain(receiver, stray, 1)
    pool._free.append(stray._slots)
    before = list(pool._free)
    assert lend(pool) is None  # it holds something
    assert list(pool._free) == before
    stray.clear()
    lend(pool).close()
    assert counts(pool) == (2, 0, 0)


@in_c
def test_wrong_things() -> None:
    pool: Any = PacketBatchPool(1, 4, 16)
    lend_in_c: Any = loans.lend
    arguments: Any
    for arguments in ((), (pool,), (pool, PacketBatch, Loan), (pool, LentBatch, int), (3, 3, 3)):
        with pytest.raises(TypeError, match="a pool and its classes"):
            lend_in_c(*arguments)
    with pytest.raises(AttributeError):
        lend(3)
    batch = lend(pool)
    pool._lent, lent = [], pool._lent
    with pytest.raises(TypeError, match="in a dict"):
        batch.close()
    pool._lent = lent
    assert counts(pool) == (1, 0, 0)  # it was closed, and is noticed
    wrong: Any
    bare = module.LentFields()
    with pytest.raises(AttributeError):
        bare._slots  # noqa: B018
    for wrong in (3, None, bare):
        bare._slots = bare._lease = wrong
        with pytest.raises(AttributeError):
            bare.close()
        with pytest.raises(AttributeError):
            bare.__enter__()
    loan = module.LoanFields(1, 2)
    for wrong in (None, 3, ref(deque()), ref(WeakSet())):
        loan.pool = loan.dropped = wrong
        loan.end(None)
    loan.pool = ref(PacketBatch)
    with pytest.raises(AttributeError):
        loan.end(None)


@loses_batches
def test_each_end_of_the_last_reference(inet: Family) -> None:
    """Closed, lost, in a cycle, closed and in a cycle; of a pool that lives, and of one gone."""
    for pool_lives in (True, False):
        for end in ("closed", "lost", "in a cycle", "closed in a cycle"):
            pools = [PacketBatchPool(1, 4, 16)]
            for _ in range(3):
                batch: Any = pools[0].acquire_nowait()
                gone = ref(batch)
                if end.endswith("in a cycle"):
                    batch.itself = batch
                if not pool_lives:
                    weak = ref(pools[0])
                    pools.clear()
                    assert weak() is None
                if end.startswith("closed"):
                    batch.close()
                del batch
                gc.collect()
                assert gone() is None
                if not pool_lives:
                    break
                assert counts(pools[0])[:2] == (1, 0)
            if pool_lives:
                assert counts(pools[0])[2] == (0 if end.startswith("closed") else 3)


def test_a_closed_batch_says_so() -> None:
    pool = PacketBatchPool(1, 4, 16)
    batch = pool.acquire_nowait()
    batch.close()
    for use in (batch.close, batch.__enter__, batch.clear, lambda: len(batch)):
        with pytest.raises(ValueError, match="this batch was closed"):
            use()
    assert batch.closed
    assert repr(batch) == "<PacketBatch, closed>"
    assert counts(pool) == (1, 0, 0)


@in_c
def test_fields() -> None:
    """What C has is what the twins in Python have."""
    names = {name for name in vars(module.LoanFields) if not name.startswith("_")}
    twins = vars(loans.LoanFields)
    assert names == {name for name in (*twins, *twins["__annotations__"]) if name[0] != "_"}
    assert {"_slots", "_lease"} <= set(vars(module.LentFields))
    assert {"_slots", "_lease"} <= set(loans.LentFields.__annotations__)
