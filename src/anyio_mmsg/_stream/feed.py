"""From a receiver into a memory stream, with a policy for slow consumers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Literal, get_args

import anyio
from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    WouldBlock,
    get_cancelled_exc_class,
)
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .._packets.batch import PacketBatch
from .handover import Handover
from .loans import count_dropped, hold
from .lost import NOBODY, Holder
from .receiver import PacketReceiver

OverloadPolicy = Literal["block", "drop_newest", "drop_oldest"]


async def feed(
    receiver: PacketReceiver,
    stream: MemoryObjectSendStream[PacketBatch],
    overload: OverloadPolicy = "block",
    drop_from: MemoryObjectReceiveStream[PacketBatch] | None = None,
    *,
    on_drop: Callable[[PacketBatch], object] | None = None,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Receive batches and send them into a memory object stream, until the receiver ends.

    For a nursery: ``nursery.start_soon(feed, receiver, send_stream, "drop_newest")``. One send
    for a batch, whatever it holds. The stream is closed at the end, so that consumers end too;
    give a clone to keep it open. Consumers own what they get, and close it: ``with batch:``.

    To end it without a loss call ``receiver.stop()``: what had arrived is sent, then this function
    returns. It also returns when the receiver is closed. If it is cancelled while it waits for
    room in the stream, the receiver returns the batch at hand again; if it is cancelled by other
    means than a cancel scope, such as `asyncio.Task.cancel`, that batch is dropped.

    Consumers are too slow when the stream is full, or no batch of the pool would be left to
    receive into. Each packet that is dropped then counts in `ReceiverStatistics.dropped`, and so
    do those in batches that belong to nobody when feed or the stream ends, once Python collects
    them.

    Args:
        receiver: Where batches come from. It is not closed here.
        stream: Where they go.
        overload: What to do when consumers are too slow. "block": stop reading until they are
            not; packets wait in the kernel, and what finds no room there is dropped and counted
            by the kernel. "drop_newest": drop the batch that was just received. "drop_oldest":
            drop the one that waits longest in the stream, when fresh data matters most. After
            `PacketReceiver.stop` no batch is dropped, but waited for as in "block".
        drop_from: The receiving end of `stream`, which "drop_oldest" takes from: keep it open as
            long as anyone consumes. Once it is closed the newest are dropped instead.
        on_drop: Called with each batch that this function drops; it is closed after the call, if
            the callback has not done so. Copy what has to live longer.
        task_status: For ``await nursery.start(feed, ...)``, which returns when it is about to
            receive.

    Raises:
        anyio.BrokenResourceError: All receiving ends were closed: nobody is left to receive. The
            batch at hand counts as dropped.
        BufferError: `on_drop` has kept something that uses the memory of a packet. The batch
            counts as dropped, and goes back to the pool when nothing uses it any longer.
        TypeError: `receiver` is not a `PacketReceiver`, or a stream was not made by
            `anyio.create_memory_object_stream`.
        ValueError: `overload` is unknown, "drop_oldest" has no `drop_from`, or a policy that drops
            a pool of one batch.
        Exception: What `PacketReceiver.receive` raises, except ClosedResourceError.
    """
    if not isinstance(receiver, PacketReceiver):
        raise TypeError(f"receiver is a {_name(receiver)}, and has to be a PacketReceiver")
    if not isinstance(stream, MemoryObjectSendStream):
        raise TypeError(
            f"stream is a {_name(stream)}, and has to be a memory object stream; "
            f"anyio.create_memory_object_stream returns the two ends of one: give the sending end"
        )
    if not isinstance(drop_from, (MemoryObjectReceiveStream, type(None))):
        raise TypeError(
            f"drop_from is a {_name(drop_from)}, and has to be the receiving end of stream, the "
            f"second one of those that anyio.create_memory_object_stream returned"
        )
    if on_drop is not None and not callable(on_drop):
        raise TypeError(f"on_drop is a {_name(on_drop)}, and has to be a function of one batch")
    if overload not in get_args(OverloadPolicy):
        raise ValueError(f"overload is {overload!r}; give one of {get_args(OverloadPolicy)}")
    if (overload == "drop_oldest") != (drop_from is not None):
        raise ValueError(
            'give drop_from, the receiving end of stream, with overload="drop_oldest" only'
        )
    if overload != "block" and receiver.pool.size < 2:
        raise ValueError(
            "the receiver's pool has one batch, which would always be dropped to have one to "
            "receive into; give it a pool of 2 or more"
        )

    feeder = _Feeder(receiver, stream, overload, drop_from, on_drop)
    try:
        with stream:
            task_status.started()
            await feeder.run()
    finally:
        # A batch that nobody has goes back to the pool, and is counted, when nothing refers to it.
        # An exception refers to the frames that it has left, so these let go of it.
        feeder.let_go()
        del feeder, receiver, stream, drop_from, on_drop


def _name(thing: object) -> str:
    kind = type(thing)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


class _Feeder:
    """What `feed` does, batch by batch."""

    def __init__(
        self,
        receiver: PacketReceiver,
        stream: MemoryObjectSendStream[PacketBatch],
        overload: OverloadPolicy,
        drop_from: MemoryObjectReceiveStream[PacketBatch] | None,
        on_drop: Callable[[PacketBatch], object] | None,
    ) -> None:
        self.receiver = receiver
        self.stream = stream
        self.blocks = overload == "block"
        self.drop_from = drop_from
        self.on_drop = on_drop
        self.holder: Holder = ["feed"]  # of each batch, as nobody knows which consumer gets it

    def let_go(self) -> None:
        self.holder.clear()  # what is in the stream now may be nobody's
        vars(self).clear()

    async def run(self) -> None:
        while True:
            try:
                batch = await self.receiver.receive()
            except EndOfStream:
                if self.receiver.stopped:
                    return
                raise
            except ClosedResourceError:
                if self.receiver.closed:
                    return
                raise
            hold(batch, self.holder)
            if self.blocks or self.receiver.stopped:
                sending = self.block(batch)
                del batch  # from here on the send has it, and nobody else
                await sending
            else:
                self.make_room(batch)

    async def block(self, batch: PacketBatch) -> None:
        with contextlib.suppress(WouldBlock):
            self.stream.send_nowait(batch)
            return
        handover = Handover(self.stream)
        try:
            await handover.send(batch)
        except get_cancelled_exc_class():
            # A cancel scope shows in the deadline. Otherwise other code threw this exception in,
            # and may have its own plans for the work under way: the batch is not taken back.
            if not handover.taken:
                hold(batch, NOBODY)
            if not handover.taken and anyio.current_effective_deadline() == -math.inf:
                self.receiver._take_back(batch)
            del batch, handover
            raise
        except BrokenResourceError:
            self.drop(batch)
            raise

    def make_room(self, batch: PacketBatch) -> None:
        # If a signal handler raises here, a consumer may have the batch already, so it must not
        # be dropped. If no consumer has it, the pool counts it when it is collected.
        while not self.try_to_send(batch):
            victim = self.longest_waiting()
            if victim is None:
                self.drop(batch)
                return
            try:
                self.drop(victim)
            except BaseException:  # the callback failed
                self.drop(batch)
                raise

    def try_to_send(self, batch: PacketBatch) -> bool:
        """Send `batch` if there is room, and another one left to receive into."""
        if self.receiver.pool.free:
            try:
                self.stream.send_nowait(batch)
            except WouldBlock:
                return False
            except BrokenResourceError:  # nobody is left
                self.drop(batch)
                raise
            return True
        return False

    def longest_waiting(self) -> PacketBatch | None:
        try:
            return None if self.drop_from is None else self.drop_from.receive_nowait()
        except (WouldBlock, ClosedResourceError):
            return None  # consumers have all batches

    def drop(self, batch: PacketBatch) -> None:
        count_dropped(batch, len(batch))
        try:
            if self.on_drop is not None:
                self.on_drop(batch)
        finally:
            if not batch.closed:
                batch.close()
