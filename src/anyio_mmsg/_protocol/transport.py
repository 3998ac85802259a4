"""The transport that a protocol gets: asyncio's rules, by batches.

The event loop calls it when the socket is readable, as it calls asyncio's own transports; so a
protocol runs where it is used to, in a callback and not in a task. Each call reads one batch,
hands its datagrams over and sends what they have caused. Then the loop runs everything else.

KeyboardInterrupt and SystemExit go through the loop, whichever of its callbacks they end. The
program may go on with its loop, so whoever lets one through has the loop call it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import length_hint
from typing import Any

from .._packets.packet import Address
from .inbox import Inbox
from .outbox import Outbox
from .sending import SendingTransport
from .watch import Watch


class BatchTransport(SendingTransport):
    """Serves one protocol by one socket, as `serve_protocol` says.

    Args:
        protocol: Whose methods are called.
        watch: Calls this, and closes the socket.
        inbox: Receives.
        outbox: Sends.
        extra: What `get_extra_info` returns, by name.
        only: The one address that `sendto` takes, beside None; None if it takes any.
        at_end: Called with the argument of `connection_lost` when that was called and the socket
            closed. Perhaps more than once.
    """

    def __init__(
        self,
        protocol: asyncio.BaseProtocol,
        watch: Watch,
        inbox: Inbox,
        outbox: Outbox,
        extra: dict[str, Any],
        only: Address,
        at_end: Callable[[BaseException | None], object],
    ) -> None:
        super().__init__(protocol, watch, outbox, extra, only)
        self._inbox = inbox
        self._at_end = at_end
        self._reading_paused = False
        self._lost = False  # `connection_lost` was called
        self._over = False  # all is done
        self._error: BaseException | None = None  # for `connection_lost`
        watch.call(self._read, self._write_on, self._end)

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open"
        waiting = f"{len(self._outbox)} datagrams to send"
        return f"<{type(self).__name__} {state} fd={self._watch.fileno()} {waiting}>"

    @property
    def _sock(self) -> object:
        """The socket, where programs find it that look into asyncio's own transports."""
        return self.get_extra_info("socket")

    # Begin and end

    def start_reading(self) -> None:
        """Have the loop read, from its next turn on.

        Raises:
            NotImplementedError: The loop can't watch a socket.
            RuntimeError: The socket belongs to another transport.
        """
        if self.is_reading():  # else `connection_made` has closed it, or paused it
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
        if self._watch.is_over():  # the task was never ended; nothing can be called any more
            self._watch.close()
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
            self._watch.close()
            self._at_end(self._error)
            self._over = True
        except BaseException:  # the loop's end, or an interrupt
            self._watch.soon(self._lose)
            raise

    # Receiving

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol's methods called from now on."""
        super().set_protocol(protocol)
        # Looked for in the class: a mock has every attribute that it is asked for.
        takes_many = callable(getattr(type(protocol), "datagrams_received", None))
        self._hand_over = self._hand_batch_over if takes_many else self._hand_each_over

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
        if self._closing or self._reading_paused:
            return
        try:
            self._flush_comes = True  # what is sent meanwhile goes out at the end
            if self._inbox.arrived is None:
                self._watch.note_event(self._inbox.receive())
            self._hand_over()
            if self._inbox.more and self.is_reading():
                error = self._inbox.take_error()
                if error is not None:
                    self._call("error_received", error)
        except OSError as error:
            self._watch.note_event(True)
            self._call("error_received", error)
        except (SystemExit, KeyboardInterrupt):
            self._watch.soon(self._read)  # for the rest of the batch
            raise
        except BaseException as error:
            self._end(error)
        finally:
            self._flush()

    def _hand_each_over(self) -> None:
        for data, address in self._inbox.rest:
            try:
                self._protocol.datagram_received(data, address)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._report("datagram_received", error)
            if self._closing or self._reading_paused:
                break
        if self._closing or not self._reading_paused:
            self._inbox.arrived = None

    def _hand_batch_over(self) -> None:
        arrived = self._inbox.arrived or []
        datagrams = arrived[len(arrived) - length_hint(self._inbox.rest) :]
        try:
            self._inbox.arrived = None  # without a call before the next one
            if datagrams:
                self._protocol.datagrams_received(datagrams)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report("datagrams_received", error)
