"""The send functions: guard, checkpoint, send, and wait if the socket's buffer is full.

The checkpoint comes first, where nothing was sent. From there on a call that finds room for all
awaits nothing: it can't be cancelled between what it sent and telling of it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from weakref import WeakKeyDictionary

import anyio
from anyio import ClosedResourceError, WouldBlock
from anyio.lowlevel import RunVar, checkpoint

from ._batch import Address
from ._compat import wait_socket_writable
from ._engine import check_sender, send_now
from ._outgoing import MAX_PAYLOAD, UNLIMITED, Data, Outgoing, Packets, fan, outgoing
from ._recv import ensure_usable
from ._sent import UNUSABLE, SendResult

# Not socket.socket.family, which builds an enum at each access: the int beneath it.
_family_of = socket.SocketType.family.__get__

_type_of = socket.SocketType.type.__get__  # likewise
_DGRAM = int(socket.SOCK_DGRAM)


class _Turns:
    """Of those who wait for one socket: an event loop lets one task do so at a time."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.over = False  # the socket is about to be closed


# In each event loop. Entries go with their sockets.
_turns: RunVar[WeakKeyDictionary[socket.socket, _Turns]] = RunVar("anyio_mmsg_turns")


class UnusableSocketError(ClosedResourceError, OSError):
    """The socket was closed, or its descriptor is no socket (EBADF, ENOTSOCK).

    Attributes:
        result: What had become of the packets until then.
    """

    def __init__(self, number: int, message: str, result: SendResult | None = None) -> None:
        super().__init__(number, message)
        self.result = SendResult() if result is None else result


async def send_mmsg(
    sock: socket.socket,
    packets: Packets,
    *,
    gso: bool = False,
    engine: str = "auto",
    result: SendResult | None = None,
) -> SendResult:
    """Send packets, in order, as many as the socket takes in a call.

    An error of one packet does not stop those after it: the result tells it. Waits only while the
    socket's buffer is full; several tasks may send by one socket. The buffer is one for all
    destinations: packets for neighbours whose link address is still asked for (ARP) stay in it,
    and can hold up the others. Where the system says ENOBUFS, as Linux does if it has no room for
    the fragments of one packet, that is the packet's error.

    A checkpoint, always, before anything is sent. After that a cancellation can strike only while
    the call waits; who wants to know how far it got then gives a `result`, which is kept up to
    date::

        result = SendResult()
        with anyio.move_on_after(1):
            await send_mmsg(sock, packets, result=result)
        unsent = packets[result.handled :]

    Args:
        sock: A datagram socket, nonblocking. To close it under a waiting send, do as `recv_mmsg`
            says. One of AF_UNIX should be connected: of others the system says that there is room
            when the receiver has none, so a call tries again and again, at the cost of a
            processor, and packets for other receivers wait behind that one.
        packets: ``(data, address)`` pairs. The data is bytes-like. The address has the form of
            `socket.sendto`, with a numeric host; or it is a `Packet`, for its sender; or None,
            for the peer of a connected socket. Or `Packet`s, or a `PacketBatch`: they go
            back to their senders as they are, and their payloads are not copied. From its first
            wait on until the call ends, payloads can't be released or resized: BufferError.
        gso: Have runs of packets of one size to one destination cut by the kernel or the network
            card (UDP_SEGMENT, Linux 4.18), at a fraction of the cost. The last of a run may be
            shorter. If the kernel or a route refuses, the rest of the call is sent as usual.
        engine: "sendto", one call for a packet, on every platform; "sendmmsg", one call for up to
            1,024, on Linux; "auto", the fastest that the platform has.
        result: Is set to what is returned, as the call goes on; one for each call at a time. If a
            signal's handler raises, KeyboardInterrupt for one, it may lack what the system was
            just given.

    Returns:
        How many were sent, and which were refused by the system, and why. All were handled.

    Raises:
        TypeError: `sock` is no `socket.socket`; a packet is not of its kind. Nothing was sent.
        ValueError: `sock` is blocking, or no datagram socket; `engine` is unknown or not to be
            had; a payload is above what a datagram can carry (65,507 bytes over IPv4, 65,527 over
            IPv6), or not contiguous; an address is of another family than the socket, out of
            range, or a name; a packet was released. It tells the index. Nothing was sent.
        UnusableSocketError: The socket is closed, or was closed meanwhile. It is an
            `anyio.ClosedResourceError`, and an OSError; it has the result so far.
        anyio.BusyResourceError: Something else than these functions waits for the socket to be
            writable. Nothing more was sent; `result` tells what was.
        OSError: The system does not let the event loop wait for the socket; the same.
        RuntimeError: Another thread resized a payload during the call; the same.
    """
    result = _begin(sock, engine, result)
    await checkpoint()
    todo = outgoing(_family_of(sock), _most(sock), packets)
    todo.gso = gso
    return await _send_all(sock, todo, engine, result)


async def multi_target_send(
    sock: socket.socket,
    data: Data,
    addresses: Iterable[Address],
    *,
    engine: str = "auto",
    result: SendResult | None = None,
) -> SendResult:
    """Send one payload to many addresses.

    The payload is copied once, not for each. Otherwise as `send_mmsg` with a pair for each
    address.

    Args:
        sock: As for `send_mmsg`.
        data: Bytes-like.
        addresses: As for `send_mmsg`.
        engine: As for `send_mmsg`.
        result: As for `send_mmsg`; indices are those of addresses.

    Raises:
        Exception: As `send_mmsg`.
    """
    result = _begin(sock, engine, result)
    await checkpoint()
    todo = fan(_family_of(sock), _most(sock), data, addresses)
    return await _send_all(sock, todo, engine, result)


def send_mmsg_nowait(
    sock: socket.socket,
    packets: Packets,
    *,
    gso: bool = False,
    engine: str = "auto",
    result: SendResult | None = None,
) -> SendResult:
    """Send as many packets as the socket's buffer has room for: `send_mmsg` without the waiting.

    Args:
        sock: As for `send_mmsg`.
        packets: As for `send_mmsg`. Give a sequence, to be able to send the rest of it later.
        gso: As for `send_mmsg`.
        engine: As for `send_mmsg`.
        result: As for `send_mmsg`.

    Returns:
        How many were sent, and which were refused. Those from its `SendResult.handled` on found
        no room.

    Raises:
        anyio.WouldBlock: There is no room for any.
        Exception: Otherwise as `send_mmsg`.
    """
    result = _begin(sock, engine, result)
    todo = outgoing(_family_of(sock), _most(sock), packets)
    todo.gso = gso
    _send_some(sock, todo, engine, result)
    if todo.sizes and not todo.handled:
        raise WouldBlock
    return result


def _begin(sock: socket.socket, engine: str, result: SendResult | None) -> SendResult:
    """Refuse what can't work; return a result of nothing."""
    if result is None:
        result = SendResult()
    elif not isinstance(result, SendResult):
        raise TypeError(f"result is a {type(result).__name__}, and has to be a SendResult")
    else:
        result.sent, result.failures = 0, []
    try:
        ensure_usable(sock)
    except ClosedResourceError as error:
        raise UnusableSocketError(errno.EBADF, str(error), result) from None
    if engine != "auto":
        check_sender(engine)
    return result


def _most(sock: socket.socket) -> int:
    """Return the bytes that a payload can have; of raw sockets the system knows."""
    if _type_of(sock) == _DGRAM:
        return MAX_PAYLOAD.get(_family_of(sock), UNLIMITED)
    return UNLIMITED


async def _send_all(
    sock: socket.socket, packets: Outgoing, engine: str, result: SendResult
) -> SendResult:
    _send_some(sock, packets, engine, result)
    if packets.handled < len(packets.sizes):
        with packets.pinned():
            while packets.handled < len(packets.sizes):
                await _until_writable(sock, result)
                _send_some(sock, packets, engine, result)
    return result


def _send_some(sock: socket.socket, packets: Outgoing, engine: str, result: SendResult) -> None:
    error = send_now(engine, sock, packets, result)
    if error is not None:
        raise UnusableSocketError(error.errno or errno.EBADF, error.strerror or "", result)


async def _until_writable(sock: socket.socket, result: SendResult) -> None:
    try:
        every = _turns.get()
    except LookupError:
        every = WeakKeyDictionary()
        _turns.set(every)
    turns = every.setdefault(sock, _Turns())
    async with turns.lock:
        # Whoever had the turn before may have met the end; the next must not wait for that.
        closed = turns.over or sock.fileno() < 0
        if not closed:
            try:
                await wait_socket_writable(sock)
            except ClosedResourceError:
                turns.over = closed = True
                every.pop(sock, None)
            except (OSError, ValueError) as error:
                closed = sock.fileno() < 0 or getattr(error, "errno", None) in UNUSABLE
                if not closed:
                    raise
    if closed:
        raise UnusableSocketError(errno.EBADF, "the socket is closed", result)
