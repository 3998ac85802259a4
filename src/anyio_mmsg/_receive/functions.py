"""The receive functions: guard, checkpoint, wait, fill. Only they wait for packets.

A call can be cancelled only before it reads. From the read on nothing awaits: what was read is in
the batch before any other task runs. That is why no packet is lost.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, SupportsIndex

from anyio import BusyResourceError, ClosedResourceError, WouldBlock

from .._arguments import whole_number
from .._compat import checkpoint, waits
from .._packets import Slots
from .._packets.batch import NUM_RCVMMSGS, BatchFullError, PacketBatch
from .._system.error_queue import errors_pending
from .._system.options import has_gro
from .._system.platform import again, family_of, give_up, ready, refill
from .engine import Reader, check_engine, engine_for, filler_of
from .errors import (
    as_reported,
    back_off,
    defer_reported,
    let_packets_through,
    raise_reported,
)
from .outlook import Outlook, outlook_for
from .usable import ensure_usable

MOST_AT_ONCE = 256
"""Messages that `recv_mmsg_exact` reads before it lets other tasks run, since a flood never ends.
The number is a compromise: the portable engine reads them in less than a millisecond, and a
checkpoint costs as much as some ten packets."""


async def recv_mmsg(
    sock: socket.socket, batch: PacketBatch, limit: SupportsIndex = NUM_RCVMMSGS
) -> int:
    """Wait until a packet is there, then take all that are there into `batch`.

    They are appended, in order of arrival, to the packets in the batch. If the last receive
    on the socket took all that it asked for, there is a plain checkpoint instead of the wait.

    A checkpoint, always. If it is cancelled, no packet is lost: nothing has been read.

    Args:
        sock: A bound or connected datagram socket, nonblocking. Close it by
            `aclose_udp_socket`, or a waiting receive hangs.
        batch: Where the packets go.
        limit: The most packets to take, at least 1; the batch's free slots are a limit too.

    Returns:
        How many packets were added, 1 to `limit`.

    Raises:
        BatchFullError: The batch has no free slot; at once.
        TypeError: `sock` is not a `socket.socket`, `batch` not a `PacketBatch`, `limit` not an
            int.
        ValueError: `limit` is below 1; `sock` is blocking, or not a datagram socket; the batch is
            closed; or its engine is unavailable here.
        anyio.BusyResourceError: Another task is filling the batch, or waiting for the socket.
        anyio.ClosedResourceError: The socket is closed, or was closed during the wait.
        OSError: What the system reports, such as ConnectionRefusedError on a connected socket
            after an ICMP message. Only when no packet was read: an error that comes after
            packets is raised by the next receive on the socket. Packets that are queued behind
            it are still there. On a socket with ``icmp_errors=True`` it is an `IcmpError`, the
            oldest that nobody has read, one each call.
    """
    is_ready = ready(PacketBatch, sock, batch, limit) if ready else None
    slots, limit = (batch._slots, int(limit)) if is_ready else _check(sock, batch, limit, "limit")
    return await receive_into(sock, slots, limit)


def recv_mmsg_nowait(
    sock: socket.socket, batch: PacketBatch, limit: SupportsIndex = NUM_RCVMMSGS
) -> int:
    """Take the packets that are there now into `batch`: `recv_mmsg` without the waiting.

    Args:
        sock: As for `recv_mmsg`.
        batch: As for `recv_mmsg`.
        limit: As for `recv_mmsg`.

    Returns:
        How many packets were added, 1 to `limit`.

    Raises:
        anyio.WouldBlock: No packet is there.
        Exception: Otherwise as `recv_mmsg`.
    """
    taken: int | None = again(PacketBatch, sock, batch, limit) if again else None
    if taken is None:
        slots, limit = _check(sock, batch, limit, "limit")
        taken = drain(sock, slots, limit, outlook_for(sock))
    elif taken < 0:
        taken = _finish(sock, batch._slots, int(limit), outlook_for(sock), ~taken)
    if not taken:
        raise WouldBlock
    return taken


async def recv_mmsg_exact(
    sock: socket.socket, batch: PacketBatch, count: SupportsIndex | None = None
) -> int:
    """Receive into `batch` until `count` packets more have been added.

    A checkpoint, always, and another one after each 256 messages. If it is cancelled or raises,
    what came before stays in the batch.

    Args:
        sock: As for `recv_mmsg`.
        batch: Where the packets go.
        count: How many, at least 1 and at most ``batch.free``; None for every free slot.

    Returns:
        `count`, or the number of slots that were free. With ``gro=True`` more, if the last train
        brought more than were missing.

    Raises:
        BatchFullError: The batch has no free slot; at once.
        ValueError: `count` is below 1 or above ``batch.free``; otherwise as `recv_mmsg`.
        OSError: As for `recv_mmsg`, when the packets before it were fewer than `count`.
        Exception: Otherwise as `recv_mmsg`.
    """
    slots, wanted = _check(sock, batch, 1 if count is None else count, "count")
    if count is None:
        return await _fill_slots(sock, slots, slots.free)
    if wanted <= slots.free:
        return await _receive_exactly(sock, slots, wanted)
    raise ValueError(
        f"count is {wanted}, but the batch has {slots.free} free slots of {slots.capacity}; "
        f"release packets first, ask for fewer, or make a larger batch"
    )


async def _receive_exactly(sock: socket.socket, slots: Slots, count: int) -> int:
    taken = 0
    while taken < count:
        taken += await receive_into(sock, slots, min(count - taken, MOST_AT_ONCE))
    return taken


async def _fill_slots(sock: socket.socket, slots: Slots, count: int) -> int:
    taken, end = 0, slots.tail + count
    while slots.tail < end:
        taken += await receive_into(sock, slots, min(end - slots.tail, MOST_AT_ONCE))
    return taken


async def receive_into(sock: socket.socket, slots: Slots, limit: int) -> int:
    """Do what `recv_mmsg` promises, for a caller who has checked that it can be done."""
    outlook, filler = outlook_for(sock), filler_of(slots)
    # The coroutine that is awaited says whether a task is receiving: see `Filler.busy`.
    if outlook.more:
        filler.task = task = checkpoint()
        await task
        filler.task = None
        taken = drain(sock, slots, limit, outlook)
        if taken:
            return taken
    look, readable = waits()
    if look is not None:
        await look()
    # Readable does not promise a packet: its checksum may be bad, or another reader took it.
    taken = empty_wakes = 0
    while not taken:
        if empty_wakes:
            filler.task = task = pause_between(sock, empty_wakes)
            await task
        try:
            filler.task = task = readable(sock)
            await task
        except (OSError, ValueError) as error:
            raise as_ended(sock, error) from None
        filler.task = None
        outlook.woken = True
        taken = drain(sock, slots, limit, outlook)
        empty_wakes += 1
    return taken


async def pause_between(sock: socket.socket, empty_wakes: int) -> None:
    """Pause, if the error queue is the program's, so that waits end at once without a packet."""
    if errors_pending(sock):
        await back_off(empty_wakes)


def as_ended(sock: socket.socket, error: Exception) -> Exception:
    """Return what to raise for a wait for `sock` that failed."""
    if sock.fileno() < 0:  # older AnyIO has a checkpoint before it asks for the descriptor
        return ClosedResourceError("the socket is closed")
    return as_closed(error)


def drain(sock: socket.socket, slots: Slots, limit: int, outlook: Outlook) -> int:
    """Read and commit what is there, `limit` messages at most; return how many packets.

    Never waits. For a caller who has checked that it can be done, as `receive_into`.
    """
    found: int | None = refill(slots, sock, limit) if refill else None
    if found is not None:
        return found if found > 0 else _finish(sock, slots, limit, outlook, ~found)
    if outlook._error is not None or outlook.struck:
        raise_deferred(sock, outlook)
    filler = filler_of(slots)
    filler.task = None  # of a receive that was cancelled
    if filler.known is not outlook or filler.checked is not outlook.options:
        _prepare(sock, slots, outlook)
    engine: Any = filler.engine
    taken = _finish(sock, slots, limit, outlook, engine.fill(slots, sock, limit))
    if filler.checked is outlook.options:
        filler.known = outlook
    return taken


def _prepare(sock: socket.socket, slots: Slots, outlook: Outlook) -> None:
    """Give the slots an engine that takes a socket, which is another one than the last."""
    filler = filler_of(slots)
    if filler.engine is None or not filler.engine.takes(family_of(sock)):
        engine_for(slots, sock)
    if filler.checked is not outlook.options:
        _check_gro(sock, slots)
        filler.checked = outlook.options


def _finish(sock: socket.socket, slots: Slots, limit: int, outlook: Outlook, taken: int) -> int:
    """Do the rest of `drain`, after a read that gave `taken` packets."""
    filler = filler_of(slots)
    engine: Any = filler.engine
    cut = taken and engine.cut
    if cut:  # by a train, perhaps, if somebody has switched UDP_GRO on since then
        filler.checked = filler.known = None
    if engine.refused:
        give_up("recvmmsg")
        engine_for(slots, sock)
        if not taken:
            return drain(sock, slots, limit, outlook)
    conclude(sock, outlook, engine, taken)
    if cut and outlook.report_cut is not None:
        report, outlook.report_cut = outlook.report_cut, None
        report(sock, slots)
    return taken


def raise_deferred(sock: socket.socket, outlook: Outlook) -> None:
    """Raise the error that the last receive on `sock` left, if any; prepare the next read."""
    deferred = outlook.take_error(sock)
    if deferred is not None:
        try:
            raise as_closed(as_reported(sock, deferred, outlook))
        finally:
            del deferred  # else the error, its traceback and this frame keep each other alive
    if outlook.struck:
        let_packets_through(sock, outlook)


def conclude(sock: socket.socket, outlook: Outlook, engine: Reader, taken: int) -> None:
    """Take note of a read that gave `taken` packets; raise its error now, or at the next one.

    Raise also what the network has reported, if the read found nothing and the error queue may
    have an entry: see `Outlook.woken` and `Outlook.reports_errors`.
    """
    outlook.receive_calls += 1
    outlook.more = not engine.dry
    if taken:
        outlook.woken = False
        if outlook.reports_errors and engine.error is None:
            defer_reported(sock, outlook)
    if not engine.dry:
        return
    if not taken:
        outlook.empty_calls += 1
    error = engine.error
    if error is not None:
        engine.error = None
        if taken:
            outlook.defer_error(sock, error)
            return
        try:
            raise as_closed(as_reported(sock, error, outlook))
        finally:
            del error, engine  # as above
    if not taken:
        if outlook.woken or outlook.reports_errors:
            raise_reported(sock, outlook)
        outlook.woken = True


def _check_gro(sock: socket.socket, slots: Slots) -> None:
    """Refuse a socket whose packets come in trains, if the slots are not made for these."""
    if not slots.gro and has_gro(sock):
        raise ValueError(
            "the socket has UDP_GRO on, so several packets can come as one, and the batch could "
            "not tell them apart; make it with PacketBatch(gro=True), or its pool with "
            "PacketBatchPool(gro=True), or open a socket without gro (to turn it off on this one "
            "would glue what is queued)"
        )


def as_closed(error: Exception) -> Exception:
    """Return the error to raise: a bad descriptor means a closed socket."""
    if isinstance(error, OSError) and error.errno == errno.EBADF:
        return ClosedResourceError("the socket's descriptor is closed")
    return error


def _check(
    sock: socket.socket, batch: PacketBatch, number: SupportsIndex, name: str
) -> tuple[Slots, int]:
    """Refuse what can't work, before anything is read; return the slots and a plain int."""
    ensure_usable(sock)
    if not isinstance(batch, PacketBatch):
        raise TypeError(f"batch is a {type(batch).__name__}, and has to be a PacketBatch")
    if type(number) is not int or number < 1:
        number = whole_number(name, number, 1, "give the number of packets, at least 1")
    slots = batch._slots
    filler = slots.filler
    if slots.reading or (filler is not None and filler.busy(slots)):
        raise BusyResourceError("receiving into")
    if filler is None:
        check_engine(slots.engine)  # before anything waits
    else:
        filler.settle(slots)
    if not slots.free:  # not batch.free, which a subclass may override
        raise BatchFullError(
            f"all {slots.capacity} slots of the batch hold packets; give some back with "
            f"batch.release(n) or batch.clear(), then receive again"
        )
    return slots, number
