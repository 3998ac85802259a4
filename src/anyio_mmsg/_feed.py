"""From a receiver into a memory stream, with a say in what happens when consumers are slow."""

from __future__ import annotations

import contextlib
import traceback
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
    overload: Overload = "block",
    oldest: MemoryObjectReceiveStream[PacketBatch] | None = None,
    *,
    on_drop: Callable[[PacketBatch], object] | None = None,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Receive batches and send them into a memory object stream, until the receiver is closed.

    For a nursery: ``nursery.start_soon(feed, receiver, send_stream, "drop_newest")``. One send
    for a batch, whatever it holds. The stream is closed at the end, so that consumers end too;
    give a clone to keep it open. Consumers own what they get, and close it: ``with batch:``.

    Consumers are too slow when the stream is full, or no batch of the pool would be left to
    receive into. Each packet that is dropped then counts in `ReceiverStatistics.dropped`, and so
    do those in batches that the end of feed or stream leaves with nobody, when Python collects
    them.

    Args:
        receiver: Where batches come from. It is not closed here.
        stream: Where they go.
        overload: What to do when consumers are too slow. "block": stop reading until they are
            not; packets wait in the kernel, and what finds no room there is dropped and counted
            by the kernel. "drop_newest": drop the batch that was just received. "drop_oldest":
            drop the one that waits longest in the stream, for those to whom news matter.
        oldest: The receiving end of `stream`, which "drop_oldest" takes from: keep it open as long
            as anyone consumes. Once it is closed the newest are dropped instead.
        on_drop: Called with each batch that this function drops; it is closed after the call, if
            the callback has not done so.
        task_status: For ``await nursery.start(feed, ...)``, which returns when it is about to
            receive.

    Raises:
        anyio.BrokenResourceError: All receiving ends were closed: nobody is left to feed. The
            batch at hand counts as dropped.
        ValueError: `overload` is unknown, "drop_oldest" has no `oldest`, or a policy that drops a
            pool of one batch.
        Exception: What `PacketReceiver.receive` raises, but for ClosedResourceError.
    """
    if overload not in get_args(Overload):
        raise ValueError(f"overload is {overload!r}; give one of {get_args(Overload)}")
    if (overload == "drop_oldest") != (oldest is not None):
        raise ValueError(
            'give oldest, the receiving end of stream, with overload="drop_oldest" only'
        )

    if overload != "block" and receiver.pool.size < 2:
        raise ValueError(
            "the receiver's pool has one batch, which would always be dropped to have one to "
            "receive into; give it a pool of 2 or more"
        )

    def drop(batch: PacketBatch) -> None:
        receiver.count_dropped(len(batch))
        try:
            if on_drop is not None:
                on_drop(batch)
        finally:
            if not batch.closed:
                batch.close()

    def sent(batch: PacketBatch) -> bool:
        """Send `batch` if there is room, and another one left to receive into."""
        if receiver.pool.free:
            with contextlib.suppress(WouldBlock):
                stream.send_nowait(batch)
                return True
        return False

    with stream:
        task_status.started()
        while True:
            try:
                batch = await receiver.receive()
            except ClosedResourceError:
                if receiver.closed:
                    return
                raise
            if overload == "block":
                try:
                    await stream.send(batch)
                except BrokenResourceError:
                    drop(batch)
                    raise
                except BaseException as error:
                    # Cancelled, but a consumer may have got the batch nevertheless: it is not to
                    # be closed here. Let go of it: if nobody has it, it goes back by itself, now.
                    del batch
                    _clear_frames(error)
                    raise
                continue
            try:
                while not sent(batch):
                    victim = _oldest(oldest)
                    if victim is None:
                        break
                    drop(victim)
                else:
                    continue
            except BaseException:  # nobody is left, or a callback failed
                drop(batch)
                raise
            drop(batch)


def _clear_frames(error: BaseException | None) -> None:
    """Empty the frames that an exception has left, which hold what their functions were given."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _oldest(stream: MemoryObjectReceiveStream[PacketBatch] | None) -> PacketBatch | None:
    try:
        return None if stream is None else stream.receive_nowait()
    except (WouldBlock, ClosedResourceError):
        return None  # consumers have them all
