"""Datagrams that a transport has received, and hands over."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from .._packets import Slots
from .._packets.packet import Address
from .._receive.errors import as_reported
from .._receive.functions import drain
from .._receive.outlook import outlook_for


class Inbox:
    """Datagrams that were received, a batch at a time.

    Args:
        sock: A nonblocking datagram socket.
        slots: Where datagrams are received, each slot long enough for any.
        limit: The most messages of the kernel to receive at once.

    Attributes:
        arrived: A batch, oldest first; None if one is to be received.
        rest: The datagrams of it that are still to be handed over.
        more: Whether the batch was full, or ended by an error.
    """

    def __init__(self, sock: socket.socket, slots: Slots, limit: int) -> None:
        self.arrived: list[tuple[bytes, Address]] | None = None
        self.rest: Iterator[tuple[bytes, Address]] = iter(())
        self._sock = sock
        self._slots = slots
        self._limit = limit
        self._outlook = outlook_for(sock)
        self._copied = False  # all that the slots hold
        self.more: bool = False

    def receive(self) -> bool:
        """Receive a batch, after the system has reported that the socket is readable.

        Each step may be repeated, when an interrupt has ended this after it.

        Returns:
            Whether there were datagrams.

        Raises:
            OSError: What the system reports, or what the network does (`IcmpError`).
            anyio.ClosedResourceError: The socket is closed.
        """
        slots = self._slots
        if self._copied:
            slots.take_back(None)
            self._copied = False
        self._outlook.woken = True
        drain(self._sock, slots, self._limit, self._outlook)
        arrived = slots.datagrams()
        rest = iter(arrived)
        self.arrived, self.rest, self._copied = arrived, rest, True  # without a call in between
        self.more = self._outlook.more
        return bool(arrived)

    def take_error(self) -> OSError | None:
        """Return the error that came after the datagrams of a batch, once."""
        error = self._outlook.take_error(self._sock)
        return None if error is None else as_reported(self._sock, error, self._outlook)
