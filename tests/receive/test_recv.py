"""The promises of the receive functions: checkpoints, cancellation, limits, errors, waiting."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    NUM_RCVMMSGS,
    BatchFullError,
    PacketBatch,
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
    counted_waits,
    drain,
    trickle,
)

pytestmark = pytest.mark.anyio

Receive = Callable[..., Awaitable[int]]
both = pytest.mark.parametrize("receive", [recv_mmsg, recv_mmsg_exact])


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """The sockets that were waited for."""
    return counted_waits(monkeypatch, functions, "wait_socket_readable")


# Receiving


async def test_waits_for_the_first_packet(engine: str, family: Family) -> None:
    receiver, sender = family.pair()
    batch = PacketBatch(engine=engine)
    got: list[int] = []

    async def receive() -> None:
        got.append(await recv_mmsg(receiver, batch))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await wait_all_tasks_blocked()
            assert got == []
            sender.send(b"at last")
    assert got == [1]
    assert contents(batch) == [b"at last"]
    assert batch.addresses() == [sender.getsockname()]


async def test_takes_all_that_are_there(engine: str, family: Family) -> None:
    receiver, sender = family.pair()
    batch = PacketBatch(engine=engine)
    for number in range(9):
        sender.send(b"%d" % number)
    with anyio.fail_after(5):
        assert await recv_mmsg(receiver, batch) == 9
        sender.send(b"9")
        assert await recv_mmsg(receiver, batch) == 1
    assert contents(batch) == [b"%d" % number for number in range(10)]


async def test_no_more_than_the_limit_nor_the_free_slots(engine: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(5, engine=engine)
    for number in range(9):
        sender.send(b"%d" % number)
    with anyio.fail_after(5):
        assert await recv_mmsg(receiver, batch, limit=3) == 3
        assert await recv_mmsg(receiver, batch, limit=3) == 2
        batch.release(4)
        assert await recv_mmsg(receiver, batch) == 4
    assert contents(batch) == [b"4", b"5", b"6", b"7", b"8"]


async def test_default_limit(engine: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(100, engine=engine)
    for _ in range(80):
        sender.send(b"")
    with anyio.fail_after(5):
        assert await recv_mmsg(receiver, batch) == NUM_RCVMMSGS == 64
        assert await recv_mmsg(receiver, batch) == 16


async def test_spurious_readiness(inet: Family, waits: list[socket.socket]) -> None:
    batch = PacketBatch(4, engine="recvfrom_into")
    with closing(ScriptedSocket(None, None, b"x")) as sock, anyio.fail_after(5):
        assert await recv_mmsg(sock, batch) == 1
    assert len(waits) == 3


async def test_another_reader_takes_the_packet(engine: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    wait = functions.wait_socket_readable
    stolen: list[bytes] = []

    async def steal_after_the_wait(sock: Any) -> None:
        await wait(sock)
        if not stolen:
            stolen.append(sock.recv(10))
            sender.send(b"second")

    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(5):
        patch.setattr(functions, "wait_socket_readable", steal_after_the_wait)
        sender.send(b"first")
        assert await recv_mmsg(receiver, batch) == 1
    assert stolen == [b"first"]
    assert contents(batch) == [b"second"]


# Exactly so many


async def test_exact_over_several_arrivals(engine: str, family: Family) -> None:
    receiver, sender = family.pair()
    batch = PacketBatch(8, engine=engine)
    got: list[int] = []

    async def receive() -> None:
        got.append(await recv_mmsg_exact(receiver, batch, 5))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            for number in range(7):
                await wait_all_tasks_blocked()
                assert got == [] or number >= 5
                sender.send(b"%d" % number)
    assert contents(batch) == [b"0", b"1", b"2", b"3", b"4"]
    drain(receiver, batch, 2)


async def test_exact_fills_every_free_slot(engine: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    for number in range(6):
        sender.send(b"%d" % number)
    drain(receiver, batch, 1)
    with anyio.fail_after(5):
        assert await recv_mmsg_exact(receiver, batch) == 3
    assert contents(batch) == [b"0", b"1", b"2", b"3"]


async def test_exact_while_the_consumer_releases(engine: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    seen: list[bytes] = []

    async def receive() -> None:
        await recv_mmsg_exact(receiver, batch)

    with anyio.fail_after(5):
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


async def test_exact_keeps_what_it_got_before_a_timeout(engine: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    sender.send(b"0")
    sender.send(b"1")
    with anyio.move_on_after(0.05) as scope:
        await recv_mmsg_exact(receiver, batch)
    assert scope.cancelled_caught
    assert contents(batch) == [b"0", b"1"]
    sender.send(b"2")
    with anyio.fail_after(5):
        assert await recv_mmsg(receiver, batch) == 1


async def test_exact_keeps_what_it_got_before_an_error(inet: Family) -> None:
    batch = PacketBatch(4, engine="recvfrom_into")
    down = OSError(errno.ENETDOWN, "down")
    with closing(ScriptedSocket(b"0", None, b"1", down, b"2")) as sock, anyio.fail_after(5):
        with pytest.raises(OSError, match="down"):
            await recv_mmsg_exact(sock, batch)
        assert contents(batch) == [b"0", b"1"]
        assert await recv_mmsg_exact(sock, batch, 1) == 1
    assert contents(batch) == [b"0", b"1", b"2"]


async def test_exact_leaves_an_error_after_the_last_packet_for_the_next(inet: Family) -> None:
    batch = PacketBatch(4, engine="recvfrom_into")
    down = OSError(errno.ENETDOWN, "down")
    with closing(ScriptedSocket(b"0", b"1", down)) as sock, anyio.fail_after(5):
        assert await recv_mmsg_exact(sock, batch, 2) == 2
        with pytest.raises(OSError, match="down"):
            await recv_mmsg(sock, batch)


# Readiness is remembered


async def test_no_wait_after_a_call_that_took_all_it_asked_for(
    engine: str, inet: Family, waits: list[socket.socket]
) -> None:
    receiver, sender = inet.pair()
    one, other = PacketBatch(4, engine=engine), PacketBatch(4, engine=engine)
    for _ in range(6):
        sender.send(b"x")
    with anyio.fail_after(5):
        assert await recv_mmsg(receiver, one, 2) == 2  # the limit
        assert len(waits) == 1
        assert await recv_mmsg(receiver, one, 64) == 2  # the free slots
        assert await recv_mmsg(receiver, other, 3) == 2  # all there were
        assert len(waits) == 1
        sender.send(b"x")
        assert await recv_mmsg(receiver, other) == 1
        assert len(waits) == 2


async def test_a_wait_after_all_when_nothing_is_left(
    engine: str, inet: Family, waits: list[socket.socket]
) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    sender.send(b"0")

    async def receive() -> None:
        await recv_mmsg(receiver, batch, 1)

    with anyio.fail_after(5):
        await recv_mmsg(receiver, batch, 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await wait_all_tasks_blocked()
            assert len(waits) == 2
            sender.send(b"1")
    assert contents(batch) == [b"0", b"1"]


async def test_a_pending_error_is_not_waited_for(inet: Family, waits: list[socket.socket]) -> None:
    batch = PacketBatch(4, engine="recvfrom_into")
    with closing(ScriptedSocket(b"0", ConnectionRefusedError())) as sock, anyio.fail_after(5):
        assert await recv_mmsg(sock, batch) == 1
        with pytest.raises(ConnectionRefusedError):
            await recv_mmsg(sock, batch)
    assert len(waits) == 1


# Checkpoints and cancellation


@both
@pytest.mark.parametrize("remembered", [False, True], ids=["waits", "remembered"])
async def test_always_a_checkpoint(
    receive: Receive, remembered: bool, engine: str, inet: Family, anyio_backend_name: str
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
    with anyio.fail_after(5), assert_others_run(anyio_backend_name):
        assert await receive(receiver, batch, 1) == 1


@both
@pytest.mark.parametrize("after", range(12))
async def test_cancelled_anywhere_no_packet_is_lost(
    receive: Receive, after: int, engine: str, family: Family
) -> None:
    """Packets trickle in while the call runs; it is cancelled after so many checkpoints."""
    receiver, sender = family.pair()
    batch = PacketBatch(16, engine=engine)
    sent = 0

    async def receive_for_ever() -> None:
        while batch.free:
            await receive(receiver, batch, min(2, batch.free))

    with anyio.fail_after(5):
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
    engine: str, inet: Family
) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4, engine=engine)
    for number in range(3):
        with anyio.move_on_after(0.01) as scope:
            await recv_mmsg(receiver, batch)
        assert scope.cancelled_caught
        sender.send(b"%d" % number)
        with anyio.fail_after(5):
            assert await recv_mmsg(receiver, batch) == 1


async def test_a_pending_error_survives_cancellation(inet: Family) -> None:
    batch = PacketBatch(4, engine="recvfrom_into")
    with closing(ScriptedSocket(b"0", ConnectionRefusedError())) as sock:
        assert recv_mmsg_nowait(sock, batch) == 1
        with anyio.CancelScope() as scope:
            scope.cancel()
            await recv_mmsg(sock, batch)
        assert scope.cancelled_caught
        with pytest.raises(ConnectionRefusedError), anyio.fail_after(5):
            await recv_mmsg(sock, batch)


# Two tasks


async def test_a_batch_that_another_task_is_filling(engine: str, inet: Family) -> None:
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
    with anyio.fail_after(5):
        assert await recv_mmsg(other, batch) == 1
    assert contents(batch) == [b"y", b"x"]


async def test_a_socket_that_another_task_is_waiting_for(engine: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    mine, theirs = PacketBatch(4, engine=engine), PacketBatch(4, engine=engine)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recv_mmsg, receiver, theirs)
            await wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await recv_mmsg(receiver, mine)
            sender.send(b"x")
    assert contents(theirs) == [b"x"]
    assert mine.free == 4


async def test_reading_and_releasing_while_another_task_waits(engine: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(2, engine=engine)
    sender.send(b"0")
    drain(receiver, batch, 1)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recv_mmsg, receiver, batch)
            await wait_all_tasks_blocked()
            assert contents(batch) == [b"0"]
            batch.clear()
            sender.send(b"1")
            sender.send(b"2")
    assert contents(batch) == [b"1", b"2"]


async def test_two_tasks_with_a_batch_each_share_a_busy_socket(engine: str, inet: Family) -> None:
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


# Closing


@both
async def test_a_closed_socket(receive: Receive, engine: str, inet: Family) -> None:
    sock = inet.open()
    sock.close()
    batch = PacketBatch(engine=engine)
    with pytest.raises(anyio.ClosedResourceError):
        await receive(sock, batch)
    with pytest.raises(anyio.ClosedResourceError):
        recv_mmsg_nowait(sock, batch)


@pytest.mark.skipif(not hasattr(os, "set_blocking"), reason="no descriptors to close by number")
async def test_a_descriptor_closed_by_number(engine: str, inet: Family) -> None:
    sock, batch = inet.open(), PacketBatch(engine=engine)
    os.close(sock.fileno())
    try:
        with pytest.raises(anyio.ClosedResourceError), anyio.fail_after(5):
            await recv_mmsg(sock, batch)
        with pytest.raises(anyio.ClosedResourceError):
            recv_mmsg_nowait(sock, batch)
    finally:
        sock.detach()


@pytest.mark.skipif(not hasattr(os, "set_blocking"), reason="no modes of descriptors")
async def test_a_descriptor_that_became_blocking(engine: str, inet: Family) -> None:
    """Its mode is shared with whoever has a copy of it; no read may block the loop."""
    receiver, batch = inet.open(), PacketBatch(engine=engine)
    os.set_blocking(receiver.fileno(), True)
    with pytest.raises(anyio.WouldBlock):
        recv_mmsg_nowait(receiver, batch)


async def test_an_engine_that_is_not_to_be_had(
    inet: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told at once, not when a packet comes."""
    monkeypatch.setattr("anyio_mmsg._receive.engine.Recvmmsg", None)
    batch = PacketBatch(engine="recvmmsg")
    with anyio.fail_after(5), pytest.raises(ValueError, match='engine="auto"'):
        await recv_mmsg(inet.open(), batch)


@both
async def test_closing_under_a_waiter(receive: Receive, engine: str, inet: Family) -> None:
    if not hasattr(anyio, "notify_closing"):
        pytest.skip("anyio.notify_closing came with AnyIO 4.10")
    batch = PacketBatch(engine=engine)
    sock = inet.open()

    async def receive_until_closed() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await receive(sock, batch)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive_until_closed)
            await wait_all_tasks_blocked()
            anyio.notify_closing(sock)
            sock.close()
        # A new socket, very likely with the same number, is not taken for the closed one.
        receiver, sender = inet.pair()
        sender.send(b"x")
        assert await recv_mmsg(receiver, batch) == 1


async def test_closing_between_readiness_and_read(engine: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(engine=engine)
    wait = functions.wait_socket_readable

    async def close_after_the_wait(sock: Any) -> None:
        await wait(sock)
        sock.close()

    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(5):
        patch.setattr(functions, "wait_socket_readable", close_after_the_wait)
        sender.send(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            await recv_mmsg(receiver, batch)


async def test_closing_during_the_plain_checkpoint(engine: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(engine=engine)
    for _ in range(2):
        sender.send(b"x")
    recv_mmsg_nowait(receiver, batch, 1)

    async def close_meanwhile() -> None:
        await checkpoint()
        receiver.close()

    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(5):
        patch.setattr(functions, "checkpoint", close_meanwhile)
        with pytest.raises(anyio.ClosedResourceError):
            await recv_mmsg(receiver, batch)


async def test_a_new_socket_with_a_remembered_number(
    engine: str, inet: Family, waits: list[socket.socket]
) -> None:
    """What was remembered of the socket that had the number is not believed of the new one."""
    receiver, sender = inet.pair()
    batch = PacketBatch(engine=engine)
    sender.send(b"x")
    recv_mmsg_nowait(receiver, batch, 1)
    number = receiver.fileno()
    receiver.close()
    fresh = inet.open()
    assert fresh.fileno() == number
    sender = inet.open()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recv_mmsg, fresh, batch)
            await wait_all_tasks_blocked()
            sender.sendto(b"y", fresh.getsockname())
    assert contents(batch) == [b"x", b"y"]
    assert waits == [fresh]


# Refusals


@both
async def test_a_full_batch(receive: Receive, engine: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(1, engine=engine)
    for _ in range(2):
        sender.send(b"x")
    assert await receive(receiver, batch, 1) == 1
    with pytest.raises(BatchFullError, match=r"all 1 slots .* batch\.clear\(\)"):
        await receive(receiver, batch, 1)
    with pytest.raises(BatchFullError):
        recv_mmsg_nowait(receiver, batch)
    with pytest.raises(BatchFullError):
        await recv_mmsg_exact(receiver, batch)
    batch.clear()
    assert await receive(receiver, batch, 1) == 1


@pytest.mark.parametrize(
    ("number", "error"),
    [(0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError), ("1", TypeError)],
)
async def test_bad_numbers(number: Any, error: type[Exception], inet: Family) -> None:
    receiver, batch = inet.open(), PacketBatch()
    with pytest.raises(error, match=r"limit is .*; give the number of packets, at least 1"):
        await recv_mmsg(receiver, batch, number)
    with pytest.raises(error, match="limit is"):
        recv_mmsg_nowait(receiver, batch, number)
    with pytest.raises(error, match="count is"):
        await recv_mmsg_exact(receiver, batch, number)


async def test_a_count_above_the_free_slots(inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(4)
    sender.send(b"x")
    drain(receiver, batch, 1)
    with pytest.raises(ValueError, match="count is 4, but the batch has 3 free slots of 4"):
        await recv_mmsg_exact(receiver, batch, 4)


@both
async def test_a_blocking_socket(receive: Receive, inet: Family) -> None:
    sock = inet.open()
    for timeout in (None, 1.0):
        sock.settimeout(timeout)
        with pytest.raises(ValueError, match=r"setblocking\(False\)"):
            await receive(sock, PacketBatch())
        with pytest.raises(ValueError, match="blocking"):
            recv_mmsg_nowait(sock, PacketBatch())


@both
async def test_a_stream_socket(receive: Receive) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        with pytest.raises(ValueError, match="not a datagram socket"):
            await receive(sock, PacketBatch())
        with pytest.raises(ValueError, match="SOCK_DGRAM"):
            recv_mmsg_nowait(sock, PacketBatch())


@both
@pytest.mark.parametrize("thing", [None, 3, "socket", object()])
async def test_no_socket_at_all(receive: Receive, thing: Any) -> None:
    with pytest.raises(TypeError, match=r"has to be a socket\.socket; open one with"):
        await receive(thing, PacketBatch())
    with pytest.raises(TypeError):
        recv_mmsg_nowait(thing, PacketBatch())


async def test_an_anyio_socket() -> None:
    async with await anyio.create_udp_socket(local_host="127.0.0.1") as udp:
        with pytest.raises(TypeError, match=r"UDPSocket.*AnyIO reads .* itself .*open one"):
            await recv_mmsg(udp, PacketBatch())  # type: ignore[arg-type]


@both
async def test_no_batch(receive: Receive, inet: Family) -> None:
    with pytest.raises(TypeError, match="batch is a list, and has to be a PacketBatch"):
        await receive(inet.open(), [])


async def test_a_refused_call_leaves_the_batch_free(inet: Family) -> None:
    """No refusal may leave the batch marked as being filled."""
    receiver, sender = inet.pair()
    batch = PacketBatch(2)
    for bad in (0, "x", True):
        with contextlib.suppress(TypeError, ValueError):
            await recv_mmsg(receiver, batch, bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await recv_mmsg("no socket", batch)  # type: ignore[arg-type]
    sender.send(b"x")
    with anyio.fail_after(5):
        assert await recv_mmsg(receiver, batch) == 1


async def test_a_raw_socket_is_one_for_datagrams(engine: str) -> None:
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)  # RFC 3692: for experiments
    except PermissionError:
        pytest.skip("raw sockets need a privilege that this user has not")
    with sock, socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as sender:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        sender.sendto(b"payload", ("127.0.0.1", 0))
        batch = PacketBatch(engine=engine)
        with anyio.fail_after(5):
            assert await recv_mmsg(sock, batch) == 1
        assert bytes(batch[0].data).endswith(b"payload")
        assert batch.addresses() == [("127.0.0.1", 0)]


# Threads


def test_one_loop_per_thread(engine: str) -> None:
    """Each thread has its own loop, socket and batch; nothing that they share gets mixed up."""
    results: dict[int, list[bytes]] = {}

    async def main(me: int) -> None:
        with Family("inet", None) as family:
            receiver, sender = family.pair()
            batch = PacketBatch(8, engine=engine)
            seen: list[bytes] = []
            for number in range(200):
                sender.send(b"%d/%d" % (me, number))
                with anyio.fail_after(5):
                    await recv_mmsg(receiver, batch, 1)
                seen += contents(batch)
                batch.clear()
            results[me] = seen

    threads = [
        threading.Thread(target=anyio.run, args=(main, me), kwargs={"backend": backend})
        for me, backend in enumerate(["asyncio", "trio"] * 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {me: [b"%d/%d" % (me, n) for n in range(200)] for me in range(4)}
