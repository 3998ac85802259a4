"""The send functions: guard, checkpoint, send, and wait if the socket's buffer is full.

The checkpoint comes first, where nothing was sent. From there on a call that finds room for all
awaits nothing: it can't be cancelled between sending and reporting it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary, ref

import anyio
from anyio import ClosedResourceError, WouldBlock
from anyio.lowlevel import RunVar

from .._compat import checkpoint, wait_socket_writable
from .._receive.outlook import inode_of
from .._receive.usable import ensure_usable
from .._system.platform import type_of
from .control import Controls
from .engine import Sender, check_sender, fall_back, fan_sender_of, sender_of
from .outgoing import Data, Destination, Packets
from .result import UNUSABLE, SendResult, UnusableSocketError

_DGRAM = int(socket.SOCK_DGRAM)


async def send_mmsg(
    sock: socket.socket,
    packets: Packets,
    *,
    gso: bool = False,
    reply_from_destination: bool = False,
    source: str | None = None,
    ecn: int | None = None,
    engine: str = "auto",
    result: SendResult | None = None,
) -> SendResult:
    """Send packets, in order, as many as the socket takes in a call.

    An error of one packet does not stop those after it: the result reports it. Waits only while
    the socket's buffer is full; several tasks may send by one socket. The buffer is one for all
    destinations: packets for neighbours whose link address is not known yet (ARP) stay in it, and
    can hold up the others. ENOBUFS, which Linux reports if it has no room for the fragments of
    one packet, is that packet's error.

    A checkpoint, always, before anything is sent. After that a cancellation can strike only while
    the call waits. To know how far it got then, give a `result`, which is kept up to date::

        result = SendResult()
        with anyio.move_on_after(1):
            await send_mmsg(sock, packets, result=result)
        unsent = packets[result.handled :]

    Args:
        sock: A datagram socket, nonblocking. To close it under a waiting send, do as `recv_mmsg`
            says. One of AF_UNIX should be connected: an unconnected one always reports itself
            writable, even when the receiver's queue is full, so a call tries again and again, at
            the cost of a processor, and packets for other receivers wait behind that one.
        packets: ``(data, address)`` pairs. The data is bytes-like. The address has the form of
            `socket.socket.sendto`, with a numeric host; or it is a `Packet`, for its sender; or
            None, for the peer of a connected socket. Or `Packet`s, or a `PacketBatch`: they go
            back to their senders as they are. No payload is copied. Until the call ends,
            payloads can't be released or resized, nor a batch that is sent: BufferError.
        gso: Have runs of packets of one size to one destination cut by the kernel or the network
            card (UDP_SEGMENT, Linux 4.18), at a fraction of the cost. The last of a run may be
            shorter, and with `reply_from_destination` they share their source too. If the kernel
            or a route refuses, the rest of the call is sent as usual.
        reply_from_destination: Have each packet come from the address that the packet which it
            answers was sent to: a `Packet` that is sent back, or the `Packet` in a pair. Servers
            on a machine with several addresses need that, since clients ignore answers from
            another one than they asked. Answers to packets for a multicast or broadcast address
            come from the machine's own address there; over IPv6, and for plain addresses, from
            the one that the kernel chooses. The batch needs ``ancillary=True``, its socket
            ``destinations=True`` (Linux).
        source: The address that all packets come from, on a socket bound to all addresses: a
            numeric one of this machine, on a dual-stack socket of either version; with a
            ``%scope`` if it is a link-local one. One that is not this machine's is reported for
            each packet as its failure (Linux).
        ecn: The ECN codepoint of all packets, 0 to 3 (RFC 3168 section 5). The socket's DSCP,
            set by IP_TOS and IPV6_TCLASS, is kept (Linux).
        engine: "sendto", one call for each packet, on every platform; "sendmmsg", one call for up
            to 1,024, on Linux with the compiled module; "auto", the fastest available.
        result: Is set to what is returned, as the call goes on; one for each call at a time. It
            is exact even if a signal handler raises, as at Ctrl-C.

    Returns:
        How many were sent, and which were refused by the system, and why. All were handled.

    Raises:
        TypeError: `sock` is not a `socket.socket`; a packet has the wrong type. Nothing was sent.
        ValueError: `sock` is blocking, or not a datagram socket; `engine` is unknown, or
            unavailable here; a payload is above what a datagram can carry (65,507 bytes over
            IPv4, 65,527 over IPv6), or not contiguous; an address is of another family than the
            socket, out of range, or a name; a packet, or its view, was released; a packet to be
            answered from its destination came without it. The message has the packet's index. Or
            `source` or `ecn` is invalid, or impossible on this socket or platform. Nothing was
            sent.
        UnusableSocketError: The socket is closed, or was closed meanwhile. It is an
            `anyio.ClosedResourceError`, and an OSError; it has the result so far.
        anyio.BusyResourceError: Something other than these functions waits for the socket to be
            writable. Nothing more was sent; `result` says what was.
        OSError: The system does not let the event loop wait for the socket; the same.
    """
    result = _begin(sock, engine, result)
    controls = None
    if reply_from_destination or source is not None or ecn is not None:
        controls = Controls(sock, reply_from_destination, source, ecn)
    await checkpoint()
    return await _send_all(sock, sender_of(sock, packets, gso, engine, controls), result)


async def multi_target_send(
    sock: socket.socket,
    data: Data,
    addresses: Iterable[Destination],
    *,
    source: str | None = None,
    ecn: int | None = None,
    engine: str = "auto",
    result: SendResult | None = None,
) -> SendResult:
    """Send one payload to many addresses.

    As `send_mmsg` with a pair for each address, but cheaper.

    Args:
        sock: As for `send_mmsg`.
        data: Bytes-like.
        addresses: As for `send_mmsg`.
        source: As for `send_mmsg`.
        ecn: As for `send_mmsg`.
        engine: As for `send_mmsg`.
        result: As for `send_mmsg`; indices are those of addresses.

    Raises:
        Exception: As `send_mmsg`.
    """
    result = _begin(sock, engine, result)
    controls = None
    if source is not None or ecn is not None:
        controls = Controls(sock, False, source, ecn)
    await checkpoint()
    return await _send_all(sock, fan_sender_of(sock, data, addresses, engine, controls), result)


def send_mmsg_nowait(
    sock: socket.socket,
    packets: Packets,
    *,
    gso: bool = False,
    reply_from_destination: bool = False,
    source: str | None = None,
    ecn: int | None = None,
    engine: str = "auto",
    result: SendResult | None = None,
) -> SendResult:
    """Send as many packets as the socket's buffer has room for: `send_mmsg` without the waiting.

    Args:
        sock: As for `send_mmsg`.
        packets: As for `send_mmsg`. Give a sequence, to be able to send the rest of it later.
        gso: As for `send_mmsg`.
        reply_from_destination: As for `send_mmsg`.
        source: As for `send_mmsg`.
        ecn: As for `send_mmsg`.
        engine: As for `send_mmsg`.
        result: As for `send_mmsg`.

    Returns:
        How many were sent, and which were refused. Those from its `SendResult.handled` on found
        no room.

    Raises:
        anyio.WouldBlock: The socket has room for none of the packets.
        Exception: Otherwise as `send_mmsg`.
    """
    result = _begin(sock, engine, result)
    controls = None
    if reply_from_destination or source is not None or ecn is not None:
        controls = Controls(sock, reply_from_destination, source, ecn)
    sender = sender_of(sock, packets, gso, engine, controls)
    try:
        code = sender.send(sock, result)
        if code:
            sender = _after(sock, sender, code, result)
            if not sender.handled:
                raise WouldBlock
        return result
    finally:
        sender.release()


def _begin(sock: socket.socket, engine: str, result: SendResult | None) -> SendResult:
    """Refuse what can't work; return an empty result."""
    if result is None:
        result = SendResult()
    elif isinstance(result, SendResult):
        result._restart()
    else:
        raise TypeError(f"result is a {type(result).__name__}, and has to be a SendResult")
    if (
        type(sock) is not socket.socket
        or type_of(sock) != _DGRAM
        or sock.gettimeout() != 0
        or sock.fileno() < 0
    ):  # not as usual; the question alone costs half of what the answer does
        try:
            ensure_usable(sock)
        except ClosedResourceError as error:
            raise UnusableSocketError(errno.EBADF, str(error), result) from None
    if engine != "auto":
        check_sender(engine)
    return result


def _after(sock: socket.socket, sender: Sender, code: int, result: SendResult) -> Sender:
    """Deal with what ended a sender's `send`; return the sender to go on with, if there is more.

    Raises:
        UnusableSocketError: The socket is closed.
    """
    if sender.refused:
        old, sender = sender, fall_back(sender)
        old.release()
        code = sender.send(sock, result)
    if code in UNUSABLE:
        raise UnusableSocketError(code, os.strerror(code), result)
    return sender


async def _send_all(sock: socket.socket, sender: Sender, result: SendResult) -> SendResult:
    try:
        while code := sender.send(sock, result):
            sender = _after(sock, sender, code, result)
            if sender.handled < sender.count:
                await _until_writable(sock, result)
        return result
    finally:
        sender.release()


class _Turns:
    """Serialises the tasks that wait to write to one socket: an event loop lets one do so.

    Attributes:
        holder: Whose turn it is: a weak reference to something that lives as long as that wait,
            so that an interrupt can't leave the turn taken.
        ended: Is set when that turn ends.
        over: Whether the socket is about to be closed.
        inode: Of which socket. Its object may become another one, by ``sock.__init__()``.
    """

    def __init__(self, inode: int) -> None:
        self.holder: Callable[[], object] = _nobody
        self.ended = anyio.Event()
        self.over = False
        self.inode = inode


class _Turn:
    __slots__ = ("__weakref__",)


def _nobody() -> None:
    return None


# In each event loop. Entries go with their sockets.
_turns: RunVar[WeakKeyDictionary[socket.socket, _Turns]] = RunVar("anyio_mmsg_turns")


def _turns_of(sock: socket.socket) -> _Turns:
    try:
        every = _turns.get()
    except LookupError:
        every = WeakKeyDictionary()
        _turns.set(every)
    turns, inode = every.get(sock), inode_of(sock)
    if turns is None or turns.over or turns.inode != inode:
        turns = every[sock] = _Turns(inode)
    return turns


async def _until_writable(sock: socket.socket, result: SendResult) -> None:
    turns = _turns_of(sock)
    while turns.holder() is not None:
        await turns.ended.wait()
    turns.ended.set()  # wakes tasks that an interrupted holder left asleep
    # Whoever had the turn before may have met the end; the next must not wait for that.
    closed = turns.over or sock.fileno() < 0
    if not closed:
        turns.ended = anyio.Event()
        try:
            await _wait_in_turn(sock, turns)
        except ClosedResourceError:
            turns.over = closed = True
        except (OSError, ValueError) as error:
            closed = sock.fileno() < 0 or getattr(error, "errno", None) in UNUSABLE
            if not closed:
                raise
        finally:
            turns.holder = _nobody
            turns.ended.set()
    if closed:
        raise UnusableSocketError(errno.EBADF, "the socket is closed", result)


async def _wait_in_turn(sock: socket.socket, turns: _Turns) -> None:
    # Here, so that the turn is over when this is, whatever becomes of the caller.
    turn = _Turn()
    turns.holder = ref(turn)
    await wait_socket_writable(sock)
