"""From a receiver into a memory stream, with a say in what happens when consumers are slow."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Literal, get_args

import anyio
from anyio import BrokenResourceError, ClosedResourceError, WouldBlock
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from ._batch import PacketBatch
from ._receiver import PacketReceiver

Overload = Literal["block", "drop_newest", "drop_oldest"]


async def feed(
    receiver: PacketReceiver,
    stream: MemoryObjectSendStream[PacketBatch],
    *,
    overload: Overload = "block",
    oldest: MemoryObjectReceiveStream[PacketBatch] | None = None,
    on_drop: Callable[[PacketBatch], object] | None = None,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Receive batches and send them into a memory object stream, until the receiver is closed.

    For a nursery: ``nursery.start_soon(feed, receiver, send_stream)``. One send for a batch,
    whatever it holds. The stream is closed at the end, so that consumers end too; give a clone to
    keep it open. Consumers own what they get, and close it: ``with batch:``.

    Consumers are too slow when the stream is full, or no batch of the pool would be left to
    receive into. Each packet that is dropped then counts in `ReceiverStatistics.dropped`.

    Args:
        receiver: Where batches come from. It is not closed here.
        stream: Where they go.
        overload: What to do when consumers are too slow. "block": stop reading until they are
            not; packets wait in the kernel, and what finds no room there is dropped and counted
            by the kernel. "drop_newest": drop the batch that was just received. "drop_oldest":
            drop the one that waits longest in the stream, for those to whom news matter.
        oldest: The receiving end of `stream`, which "drop_oldest" takes from, by a clone.
        on_drop: Called with each batch that is dropped, before it is closed.
        task_status: For ``await nursery.start(feed, ...)``, which returns when it is about to
            receive.

    Raises:
        anyio.BrokenResourceError: All receiving ends were closed: nobody is left to feed. The
            batch at hand counts as dropped.
        ValueError: `overload` is unknown, or "drop_oldest" has no `oldest`.
        Exception: What `PacketReceiver.receive` raises, but for ClosedResourceError.
    """
    if overload not in get_args(Overload):
        raise ValueError(f"overload is {overload!r}; give one of {get_args(Overload)}")
    if (overload == "drop_oldest") != (oldest is not None):
        raise ValueError(
            'give oldest, the receiving end of stream, with overload="drop_oldest" only'
        )

    with contextlib.ExitStack() as stack:
        stack.enter_context(stream)
        tail = None if oldest is None else stack.enter_context(oldest.clone())
        task_status.started()
        while True:
            try:
                batch = await receiver.receive()
            except ClosedResourceError:
                return
            while True:
                try:
                    if overload == "block":
                        await stream.send(batch)
                        break
                    if _sent(batch, receiver, stream, tail):
                        break
                except BaseException:  # cancelled, or nobody is left
                    _drop(batch, receiver, on_drop)
                    raise
                victim = _oldest(tail)
                _drop(batch if victim is None else victim, receiver, on_drop)
                if victim is None:
                    break


def _sent(
    batch: PacketBatch,
    receiver: PacketReceiver,
    stream: MemoryObjectSendStream[PacketBatch],
    tail: MemoryObjectReceiveStream[PacketBatch] | None,
) -> bool:
    """Send `batch` if there is room, and another batch left to receive into."""
    if tail is not None and stream.statistics().open_receive_streams == 1:
        raise BrokenResourceError  # that one is ours
    if not receiver.pool.free:
        return False
    try:
        stream.send_nowait(batch)
    except WouldBlock:
        return False
    return True


def _oldest(tail: MemoryObjectReceiveStream[PacketBatch] | None) -> PacketBatch | None:
    try:
        return None if tail is None else tail.receive_nowait()
    except WouldBlock:
        return None  # consumers have them all


def _drop(
    batch: PacketBatch,
    receiver: PacketReceiver,
    on_drop: Callable[[PacketBatch], object] | None,
) -> None:
    try:
        if on_drop is not None:
            on_drop(batch)
    finally:
        receiver.drop(batch)
