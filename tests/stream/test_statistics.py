"""Statistics of a receiver: their difference, rates, and how full batches were."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketBatchPool, PacketReceiver, ReceiverStatistics, StatisticsDelta
from anyio_mmsg.testing import ScriptedReceiver

from ..helpers import Family

pytestmark = pytest.mark.anyio


def statistics(**counts: Any) -> ReceiverStatistics:
    """Return statistics with these counts, and zeros."""
    zeros: dict[str, Any] = {
        field.name: 0
        for field in dataclasses.fields(ReceiverStatistics)
        if field.default is dataclasses.MISSING
    }
    return ReceiverStatistics(**{**zeros, "transient_errors": {}, **counts})


async def consume(receiver: PacketReceiver, batches: int) -> None:
    with anyio.fail_after(60):
        for _ in range(batches):
            with await receiver.receive():
                pass


async def test_the_difference_of_two() -> None:
    refused = ConnectionRefusedError(111, "refused")
    script: list[Any] = [[b"a"] * 3, refused, [b"bc", bytes(9)], refused, [b"d"] * 5]
    receiver = ScriptedReceiver(script, PacketBatchPool(2, slot_size=4))
    before = time.monotonic()
    await consume(receiver, 1)
    earlier = receiver.statistics()
    await consume(receiver, 2)
    later = receiver.statistics()
    assert before <= earlier.time <= later.time <= time.monotonic()
    delta = later - earlier
    assert delta == StatisticsDelta(
        packets=7,
        bytes=2 + 4 + 5,
        batches=2,
        full_batches=0,
        truncated=1,
        receive_calls=later.receive_calls - earlier.receive_calls,
        empty_calls=0,
        dropped=0,
        unread=0,
        transient_errors={111: later.transient_errors[111] - earlier.transient_errors.get(111, 0)},
        dropped_by_kernel=None,
        batch_fills=(0, 1, 1),
        seconds=later.time - earlier.time,
    )
    assert sum((later - statistics(receiver=later.receiver)).transient_errors.values()) == 2
    assert (later - later).transient_errors == {}
    assert delta.packets_per_batch == 3.5
    assert json.loads(json.dumps(dataclasses.asdict(delta)))["packets"] == 7


def test_rates() -> None:
    earlier = statistics(packets=100, transient_errors={5: 1}, dropped_by_kernel=2, time=10.0)
    later = statistics(packets=300, transient_errors={5: 3, 6: 6}, dropped_by_kernel=7, time=14.0)
    rates = (later - earlier).per_second()
    assert (rates["packets"], rates["transient_errors"]) == (50, 2)
    assert (rates["dropped_by_kernel"], rates["dropped"]) == (1.25, 0)
    counts = {field.name for field in dataclasses.fields(StatisticsDelta)}
    assert set(rates) == counts - {"seconds", "batch_fills"}


def test_rates_of_nothing() -> None:
    """No time has passed; nothing is known of the kernel; no batch came."""
    one = statistics(packets=1, dropped_by_kernel=None)
    none = one - statistics()
    assert none.dropped_by_kernel is None
    assert "dropped_by_kernel" not in none.per_second()
    assert set(none.per_second().values()) == {0.0}
    assert none.packets_per_batch == 0.0


async def test_of_two_receivers(inet: Family) -> None:
    async with PacketReceiver(inet.open()) as one, PacketReceiver(inet.open()) as two:
        with pytest.raises(ValueError, match="statistics of two receivers"):
            two.statistics() - one.statistics()


def test_equal_are_those_that_count_the_same() -> None:
    """So whether anything happened in between is a question of ==."""
    earlier, later = statistics(time=1.0, receiver=7), statistics(time=2.0, receiver=7)
    assert earlier == later
    assert earlier != statistics(time=1.0, receiver=7, dropped_by_kernel=1)


async def test_nothing_happens_to_an_idle_receiver(inet: Family) -> None:
    sock, sender = inet.pair()
    async with PacketReceiver(sock) as receiver:
        sender.send(b"1")
        await consume(receiver, 1)
        earlier = receiver.statistics()
        with anyio.move_on_after(0.001):
            await receiver.receive()
        while time.monotonic() <= earlier.time:
            pass
        assert receiver.statistics() == earlier
        sender.send(b"2")
        await consume(receiver, 1)
        assert receiver.statistics() != earlier


def test_in_the_wrong_order() -> None:
    with pytest.raises(ValueError, match="on the right are the later ones; swap them"):
        statistics(time=1.0) - statistics(time=2.0)


def test_of_something_else() -> None:
    something: Any = 1
    with pytest.raises(TypeError, match="unsupported operand"):
        statistics() - something


async def test_how_full_batches_were() -> None:
    sizes = [1, 1, 2, 3, 4, 7, 8, 9, 15, 16, 31, 1]
    receiver = ScriptedReceiver([[b""] * size for size in sizes], PacketBatchPool(2, 31))
    assert receiver.statistics().batch_fills == ()
    await consume(receiver, 4)
    assert receiver.statistics().batch_fills == (2, 2)
    earlier = receiver.statistics()
    await consume(receiver, 8)
    seen = receiver.statistics()
    assert seen.batch_fills == (3, 2, 2, 3, 2)
    assert sum(seen.batch_fills) == seen.batches == len(sizes)
    assert (seen - earlier).batch_fills == (1, 0, 2, 3, 2)
