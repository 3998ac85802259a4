"""Waiting until a socket is readable, cheaply, and without a cancel scope.

AnyIO registers a reader for each wait and unregisters it afterwards, and on asyncio it wakes the
task two turns of the loop later. A receiver owns its socket. So on loops that have `add_reader`
its reader is registered once, and the loop's callback reads at once. Trio has no `add_reader`:
there the wait is Trio's own. Any other loop gets AnyIO's wait.

The loop watches a descriptor that nobody else has, see `anyio_mmsg._system.beacon`. So it
disturbs no other wait for the same socket.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

import anyio

from .._compat import (
    RunSoon,
    asyncio_loop,
    run_soon,
    wait_socket_readable,
    waits,
)
from .._load import module
from .._system.beacon import beacon_of
from .registration import Registration

if TYPE_CHECKING:
    import asyncio

_ANOTHER_LOOP = (
    "this receiver belongs to the event loop that it has waited in first, and that was another "
    "one; make a receiver for each event loop"
)


Wake: Callable[[object], asyncio.Future[None]] | None = getattr(module, "Wake", None)
"""A future that hides no cancellation, see _compiled/wake.c; or None."""


class Reads(Protocol):
    """Reads from a socket when it is readable. A receiver does."""

    def _read(self, woken: bool, /) -> int:
        """Read what there is into where it belongs; return how many packets.

        Args:
            woken: Whether the event loop says that something is there.
        """
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


def readiness_for(sock: socket.socket, owner: ref[Reads]) -> Readiness:
    """Return what waits for a socket in the running event loop."""
    loop = asyncio_loop()
    if loop is None:
        return _TrioWait(sock, owner)
    reader = _Reader(loop, sock, owner)
    try:
        reader.begin()
    except NotImplementedError:  # a loop for Windows' completion ports
        return _AnyioWait(sock, owner)
    return reader


class _Reader:
    """A reader that is registered once, with a loop of asyncio's kind.

    The loop is level-triggered. So a callback that finds nobody waiting unregisters, or a slow
    consumer would have the loop spin; the next wait registers again.

    With the compiled module the task goes on in the loop's callback itself, as a protocol would,
    and not after another turn of the loop. AnyIO delivers a cancellation by a callback of the
    loop's next turn, and uvloop calls readers before those. So there a wait that was begun
    elsewhere than in our callback lets one call pass.

    The loop keeps this object alive; this object refers to its owner weakly.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, owner: ref[Reads]
    ) -> None:
        self._loop = loop
        self._registration = Registration(loop, sock)
        self._registered = False  # for certain
        self._owner = owner
        self._running_loop: Callable[[], object] = sys.modules["asyncio"].get_running_loop
        self._look = waits().look
        self._in_turn = self._look is None  # cancellations are delivered before we are called
        self._now = self._in_turn  # whether a wait that begins now may end at the next call
        self._passed = False  # the same of the wait that is going on
        self._future: Any = None  # of the task that waits: a Future, or a Wake
        self._run_soon: RunSoon = run_soon()

    def wait(self) -> Awaitable[object]:
        """See `Readiness`, as for all below."""
        loop = self._loop
        try:
            running = self._running_loop()
        except RuntimeError:  # it is Trio's
            running = None
        if running is not loop:
            raise RuntimeError(_ANOTHER_LOOP)
        if not self._registered:
            self.begin()
        if Wake is not None:
            self._passed = self._now
            self._future = wake = Wake(loop)
            return wake
        if self._look is not None:
            return self._wait_unless_cancelled(self._look)
        self._future = future = loop.create_future()
        return future

    async def _wait_unless_cancelled(self, look: Callable[[], Awaitable[None]]) -> None:
        """Wait on a loop that calls us before it delivers a cancellation.

        Packets that come all the time would have a task receive for ever.
        """
        await look()
        self._future = future = self._loop.create_future()
        await future

    def begin(self) -> None:
        """Have the loop call us while the socket is readable."""
        self._registration.watch(self._readable)
        self._registered = True

    def _pause(self) -> None:
        self._registered = False
        self._registration.watch(None)

    def _readable(self) -> None:
        """The loop calls this."""
        future, owner = self._future, self._owner()
        if future is None or owner is None or future.done():
            self._pause()
            if owner is not None:
                owner._expect_more()
            return
        if Wake is not None and not self._passed:
            self._passed = True
            return
        # However this ends, wake the task: what was read has left the kernel, so the kernel will
        # not report it again.
        try:
            try:
                owner._read(True)
            except OSError as error:
                owner._defer_error(error)
            del owner  # it is the task's from here on
            if Wake is None:
                future.set_result(None)
            else:
                self._now = True
                future.resume()
        except Exception as error:
            if future.done():  # the task's wait is over: this is for the loop's handler
                raise
            future.set_exception(error)
        except BaseException as error:
            if future.done():  # the task's own: uvloop's readers can't end their loop by one
                self._loop.call_soon(_raise, error)
                return
            self.wake()
            raise
        finally:
            self._now = self._in_turn

    def wake(self) -> None:
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    def close(self) -> None:
        self._registered = False
        self._registration.close()
        if not self._loop.is_closed():
            self.wake()

    def abandon(self) -> None:
        self._run_soon(self.close)  # the descriptor lives until then


def _raise(error: BaseException) -> None:
    raise error


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
        self._beacon = beacon_of(sock)
        self._waits = False  # perhaps not any more

    async def wait(self) -> None:
        if self._token() is not self._loop:
            raise RuntimeError(_ANOTHER_LOOP)
        self._waits = True
        try:
            await self._wait_readable(self._beacon.number)
        except self._ended:
            return  # by `wake`
        finally:
            self._waits = False
        owner = self._owner()
        if owner is not None:
            owner._read(True)

    def wake(self) -> None:
        number = self._beacon.number
        if self._waits and number >= 0:  # else the number may be somebody else's
            self._notify(number)

    def close(self) -> None:
        self.wake()
        self._beacon.close()

    def abandon(self) -> None:
        self._beacon.close()  # nobody waits, or the owner would live


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
                owner._read(True)

    def wake(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def close(self) -> None:
        self.wake()

    def abandon(self) -> None:
        pass
