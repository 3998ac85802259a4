"""Waiting until a socket is readable, cheaply, and without a cancel scope.

AnyIO registers a reader for each wait and unregisters it afterwards, and on asyncio it wakes the
task two turns of the loop later. A receiver owns its socket. So on loops that have `add_reader`
its reader is registered once, and the loop's callback reads at once. Trio has no `add_reader`:
there the wait is Trio's own. Any other loop gets AnyIO's wait.

The loop watches a second descriptor of the socket, which nobody else has. So it disturbs no other
wait for the same socket. And if somebody else closes the socket, the loop does not mistake the
next socket with the same number for it, which would leave that one deaf.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

import anyio

from .._compat import (
    RunSoon,
    asyncio_loop,
    checkpoint_if_cancelled,
    hides_cancellation,
    run_soon,
    wait_socket_readable,
)

if TYPE_CHECKING:
    import asyncio

_ANOTHER_LOOP = (
    "this receiver belongs to the event loop that it has waited in first, and that was another "
    "one; make a receiver for each event loop"
)


class Reads(Protocol):
    """Reads from a socket when it is readable. A receiver does."""

    def _read_woken(self) -> int:
        """Read what the event loop says there is, into where it belongs; return how many."""
        ...

    def _expect_more(self) -> None:
        """Make the next receive skip its wait, since something is there."""
        ...

    def _defer_error(self, error: OSError) -> None:
        """Have the next read raise an error."""
        ...


class Readiness(Protocol):
    """Waits for one socket, in one event loop."""

    def wait(self) -> Awaitable[object]:
        """Wait until the socket was readable, and was read, or `wake` was called.

        Await it at once. Always a checkpoint. If it is cancelled, what was read stays in the
        batch.

        Raises:
            RuntimeError: Another event loop is running than the one that this was made in.
            OSError: The event loop can't wait for the socket, or the read's error.
        """
        ...

    def wake(self) -> None:
        """End a wait that is going on. In the event loop's thread."""
        ...

    def close(self) -> None:
        """Let go of the socket, which is about to be closed."""
        ...

    def abandon(self) -> None:
        """Let go of the socket, in any thread, for an owner that was collected."""
        ...


class _Descriptor:
    """A second descriptor of a socket, closed with this object."""

    def __init__(self, sock: socket.socket) -> None:
        self.number = socket.dup(sock.fileno())

    def close(self) -> None:
        """Close it, once."""
        number, self.number = self.number, -1
        if number >= 0:
            socket.close(number)

    __del__ = close


def readiness_for(sock: socket.socket, owner: ref[Reads]) -> Readiness:
    """Return what waits for a socket in the running event loop."""
    loop = asyncio_loop()
    if loop is None:
        return _TrioWait(sock, owner)
    reader = _Reader(loop, sock, owner)
    try:
        reader.register()
    except NotImplementedError:  # a loop for Windows' completion ports
        return _AnyioWait(sock, owner)
    return reader


class _Reader:
    """A reader that is registered once, with a loop of asyncio's kind.

    The loop is level-triggered. So a callback that finds nobody waiting unregisters, or a slow
    consumer would have the loop spin; the next wait registers again.

    uvloop forgets a reader at POLLERR, which nothing reports (libuv's `uv__poll_io`). So each
    wait registers anew there, which makes no system call where nothing was forgotten.

    The loop keeps this object alive; this object refers to its owner weakly. A forked child has
    the same epoll instance as its parent. Unregistering there would unregister the parent's
    reader too, so a child unregisters nothing.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, owner: ref[Reads]
    ) -> None:
        self._loop = loop
        self._own = _Descriptor(sock)
        self._fd = self._own.number
        self._owner = owner
        self._context = copy_context()  # whoever registers later, callbacks run in copies of this
        import asyncio  # here, so that programs on Trio do without it

        self._forgets = not isinstance(loop, asyncio.BaseEventLoop)
        self._hides = hides_cancellation()
        # Whether the loop certainly has the reader; and whether it may have it, as an interrupt
        # can come between registering and noting that.
        self._registered = self._may_be = False
        self._future: asyncio.Future[None] | None = None  # of the task that waits
        self._run_soon: RunSoon = run_soon()
        self._process = os.getpid()

    def wait(self) -> Awaitable[object]:
        """See `Readiness`, as for all below."""
        loop = self._loop
        if asyncio_loop() is not loop:
            raise RuntimeError(_ANOTHER_LOOP)
        if not self._registered or self._forgets:
            self.register()
        if self._hides:
            return self._wait_unless_cancelled()
        self._future = future = loop.create_future()
        return future

    async def _wait_unless_cancelled(self) -> None:
        """Wait on a loop that calls us before it delivers a cancellation.

        Packets that come all the time would have a task receive for ever.
        """
        await checkpoint_if_cancelled()
        self._future = future = self._loop.create_future()
        await future

    def register(self) -> None:
        """Have the loop call us when the socket is readable."""
        self._may_be = True
        try:
            self._context.run(self._loop.add_reader, self._fd, self._readable)
        except RuntimeError:  # uvloop has closed its handle, and keeps it until it is removed
            self._loop.remove_reader(self._fd)
            self._context.run(self._loop.add_reader, self._fd, self._readable)
        self._registered = True

    def _unregister(self) -> None:
        if self._may_be and self._process == os.getpid():
            self._registered = False
            self._loop.remove_reader(self._fd)
            self._may_be = False

    def _readable(self) -> None:
        """The loop calls this."""
        future, owner = self._future, self._owner()
        if future is None or owner is None or future.done():
            self._unregister()
            if owner is not None:
                owner._expect_more()
            return
        # However this ends, wake the task: what was read has left the kernel, so the kernel will
        # not report it again.
        try:
            try:
                owner._read_woken()
            except OSError as error:
                owner._defer_error(error)
            future.set_result(None)
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        except BaseException:
            self.wake()
            raise

    def wake(self) -> None:
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    def close(self) -> None:
        if not self._loop.is_closed():
            self._unregister()
            self.wake()
        self._own.close()

    def abandon(self) -> None:
        if self._may_be:
            self._run_soon(self.close)  # the descriptor lives until then


class _TrioWait:
    """Trio's own wait, ended by Trio's own notification, which is cheaper than a cancel scope.

    The notification wakes every task that waits for a descriptor, and nobody else has this one.
    """

    def __init__(self, sock: socket.socket, owner: ref[Reads]) -> None:
        trio: Any = sys.modules["trio"]
        self._owner = owner
        self._wait_readable = trio.lowlevel.wait_readable
        self._notify = trio.lowlevel.notify_closing
        self._ended = trio.ClosedResourceError
        self._token = trio.lowlevel.current_trio_token
        self._loop = self._token()
        self._own = _Descriptor(sock)
        self._fd = self._own.number
        self._waits = False  # perhaps not any more

    async def wait(self) -> None:
        if self._token() is not self._loop:
            raise RuntimeError(_ANOTHER_LOOP)
        self._waits = True
        try:
            await self._wait_readable(self._fd)
        except self._ended:
            return  # by `wake`
        finally:
            self._waits = False
        owner = self._owner()
        if owner is not None:
            owner._read_woken()

    def wake(self) -> None:
        if self._waits:
            self._notify(self._fd)

    def close(self) -> None:
        self.wake()
        self._own.close()

    def abandon(self) -> None:
        self._own.close()  # nobody waits, or the owner would live


class _AnyioWait:
    """AnyIO's wait, in a cancel scope."""

    def __init__(self, sock: socket.socket, owner: ref[Reads]) -> None:
        self._sock = sock
        self._owner = owner
        self._scope: anyio.CancelScope | None = None

    async def wait(self) -> None:
        with anyio.CancelScope() as self._scope:
            await wait_socket_readable(self._sock)
            owner = self._owner()
            if owner is not None:
                owner._read_woken()

    def wake(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def close(self) -> None:
        self.wake()

    def abandon(self) -> None:
        pass
