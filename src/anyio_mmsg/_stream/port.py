"""`Port`: where the packets of a receiver come from. A socket is one, a test's script another."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

from .._compat import notify_closing
from .._packets import Slots
from .._receive.errors import back_off
from .._receive.functions import drain
from .._receive.outlook import outlook_for
from .._receive.usable import ensure_open
from .._system import memory
from .._system.error_queue import errors_pending
from .._system.memory import Discarded, SocketMemory
from .attributes import socket_attributes
from .readiness import Readiness, Reads, readiness_for
from .reports import report_cut

_PORTS: WeakKeyDictionary[socket.socket, ref[SocketPort]] = WeakKeyDictionary()
"""The port of each socket that a receiver owns: the last one, if it had several."""


def let_receiver_go(sock: socket.socket) -> None:
    """Tell the receiver of a socket that was closed, so that it lets go of the socket too."""
    port = _PORTS.get(sock, lambda: None)()
    if port is not None:
        port._let_go()


class Prospect(Protocol):
    """What is known of the reads from a port.

    Attributes:
        more: There is probably more, or an error: the next read need not wait first.
        woken: The event loop says that something is there.
        receive_calls: How often it was read.
        empty_calls: How often nothing was there.
    """

    more: bool
    woken: bool
    receive_calls: int
    empty_calls: int


class Port(Protocol):
    """Where the packets of a `PacketReceiver` come from."""

    @property
    def outlook(self) -> Prospect:
        """What is known of the reads; always the same object."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether `close` was not called yet."""
        ...

    def drain(self, slots: Slots, limit: int, /) -> int:
        """Take what is there now, `limit` messages at most; return how many packets.

        Raises:
            OSError: What the last packets left behind. Reading can go on.
        """
        ...

    def wait(self) -> Awaitable[object]:
        """See `anyio_mmsg._stream.readiness.Readiness`, also for `wake`."""
        ...

    def wake(self) -> None:
        """End a wait that is going on. In the event loop's thread."""
        ...

    async def back_off(self, empty_waits: int) -> None:
        """Pause, if waits end again and again without anything to read."""
        ...

    def defer_error(self, error: OSError) -> None:
        """Have the next read raise `error`, which came after packets."""
        ...

    def stop(self) -> int:
        """Return how many messages are there now, at most: no more of them will be read."""
        ...

    def discard(self, discarded: list[Discarded]) -> None:
        """Read what is there and throw it away, with an item in the list for each message."""
        ...

    def memory(self) -> SocketMemory | None:
        """Return what the kernel reports about its buffer, or None."""
        ...

    def close(self) -> None:
        """End it."""
        ...

    def attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Return the typed attributes that it has."""
        ...


class SocketPort:
    """A socket as a `Port`."""

    def __init__(self, sock: socket.socket, owner: Reads) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._owner = ref(owner)
        self._readiness: Readiness | None = None  # until the first wait, which knows the loop
        self.outlook = outlook_for(sock)
        self.outlook.report_cut = report_cut
        self.drain: Callable[[Slots, int], int] = partial(drain, sock, outlook=self.outlook)
        _PORTS[sock] = ref(self)

    @property
    def is_open(self) -> bool:
        """See `Port`, as for all below."""
        return self._sock.fileno() >= 0

    def wait(self) -> Awaitable[object]:
        if self._sock.fileno() != self._fd:  # somebody else has closed it
            self._let_go()
            ensure_open(self._sock)
        if self._readiness is None:
            self._readiness = readiness_for(self._sock, self._owner)
        return self._readiness.wait()

    def wake(self) -> None:
        if self._readiness is not None:
            self._readiness.wake()

    async def back_off(self, empty_waits: int) -> None:
        if errors_pending(self._sock):  # the program's, so that a wait ends at once
            await back_off(empty_waits)

    def defer_error(self, error: OSError) -> None:
        self.outlook.defer_error(self._sock, error)

    def stop(self) -> int:
        return memory.most_waiting(self._sock)

    def discard(self, discarded: list[Discarded]) -> None:
        memory.discard_waiting(self._sock, self.stop(), discarded)

    def memory(self) -> SocketMemory | None:
        return memory.socket_memory(self._sock)

    def close(self) -> None:
        self._let_go()
        notify_closing(self._sock)
        self._sock.close()

    def _let_go(self) -> None:
        if self._readiness is not None:
            self._readiness.close()

    def __del__(self) -> None:
        readiness = getattr(self, "_readiness", None)
        if readiness is not None:
            readiness.abandon()

    def attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return socket_attributes(self._sock)
