"""`Dropped`: a script whose kernel drops packets."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketBatchPool
from anyio_mmsg.testing import Dropped, ScriptedReceiver, ScriptedTransport, Step

pytestmark = pytest.mark.anyio


async def test_they_count_when_the_steps_before_are_done() -> None:
    same = Dropped(3)
    seen = []
    async with ScriptedReceiver([same, [b"a"] * 3, same, [b"b"], Dropped(5)]) as receiver:
        seen.append(receiver.statistics().dropped_by_kernel)
        async for batch in receiver:
            with batch:
                seen.append(receiver.statistics().dropped_by_kernel)
        seen.append(receiver.statistics().dropped_by_kernel)
    assert seen == [0, 3, 6, 11]
    after = receiver.statistics()
    assert (after.dropped_by_kernel, after.packets, after.unread) == (11, 4, 0)
    assert (after.buffer_used, after.buffer_size) == (None, None)  # no script says them


async def test_deltas_have_them() -> None:
    async with ScriptedReceiver([Dropped(2), [b"a"], Dropped(3), [b"b"]]) as receiver:
        start = receiver.statistics()
        (await receiver.receive()).close()
        middle = receiver.statistics()
        (await receiver.receive()).close()
        end = receiver.statistics()
    assert (middle - start).dropped_by_kernel == 2
    assert (end - middle).dropped_by_kernel == 3


@pytest.mark.parametrize("how", ["stop", "aclose"])
async def test_those_that_had_happened_before_the_end(how: str) -> None:
    """And the steps after one that waits never come."""
    script: list[Step] = [[b"a"] * 3, Dropped(3), anyio.sleep_forever, Dropped(5)]
    async with ScriptedReceiver(script, PacketBatchPool(2, 2)) as receiver:
        if how == "stop":
            receiver.stop()
            assert receiver.statistics().dropped_by_kernel == 3
            async for batch in receiver:
                batch.close()
    after = receiver.statistics()
    assert (after.packets, after.unread) == ((3, 0) if how == "stop" else (0, 3))
    assert after.dropped_by_kernel == 3


async def test_they_wake_nobody() -> None:
    more = anyio.Event()
    receiver = ScriptedReceiver([Dropped(1), more, Dropped(2), [b"a"]])
    got: list[Any] = []

    async def receive() -> None:
        with await receiver.receive() as batch:
            got.extend(map(bytes, batch.payloads()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        assert receiver.statistics().dropped_by_kernel == 1
        more.set()
    assert got == [b"a"]
    assert receiver.statistics().dropped_by_kernel == 3


async def test_a_protocol_sees_nothing_of_them() -> None:
    class Keeps(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.seen: list[bytes] = []

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.seen.append(data)

    keeps = Keeps()
    await ScriptedTransport(keeps).play([Dropped(2), [b"a"], Dropped(3)])
    assert keeps.seen == [b"a"]


def test_repr() -> None:
    assert repr(Dropped(3)) == "Dropped(3)"
