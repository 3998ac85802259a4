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

    feeder = _Feeder(receiver, stream, overload, oldest, on_drop)
    try:
        with stream:
            task_status.started()
            await feeder.run()
    except anyio.get_cancelled_exc_class() as error:
        # What nobody has goes back by itself, and is counted, as soon as nothing refers to it: so
        # not the frames that the exception has left either, however long somebody keeps it.
        del feeder, stream, oldest
        _clear_frames(error)
        raise


class _Feeder:
    """What `feed` does, batch by batch."""

    def __init__(
        self,
        receiver: PacketReceiver,
        stream: MemoryObjectSendStream[PacketBatch],
        overload: Overload,
        oldest: MemoryObjectReceiveStream[PacketBatch] | None,
        on_drop: Callable[[PacketBatch], object] | None,
    ) -> None:
        self.receiver = receiver
        self.stream = stream
        self.deliver = self.block if overload == "block" else self.make_room
        self.oldest = oldest
        self.on_drop = on_drop

    async def run(self) -> None:
        while True:
            try:
                batch = await self.receiver.receive()
            except ClosedResourceError:
                if self.receiver.closed:
                    return
                raise
            await self.deliver(batch)

    async def block(self, batch: PacketBatch) -> None:
        try:
            await self.stream.send(batch)
        except BrokenResourceError:
            self.drop(batch)
            raise
        # If that is cancelled, a consumer may have got the batch nevertheless: it is not closed.

    async def make_room(self, batch: PacketBatch) -> None:
        try:
            while not self.sent(batch):
                victim = self.longest_waiting()
                if victim is None:
                    break
                self.drop(victim)
            else:
                return
        except BaseException:  # nobody is left, or the callback failed
            self.drop(batch)
            raise
        self.drop(batch)

    def sent(self, batch: PacketBatch) -> bool:
        """Send `batch` if there is room, and another one left to receive into."""
        if self.receiver.pool.free:
            with contextlib.suppress(WouldBlock):
                self.stream.send_nowait(batch)
                return True
        return False

    def longest_waiting(self) -> PacketBatch | None:
        try:
            return None if self.oldest is None else self.oldest.receive_nowait()
        except (WouldBlock, ClosedResourceError):
            return None  # consumers have them all

    def drop(self, batch: PacketBatch) -> None:
        self.receiver.count_dropped(len(batch))
        try:
            if self.on_drop is not None:
                self.on_drop(batch)
        finally:
            if not batch.closed:
                batch.close()


def _clear_frames(error: BaseException | None) -> None:
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
