"""How a task waits in each kind of event loop: what is asked once, and what each time."""

from __future__ import annotations

import asyncio
import sys

import anyio
import anyio.lowlevel
import pytest

from anyio_mmsg import PacketBatch, _compat, recv_mmsg, recv_mmsg_nowait

from ..helpers import Family

pytestmark = pytest.mark.anyio

NEEDED = _compat.Waits(anyio.lowlevel.checkpoint_if_cancelled, _compat.wait_socket_readable)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kind of loop is known yet."""
    monkeypatch.setattr(_compat, "_waits", {})


async def test_who_looks_for_cancellation_first(anyio_backend_name: str) -> None:
    found = _compat.waits()
    assert found is _compat.waits()
    looks = anyio_backend_name == "asyncio" and not isinstance(
        asyncio.get_running_loop(), asyncio.SelectorEventLoop
    )
    assert (found.look is not None) is looks


async def test_an_older_anyio(inet: Family) -> None:
    """Before 4.11 its token did not say what its part for the loop is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anyio.lowlevel, "current_token", object)
        found = _compat.waits()
    assert found.readable is NEEDED.readable
    assert found.look in (None, NEEDED.look)
    receiver, sender = inet.pair()
    sender.send(b"x")
    with anyio.fail_after(60):
        assert await recv_mmsg(receiver, PacketBatch()) == 1


async def test_a_loop_of_another_kind(anyio_backend_name: str) -> None:
    """Nothing is known of it, so a task looks first. Only so many kinds are remembered."""
    if anyio_backend_name != "asyncio":
        pytest.skip("is of asyncio's loops")
    kinds = [type(f"Loop{i}", (), {}) for i in range(3 * _compat._MOST_KINDS)]
    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            patch.setattr(sys.modules["asyncio"], "get_running_loop", kind)
            assert _compat.waits().look is not None
            assert len(_compat._waits) <= _compat._MOST_KINDS


async def test_cancelled_before_it_waits_with_packets_there(inet: Family) -> None:
    """A flood does not keep a cancelled task alive, on any loop."""
    receiver, sender = inet.pair()
    batch = PacketBatch(4)
    with anyio.fail_after(60), anyio.CancelScope() as scope:
        for calls in range(100):
            sender.send(b"x")
            if calls == 2:
                scope.cancel()
            assert await recv_mmsg(receiver, batch) == 1
            assert calls < 2
            batch.clear()
    assert scope.cancelled_caught
    assert not len(batch)


async def test_after_a_cancellation_receives_are_again_like_the_last(inet: Family) -> None:
    """What the cancelled call left behind does not send each further one the long way."""
    receiver, sender = inet.pair()
    batch = PacketBatch(4)
    sender.send(b"x")
    assert recv_mmsg_nowait(receiver, batch) == 1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recv_mmsg, receiver, batch)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    filler = batch._slots.filler
    assert filler.task is not None
    for number in range(2, 4):
        sender.send(b"x")
        assert recv_mmsg_nowait(receiver, batch) == 1
        assert len(batch) == number
        assert filler.task is None
        assert filler.known is not None
