"""A full buffer: waiting, cancellation, what is held meanwhile."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendResult,
    UnusableSocketError,
    recv_mmsg_nowait,
    send_mmsg,
)
from anyio_mmsg._compat import wait_socket_readable

from ..helpers import Family, contents
from .helpers import Send, both, fill_buffer, fill_from_peer, received

pytestmark = pytest.mark.anyio


@both
async def test_waits_for_room(
    send: Send, sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = narrow
    filled = fill_buffer(sender)
    sent = [b"x" * 100] * (2 * filled)
    done = SendResult()
    got: list[bytes] = []

    async def send_all() -> None:
        assert await send(sender, sent, None, engine=sending, result=done) is done

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_all)
            await wait_all_tasks_blocked()
            assert done == SendResult(0, [])
            got += received(receiver)
            assert got == [b"filler"] * filled
            while len(got) < filled + len(sent):
                await wait_socket_readable(receiver)
                got += received(receiver)
                assert len(got) <= filled + done.sent
    assert done == SendResult(len(sent), [])
    assert got[filled:] == sent
    assert received(receiver) == []


async def test_waits_for_a_receiver_that_is_full(sending: SendEngine, tmp_path: Path) -> None:
    """Of an unconnected unix socket the system says that it is writable, and then has no room."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no unix sockets on this platform")
    got: list[bytes] = []
    with Family("unix", tmp_path) as family:
        sender, receiver = family.open(), family.open()
        packets = [(b"%d" % number, receiver.getsockname()) for number in range(1000)]

        async def read() -> None:
            while len(got) < len(packets):
                got.extend(received(receiver))
                await checkpoint()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                assert await send_mmsg(sender, packets, engine=sending) == SendResult(1000, [])
    assert got == [data for data, _ in packets]


@pytest.mark.parametrize("gso", [False, True], ids=["plain", "gso"])
@pytest.mark.parametrize("after", range(8))
async def test_cancelled_anywhere_nothing_is_sent_twice_or_left_out(
    after: int, gso: bool, sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """The receiver reads a little at a time; the call is cancelled, and called for the rest."""
    sender, receiver = narrow
    packets = [(b"%d" % number, None) for number in range(100)]
    got: list[bytes] = []
    steps = 0

    async def send_the_rest() -> None:
        start = 0
        while start < len(packets):
            result = SendResult()
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await send_mmsg(sender, packets[start:], gso=gso, engine=sending, result=result)
            assert result.failures == []
            start += result.handled

    scopes: list[anyio.CancelScope] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_the_rest)
            while len(got) < len(packets):
                steps += 1
                if steps % 5 == 0:
                    got += received(receiver)
                if steps % (after + 4) == 0:
                    scopes[-1].cancel()
                await checkpoint()
    assert got == [data for data, _ in packets]


@pytest.mark.parametrize("what", ["batch", "packets", "pairs"])
async def test_what_is_not_sent_yet_is_held(
    what: str,
    sending: SendEngine,
    engine: ReceiveEngine,
    narrow: tuple[socket.socket, socket.socket],
) -> None:
    """While a call waits, its packets can't be released."""
    sender, receiver = narrow
    batch = PacketBatch(3, 16, engine)
    fill_from_peer(batch, sender, receiver, *(b"packet %d" % number for number in range(3)))
    filled = fill_buffer(sender)
    things = {"batch": batch, "packets": list(batch)}
    todo: Any = things.get(what) or [(packet.data, packet) for packet in batch]
    result = SendResult()
    got: list[bytes] = []

    async def send() -> None:
        await send_mmsg(sender, todo, engine=sending, result=result)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await wait_all_tasks_blocked()
            for end in (batch.clear, batch.release, batch.close):
                with pytest.raises(BufferError, match="send that waits"):
                    end()
            assert contents(batch) == [b"packet 0", b"packet 1", b"packet 2"]
            got += received(receiver)
    assert got + received(receiver) == [b"filler"] * filled + contents(batch)
    assert result == SendResult(3, [])
    batch.close()


async def test_a_bytearray_keeps_its_size_while_it_waits(
    sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = narrow
    fill_buffer(sender)
    data = bytearray(b"ten bytes!")

    async def send() -> None:
        await send_mmsg(sender, [(data, None)], engine=sending)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await wait_all_tasks_blocked()
            with pytest.raises(BufferError):
                data.clear()
            received(receiver)
    assert received(receiver) == [b"ten bytes!"]
    data.clear()


async def test_after_a_cancellation_all_is_let_go(
    sending: SendEngine, engine: ReceiveEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = narrow
    batch = PacketBatch(3, 16, engine)
    receiver.send(b"packet")
    assert recv_mmsg_nowait(sender, batch) == 1
    fill_buffer(sender)
    with anyio.move_on_after(0.01) as scope:
        await send_mmsg(sender, batch, engine=sending)
    assert scope.cancelled_caught
    batch.close()


async def test_several_tasks_send_by_one_socket(
    sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """They take turns in waiting, and each gets all of its own through, in order."""
    sender, receiver = narrow
    got: list[bytes] = []

    async def send(name: bytes) -> None:
        packets = [(b"%s %d" % (name, number), None) for number in range(100)]
        assert await send_mmsg(sender, packets, engine=sending) == SendResult(100, [])

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for name in (b"a", b"b", b"c"):
                tasks.start_soon(send, name)
            while len(got) < 300:
                got += received(receiver)
                await checkpoint()
    for name in (b"a", b"b", b"c"):
        assert [data for data in got if data[:1] == name] == [
            b"%s %d" % (name, number) for number in range(100)
        ]


async def test_a_task_that_is_cancelled_while_others_have_the_turn(
    sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = narrow
    fill_buffer(sender)
    results = [SendResult() for _ in range(6)]
    scopes = [anyio.CancelScope() for _ in results]
    got: list[bytes] = []

    async def send(index: int) -> None:
        with scopes[index]:
            packets = [(b"%d %d" % (index, number), None) for number in range(50)]
            await send_mmsg(sender, packets, engine=sending, result=results[index])

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for index in range(len(results)):
                tasks.start_soon(send, index)
            await wait_all_tasks_blocked()
            for index in (4, 1, 0):
                got += received(receiver)[:1]
                scopes[index].cancel()
                await checkpoint()
            while any(results[index].handled < 50 for index in (2, 3, 5)):
                got += received(receiver)
                await checkpoint()
    got += received(receiver)
    for index in (2, 3, 5):
        mine = [data for data in got if data.startswith(b"%d " % index)]
        assert len(mine) <= 50
        assert results[index] == SendResult(50, [])


@pytest.mark.parametrize("gap", [False, True])
async def test_closing_under_many_waiters(
    gap: bool, sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """All of them hear of it, whether the close follows at once or later."""
    if not hasattr(anyio, "notify_closing"):
        pytest.skip("anyio.notify_closing came with AnyIO 4.10")
    sender, _ = narrow
    fill_buffer(sender)
    raised: list[Exception] = []

    async def send() -> None:
        try:
            await send_mmsg(sender, [(b"x", None)], engine=sending)
        except Exception as error:
            raised.append(error)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(send)
            await wait_all_tasks_blocked()
            anyio.notify_closing(sender)
            if gap:
                await wait_all_tasks_blocked()
            sender.close()
    assert [type(error) for error in raised] == [UnusableSocketError] * 4
