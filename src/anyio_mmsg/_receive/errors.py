"""What the network reports about packets that were sent: read by whoever receives, or asks."""

from __future__ import annotations

import os
import socket
from typing import SupportsIndex

import anyio

from .._arguments import whole_number
from .._packets.batch import NUM_RCVMMSGS
from .._system.error_queue import errors_pending, read_errors
from .._system.icmp import ICMP_ERRORS, IcmpError
from .outlook import Outlook, outlook_for
from .usable import ensure_usable

_PATIENCE = 3
"""Waits that may end without a packet before there is a pause: the program may be about to read
its error queue, in a task that is woken by the same event."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02
"""Seconds. A packet may be late by the last one, which costs 50 turns of the loop a second."""


def recv_errors_nowait(
    sock: socket.socket, limit: SupportsIndex = NUM_RCVMMSGS
) -> list[IcmpError]:
    """Return what the network has reported about packets that were sent by a socket.

    Never waits. An error that this returns is not raised by a receive function as well.
    `recv_mmsg` and `PacketReceiver` read the same queue, so use this where nobody receives, or
    before that.

    Args:
        sock: A socket that was opened or configured with ``icmp_errors=True``, nonblocking.
        limit: The most errors to return, at least 1.

    Returns:
        The errors, oldest first. An empty list if there is none; if the socket does not have the
        option; or if it was asked for transmit timestamps or the like, which come by the same
        queue: that is the program's then, and nothing of it is read.

    Raises:
        TypeError: `sock` is not a `socket.socket`, `limit` not an int.
        ValueError: `limit` is below 1; `sock` is blocking, or not a datagram socket.
        anyio.ClosedResourceError: The socket is closed.
    """
    ensure_usable(sock)
    limit = whole_number("limit", limit, 1, "give the number of errors, at least 1")
    outlook = outlook_for(sock)
    errors: list[IcmpError] = []
    deferred = outlook.take_error(sock)
    if isinstance(deferred, IcmpError):  # read after packets, for the next receive
        errors.append(deferred)
        deferred = None
    if len(errors) < limit:
        errors += read_errors(sock, limit - len(errors))
    outlook.reports_errors |= bool(errors)
    if deferred is not None and not (errors and _is_the_networks(deferred)):
        outlook.defer_error(sock, deferred)  # which the queue does not have
    return errors


def _is_the_networks(error: OSError) -> bool:
    """Whether the queue may have an entry for an error that the kernel returned."""
    return error.errno in ICMP_ERRORS and error.strerror == os.strerror(error.errno)


def as_reported(sock: socket.socket, error: OSError, outlook: Outlook) -> OSError:
    """Return the oldest error of the queue where `error` only says that there is one.

    The kernel leaves an error with the socket too, without its details. If such an error is not
    in the queue (which has no room while the buffer is full of packets), it stays plain.
    """
    if _is_the_networks(error):
        for reported in read_errors(sock, 1):
            outlook.reports_errors = outlook.struck = True
            return reported
    return error


def let_packets_through(sock: socket.socket, outlook: Outlook) -> None:
    """Let a read that comes after an error find packets, whatever was reported meanwhile.

    The kernel reports an error before it gives the packets that are queued, so a flood of errors
    would hide them. The error is in the queue too; if it had no room there, it is raised here.
    """
    outlook.struck = False
    try:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError:  # it is closed, as the read will say
        return
    if code and not errors_pending(sock):
        raise OSError(code, os.strerror(code))


def raise_reported(sock: socket.socket, outlook: Outlook) -> None:
    """Raise the oldest error of the queue, if there is one that is ours to read."""
    for reported in read_errors(sock, 1):
        outlook.reports_errors = True
        try:
            raise reported
        finally:
            del reported  # or the error, its traceback and this frame keep each other alive


def defer_reported(sock: socket.socket, outlook: Outlook) -> None:
    """After a receive that took packets, have the next one raise the oldest error of the queue.

    Otherwise a socket that always has packets would hide its errors: the kernel returns each only
    once, perhaps from a send.
    """
    for reported in read_errors(sock, 1):
        outlook.defer_error(sock, reported)


def pause_after(empty_wakes: int) -> float:
    """Return how many seconds to pause after a number of waits that brought no packet.

    Waits end at once while the error queue is the program's and has entries that nobody reads.
    """
    doublings = empty_wakes - _PATIENCE
    return min(_FIRST_PAUSE * 2 ** min(doublings, 30), _LONGEST_PAUSE) if doublings >= 0 else 0


async def back_off(empty_wakes: int) -> None:
    """Pause as `pause_after` says."""
    if pause := pause_after(empty_wakes):
        await anyio.sleep(pause)
