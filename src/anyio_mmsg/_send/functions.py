"""The send functions: guard, checkpoint, send, and wait if the socket's buffer is full.

The checkpoint comes first, where nothing was sent. From there on a call that finds room for all
awaits nothing: it can't be cancelled between sending and reporting it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from anyio import ClosedResourceError

from .._compat import checkpoint
from .._receive.errors import back_off
from .._receive.usable import ensure_usable
from .._system.entry import by_one_step
from .._system.error_queue import errors_pending
from .._system.platform import type_of
from .ancillary import Controls
from .engine import SendEngine, Sender, check_sender, fan_sender_of, sender_of
from .outgoing import Destination, Packets, Payload
from .result import NOTHING, SendResult, UnusableSocketError, result_of
from .turns import until_writable
from .usual import USUAL, after, conclude

_usable, _send_usual, _fan_usual = USUAL.usable, USUAL.send, USUAL.fan

_DGRAM = int(socket.SOCK_DGRAM)


async def send_mmsg(
    sock: socket.socket,
    packets: Packets,
    *,
    gso: bool = False,
    reply_from_destination: bool = False,
    source: str | None = None,
    ecn: int | None = None,
    engine: SendEngine = "auto",
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
            None, for the peer of a connected socket. A third part may say what this packet alone
            is sent with: `SendOptions`, or None. Or `Packet`s, or a `PacketBatch`: they go
            back to their senders as they are. No payload is copied, unless it is memory of
            ctypes. Until the call ends, payloads can't be released or resized, nor a batch that
            is sent: BufferError.
        gso: Have runs of packets of one size to one destination cut by the kernel or the network
            card (UDP_SEGMENT, Linux 4.18), at a fraction of the cost. The last of a run may be
            shorter, and with `reply_from_destination` they share their source too. If the kernel
            or a route refuses, the rest of the call is sent as usual.
        reply_from_destination: Have each packet come from the address that the packet which it
            answers was sent to: a `Packet` that is sent back, or the `Packet` in a pair. Servers
            on a machine with several addresses need that, since clients ignore answers from an
            address they did not ask. Answers to packets for a multicast or broadcast address
            come from the machine's own address there; over IPv6, and for plain addresses, from
            the one that the kernel chooses. The batch needs ``ancillary=True``, its socket
            ``destinations=True`` (Linux). The source in a packet's options wins.
        source: The address that all packets come from, on a socket bound to all addresses: a
            numeric one of this machine, on a dual-stack socket of either version; with a
            ``%scope`` if it is a link-local one. One that is not this machine's is reported for
            each packet as its failure (Linux).
        ecn: The ECN codepoint of all packets, 0 to 3 (RFC 3168 section 5). The socket's DSCP,
            set by IP_TOS and IPV6_TCLASS, is kept (Linux).
        engine: "sendto", one call for each packet, on every platform; "sendmmsg", one call for up
            to 1,024, on Linux with the compiled module; "auto", the fastest available.
        result: A `SendResult` that the call keeps up to date; use it for one call at a time. It
            is exact even if a signal handler raises, as at Ctrl-C.

    Returns:
        How many were sent, and which were refused by the system, and why. All were handled.

    Raises:
        TypeError: `sock` is not a `socket.socket`; a packet has the wrong type. Nothing was sent.
        ValueError: `sock` is blocking, or not a datagram socket; `engine` is unknown, or
            unavailable here; a payload is above what a datagram can carry (65,507 bytes over
            IPv4, 65,527 over IPv6), or not contiguous; an address is of another family than the
            socket, out of range, or a name; a packet, or its view, was released; a packet to be
            answered from its destination came without it; or its options are impossible. For these
            the message has the packet's index. Or `source` or `ecn` is invalid, or impossible on
            this socket or platform. Nothing was sent.
        UnusableSocketError: The socket is closed, or was closed meanwhile. It is an
            `anyio.ClosedResourceError`, and an OSError; it has the result so far.
        anyio.BusyResourceError: Something other than these functions waits for the socket to be
            writable. Nothing more was sent; `result` says what was.
        OSError: The system does not let the event loop wait for the socket; `result` says what was
            sent.
    """
    controls = None
    usual = _usable(sock, packets, gso, reply_from_destination, source, ecn, engine, result)
    if not usual:
        _begin(sock, engine, result)
        if reply_from_destination or source is not None or ecn is not None:
            controls = Controls(sock, reply_from_destination, source, ecn)
    elif result is not None:
        result._progress = NOTHING
    await checkpoint()
    if usual:
        sent = _send_usual(sock, packets, gso, reply_from_destination, source, ecn, engine, result)
        if type(sent) is SendResult:
            return sent
        if sent is not None:
            return await _send_all(sock, sent, result, sent.code)
    sender = sender_of(sock, packets, gso, engine, controls)
    return await _send_all(sock, sender, result)


async def multi_target_send(
    sock: socket.socket,
    data: Payload,
    addresses: Iterable[Destination],
    *,
    source: str | None = None,
    ecn: int | None = None,
    engine: SendEngine = "auto",
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
    controls = None
    usual = _usable(sock, addresses, False, False, source, ecn, engine, result)
    if not usual:
        _begin(sock, engine, result)
        if source is not None or ecn is not None:
            controls = Controls(sock, False, source, ecn)
    elif result is not None:
        result._progress = NOTHING
    await checkpoint()
    if usual:
        sent = _fan_usual(sock, data, addresses, result)
        if type(sent) is SendResult:
            return sent
        if sent is not None:
            return await _send_all(sock, sent, result, sent.code)
    sender = fan_sender_of(sock, data, addresses, engine, controls)
    return await _send_all(sock, sender, result)


@by_one_step(USUAL.nowait)
def send_mmsg_nowait(
    sock: socket.socket,
    packets: Packets,
    *,
    gso: bool = False,
    reply_from_destination: bool = False,
    source: str | None = None,
    ecn: int | None = None,
    engine: SendEngine = "auto",
    result: SendResult | None = None,
) -> SendResult:
    """Send as many packets as the socket's buffer has room for: `send_mmsg` without the waiting.

    This is not a checkpoint. A task that has just received had one, so it can answer by this call,
    and use `send_mmsg` for packets that found no room. With one packet at a time this saves a turn
    of the event loop, which is most of the cost of sending::

        try:
            handled = send_mmsg_nowait(sock, replies).handled
        except anyio.WouldBlock:
            handled = 0
        if handled < len(replies):
            await send_mmsg(sock, replies[handled:])

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
    _begin(sock, engine, result)
    controls = None
    if reply_from_destination or source is not None or ecn is not None:
        controls = Controls(sock, reply_from_destination, source, ecn)
    sender = sender_of(sock, packets, gso, engine, controls)
    return conclude(sock, sender, sender.send(sock, result, False), result)


def _begin(sock: socket.socket, engine: str, result: SendResult | None) -> None:
    """Refuse what can't work; make a result that was given say that nothing was sent."""
    if result is None:
        pass
    elif isinstance(result, SendResult):
        result._progress = NOTHING
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


async def _send_all(
    sock: socket.socket, sender: Sender, result: SendResult | None, code: int | None = None
) -> SendResult:
    """Send all, and wait for room; `code` is what a first `sender.send` has returned."""
    idle, seen = 0, -1
    try:
        if code is None:
            code = sender.send(sock, result, True)
        while code:
            sender = after(sock, sender, code, result, True)
            idle, seen = (idle + 1 if sender.handled == seen else 0), sender.handled
            if idle and errors_pending(sock):
                # The wait ended at once, and will do so as long as nobody reads the error queue.
                await back_off(idle)
            if seen < sender.count:
                await until_writable(sock, sender.progress)
            code = sender.send(sock, result, True)
        return result_of(sender.progress) if result is None else result
    finally:
        sender.release()
