"""What public things look like in a log or a debugger, in whatever state they are."""

from __future__ import annotations

import abc
import inspect
import pickle
import pydoc
import threading
from typing import Any

import anyio
import pytest

import anyio_mmsg
from anyio_mmsg import (
    BatchFullError,
    MulticastGroup,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    ReceiveEngine,
    SendFailure,
    SendResult,
    UnusableSocketError,
    recv_mmsg_nowait,
)

from .helpers import Family


def test_packets(inet: Family, engine: ReceiveEngine) -> None:
    receiver, sender = inet.pair()
    for data in (b"", b"ab", b"abcdef"):
        sender.send(data)
    batch = PacketBatch(4, 5, engine)
    while len(batch) < 3:
        recv_mmsg_nowait(receiver, batch)
    empty, short, cut = batch
    name = sender.getsockname()
    assert repr(empty) == f"<Packet of 0 bytes from {name}>"
    assert repr(short) == f"<Packet of 2 bytes from {name}>"
    assert repr(cut) == f"<Packet of 5 bytes from {name}, truncated>"
    cut.data.release()
    assert repr(cut) == f"<Packet from {name}, its data was released>"
    batch.clear()
    assert repr(short) == repr(cut) == "<Packet, released>"


def test_batches(inet: Family, engine: ReceiveEngine) -> None:
    receiver, sender = inet.pair()
    sender.send(b"x")
    batch = PacketBatch(4, engine=engine)
    recv_mmsg_nowait(receiver, batch)
    assert repr(batch) == "<PacketBatch capacity=4 held=1 free=3>"
    batch.close()
    assert repr(batch) == "<PacketBatch, closed>"
    assert repr(PacketBatch.__new__(PacketBatch)) == "<PacketBatch, closed>"
    assert repr(PacketBatch(2, gro=True)) == "<PacketBatch capacity=2 held=0 free=2>"


@pytest.mark.anyio
async def test_a_batch_that_is_being_filled(inet: Family, engine: ReceiveEngine) -> None:
    """A debugger's thread may ask for it too."""
    batch = PacketBatch(4, engine=engine)
    seen: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio_mmsg.recv_mmsg, inet.open(), batch)
        await anyio.wait_all_tasks_blocked()
        thread = threading.Thread(target=lambda: seen.append(repr(batch)))
        thread.start()
        thread.join()
        tasks.cancel_scope.cancel()
    assert seen == ["<PacketBatch capacity=4 held=0 free=4>"]


@pytest.mark.anyio
async def test_pools() -> None:
    pool = PacketBatchPool(1, 4)
    assert repr(pool) == "<PacketBatchPool size=1 capacity=4 lent=0 waiting=0>"

    async def acquire() -> None:
        (await pool.acquire()).close()

    batch = await pool.acquire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(acquire)
        await anyio.wait_all_tasks_blocked()
        assert repr(pool) == "<PacketBatchPool size=1 capacity=4 lent=1 waiting=1>"
        batch.close()
    assert repr(batch) == "<PacketBatch, closed>"
    assert repr(PacketBatchPool.__new__(PacketBatchPool)) == "<PacketBatchPool, not made yet>"


@pytest.mark.anyio
async def test_receivers(family: Family) -> None:
    sock, sender = family.pair()
    name = sock.getsockname()[:2] if family.name == "inet6" else sock.getsockname()
    receiver = PacketReceiver(sock)
    assert repr(receiver) == f"<PacketReceiver, open at {name!r}: 0 packets in 0 batches>"
    sender.send(b"x")
    (await receiver.receive()).close()
    receiver.stop()
    assert repr(receiver) == f"<PacketReceiver, stopped at {name!r}: 1 packets in 1 batches>"
    await receiver.aclose()
    assert repr(receiver) == "<PacketReceiver, closed: 1 packets in 1 batches>"
    assert repr(PacketReceiver.__new__(PacketReceiver)) == "<PacketReceiver, not made yet>"


def test_what_became_of_a_send() -> None:
    result = SendResult(2, [SendFailure(1, PermissionError(1, "no"))])
    words = "SendResult(sent=2, failures=[SendFailure(index=1, error=PermissionError(1, 'no'))])"
    assert repr(result) == words
    assert repr(SendResult.__new__(SendResult)) in (
        "SendResult(sent=0, failures=[])",  # compiled
        "<SendResult, not made yet>",
    )
    error = UnusableSocketError(9, "it is closed", result)
    assert (str(error), repr(error)) == (
        "[Errno 9] it is closed",
        f"UnusableSocketError(9, 'it is closed', {words})",
    )
    assert repr(pickle.loads(pickle.dumps(error))) == repr(error)
    unmade = UnusableSocketError.__new__(UnusableSocketError)
    assert repr(unmade) == "UnusableSocketError(None, None, None)"


def test_what_says_it_all() -> None:
    """Data classes and errors: their repr makes them again."""
    things: list[Any] = [MulticastGroup("239.1.2.3", "eth0"), PacketBatchPool(2).statistics()]
    for thing in things:
        assert eval(repr(thing), dict(vars(anyio_mmsg))) == thing
    assert repr(BatchFullError("no room")) == "BatchFullError('no room')"


def test_public_things_say_where_they_are_from() -> None:
    for name in anyio_mmsg.__all__:
        thing = getattr(anyio_mmsg, name)
        if inspect.isfunction(thing) or type(thing) in (type, abc.ABCMeta):
            assert (thing.__module__, thing.__qualname__) == ("anyio_mmsg", name)


def test_help_begins_with_use() -> None:
    words = pydoc.plain(pydoc.render_doc(anyio_mmsg))
    use, _, rest = words.partition("PACKAGE CONTENTS")
    assert "async for batch in receiver" in use
    assert not [line for line in use.splitlines() if line.strip().startswith("_")]
    assert rest
