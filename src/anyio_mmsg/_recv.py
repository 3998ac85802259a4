"""The receive functions: guard, checkpoint, wait, fill, commit.

Where cancellation may strike nothing has been read, and from the read on nothing awaits: what
was read is in the batch before anyone else runs. That is all there is to losing no packet.
"""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple
from weakref import ref

from anyio import BusyResourceError, ClosedResourceError, WouldBlock
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._arguments import whole_number
from ._batch import NUM_RCVMMSGS, Address, BatchFullError, PacketBatch
from ._compat import wait_socket_readable
from ._engine import RecvmmsgRefusedError, engine_for, fall_back

# Not socket.socket.type, which builds an enum at each access: the int beneath it.
_type_of = socket.SocketType.type.__get__
_DATAGRAM_TYPES = {int(socket.SOCK_DGRAM), int(socket.SOCK_RAW)}


class _Sequel(NamedTuple):
    """What the last receive on a socket left for the next one, which need not wait for it."""

    sock: ref[socket.socket]  # forgets the sequel with the socket
    error: OSError | None  # met after packets; whichever batch the next receive uses


# By id, of sockets whose last receive took all that it asked for, so that there is probably
# more, or met an error.
_sequels: dict[int, _Sequel] = {}

_OPEN_ONE = (
    "open one with socket.socket(family, socket.SOCK_DGRAM), bind it, call setblocking(False)"
)
_WAYS_TO_A_SOCKET = {
    "trio": "Trio's becomes one by socket.socket(fileno=trio_socket.detach()), on which you then "
    "call setblocking(False)",
    "anyio": f"AnyIO reads from its own by itself (the raw_socket attribute is for options): "
    f"{_OPEN_ONE}",
    "asyncio": f"a transport reads from its own by itself: {_OPEN_ONE}",
    "uvloop": f"a transport reads from its own by itself: {_OPEN_ONE}",
}


async def recv_mmsg(sock: socket.socket, batch: PacketBatch, limit: int = NUM_RCVMMSGS) -> int:
    """Wait until a packet is there, then take all that are there into `batch`.

    They are appended, in order of arrival, to those that the batch holds. If the last receive
    on the socket took all that it asked for, there is a plain checkpoint instead of the wait.

    A checkpoint, always. If it is cancelled, no packet is lost: nothing has been read.

    Args:
        sock: A bound or connected datagram socket, nonblocking. Close it in this order, or a
            waiting receive may hang: ``anyio.notify_closing(sock)`` (AnyIO 4.10), then
            ``sock.close()``.
        batch: Where the packets go.
        limit: The most packets to take, at least 1; the batch's free slots are a limit too.

    Returns:
        How many packets were added: 1 to `limit`.

    Raises:
        BatchFullError: The batch has no free slot; at once.
        TypeError: `sock` is no `socket.socket`, `batch` no `PacketBatch`, `limit` no int.
        ValueError: `limit` is below 1; `sock` is blocking, or no datagram socket; or the batch's
            engine is not to be had on this platform.
        anyio.BusyResourceError: Another task is filling the batch, or waiting for the socket.
        anyio.ClosedResourceError: The socket is closed, or was closed during the wait.
        OSError: What the system reports, such as ConnectionRefusedError on a connected socket
            after an ICMP message. Only when no packet was read: an error that comes after
            packets is raised by the next receive on the socket. Packets that are queued behind
            it are still there.
    """
    limit = _check(sock, batch, limit, "limit")
    batch._filling = True
    try:
        return await receive_into(sock, batch, limit)
    finally:
        batch._filling = False


def recv_mmsg_nowait(sock: socket.socket, batch: PacketBatch, limit: int = NUM_RCVMMSGS) -> int:
    """Take the packets that are there now into `batch`: `recv_mmsg` without the waiting.

    Args:
        sock: As for `recv_mmsg`.
        batch: As for `recv_mmsg`.
        limit: As for `recv_mmsg`.

    Returns:
        How many packets were added: 1 to `limit`.

    Raises:
        anyio.WouldBlock: No packet is there.
        Exception: Otherwise as `recv_mmsg`.
    """
    limit = _check(sock, batch, limit, "limit")
    batch._filling = True
    try:
        taken = _drain(sock, batch, limit)
    finally:
        batch._filling = False
    if not taken:
        raise WouldBlock
    return taken


async def recv_mmsg_exact(
    sock: socket.socket, batch: PacketBatch, count: int | None = None
) -> int:
    """Receive into `batch` until `count` packets more have been added.

    A checkpoint, always. If it is cancelled or raises, what came before stays in the batch.

    Args:
        sock: As for `recv_mmsg`.
        batch: Where the packets go.
        count: How many, at least 1 and at most ``batch.free``; None for every free slot.

    Returns:
        `count`, or the number of slots that were free.

    Raises:
        BatchFullError: The batch has no free slot; at once.
        ValueError: `count` is below 1 or above ``batch.free``; otherwise as `recv_mmsg`.
        OSError: As for `recv_mmsg`, when the packets before it were fewer than `count`.
        Exception: Otherwise as `recv_mmsg`.
    """
    free = batch.free if isinstance(batch, PacketBatch) else 0
    count = _check(sock, batch, free or 1 if count is None else count, "count")
    if count > free:
        raise ValueError(
            f"count is {count}, but the batch has {free} free slots of {batch.capacity}; "
            f"release packets first, ask for fewer, or make a larger batch"
        )
    batch._filling = True
    try:
        missing = count
        while missing:
            missing -= await receive_into(sock, batch, missing)
        return count
    finally:
        batch._filling = False


async def receive_into(sock: socket.socket, batch: PacketBatch, limit: int) -> int:
    """Do what `recv_mmsg` promises, for a caller who has checked that it can be done."""
    if id(sock) in _sequels:
        await checkpoint()
        taken = _drain(sock, batch, limit)
    else:
        # The wait lets others run, but where the socket is readable already, asyncio's loops may
        # end it before they deliver a cancellation.
        await checkpoint_if_cancelled()
        taken = 0
    # Being told that it is readable is no promise: the datagram may have a bad checksum, or
    # another reader.
    while not taken:
        try:
            await wait_socket_readable(sock)
        except (OSError, ValueError) as error:
            _ensure_open(sock)  # older AnyIO has a checkpoint before it asks for the descriptor
            raise _told_apart(error) from None
        taken = _drain(sock, batch, limit)
    return taken


def _drain(sock: socket.socket, batch: PacketBatch, limit: int) -> int:
    """Read and commit what is there, `limit` packets at most; return how many. Never waits."""
    _ensure_open(sock)
    sequel = _sequels.get(id(sock))
    if sequel is not None and sequel.error is not None:
        _sequels.pop(id(sock), None)
        try:
            raise _told_apart(sequel.error)
        finally:
            del sequel  # else the error, its traceback and this frame keep each other alive
    engine = engine_for(batch)
    taken = 0
    while True:
        first, count = batch._free_run(limit - taken)
        if not count:  # all that was asked for
            if sequel is None:
                _remember(sock, None)
            return taken
        sizes: list[int] = []
        addresses: list[Address] = []
        try:
            error = engine.fill(sock, first, count, sizes, addresses)
        except RecvmmsgRefusedError:
            engine = fall_back(batch)
            continue
        finally:  # whatever was raised, a KeyboardInterrupt even: what was read is there
            batch._reads += 1
            if sizes:
                batch._commit(sizes, addresses)
                taken += len(sizes)
        if error is not None:
            if not taken:
                try:
                    raise _told_apart(error)
                finally:
                    del error  # as above
            _remember(sock, error)
            return taken
        if len(sizes) < count:
            batch._empty_reads += not sizes
            if sequel is not None:
                _sequels.pop(id(sock), None)
            return taken


def expects_more(sock: socket.socket) -> bool:
    """Whether the next receive on `sock` reads before it waits."""
    return id(sock) in _sequels


def defer_error(sock: socket.socket, error: OSError) -> None:
    """Have the next receive on `sock` raise `error`."""
    _remember(sock, error)


def _remember(sock: socket.socket, error: OSError | None) -> None:
    """Have the next receive on `sock` raise `error`, or without one not wait before it reads."""
    key = id(sock)
    if error is not None:
        error = error.with_traceback(None)  # its frames hold the socket
    _sequels[key] = _Sequel(ref(sock, lambda _: _sequels.pop(key, None)), error)


def _told_apart(error: Exception) -> Exception:
    """The error to raise: a bad descriptor is a closed socket."""
    if isinstance(error, OSError) and error.errno == errno.EBADF:
        return ClosedResourceError("the socket's descriptor is closed")
    return error


def _check(sock: socket.socket, batch: PacketBatch, number: int, name: str) -> int:
    """Refuse what can't work, before anything is read; return `number` as a plain int."""
    ensure_usable(sock)
    if not isinstance(batch, PacketBatch):
        raise TypeError(f"batch is a {type(batch).__name__}, and has to be a PacketBatch")
    if type(number) is not int or number < 1:
        number = whole_number(name, number, 1, "give the number of packets, at least 1")
    if batch._filling:
        raise BusyResourceError("receiving into")
    if batch._engine is None:
        engine_for(batch)  # or a ValueError, before anything waits
    if not batch.free:
        raise BatchFullError(
            f"all {batch.capacity} slots of the batch hold packets; give some back with "
            f"batch.release(n) or batch.clear(), then receive again"
        )
    return number


def ensure_usable(sock: socket.socket) -> None:
    """Raise what `recv_mmsg` raises for a socket that it can't use."""
    if not isinstance(sock, socket.socket):
        kind = type(sock)
        library = kind.__module__.partition(".")[0]
        raise TypeError(
            f"sock is a {kind.__module__}.{kind.__qualname__}, and has to be a socket.socket; "
            f"{_WAYS_TO_A_SOCKET.get(library, _OPEN_ONE)}"
        )
    _ensure_open(sock)
    if _type_of(sock) not in _DATAGRAM_TYPES:
        raise ValueError(
            "sock is no datagram socket; packets need one made with socket.SOCK_DGRAM"
        )
    if sock.gettimeout() != 0:
        raise ValueError("sock is blocking; call sock.setblocking(False) first")


def _ensure_open(sock: socket.socket) -> None:
    if sock.fileno() < 0:
        raise ClosedResourceError("the socket is closed")
