"""How a loop of asyncio's kind is made to watch a socket, for a receiver or a transport."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeAlias

from .._system.beacon import beacon_of

if TYPE_CHECKING:
    import asyncio

Callback: TypeAlias = "Callable[[], None] | None"


class Registration:
    """Has a loop call functions while a socket is readable, and while it is writable.

    The loop goes on until it is told to stop, whatever happens to the socket, and nothing else
    that waits for the same socket is disturbed: it watches a descriptor of our own.

    The functions run in copies of the context in which this is made, whoever makes the loop watch:
    else what a task sends would have later datagrams delivered in that task's context
    (python/cpython#140947).

    A forked child has the same epoll instances as its parent, and would change what the parent's
    loop watches. So in a child this does nothing.

    Args:
        loop: The running loop.
        sock: An open socket.

    Raises:
        OSError: The system has no descriptor left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._beacon = beacon_of(sock)
        self._context = copy_context()
        self._process = os.getpid()
        self._read: Callback = None
        self._write: Callback = None
        # Whether the loop may have either, as an interrupt can come before it is noted.
        self._may_read = self._may_write = False

    def watch(self, read: Callback, write: Callback = None) -> None:
        """Have the loop call `read` while the socket is readable, and `write` while writable.

        Args:
            read: It has to read, or the loop calls it again and again. None: don't call.
            write: It has to write; likewise.

        Raises:
            NotImplementedError: The loop can't watch sockets.
            OSError: The socket is closed.
        """
        if self._process != os.getpid():
            return
        loop, beacon = self._loop, self._beacon
        wanted = read, write
        if read is not None or write is not None:
            beacon.look_for(read is not None, write is not None)
        if write is not None and beacon.speaks_by_reading:
            read, write = self._call, None
        if read is not None:
            self._may_read = True
            self._context.copy().run(loop.add_reader, beacon.number, read)
        elif self._may_read:
            loop.remove_reader(beacon.number)
            self._may_read = False
        if write is not None:
            self._may_write = True
            self._context.copy().run(loop.add_writer, beacon.number, write)
        elif self._may_write:
            loop.remove_writer(beacon.number)
            self._may_write = False
        self._read, self._write = wanted

    def _call(self) -> None:
        readable, writable = self._beacon.ask()
        if readable and self._read is not None:
            self._read()
        if writable and self._write is not None:
            self._write()

    def close(self) -> None:
        """Have the loop call nothing any more, and close the descriptor. Before the socket."""
        if not self._loop.is_closed():
            self.watch(None)
        self._beacon.close()
