"""What the network reports about packets that were sent: read by whoever receives."""

from __future__ import annotations

import os
import socket

import anyio

from .._system.error_queue import read_errors
from .._system.icmp import ICMP_ERRORS
from .outlook import Outlook

_PATIENCE = 3
"""Waits that may end without a packet before there is a pause: the program may be about to read
its error queue, in a task that is woken by the same event."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02
"""Seconds. The last is what a packet may be late, at the cost of 50 turns a second."""


def as_reported(sock: socket.socket, error: OSError, outlook: Outlook) -> OSError:
    """Return the oldest error of the queue where `error` only says that there is one.

    The kernel leaves an error with the socket too, without what is known of it. What is left so
    that is not in the queue (which has no room while the buffer is full of packets) stays plain.
    """
    if error.errno in ICMP_ERRORS and error.strerror == os.strerror(error.errno):  # the kernel's
        for reported in read_errors(sock, 1):
            outlook.reports_errors = True
            return reported
    return error


def raise_reported(sock: socket.socket, outlook: Outlook) -> None:
    """Raise the oldest error of the queue, if there is one that is ours to read."""
    for reported in read_errors(sock, 1):
        outlook.reports_errors = True
        try:
            raise reported
        finally:
            del reported  # or the error, its traceback and this frame keep each other alive


async def back_off(empty_wakes: int) -> None:
    """Pause after a number of waits that ended at once, and without a packet.

    They do while the error queue, which is the program's, has entries that nobody reads.
    """
    doublings = empty_wakes - _PATIENCE
    if doublings >= 0:
        await anyio.sleep(min(_FIRST_PAUSE * 2 ** min(doublings, 30), _LONGEST_PAUSE))
