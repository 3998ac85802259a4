"""`Port`: where the packets of a receiver come from. A socket is one, a test's script another."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .._compat import notify_closing
from .._packets import Slots
from .._receive.functions import drain, receive_into
from .._receive.outlook import outlook_for
from .._system import memory
from .._system.memory import Discarded, SocketMemory
from .attributes import socket_attributes


class Reads(Protocol):
    """What is known of the reads from a port.

    Attributes:
        more: There is probably more, or an error: the next read need not wait first.
        receive_calls: How often it was read.
        empty_calls: How often nothing was there.
    """

    more: bool
    receive_calls: int
    empty_calls: int


class Port(Protocol):
    """Where the packets of a `PacketReceiver` come from."""

    @property
    def outlook(self) -> Reads:
        """What is known of the reads; always the same object."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether `close` was not called yet."""
        ...

    def drain(self, slots: Slots, limit: int) -> int:
        """Take what is there now, `limit` messages at most; return how many packets.

        Raises:
            OSError: What the last packets left behind. Reading can go on.
        """
        ...

    async def receive_into(self, slots: Slots, limit: int) -> int:
        """Wait until something is there, then do as `drain`. Always a checkpoint."""
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

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.outlook = outlook_for(sock)

    @property
    def is_open(self) -> bool:
        """See `Port`, as for all below."""
        return self._sock.fileno() >= 0

    def drain(self, slots: Slots, limit: int) -> int:
        return drain(self._sock, slots, limit, self.outlook)

    async def receive_into(self, slots: Slots, limit: int) -> int:
        return await receive_into(self._sock, slots, limit)

    def defer_error(self, error: OSError) -> None:
        self.outlook.defer_error(self._sock, error)

    def stop(self) -> int:
        return memory.most_waiting(self._sock)

    def discard(self, discarded: list[Discarded]) -> None:
        memory.discard_waiting(self._sock, self.stop(), discarded)

    def memory(self) -> SocketMemory | None:
        return memory.socket_memory(self._sock)

    def close(self) -> None:
        notify_closing(self._sock)
        self._sock.close()

    def attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return socket_attributes(self._sock)
