"""The receive functions: closed sockets, and what is refused."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    BatchFullError,
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
    contents,
    drain,
)
from .conftest import wait_by

pytestmark = pytest.mark.anyio

Receive = Callable[..., Awaitable[int]]
both = pytest.mark.parametrize("receive", [recv_mmsg, recv_mmsg_exact])


# Closing


@both
async def test_a_closed_socket(receive: Receive, engine: ReceiveEngine, inet: Family) -> None:
    sock = inet.open()
    sock.close()
    batch = PacketBatch(engine=engine)
    with pytest.raises(anyio.ClosedResourceError):
        await receive(sock, batch)
    with pytest.raises(anyio.ClosedResourceError):
        recv_mmsg_nowait(sock, batch)


@pytest.mark.skipif(not hasattr(os, "set_blocking"), reason="no descriptors to close by number")
async def test_a_descriptor_closed_by_number(engine: ReceiveEngine, inet: Family) -> None:
    sock, batch = inet.open(), PacketBatch(engine=engine)
    os.close(sock.fileno())
    try:
        with pytest.raises(anyio.ClosedResourceError), anyio.fail_after(60):
            await recv_mmsg(sock, batch)
        with pytest.raises(anyio.ClosedResourceError):
            recv_mmsg_nowait(sock, batch)
    finally:
        sock.detach()


@pytest.mark.skipif(not hasattr(os, "set_blocking"), reason="no modes of descriptors")
async def test_a_descriptor_that_became_blocking(engine: ReceiveEngine, inet: Family) -> None:
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
    with anyio.fail_after(60), pytest.raises(ValueError, match='engine="auto"'):
        await recv_mmsg(inet.open(), batch)


@both
async def test_closing_under_a_waiter(
    receive: Receive, engine: ReceiveEngine, inet: Family
) -> None:
    if not hasattr(anyio, "notify_closing"):
        pytest.skip("anyio.notify_closing came with AnyIO 4.10")
    batch = PacketBatch(engine=engine)
    sock = inet.open()

    async def receive_until_closed() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await receive(sock, batch)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive_until_closed)
            await wait_all_tasks_blocked()
            anyio.notify_closing(sock)
            sock.close()
        # A new socket, very likely with the same number, is not taken for the closed one.
        receiver, sender = inet.pair()
        sender.send(b"x")
        assert await recv_mmsg(receiver, batch) == 1


async def test_closing_between_readiness_and_read(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(engine=engine)
    wait = _compat.wait_socket_readable

    async def close_after_the_wait(sock: Any) -> None:
        await wait(sock)
        sock.close()

    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(60):
        wait_by(patch, close_after_the_wait)
        sender.send(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            await recv_mmsg(receiver, batch)


async def test_closing_during_the_plain_checkpoint(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(engine=engine)
    for _ in range(2):
        sender.send(b"x")
    recv_mmsg_nowait(receiver, batch, 1)

    async def close_meanwhile() -> None:
        await checkpoint()
        receiver.close()

    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(60):
        patch.setattr(functions, "checkpoint", close_meanwhile)
        with pytest.raises(anyio.ClosedResourceError):
            await recv_mmsg(receiver, batch)


async def test_a_new_socket_with_a_remembered_number(
    engine: ReceiveEngine, inet: Family, waits: list[socket.socket]
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
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recv_mmsg, fresh, batch)
            await wait_all_tasks_blocked()
            sender.sendto(b"y", fresh.getsockname())
    assert contents(batch) == [b"x", b"y"]
    assert waits == [fresh]


# Refusals


@both
async def test_a_full_batch(receive: Receive, engine: ReceiveEngine, inet: Family) -> None:
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


@pytest.mark.parametrize("limit", [2**31, 2**63 - 1, 2**63, 2**100])
async def test_a_limit_beyond_memory_is_none(
    engine: ReceiveEngine, limit: int, inet: Family
) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(2, engine=engine)
    for _ in range(2):
        sender.send(b"x")
        assert recv_mmsg_nowait(receiver, batch, limit) == 1
    with pytest.raises(BatchFullError):
        await recv_mmsg(receiver, batch, limit)
    batch.release()
    sender.send(b"x")
    with pytest.raises(ValueError, match=r"count is .*; release packets first"):
        await recv_mmsg_exact(receiver, batch, limit)
    assert await recv_mmsg(receiver, batch, limit) == 1


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


async def test_no_socket_after_one_that_is_gone(engine: ReceiveEngine, inet: Family) -> None:
    """What is known of a batch's last socket does not pass for anything else."""
    batch, sender = PacketBatch(engine=engine), inet.open()
    with socket.fromfd(sender.fileno(), sender.family, sender.type) as sock:
        sock.setblocking(False)
        sender.sendto(b"x", sender.getsockname())
        await recv_mmsg(sock, batch)
    del sock
    gc.collect()
    nothing: Any = None
    with pytest.raises(TypeError, match="NoneType"):
        recv_mmsg_nowait(nothing, batch)
    with pytest.raises(TypeError, match="NoneType"):
        await recv_mmsg(nothing, batch)


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
    with anyio.fail_after(60):
        assert await recv_mmsg(receiver, batch) == 1


async def test_a_raw_socket_is_one_for_datagrams(engine: ReceiveEngine) -> None:
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)  # RFC 3692: for experiments
    except PermissionError:
        pytest.skip("raw sockets need a privilege that this user has not")
    with sock, socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as sender:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        sender.sendto(b"payload", ("127.0.0.1", 0))
        batch = PacketBatch(engine=engine)
        with anyio.fail_after(60):
            assert await recv_mmsg(sock, batch) == 1
        assert bytes(batch[0].data).endswith(b"payload")
        assert batch.addresses() == [("127.0.0.1", 0)]
