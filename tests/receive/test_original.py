"""The cases of the original's own tests, Solana's streamer/src/nonblocking/recvmmsg.rs."""

from __future__ import annotations

import anyio
import pytest

from anyio_mmsg import (
    PACKET_DATA_SIZE,
    PacketBatch,
    ReceiveEngine,
    recv_mmsg,
    recv_mmsg_exact,
    recv_mmsg_nowait,
)

from ..helpers import Family, have_ipv6

pytestmark = pytest.mark.anyio

TEST_NUM_MSGS = 32


@pytest.fixture(
    params=[
        "inet",
        pytest.param(
            "inet6", marks=pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
        ),
    ]
)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param, None)


def check(batch: PacketBatch, senders: list[object]) -> None:
    assert [packet.size for packet in batch] == [PACKET_DATA_SIZE] * len(senders)
    assert [packet.address for packet in batch] == senders


async def test_one_batch(engine: ReceiveEngine, family: Family) -> None:
    with family, anyio.fail_after(60):
        receiver, sender = family.pair()
        for _ in range(TEST_NUM_MSGS - 1):
            sender.send(bytes(PACKET_DATA_SIZE))
        batch = PacketBatch(TEST_NUM_MSGS - 1, engine=engine)
        assert await recv_mmsg_exact(receiver, batch) == TEST_NUM_MSGS - 1
        check(batch, [sender.getsockname()] * (TEST_NUM_MSGS - 1))


async def test_several_batches(engine: ReceiveEngine, family: Family) -> None:
    with family, anyio.fail_after(60):
        receiver, sender = family.pair()
        for _ in range(TEST_NUM_MSGS + 10):
            sender.send(bytes(PACKET_DATA_SIZE))
        for count in (TEST_NUM_MSGS, 10):
            batch = PacketBatch(count, engine=engine)
            assert await recv_mmsg_exact(receiver, batch) == count
            check(batch, [sender.getsockname()] * count)


async def test_exact_then_an_empty_socket(engine: ReceiveEngine, family: Family) -> None:
    """There the read that follows gives 0; here a receive waits, unless it is asked not to."""
    with family, anyio.fail_after(60):
        receiver, sender = family.pair()
        for _ in range(TEST_NUM_MSGS):
            sender.send(bytes(PACKET_DATA_SIZE))
        batch = PacketBatch(TEST_NUM_MSGS, engine=engine)
        assert await recv_mmsg_exact(receiver, batch) == TEST_NUM_MSGS
        check(batch, [sender.getsockname()] * TEST_NUM_MSGS)
        batch.clear()
        with pytest.raises(anyio.WouldBlock):
            recv_mmsg_nowait(receiver, batch)
        with anyio.move_on_after(0.02) as scope:
            await recv_mmsg(receiver, batch)
        assert scope.cancelled_caught
        assert len(batch) == 0


async def test_two_senders(engine: ReceiveEngine, family: Family) -> None:
    with family, anyio.fail_after(60):
        receiver, one = family.pair()
        other = family.open()
        for _ in range(TEST_NUM_MSGS - 1):
            one.send(bytes(PACKET_DATA_SIZE))
        for _ in range(TEST_NUM_MSGS + 1):
            other.sendto(bytes(PACKET_DATA_SIZE), receiver.getsockname())
        batch = PacketBatch(TEST_NUM_MSGS, engine=engine)
        assert await recv_mmsg(receiver, batch) == TEST_NUM_MSGS
        check(batch, [one.getsockname()] * (TEST_NUM_MSGS - 1) + [other.getsockname()])
        batch.clear()
        assert await recv_mmsg(receiver, batch) == TEST_NUM_MSGS
        check(batch, [other.getsockname()] * TEST_NUM_MSGS)


async def test_two_senders_interleaved(engine: ReceiveEngine, family: Family) -> None:
    with family, anyio.fail_after(60):
        receiver, one = family.pair()
        other = family.open()
        other.connect(receiver.getsockname())
        for sender in (one, other) * TEST_NUM_MSGS:
            sender.send(bytes(PACKET_DATA_SIZE))
        batch = PacketBatch(2 * TEST_NUM_MSGS, engine=engine)
        assert await recv_mmsg_exact(receiver, batch) == 2 * TEST_NUM_MSGS
        check(batch, [one.getsockname(), other.getsockname()] * TEST_NUM_MSGS)
