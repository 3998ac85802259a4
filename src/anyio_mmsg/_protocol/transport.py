"""The transport that a protocol gets: asyncio's rules, by batches.

The event loop calls it when the socket is readable, as it calls asyncio's own transports; so a
protocol runs where it is used to, in a callback and not in a task. Each call reads one batch,
hands its datagrams over and sends what they have caused. Then the loop runs everything else.

KeyboardInterrupt and SystemExit go through the loop, whichever of its callbacks they end. The
program may go on with its loop, so whoever lets one through has the loop call it again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Iterator
from typing import Any

from .._packets import Slots
from .._packets.packet import Address
from .._receive.functions import drain
from .._receive.outlook import outlook_for
from .outbox import Outbox
from .watch import Watch

HIGH_WATER = 64 * 1024
"""Bytes that may wait to be sent before `pause_writing`, by default: asyncio's number."""

_SILENT = 5
"""Datagrams that may be sent after the end before the log says so: asyncio's number."""

_logger = logging.getLogger("asyncio")  # where users of asyncio look


class BatchTransport(asyncio.Transport, asyncio.DatagramTransport):
    """Serves one protocol by one socket, as `serve_protocol` says.

    It is both kinds of transport, as asyncio's own is. What only streams have, such as `write`,
    raises NotImplementedError, as there.

    Args:
        loop: The running loop.
        sock: A nonblocking datagram socket, which this owns from `start_reading` on.
        protocol: Whose methods are called.
        slots: Where datagrams are received, each slot long enough for any.
        outbox: Sends by the same socket.
        limit: The most datagrams to read before the loop runs everything else.

    Attributes:
        done: Gets the argument of `connection_lost` when that was called and the socket closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        slots: Slots,
        outbox: Outbox,
        limit: int,
    ) -> None:
        try:
            self._peer: Address = sock.getpeername()
        except OSError:
            self._peer = None
        super().__init__(
            {
                "socket": TransportSocket(sock),
                "sockname": sock.getsockname(),
                "peername": self._peer,
            }
        )
        self.done: asyncio.Future[BaseException | None] = loop.create_future()
        self._loop = loop
        self._sock = sock
        self._protocol: Any = protocol
        self._slots = slots
        self._outlook = outlook_for(sock)
        self._limit = limit
        self._arrived: Iterator[tuple[bytes, Address]] | None = None  # what is to be handed over
        self._copied = False  # all that the slots hold
        self._outbox = outbox
        self._watch = Watch(loop, sock, self._read, self._write_on, self._end)
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._paused = False  # the protocol was told so
        self._flush_comes = False  # in this turn of the loop, or at the start of the next
        self._reading_paused = False
        self._closing = False
        self._ending = False  # the loop calls `_lose` soon, or has
        self._lost = False  # `connection_lost` was called
        self._over = False  # all is done
        self._error: BaseException | None = None  # for `connection_lost`
        self._late = 0  # datagrams sent after the end

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open"
        waiting = f"{len(self._outbox)} datagrams to send"
        return f"<{type(self).__name__} {state} fd={self._sock.fileno()} {waiting}>"

    # Begin and end

    def start_reading(self) -> None:
        """Have the loop read, from its next turn on: `connection_made` comes first.

        Raises:
            NotImplementedError: The loop can't watch a socket.
            RuntimeError: The socket belongs to another transport.
        """
        self._watch.begin()

    def begin(self) -> None:
        """Introduce the transport to the protocol."""
        self._call("connection_made", self)

    def close(self) -> None:
        """Send what waits to be sent, then call `connection_lost` and close the socket."""
        if not self._closing:
            self._closing = True
            self._watch.read(False)
            if self._outbox.size or self._outbox.errors:
                self._watch.soon(self._flush)
            else:
                self._end(None)
        elif self._ending:
            self._end(None)

    def abort(self) -> None:
        """Call `connection_lost` and close the socket; drop what the socket had no room for."""
        if not self._ending:
            self._watch.run(self._flush)  # asyncio's transports have sent it by now
        self._end(None)

    def finish(self) -> None:
        """Have ended when this returns: what waits to be sent is tried once."""
        if self._loop.is_closed():  # the task was never ended; nothing can be called any more
            self._sock.close()
            return
        try:
            if self._outbox.size or self._outbox.errors:
                self._send()
        finally:
            self._end(None)
            self._lose()

    def is_closing(self) -> bool:
        """Return whether the transport is closing, or closed."""
        return self._closing

    def _end(self, error: BaseException | None) -> None:
        """Have the loop call `_lose`. From here on nothing is received or sent."""
        if not self._over:
            self._error = self._error if self._ending else error
            self._watch.soon(self._lose)  # again, if an interrupt has kept it from running
            self._ending = True
            self._stop()

    def _stop(self) -> None:
        self._closing = True
        self._outbox.clear()
        self._watch.read(False)
        self._watch.write(False)

    def _lose(self) -> None:
        """Have ended, in steps of which each is taken once, however often this is called."""
        try:
            self._ending = True
            self._stop()
            if not self._lost:
                self._lost = True  # without a call before the next one
                try:
                    self._protocol.connection_lost(self._error)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._report("connection_lost", error)
            self._sock.close()
            if not self.done.done():  # a cancelled task has cancelled it
                self.done.set_result(self._error)
            self._over = True
        except BaseException:  # the loop's end, or an interrupt
            self._watch.soon(self._lose)
            raise

    # The protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol's methods called from now on."""
        self._protocol = protocol

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
        self._loop.call_exception_handler(
            {
                "message": f"protocol.{method}() failed",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    def _report_errors(self) -> None:
        """Have the protocol know of the datagrams that the system refused, each once."""
        while self._outbox.errors:
            self._call("error_received", self._outbox.errors.pop(0))

    # Receiving

    def is_reading(self) -> bool:
        """Return whether datagrams are received."""
        return not self._closing and not self._reading_paused

    def pause_reading(self) -> None:
        """Receive nothing until `resume_reading`; what arrives waits in the socket's buffer.

        The rest of a batch in which this is called waits too.
        """
        if self.is_reading():
            self._reading_paused = True
            self._watch.read(False)

    def resume_reading(self) -> None:
        """Receive again, after `pause_reading`."""
        if self._reading_paused and not self._closing:
            self._reading_paused = False
            self._watch.read(True)
            self._watch.soon(self._read)  # the rest of a batch

    def _read(self) -> None:
        """Hand one batch over. The loop calls this when the socket is readable."""
        self._watch.after_event()
        if not self.is_reading():
            return
        try:
            self._flush_comes = True  # what is sent meanwhile goes out at the end
            if self._arrived is None:
                self._receive()
            self._hand_over()
            if self._outlook.more and self.is_reading():  # it was full, or ended by an error
                deferred = self._outlook.take_error(self._sock)
                if deferred is not None:
                    self._call("error_received", deferred)
        except OSError as error:
            self._call("error_received", error)
        except (SystemExit, KeyboardInterrupt):
            self._watch.soon(self._read)  # for the rest of the batch
            raise
        except BaseException as error:
            self._end(error)
        finally:
            self._flush()

    def _receive(self) -> None:
        # Each step may be repeated, when an interrupt has ended this after it.
        slots = self._slots
        if self._copied:
            slots.take_back(None)
            self._copied = False
        drain(self._sock, slots, self._limit, self._outlook)
        # Without `strict`, which costs as much as a datagram.
        arrived = zip(slots.copies(), slots.addresses(0))  # noqa: B905
        self._arrived, self._copied = arrived, True  # without a call in between

    def _hand_over(self) -> None:
        for data, address in self._arrived or ():
            try:
                self._protocol.datagram_received(data, address)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._report("datagram_received", error)
            if not self.is_reading():
                break
        if self._closing or not self._reading_paused:
            self._arrived = None

    # Sending

    def sendto(self, data: bytes | bytearray | memoryview, addr: Address = None) -> None:
        """Send a datagram, with others of this turn of the loop; see `serve_protocol`.

        Args:
            data: What it carries. It is copied, unless it is bytes.
            addr: Where it goes; None for the peer of a connected socket.

        Raises:
            TypeError: `data` is of another type.
            ValueError: The socket is connected, and `addr` is not its peer.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data is a {type(data).__name__}, not bytes, bytearray or memoryview")
        if addr is not None and self._peer is not None:
            if addr != self._peer:
                raise ValueError(f"addr is {addr!r}; the socket is connected to {self._peer!r}")
            addr = None
        if self._closing:
            self._late += 1
            if self._late > _SILENT:
                _logger.warning("a datagram was sent by a transport that is closed: it is ignored")
            return
        self._outbox.put(bytes(data), addr)
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
        self._watch.after_event()
        self._send()

    def _send(self) -> None:
        if self._ending:
            return
        try:
            self._outbox.send()
            self._watch.write(self._outbox.full)
            self._report_errors()
            self._pause_or_resume()
            if self._closing and not self._outbox.size:
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
