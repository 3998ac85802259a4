"""A descriptor that an event loop watches in the place of a socket.

On Linux it is an epoll instance of our own, in which the socket is registered. An epoll instance
is only ever readable. So a loop never sees the socket's POLLERR, at which uvloop forgets what it
watches, without a trace (libuv's `uv__poll_io`). It costs the kernel some 0.2 us a wake, which is
a tenth of what uvloop takes to register anew.

It does not keep the socket open: if something else closes that, its port is free at once. And the
next socket with the same number is not mistaken for it.

On other systems it is a second descriptor of the socket, which keeps that open. kqueue reports a
socket's error as readiness, so no loop forgets anything.
"""

from __future__ import annotations

import select
import socket
from typing import Any, Protocol

from .platform import ON_LINUX


class Beacon(Protocol):
    """Says whether one socket is readable, and writable. With an error it is both.

    Attributes:
        number: The descriptor to watch; -1 if it is closed.
        speaks_by_reading: The descriptor is readable whatever there is to say; `ask` knows what.
            Otherwise it is readable and writable as the socket is.
    """

    number: int
    speaks_by_reading: bool

    def look_for(self, reads: bool, writes: bool) -> None:
        """Say whether the socket is readable, or writable, or both; an error always."""
        ...

    def ask(self) -> tuple[bool, bool]:
        """Return whether it is readable, and writable, as far as it was looked for."""
        ...

    def close(self) -> None:
        """Close the descriptor. If it is not called, collection does it."""
        ...


def beacon_of(sock: socket.socket) -> Beacon:
    """Return a beacon that says whether a socket is readable.

    Raises:
        OSError: The system has no descriptor left.
    """
    return _Epoll(sock) if ON_LINUX else _Duplicate(sock)


class _Epoll:
    speaks_by_reading = True

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()
        self._epoll: Any = select.epoll()
        self._epoll.register(self._fd, select.EPOLLIN)
        self._events = int(select.EPOLLIN)  # -1: unknown
        self.number: int = self._epoll.fileno()

    def look_for(self, reads: bool, writes: bool) -> None:
        events = reads * select.EPOLLIN | writes * select.EPOLLOUT
        if events != self._events:
            self._events = -1  # should an interrupt come
            self._epoll.modify(self._fd, events)
            self._events = events

    def ask(self) -> tuple[bool, bool]:
        events = sum([events for _, events in self._epoll.poll(0, 1)])
        return bool(events & ~select.EPOLLOUT), bool(events & ~select.EPOLLIN)

    def close(self) -> None:
        self.number = -1
        self._epoll.close()


class _Duplicate:
    speaks_by_reading = False

    def __init__(self, sock: socket.socket) -> None:
        self.number = socket.dup(sock.fileno())

    def look_for(self, reads: bool, writes: bool) -> None:
        pass  # the loop does

    def ask(self) -> tuple[bool, bool]:
        return True, True

    def close(self) -> None:
        number, self.number = self.number, -1
        if number >= 0:
            socket.close(number)

    __del__ = close
