"""Makes the loop call a transport, in one context, for as long as the transport wants that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from anyio import ClosedResourceError

from .._receive.errors import pause_after
from .._receive.usable import ensure_open
from .._stream.registration import Registration
from .._system.error_queue import errors_pending


class Watch:
    """Has a loop call functions when a socket is readable, and when it is writable.

    They, and what `soon` and `run` call, run in copies of the context in which this is made, as
    `Registration` says.

    Args:
        loop: The running loop.
        sock: An open socket, which is this one's to close.

    Attributes:
        reads: Whether the loop calls, or will call after a rest, when the socket is readable.
        writes: Likewise, when it is writable.

    Raises:
        OSError: The system has no descriptor left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self._context = copy_context()
        self._registration = Registration(loop, sock)
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
            read: When the socket is readable.
            write: When it is writable.
            broken: With the error, if the socket can't be watched any more.
        """
        self._read, self._write, self._broken = read, write, broken

    def begin(self) -> None:
        """Have the loop call `read`, from its next turn on.

        Raises:
            NotImplementedError: The loop can't watch a socket.
            RuntimeError: The socket belongs to another transport.
        """
        self._loop.remove_reader(self._sock)  # raises, if it has one of a transport
        self.read(True)

    def read(self, wanted: bool) -> None:
        """Have `read` called from now on, or no longer."""
        if wanted != self.reads:
            self._watch(wanted, self.writes)
            self.reads = wanted

    def write(self, wanted: bool) -> None:
        """Have `write` called from now on, or no longer."""
        if wanted != self.writes:
            self._watch(self.reads, wanted)
            self.writes = wanted

    def _watch(self, reads: bool, writes: bool) -> None:
        if not self._rests:
            self._registration.watch(
                self._read if reads else None, self._write if writes else None
            )

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
            self._watch(False, False)
            self._rests = True

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
        self._registration.close()
        self._sock.close()

    def _end_rest(self) -> None:
        self._rests = False
        try:
            ensure_open(self._sock)
            self._watch(self.reads, self.writes)
        except (OSError, ClosedResourceError) as error:  # something else has closed the socket
            self._broken(error)
