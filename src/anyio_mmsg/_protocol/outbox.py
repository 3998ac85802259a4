"""Datagrams that a transport has to send, and how they go out."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from anyio import WouldBlock

from .._packets.packet import Address
from .._send.engine import SendEngine, check_sender
from .._send.functions import send_mmsg_nowait
from .._send.result import UNUSABLE, SendResult, UnusableSocketError
from .._system.error_queue import reports_errors
from .._system.icmp import ICMP_ERRORS

HEADER = 8
"""Bytes that each datagram counts in addition to its own, so that empty ones count too: the size
of the UDP header, as in asyncio from Python 3.13 on."""

_CHUNK = 256
"""The most datagrams of one send. Datagrams that found no room are laid out again whenever there
is a little room, so there should not be many; with this many a call's fixed cost is negligible."""


_OTHERS = ICMP_ERRORS - {errno.EMSGSIZE}
"""Errors that may be another datagram's. EMSGSIZE is usually the datagram's own, and sending it
again would make the kernel report it once more."""


class Outbox:
    """Datagrams that are to be sent, in order.

    Args:
        sock: A nonblocking datagram socket.
        engine: As for `send_mmsg`.
        gso: As for `send_mmsg`.

    Attributes:
        size: Bytes of the datagrams, `HEADER` included: 0 if there is none.
        errors: Those of datagrams that the system refused, oldest first. Whoever has reported one
            removes it.
        full: Whether the last `send` ended because the socket had no room.

    Raises:
        ValueError: `engine` is unknown, or unavailable here.
    """

    def __init__(self, sock: socket.socket, engine: SendEngine, gso: bool) -> None:
        check_sender(engine)
        self._sock = sock
        self._engine: SendEngine = engine
        self._gso = gso
        self._waiting: list[tuple[bytes, Address]] = []
        self._result: SendResult | None = None  # of a send that `_waiting` does not know yet
        self.size: int = 0
        self.errors: list[OSError] = []
        self.full: bool = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, data: bytes, address: Address) -> None:
        """Add a datagram. It is not looked at before it is sent."""
        self.size += len(data) + HEADER
        self._waiting.append((data, address))

    def put_many(self, datagrams: list[tuple[bytes, Address]]) -> None:
        """Add datagrams, likewise."""
        self.size += sum([len(data) for data, _ in datagrams]) + HEADER * len(datagrams)
        self._waiting += datagrams

    def clear(self) -> None:
        """Drop all datagrams."""
        self._waiting, self.size, self._result = [], 0, None
        self.full = False

    def send(self) -> None:
        """Send what the socket has room for, and keep the rest.

        Datagrams that the system refused are not kept, their errors are in `errors`.

        Raises:
            TypeError: The address of a datagram has the wrong type for the socket, as
                `socket.sendto` raises it. That datagram is not kept, those after it are.
            UnusableSocketError: The socket is closed.
            Exception: Whatever else `socket.sendto` may raise of a datagram; likewise.
        """
        self.full = False
        if self._result is not None:  # after an interrupt
            self._settle()
        if len(self._waiting) == 1:  # where `socket.sendto` costs less
            self._send_each(1)
        while self._waiting and not self.full:
            chunk = self._waiting if len(self._waiting) <= _CHUNK else self._waiting[:_CHUNK]
            count = len(chunk)
            self._result = result = SendResult()
            try:
                send_mmsg_nowait(
                    self._sock, chunk, gso=self._gso, engine=self._engine, result=result
                )
            except WouldBlock:
                self.full = True
            except (TypeError, ValueError):
                # One of them is not for us: too long, to a host by its name, or wrong. The
                # system may take it, or has the error that asyncio's users know.
                self._result = None
                self._send_each(count)
                continue
            self.full = result.handled < count
            self._settle()

    def _settle(self) -> None:
        """Forget what the last send has handled: its result says how many, whatever ended it."""
        if self._result is not None:
            failures = self._result.failures
            self._forget(self._result.handled, [failure.error for failure in failures])

    def _forget(self, count: int, errors: Sequence[OSError] = ()) -> None:
        errors = [*self.errors, *errors] if errors else self.errors
        rest, size = self._waiting[count:], 0
        if rest:
            gone = self._waiting[:count]
            size = self.size - sum([len(data) for data, _ in gone]) - HEADER * count
        # Without a call in between.
        self._waiting, self.size, self.errors, self._result = rest, size, errors, None

    def _send_each(self, count: int) -> None:
        """Send the next `count` datagrams as asyncio does, by a call for each."""
        for _ in range(count):
            data, address = self._waiting[0]
            self._forget(1)
            try:
                try:
                    self._send_one(data, address)
                except OSError as error:
                    # With errors in the queue, that of an earlier datagram may strike this one.
                    if error.errno not in _OTHERS or not reports_errors(self._sock):
                        raise
                    self._send_one(data, address)
            except (BlockingIOError, InterruptedError):
                self.size += len(data) + HEADER
                self._waiting.insert(0, (data, address))
                self.full = True
                break
            except OSError as error:
                if error.errno in UNUSABLE:
                    raise UnusableSocketError(error.errno or 0, str(error)) from None
                self.errors.append(error)

    def _send_one(self, data: bytes, address: Address) -> None:
        if address is None:
            self._sock.send(data)
        else:
            self._sock.sendto(data, address)
