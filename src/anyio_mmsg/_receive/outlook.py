"""What the last receive on a socket left for the next one, whichever batch the next one uses."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from .._load import module
from .._packets import Slots
from .._system.platform import inode_of as inode_of


class OutlookFields:
    """What C reads of an `Outlook`; the twin is in _compiled/kept.c."""

    __slots__ = (
        "_error",
        "more",
        "options",
        "receive_calls",
        "reports_errors",
        "sock",
        "spares",
        "struck",
        "unreturned",
        "woken",
    )

    sock: ref[socket.socket]
    more: bool
    woken: bool
    reports_errors: bool
    struck: bool
    options: object
    receive_calls: int
    unreturned: list[Any]
    spares: list[Any] | None
    _error: OSError | None


_Fields = OutlookFields
if not TYPE_CHECKING:
    _Fields = getattr(module, "OutlookFields", OutlookFields)


class Outlook(_Fields):
    """What is known of one socket.

    Attributes:
        sock: The socket, weakly.
        more: The last receive took all that it asked for, so there is probably more; or it met
            an error. The next one need not wait first.
        receive_calls: How often the socket was read.
        empty_calls: How often nothing was there.
        woken: The system says that something is there, or the last read found nothing. If the
            next one finds nothing either, look into the error queue.
        options: An object that stands for the socket's options. It is replaced when the library
            changes them, so that they are looked at again.
        reports_errors: The network's errors come by the error queue: look for them whenever a
            read finds nothing.
        struck: The last read met an error, and packets may be queued: the next read is to find
            them in spite of further errors.
        report_cut: Called once, with the socket and the slots, after a read that cut a packet.
        unreturned: Datagrams that `recv_datagrams` has read but, interrupted, did not return.
        spares: The slots that `recv_datagrams` takes for this socket, from its last use on.
        home: The inode of the socket that `unreturned` came from, and the process; None: unknown.
    """

    __slots__ = ("_inode", "empty_calls", "home", "report_cut")

    def __init__(self, sock: socket.socket) -> None:
        # Forgets this object with the socket, by C functions alone: no interrupt comes between.
        self.sock = ref(sock, partial(_outlooks.pop, id(sock)))
        self.more = self.woken = self.reports_errors = self.struck = False
        self.options = object()
        self.receive_calls = self.empty_calls = 0
        self.report_cut: Callable[[socket.socket, Slots], object] | None = None
        self.unreturned = []
        self.spares = None
        self.home: tuple[int, int] | None = None
        self._error = None
        self._inode = 0

    def defer_error(self, sock: socket.socket, error: OSError) -> None:
        """Have the next receive on `sock` raise `error`, which came after packets."""
        self._inode = inode_of(sock)
        # Frames would keep the socket alive, so the error keeps neither its traceback nor the
        # error that was being handled meanwhile.
        error.__context__ = None
        self._error = error.with_traceback(None)
        self.more = True

    def take_error(self, sock: socket.socket) -> OSError | None:
        """Return the error that was deferred, once."""
        error = self._error
        if error is not None:
            self._error = None
            if self._inode != inode_of(sock):
                return None  # the object is another socket now: it was initialised again
        return error


_outlooks: dict[int, Outlook] = {}  # by id of the socket


def outlook_for(sock: socket.socket) -> Outlook:
    """Return what is known of `sock`."""
    outlook = _outlooks.get(id(sock))
    if outlook is None:
        outlook = _outlooks[id(sock)] = Outlook(sock)
    return outlook
