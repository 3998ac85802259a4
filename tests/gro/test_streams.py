"""Trains through sockets, pools and receivers."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_mmsg import PacketBatchPool, PacketReceiver, ReceiveEngine, open_udp_socket
from anyio_mmsg._system.options import has_gro

from ..helpers import loses_batches
from .flow import Flow, check, drain, numbered

pytestmark = pytest.mark.anyio


async def test_a_socket_for_trains() -> None:
    for gro in (True, False):
        with await open_udp_socket("127.0.0.1", gro=gro) as sock:
            assert has_gro(sock) == gro


async def test_a_pool_for_trains(inet: Flow, engine: ReceiveEngine) -> None:
    pool = PacketBatchPool(2, 4, engine=engine, gro=True)
    kept: list[Any] = []
    for turn in range(6):
        with await pool.acquire() as batch:
            assert (batch.capacity, batch.slot_size, batch.gro) == (4, 65_535, True)
            packets = inet.send(*numbered(5, 10, last=turn + 1, start=turn)) + inet.single(b"one")
            drain(inet.receiver, batch)
            check(batch, packets, inet.names[:1] * 6)
            kept += list(batch)[::2]
        for packet in kept:
            with pytest.raises(ValueError, match="released"):
                bytes(packet.data)
    assert pool.statistics().free == 2


@loses_batches
async def test_a_batch_of_trains_that_is_dropped(inet: Flow, engine: ReceiveEngine) -> None:
    """It goes back with all of its packets, and they are counted."""
    pool = PacketBatchPool(1, 4, engine=engine, gro=True)
    async with PacketReceiver(inet.receiver, pool) as receiver:
        inet.send(*numbered(5, 10))
        batch: Any = await receiver.receive()
        batch.release(2)
        del batch
        assert pool.free == 1
        assert receiver.statistics().dropped == 3
        packets = inet.send(*numbered(5, 10))
        with await receiver.receive() as again:
            check(again, packets, inet.names[:1] * 5)


async def test_a_receiver_makes_the_pool_that_its_socket_needs(inet: Flow) -> None:
    packets = inet.send(*numbered(5, 10))
    async with PacketReceiver(inet.receiver) as receiver:
        with await receiver.receive() as batch:
            check(batch, packets, inet.names[:1] * 5)


async def test_a_pool_that_is_not_for_trains(inet: Flow, engine: ReceiveEngine) -> None:
    async with PacketReceiver(inet.receiver, PacketBatchPool(engine=engine)) as receiver:
        inet.send(*numbered(5, 10))
        with pytest.raises(ValueError, match="gro=True"):
            await receiver.receive()


async def test_statistics_count_packets_and_full_batches_messages(
    inet: Flow, engine: ReceiveEngine
) -> None:
    pool = PacketBatchPool(2, 8, engine=engine, gro=True)
    async with PacketReceiver(inet.receiver, pool, limit=2) as receiver:
        for trains in ([5], [7, 3], [2]):
            for count in trains:
                inet.send(*numbered(count, 10, last=4))
            with await receiver.receive() as batch:
                assert len(batch) == sum(trains)
        seen = receiver.statistics()
        assert (seen.packets, seen.batches, seen.full_batches) == (17, 3, 1)
        assert (seen.largest_batch, seen.truncated) == (10, 0)
        assert seen.bytes == 17 * 10 - 4 * 6
        for count in (5, 1, 9):
            inet.send(*numbered(count, 10, last=4))
        inet.single(b"")
    assert receiver.statistics().unread == 16


async def test_all_that_had_arrived_comes_after_a_stop(inet: Flow, engine: ReceiveEngine) -> None:
    """A train is one message to the kernel, which counts bytes, however many packets it is."""
    pool = PacketBatchPool(1, 4, engine=engine, gro=True)
    packets: list[bytes] = []
    for turn in range(20):
        packets += inet.send(*numbered(64, 1, start=turn))
    seen: list[bytes] = []
    async with PacketReceiver(inet.receiver, pool, limit=1) as receiver:
        receiver.stop()
        async for batch in receiver:
            with batch:
                seen += map(bytes, batch.payloads())
    assert seen == packets


@pytest.mark.parametrize("linger", [0.0005, 0.01])
async def test_lingering_for_trains(linger: float, inet: Flow, engine: ReceiveEngine) -> None:
    """A batch is full with as many trains as its limit, and nothing is lost."""
    pool = PacketBatchPool(2, 4, engine=engine, gro=True)
    packets: list[bytes] = []
    seen: list[bytes] = []

    async def send() -> None:
        for turn in range(30):
            packets.extend(inet.send(*numbered(9, 10, start=turn)))
            await checkpoint()

    with anyio.fail_after(60):
        async with PacketReceiver(inet.receiver, pool, linger=linger) as receiver:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                while len(seen) < 270:
                    with await receiver.receive() as batch:
                        assert 1 <= batch.capacity - batch.free <= 4
                        seen += map(bytes, batch.payloads())
            statistics = receiver.statistics()
    assert seen == packets
    assert statistics.packets == 270


async def test_a_full_batch_of_trains_ends_lingering(inet: Flow, engine: ReceiveEngine) -> None:
    pool = PacketBatchPool(2, 4, engine=engine, gro=True)
    with anyio.fail_after(60):
        async with PacketReceiver(inet.receiver, pool, linger=1000) as receiver:
            for turn in range(5):
                inet.send(*numbered(9, 10, start=turn))
            with await receiver.receive() as batch:
                assert len(batch) == 36


@pytest.mark.parametrize("name", ["gro", "dont_fragment", "timestamps"])
async def test_options_are_bools(name: str) -> None:
    wrong: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError, match=f"{name} is a int; give True or False"):
        await open_udp_socket("127.0.0.1", **wrong)
