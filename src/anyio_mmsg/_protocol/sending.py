"""The half of a transport that sends, and calls the protocol about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, TypeAlias

from .._packets.packet import Address
from .outbox import Outbox
from .watch import Watch

_Data: TypeAlias = "bytes | bytearray | memoryview"

HIGH_WATER = 64 * 1024
"""Bytes that may wait to be sent before `pause_writing`, by default: asyncio's number."""

_SILENT = 5
"""Datagrams that may be sent after the end before the log says so: asyncio's number."""

_logger = logging.getLogger("asyncio")  # where users of asyncio look


class SendingTransport(asyncio.Transport, asyncio.DatagramTransport):
    """Sends what a protocol gives it, and keeps what the socket has no room for.

    It is both kinds of transport, as asyncio's own is. What only streams have, such as `write`,
    raises NotImplementedError, as there.

    Args:
        protocol: Whose methods are called.
        watch: Calls this.
        outbox: Sends.
        extra: What `get_extra_info` returns, by name.
        only: The one address that `sendto` takes, beside None; None if it takes any.
    """

    def __init__(
        self,
        protocol: asyncio.BaseProtocol,
        watch: Watch,
        outbox: Outbox,
        extra: dict[str, Any],
        only: Address,
    ) -> None:
        super().__init__(extra)
        self._watch = watch
        self._outbox = outbox
        self._only = only
        # Datagrams without an address go to a connected socket's peer, as the system knows it.
        self._connected = extra["peername"] is not None
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._paused = False  # the protocol was told so
        self._flush_comes = False  # in this turn of the loop, or at the start of the next
        self._closing = False
        self._ending = False  # nothing is sent any more
        self._late = 0  # datagrams sent after the end
        self.set_protocol(protocol)

    def _end(self, error: BaseException | None) -> None:
        """Have the loop call `connection_lost`. From here on nothing is received or sent."""
        raise NotImplementedError

    # The protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol's methods called from now on."""
        self._protocol: Any = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol whose methods are called."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def _call(self, method: str, *arguments: object) -> None:
        """Call a method of the protocol; an exception goes where asyncio has it go."""
        try:
            getattr(self._protocol, method)(*arguments)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report(method, error)

    def _report(self, method: str, error: BaseException) -> None:
        self._watch.report(
            {
                "message": f"protocol.{method}() failed",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    def _report_errors(self) -> None:
        """Report the datagrams that the system refused to the protocol, each once."""
        while self._outbox.errors:
            self._call("error_received", self._outbox.errors.pop(0))

    # Sending

    def sendto(self, data: _Data, addr: Address = None) -> None:
        """Send a datagram, with others of this turn of the loop; see `serve_protocol`.

        Args:
            data: What it carries. It is copied, unless it is bytes.
            addr: Where it goes; None for the peer of a connected socket.

        Raises:
            TypeError: `data` is of another type.
            ValueError: The socket is connected, and `addr` is not its peer.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise _wrong_data(data)
        if self._only is not None or self._connected:
            addr = self._checked(addr)
        if self._closing:
            self._ignore(1)
            return
        self._outbox.put(bytes(data), addr)
        self._have_sent()

    def sendto_many(self, datagrams: Iterable[tuple[_Data, Address]]) -> None:
        """Send datagrams, in order, as `sendto` would one by one.

        Args:
            datagrams: Pairs of what `sendto` takes.

        Raises:
            TypeError: One is not a pair, or its data of another type; with its index. None is
                sent.
            ValueError: The socket is connected, and an address is not its peer; likewise.
        """
        checked: list[tuple[bytes, Address]] = []
        for index, datagram in enumerate(datagrams):
            try:
                data, addr = datagram
            except (TypeError, ValueError):
                raise TypeError(f"datagram {index} is {datagram!r}; give (data, addr)") from None
            try:
                if not isinstance(data, (bytes, bytearray, memoryview)):
                    raise _wrong_data(data)
                if self._only is not None or self._connected:
                    addr = self._checked(addr)
            except (TypeError, ValueError) as error:
                raise type(error)(f"datagram {index}: {error}") from None
            checked.append((bytes(data), addr))
        if self._closing:
            self._ignore(len(checked))
        elif checked:
            self._outbox.put_many(checked)
            self._have_sent()

    def _checked(self, addr: Address) -> Address:
        """Return where the outbox sends what is for `addr`, if there is only one such address."""
        if addr is not None and self._only is not None and addr != self._only:
            raise ValueError(f"addr is {addr!r}; the transport is connected to {self._only!r}")
        return None if self._connected else self._only

    def _ignore(self, count: int) -> None:
        self._late += count
        if self._late > _SILENT:
            _logger.warning("a datagram was sent by a transport that is closed: it is ignored")

    def _have_sent(self) -> None:
        """See to it that what the outbox has goes out."""
        if self._outbox.size > self._high:
            self._bound()
        elif not self._flush_comes and not self._watch.writes:
            self._watch.soon(self._flush)
            self._flush_comes = True

    def _bound(self) -> None:
        """Do something about a buffer that is longer than the high-water mark."""
        self._watch.run(self._pause_or_resume if self._watch.writes else self._send)

    def _flush(self) -> None:
        self._flush_comes = False
        if (self._outbox.size or self._outbox.errors) and not self._watch.writes:
            self._send()

    def _write_on(self) -> None:
        """Send the rest. The loop calls this when the socket is writable."""
        size = self._outbox.size
        self._send()
        if not self._watch.reads:  # else reading sees to it
            self._watch.note_event(self._outbox.size < size)

    def _send(self) -> None:
        if self._ending:
            return
        try:
            outbox = self._outbox
            outbox.send()
            if outbox.full or self._watch.writes:
                self._watch.write(outbox.full)
            if outbox.errors:
                self._report_errors()
            if self._paused or outbox.size > self._high:
                self._pause_or_resume()
            if self._closing and not outbox.size:
                self._end(None)
        except (SystemExit, KeyboardInterrupt):
            self._watch.soon(self._send)
            raise
        except BaseException as error:
            self._end(error)

    # Flow control

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set from which sizes of the buffer the protocol is paused, and resumed.

        Args:
            high: Above this `pause_writing` is called. None: 64 KiB, or 4 times `low`.
            low: Down to this `resume_writing` is called. None: a quarter of `high`.

        Raises:
            ValueError: They are not 0 <= `low` <= `high`.
        """
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"high is {high!r} and low {low!r}; give 0 <= low <= high")
        self._high, self._low = high, low
        if self._outbox.size > high:
            self._bound()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the limits, low and high."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait to be sent, and 8 for each datagram."""
        return self._outbox.size

    def _pause_or_resume(self) -> None:
        size = self._outbox.size
        if size > self._high and not self._paused:
            self._paused = True
            self._call("pause_writing")
        elif size <= self._low and self._paused:
            self._paused = False
            self._call("resume_writing")


def _wrong_data(data: object) -> TypeError:
    return TypeError(f"data is a {type(data).__name__}, not bytes, bytearray or memoryview")
