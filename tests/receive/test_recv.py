"""The promises of the receive functions: checkpoints, cancellation, limits, errors, waiting."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    NUM_RCVMMSGS,
    PacketBatch,
    ReceiveEngine,
    _compat,
    recv_mmsg,
    recv_mmsg_exact,
    recv_mmsg_nowait,
)
from anyio_mmsg._receive import functions

from ..helpers import (
    Family,
    ScriptedSocket,
    assert_others_run,
    contents,
    drain,
    trickle,
)
from .conftest import wait_by

pytestmark = pytest.mark.anyio

Receive = Callable[..., Awaitable[int]]
both = pytest.mark.parametrize("receive", [recv_mmsg, recv_mmsg_exact])


# Receiving


async def test_waits_for_the_first_packet(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    batch = PacketBatch(engine=engine)
    got: list[int] = []

    async def receive() -> None:
        got.append(await recv_mmsg(receiver, batch))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await wait_all_tasks_blocked()
            assert got == []
            sender.send(b"at last")
    assert got == [1]
    assert contents(batch) == [b"at last"]
    assert batch.addresses() == [sender.getsockname()]


async def test_takes_all_that_are_there(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    batch = PacketBatch(engine=engine)
    for number in range(9):
        sender.send(b"%d" % number)
    with anyio.fail_after(60):
        assert await recv_mmsg(receiver, batch) == 9
        sender.send(b"9")
        assert await recv_mmsg(receiver, batch) == 1
    assert contents(batch) == [b"%d" % number for number in range(10)]


async def test_no_more_than_the_limit_nor_the_free_slots(
    engine: ReceiveEngine, inet: Family
) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(5, engine=engine)
    for number in range(9):
        sender.send(b"%d" % number)
    with anyio.fail_after(60):
        assert await recv_mmsg(receiver, batch, limit=3) == 3
        assert await recv_mmsg(receiver, batch, limit=3) == 2
        batch.release(4)
        assert await recv_mmsg(receiver, batch) == 4
    assert contents(batch) == [b"4", b"5", b"6", b"7", b"8"]


async def test_default_limit(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(100, engine=engine)
    for _ in range(80):
        sender.send(b"")
    with anyio.fail_after(60):
        assert await recv_mmsg(receiver, batch) == NUM_RCVMMSGS == 64
        assert await recv_mmsg(receiver, batch) == 16


async def test_spurious_readiness(inet: Family, waits: list[socket.socket]) -> None:
    batch = PacketBatch(4, engine="recvfrom_into")
    with closing(ScriptedSocket(None, None, b"x")) as sock, anyio.fail_after(60):
        assert await recv_mmsg(sock, batch) == 1
    assert len(waits) == 3


async def test_another_reader_takes_the_packet(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    wait = _compat.wait_socket_readable
    stolen: list[bytes] = []

    async def steal_after_the_wait(sock: Any) -> None:
        await wait(sock)
        if not stolen:
            stolen.append(sock.recv(10))
            sender.send(b"second")

    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(60):
        wait_by(patch, steal_after_the_wait)
        sender.send(b"first")
        assert await recv_mmsg(receiver, batch) == 1
    assert stolen == [b"first"]
    assert contents(batch) == [b"second"]


# Exactly a number


async def test_exact_over_several_arrivals(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    batch = PacketBatch(8, engine=engine)
    got: list[int] = []

    async def receive() -> None:
        got.append(await recv_mmsg_exact(receiver, batch, 5))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            for number in range(7):
                await wait_all_tasks_blocked()
                assert got == [] or number >= 5
                sender.send(b"%d" % number)
    assert contents(batch) == [b"0", b"1", b"2", b"3", b"4"]
    drain(receiver, batch, 2)


async def test_exact_fills_every_free_slot(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    for number in range(6):
        sender.send(b"%d" % number)
    drain(receiver, batch, 1)
    with anyio.fail_after(60):
        assert await recv_mmsg_exact(receiver, batch) == 3
    assert contents(batch) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("count", [None, 100])
async def test_exact_lets_others_run_during_a_flood(
    engine: ReceiveEngine, inet: Family, monkeypatch: pytest.MonkeyPatch, count: int | None
) -> None:
    """Whatever is there, another task gets its turn: on Trio, which shuffles, after two reads."""
    monkeypatch.setattr(functions, "MOST_AT_ONCE", 10)
    receiver, sender = inet.pair()
    batch = PacketBatch(100, 20, engine)
    for number in range(100):
        sender.send(b"%d" % number)
    seen = [0]

    async def look() -> None:
        while len(batch) < 100:
            await checkpoint()
            seen.append(len(batch))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            assert await recv_mmsg_exact(receiver, batch, count) == 100
    assert max(after - before for before, after in pairwise(seen)) <= 20
    assert contents(batch) == [b"%d" % number for number in range(100)]


async def test_exact_while_the_consumer_releases(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    seen: list[bytes] = []

    async def receive() -> None:
        await recv_mmsg_exact(receiver, batch)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            for number in range(4):
                await wait_all_tasks_blocked()
                sender.send(b"%d" % number)
                while not batch:
                    await checkpoint()
                seen += contents(batch)
                batch.clear()
    assert seen == [b"0", b"1", b"2", b"3"]


async def test_exact_keeps_what_it_got_before_a_timeout(
    engine: ReceiveEngine, inet: Family
) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    sender.send(b"0")
    sender.send(b"1")
    with anyio.move_on_after(0.05) as scope:
        await recv_mmsg_exact(receiver, batch)
    assert scope.cancelled_caught
    assert contents(batch) == [b"0", b"1"]
    sender.send(b"2")
    with anyio.fail_after(60):
        assert await recv_mmsg(receiver, batch) == 1


async def test_exact_keeps_what_it_got_before_an_error(inet: Family) -> None:
    batch = PacketBatch(4, engine="recvfrom_into")
    down = OSError(errno.ENETDOWN, "down")
    with closing(ScriptedSocket(b"0", None, b"1", down, b"2")) as sock, anyio.fail_after(60):
        with pytest.raises(OSError, match="down"):
            await recv_mmsg_exact(sock, batch)
        assert contents(batch) == [b"0", b"1"]
        assert await recv_mmsg_exact(sock, batch, 1) == 1
    assert contents(batch) == [b"0", b"1", b"2"]


async def test_exact_leaves_an_error_after_the_last_packet_for_the_next(inet: Family) -> None:
    batch = PacketBatch(4, engine="recvfrom_into")
    down = OSError(errno.ENETDOWN, "down")
    with closing(ScriptedSocket(b"0", b"1", down)) as sock, anyio.fail_after(60):
        assert await recv_mmsg_exact(sock, batch, 2) == 2
        with pytest.raises(OSError, match="down"):
            await recv_mmsg(sock, batch)


# Readiness is remembered


async def test_no_wait_after_a_call_that_took_all_it_asked_for(
    engine: ReceiveEngine, inet: Family, waits: list[socket.socket]
) -> None:
    receiver, sender = inet.pair()
    one, other = PacketBatch(4, engine=engine), PacketBatch(4, engine=engine)
    for _ in range(6):
        sender.send(b"x")
    with anyio.fail_after(60):
        assert await recv_mmsg(receiver, one, 2) == 2  # the limit
        assert len(waits) == 1
        assert await recv_mmsg(receiver, one, 64) == 2  # the free slots
        assert await recv_mmsg(receiver, other, 3) == 2  # all there were
        assert len(waits) == 1
        sender.send(b"x")
        assert await recv_mmsg(receiver, other) == 1
        assert len(waits) == 2


async def test_a_wait_after_all_when_nothing_is_left(
    engine: ReceiveEngine, inet: Family, waits: list[socket.socket]
) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    sender.send(b"0")

    async def receive() -> None:
        await recv_mmsg(receiver, batch, 1)

    with anyio.fail_after(60):
        await recv_mmsg(receiver, batch, 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await wait_all_tasks_blocked()
            assert len(waits) == 2
            sender.send(b"1")
    assert contents(batch) == [b"0", b"1"]


async def test_a_pending_error_is_not_waited_for(inet: Family, waits: list[socket.socket]) -> None:
    batch = PacketBatch(4, engine="recvfrom_into")
    with closing(ScriptedSocket(b"0", ConnectionRefusedError())) as sock, anyio.fail_after(60):
        assert await recv_mmsg(sock, batch) == 1
        with pytest.raises(ConnectionRefusedError):
            await recv_mmsg(sock, batch)
    assert len(waits) == 1


# Checkpoints and cancellation


@both
@pytest.mark.parametrize("remembered", [False, True], ids=["waits", "remembered"])
async def test_always_a_checkpoint(
    receive: Receive,
    remembered: bool,
    engine: ReceiveEngine,
    inet: Family,
    anyio_backend_name: str,
) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    for _ in range(3):
        sender.send(b"x")
    if remembered:
        recv_mmsg_nowait(receiver, batch, 1)

    # It looks for cancellation, and then has read nothing...
    with anyio.CancelScope() as scope:
        scope.cancel()
        await receive(receiver, batch, 1)
    assert scope.cancelled_caught
    assert len(batch) == remembered

    # ...and it lets others run.
    with anyio.fail_after(60), assert_others_run(anyio_backend_name):
        assert await receive(receiver, batch, 1) == 1


@both
@pytest.mark.parametrize("after", range(12))
async def test_cancelled_anywhere_no_packet_is_lost(
    receive: Receive, after: int, engine: ReceiveEngine, family: Family
) -> None:
    """Packets trickle in while the call runs; it is cancelled after a number of checkpoints."""
    receiver, sender = family.pair()
    batch = PacketBatch(16, engine=engine)
    sent = 0

    async def receive_for_ever() -> None:
        while batch.free:
            await receive(receiver, batch, min(2, batch.free))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive_for_ever)
            sent = await trickle(sender, after)
            tasks.cancel_scope.cancel()
    left = sent - len(batch)
    drain(receiver, batch, left)
    assert contents(batch) == [b"%d" % number for number in range(sent)]
    with pytest.raises(anyio.WouldBlock):
        recv_mmsg_nowait(receiver, batch)


async def test_a_cancelled_call_leaves_the_batch_and_socket_usable(
    engine: ReceiveEngine, inet: Family
) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    for number in range(3):
        with anyio.move_on_after(0.01) as scope:
            await recv_mmsg(receiver, batch)
        assert scope.cancelled_caught
        sender.send(b"%d" % number)
        with anyio.fail_after(60):
            assert await recv_mmsg(receiver, batch) == 1


async def test_a_pending_error_survives_cancellation(inet: Family) -> None:
    batch = PacketBatch(4, engine="recvfrom_into")
    with closing(ScriptedSocket(b"0", ConnectionRefusedError())) as sock:
        assert recv_mmsg_nowait(sock, batch) == 1
        with anyio.CancelScope() as scope:
            scope.cancel()
            await recv_mmsg(sock, batch)
        assert scope.cancelled_caught
        with pytest.raises(ConnectionRefusedError), anyio.fail_after(60):
            await recv_mmsg(sock, batch)


# Two tasks


async def test_a_batch_that_another_task_is_filling(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    other, other_sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    other_sender.send(b"x")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recv_mmsg, receiver, batch)
        await wait_all_tasks_blocked()
        for receive in (recv_mmsg, recv_mmsg_exact):
            with pytest.raises(anyio.BusyResourceError):
                await receive(other, batch)
        with pytest.raises(anyio.BusyResourceError):
            recv_mmsg_nowait(other, batch)
        sender.send(b"y")
    with anyio.fail_after(60):
        assert await recv_mmsg(other, batch) == 1
    assert contents(batch) == [b"y", b"x"]


async def test_a_socket_that_another_task_is_waiting_for(
    engine: ReceiveEngine, inet: Family
) -> None:
    receiver, sender = inet.pair()
    mine, theirs = PacketBatch(4, engine=engine), PacketBatch(4, engine=engine)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recv_mmsg, receiver, theirs)
            await wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await recv_mmsg(receiver, mine)
            sender.send(b"x")
    assert contents(theirs) == [b"x"]
    assert mine.free == 4


async def test_reading_and_releasing_while_another_task_waits(
    engine: ReceiveEngine, inet: Family
) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(2, engine=engine)
    sender.send(b"0")
    drain(receiver, batch, 1)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recv_mmsg, receiver, batch)
            await wait_all_tasks_blocked()
            assert contents(batch) == [b"0"]
            batch.clear()
            sender.send(b"1")
            sender.send(b"2")
    assert contents(batch) == [b"1", b"2"]


async def test_two_tasks_with_a_batch_each_share_a_busy_socket(
    engine: ReceiveEngine, inet: Family
) -> None:
    """With one that never waits the packets are dealt out, none twice, none lost."""
    receiver, sender = inet.pair()
    batches = [PacketBatch(100, engine=engine) for _ in range(2)]
    for number in range(100):
        sender.send(b"%d" % number)
    turn = 0
    while sum(map(len, batches)) < 100:
        recv_mmsg_nowait(receiver, batches[turn % 2], 7)
        turn += 1
    both_contents = contents(batches[0]) + contents(batches[1])
    assert sorted(both_contents, key=int) == [b"%d" % number for number in range(100)]


# Threads


def test_one_loop_per_thread(engine: ReceiveEngine) -> None:
    """Each thread has its own loop, socket and batch; nothing that they share gets mixed up."""
    results: dict[int, list[bytes]] = {}

    async def main(me: int) -> None:
        with Family("inet", None) as family:
            receiver, sender = family.pair()
            batch = PacketBatch(8, engine=engine)
            seen: list[bytes] = []
            for number in range(200):
                sender.send(b"%d/%d" % (me, number))
                with anyio.fail_after(60):
                    await recv_mmsg(receiver, batch, 1)
                seen += contents(batch)
                batch.clear()
            results[me] = seen

    threads = [
        threading.Thread(target=anyio.run, args=(main, me), kwargs={"backend": backend})
        for me, backend in enumerate(["asyncio", "trio" if find_spec("trio") else "asyncio"] * 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {me: [b"%d/%d" % (me, n) for n in range(200)] for me in range(4)}
