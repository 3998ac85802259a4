"""Lingering for fuller batches: when it ends, and how long the task may sleep meanwhile."""

from __future__ import annotations

import errno
import math
import socket
from pathlib import Path

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import PacketBatchPool, PacketReceiver, ReceiveEngine
from anyio_mmsg._stream.linger import LONGEST_SLICE, TIMER_RESOLUTION, Pace

from ..helpers import Family, ScriptedSocket, contents, without_trio

pytestmark = pytest.mark.anyio


async def test_lingering_ends_with_a_full_batch(engine: ReceiveEngine, inet: Family) -> None:
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock, PacketBatchPool(2, 3, 16, engine), linger=60)
    async with receiver:
        for number in range(3):  # full at once: not held back
            sender.send(b"%d" % number)
        with anyio.fail_after(60):
            with await receiver.receive() as batch:
                assert contents(batch) == [b"0", b"1", b"2"]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_send_when_blocked, sender, [b"3", b"4", b"5"])
                with await receiver.receive() as batch:
                    assert contents(batch) == [b"3", b"4", b"5"]


async def _send_when_blocked(sender: socket.socket, datagrams: list[bytes]) -> None:
    for data in datagrams:
        await wait_all_tasks_blocked()
        sender.send(data)


@pytest.mark.parametrize("linger", [0.0005, 0.002, 0.02])
async def test_lingering_ends_with_its_time(
    linger: float, engine: ReceiveEngine, inet: Family
) -> None:
    """Though the batch is not full. How long it took is the clock's affair."""
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock, PacketBatchPool(2, 3, 16, engine), linger=linger)
    async with receiver:
        for data in (b"0", b"1"):
            sender.send(data)
            with anyio.fail_after(60):
                with await receiver.receive() as batch:
                    assert contents(batch) == [data]


@without_trio
@pytest.mark.parametrize("linger", [0.0005, 0.002])
def test_lingering_ends_under_a_clock_of_tests(linger: float, inet: Family) -> None:
    """Which stands still while anybody runs."""
    import trio.testing

    sock, sender = inet.pair()

    async def receive() -> None:
        async with PacketReceiver(sock, linger=linger) as receiver:
            sender.send(b"x")
            with await receiver.receive() as batch:
                assert contents(batch) == [b"x"]

    trio.run(receive, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_lingering_goes_on_where_a_cancelled_call_left_it(inet: Family) -> None:
    sock, sender = inet.pair()
    async with PacketReceiver(sock, linger=0.05) as receiver:
        sender.send(b"x")
        with anyio.fail_after(60):
            while True:
                with anyio.move_on_after(0.02):
                    with await receiver.receive() as batch:
                        assert contents(batch) == [b"x"]
                    break


async def test_closing_wakes_a_reader_that_lingers(inet: Family) -> None:
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock, linger=60)
    sender.send(b"x")

    async def read() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await receiver.receive()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.sleep(0.02)  # in which it gets the packet; not a matter of who is blocked
            await receiver.aclose()
    seen = receiver.statistics()
    assert (seen.packets, seen.dropped) == (1, 1)
    assert receiver.pool.statistics().free == 8


@pytest.mark.parametrize("linger", [0.0005, 5])
async def test_an_error_while_lingering_is_the_next_calls(linger: float) -> None:
    down = OSError(errno.EBADMSG, "not one that passes")
    sock = ScriptedSocket(b"0", None, down, b"1", b"2")
    pool = PacketBatchPool(2, 2, engine="recvfrom_into")
    async with PacketReceiver(sock, pool, linger=linger) as receiver:
        with anyio.fail_after(60):
            with await receiver.receive() as batch:
                assert contents(batch) == [b"0"]
            with pytest.raises(OSError, match="not one that passes"):
                await receiver.receive()
            with await receiver.receive() as batch:
                assert contents(batch) == [b"1", b"2"]


# Sleeping in slices


def pace(inet: Family, linger: float, rate: float, size: int, buffer: int = 1 << 20) -> Pace:
    """What is known after a batch of packets of one size came at a rate."""
    sock = inet.open()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer // 2)
    pace = Pace(linger, sock)
    pace.saw_batch([size] * 10, 10 / rate)
    return pace


@pytest.mark.parametrize(
    ("linger", "seconds"),
    [(0.001, TIMER_RESOLUTION), (0.002, TIMER_RESOLUTION), (0.008, 0.004), (1, LONGEST_SLICE)],
)
def test_a_slice(linger: float, seconds: float, inet: Family) -> None:
    assert pace(inet, linger, 100, 10).pause(64) == seconds


def test_nobody_sleeps_before_the_rate_is_known(inet: Family) -> None:
    assert Pace(1, inet.open()).pause(64) == 0
    assert pace(inet, 1, math.inf, 10).pause(64) == 0


def test_nobody_sleeps_longer_than_it_takes_to_fill_the_batch(inet: Family) -> None:
    known = pace(inet, 1, 10_000, 10)
    assert known.pause(64) == LONGEST_SLICE
    assert known.pause(20) == 0.002
    assert known.pause(9) == 0


def test_nobody_sleeps_while_half_of_the_buffer_fills(inet: Family) -> None:
    """A packet of 1232 bytes takes 2,304 of it."""
    ample = pace(inet, 1, 10_000, 1232, 1 << 20).pause(10_000)
    small = pace(inet, 1, 10_000, 1232, 110_000).pause(10_000)
    tiny = pace(inet, 1, 10_000, 1232, 10_000).pause(10_000)
    assert ample == LONGEST_SLICE
    assert 0.001 <= small < 55_000 / 23_040_000
    assert tiny == 0


def test_faster_packets_count_at_once(inet: Family) -> None:
    known = pace(inet, 1, 1_000, 10)
    known.saw_slice([10] * 2, 0.005)  # slower
    assert known.pause(64) == LONGEST_SLICE
    known.saw_slice([10] * 500, 0.005)
    assert known.pause(64) == 0
    known.saw_batch([10] * 2, 0.005)
    assert known.pause(64) == LONGEST_SLICE


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_nobody_sleeps_on_a_unix_socket(tmp_path: Path) -> None:
    """Its queue may be as short as 10."""
    with Family("unix", tmp_path) as unix:
        known = Pace(1, unix.open())
        known.saw_batch([10], 1)
        assert known.pause(64) == 0


@without_trio  # which has a clock for tests
def test_packets_do_not_wake_a_task_that_sleeps(
    monkeypatch: pytest.MonkeyPatch, inet: Family
) -> None:
    import trio.testing

    monkeypatch.setattr(Pace, "pause", lambda self, missing: 5.0)
    clock = trio.testing.MockClock()
    sock, sender = inet.pair()
    got: list[list[bytes]] = []

    async def read(receiver: PacketReceiver) -> None:
        for _ in range(2):
            with await receiver.receive() as batch:
                got.append(contents(batch))

    async def send_some(receiver: PacketReceiver, first: int, count: int, *, asleep: bool) -> None:
        for number in range(first, first + count):
            sender.send(b"%d" % number)
            await wait_all_tasks_blocked()
            if not asleep:
                while receiver.statistics().buffer_used:
                    await checkpoint()

    async def main() -> None:
        pool = PacketBatchPool(3, 5)
        async with (
            PacketReceiver(sock, pool, linger=12) as receiver,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(read, receiver)
            await send_some(receiver, 0, 1, asleep=False)
            await send_some(receiver, 1, 2, asleep=True)
            clock.jump(5)  # the end of a slice
            await wait_all_tasks_blocked()
            await send_some(receiver, 3, 1, asleep=True)
            clock.jump(5)
            await wait_all_tasks_blocked()
            assert got == []
            clock.jump(2)  # the end of lingering
            await wait_all_tasks_blocked()
            assert got == [[b"0", b"1", b"2", b"3"]]
            await send_some(receiver, 4, 1, asleep=False)
            await send_some(receiver, 5, 9, asleep=True)
            clock.jump(5)  # a full batch, which is a slice late
            await wait_all_tasks_blocked()
            assert got[1] == [b"4", b"5", b"6", b"7", b"8"]

    trio.run(main, clock=clock)


@pytest.mark.parametrize("end", ["stop", "aclose"])
async def test_the_end_wakes_a_task_that_sleeps(
    end: str, monkeypatch: pytest.MonkeyPatch, inet: Family
) -> None:
    monkeypatch.setattr(Pace, "pause", lambda self, missing: 60.0)
    sock, sender = inet.pair()
    got: list[bytes] = []
    receiver = PacketReceiver(sock, linger=60)

    async def read() -> None:
        try:
            async for batch in receiver:
                with batch:
                    got.extend(contents(batch))
        except anyio.ClosedResourceError:
            assert end == "aclose"

    with anyio.fail_after(60):
        async with receiver, anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            sender.send(b"0")
            while receiver.statistics().buffer_used:
                await checkpoint()
            sender.send(b"1")
            await wait_all_tasks_blocked()
            if end == "stop":
                receiver.stop()
            else:
                await receiver.aclose()
    seen = receiver.statistics()
    assert got == ([b"0", b"1"] if end == "stop" else [])
    assert (seen.packets, seen.dropped, seen.unread) == ((2, 0, 0) if got else (1, 1, 1))
