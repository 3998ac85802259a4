"""Makes the loop call a transport, in one context, for as long as the transport wants that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from .._receive.errors import pause_after
from .._system.error_queue import errors_pending


class Watch:
    """Has a loop call functions when a socket is readable, and when it is writable.

    They, and what `soon` and `run` call, run in copies of the context in which this is made,
    whoever makes the loop watch: else what a task sends would have later datagrams delivered in
    that task's context (python/cpython#140947).

    Asyncio's own loops go on watching until they are told to stop. uvloop forgets both functions
    at POLLERR, which a pending error or a queued one sets beside whatever else has happened:
    libuv's `uv__poll_io` stops, and uvloop closes its handle once both were called. Nothing
    reports that, and whoever has taken the error since has left no trace. So after each event
    they are registered anew, in a later turn of the loop; where uvloop has forgotten nothing, that
    makes no system call.

    Args:
        loop: The running loop.
        sock: An open socket, which is this one's to close.

    Attributes:
        reads: Whether the loop calls, or will call after a rest, when the socket is readable.
        writes: Likewise, when it is writable.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self._context = copy_context()
        self._forgets = not isinstance(loop, asyncio.BaseEventLoop)
        self._in_vain = 0
        self._rests = False
        self.reads: bool = False
        self.writes: bool = False

    def call(
        self,
        read: Callable[[], None],
        write: Callable[[], None],
        broken: Callable[[BaseException], None],
    ) -> None:
        """Say what to call.

        Args:
            read: When the socket is readable. It has to call `after_event` first.
            write: When it is writable; likewise.
            broken: With the error, if the socket can't be watched any more.
        """
        self._read, self._write, self._broken = read, write, broken

    def begin(self) -> None:
        """Have the loop call `read`, from its next turn on.

        Raises:
            NotImplementedError: The loop can't watch a socket.
            RuntimeError: The socket belongs to another transport.
        """
        self._context.copy().run(self._loop.add_reader, self._sock, self._read)
        self.reads = True

    def read(self, wanted: bool) -> None:
        """Have `read` called from now on, or no longer."""
        if wanted and not self.reads and not self._rests:
            self._add(self._loop.add_reader, self._loop.remove_reader, self._read)
        elif self.reads and not wanted:
            self._loop.remove_reader(self._sock)
        self.reads = wanted

    def write(self, wanted: bool) -> None:
        """Have `write` called from now on, or no longer."""
        if wanted and not self.writes and not self._rests:
            self._add(self._loop.add_writer, self._loop.remove_writer, self._write)
        elif self.writes and not wanted:
            self._loop.remove_writer(self._sock)
        self.writes = wanted

    def note_event(self, brought_something: bool) -> None:
        """Have the loop leave the socket alone for a while after many events in vain.

        It calls again and again while there are entries in an error queue that is the program's
        to read, and that it does not read.
        """
        if brought_something:
            self._in_vain = 0
            return
        self._in_vain += 1
        pause = pause_after(self._in_vain)
        if pause and not self._rests and errors_pending(self._sock):
            self._loop.call_later(pause, self._end_rest, context=self._context)
            self._rests = True
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)

    def after_event(self) -> None:
        """Make sure that the loop does not forget this event's socket."""
        if self._forgets:
            self._loop.call_soon(self._again, context=self._context)

    def soon(self, function: Callable[[], None]) -> None:
        """Have the loop call a function in its next turn."""
        self._loop.call_soon(function, context=self._context.copy())

    def run(self, function: Callable[[], None]) -> None:
        """Call a function now, for a caller who may be in any context."""
        self._context.copy().run(function)

    def report(self, context: dict[str, Any]) -> None:
        """Have the loop's exception handler deal with an exception."""
        self._loop.call_exception_handler(context)

    def is_over(self) -> bool:
        """Return whether the loop is closed, so that it calls nothing any more."""
        return self._loop.is_closed()

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 if it is closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _end_rest(self) -> None:
        self._rests = False
        self._again()

    def _again(self) -> None:
        """Register anew what is registered, or should be. In the first context itself."""
        if self._rests:
            return
        loop, sock = self._loop, self._sock
        try:
            if self.reads:
                _add(loop.add_reader, loop.remove_reader, sock, self._read)
            if self.writes:
                _add(loop.add_writer, loop.remove_writer, sock, self._write)
        except (OSError, ValueError) as error:  # something else has closed the socket
            self._broken(error)

    def _add(
        self, add: Callable[..., Any], remove: Callable[..., Any], function: Callable[[], None]
    ) -> None:
        self._context.copy().run(_add, add, remove, self._sock, function)


def _add(
    add: Callable[..., Any],
    remove: Callable[..., Any],
    sock: socket.socket,
    function: Callable[[], None],
) -> None:
    """Register a function, which is called in a copy of the context that there is now."""
    try:
        add(sock, function)
    except RuntimeError:  # uvloop has closed its handle, and keeps it until it is removed
        remove(sock)
        add(sock, function)
