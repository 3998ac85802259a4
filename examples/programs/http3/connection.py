"""One client's connection: QUIC and HTTP/3 by aioquic, and what is still to be sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode, FrameType, H3Connection, encode_frame
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    ProtocolNegotiated,
    QuicEvent,
    StopSendingReceived,
    StreamReset,
)

from .site import Response

Datagram: TypeAlias = "tuple[bytes, tuple[str, int]]"

WINDOW = 256 * 1024
"""Bytes of bodies that a connection may hold unsent. So a client that asks for a lot and reads
little costs a bounded amount of memory. The number is a few round trips' worth of data at the
start of a connection, and small beside aioquic's own state."""

QUIET = 3.0
"""Seconds. If a connection's next timer is further away, nothing is in flight: timers of
retransmissions are some round trips, and the only longer one is that for idleness."""


@dataclass
class Body:
    """What is left to be sent of a response."""

    stream: int
    rest: Iterator[bytes]
    given: int = 0  # bytes that QUIC has got


class Connection:
    """A client's connection, without a socket.

    Args:
        quic: A server's connection, to which no datagram was given yet.
        respond: Answers a request, by method and path.

    Attributes:
        closed: Whether it is over, and can be forgotten.
        closing: Whether the server has closed it, so that it waits for nothing any more.
        requests: How many it has answered.
        timer: When `handle_timer` has to be called, or None.
        unsent: Bytes of bodies that were given to QUIC, less the bytes of datagrams since.
    """

    def __init__(self, quic: QuicConnection, respond: Callable[[str, str], Response]) -> None:
        self.quic = quic
        self.closed = self.closing = False
        self.requests = 0
        self.timer: float | None = None
        self._respond = respond
        self._http: H3Connection | None = None
        self._control_stream = 0
        self._bodies: deque[Body] = deque()
        self._unfinished: set[int] = set()  # streams of requests whose end has not come
        self.unsent = 0
        self._heard = 0.0  # when the last datagram came
        self._next_request = 0  # no request has come on this stream or later ones
        self._refused_from: int | None = None  # requests from this stream on, after GOAWAY

    def take_events(self) -> Iterator[QuicEvent]:
        """Do what QUIC's events ask for, and yield them."""
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, ProtocolNegotiated):
                # HTTP/3's first unidirectional stream is its control stream, where GOAWAY goes.
                self._control_stream = self.quic.get_next_available_stream_id(True)
                self._http = H3Connection(self.quic)
            elif isinstance(event, ConnectionTerminated):
                self.closed = True
                self._bodies.clear()
            elif isinstance(event, StopSendingReceived | StreamReset):
                self._forget(event.stream_id)
            if self._http is not None:
                for http_event in self._http.handle_event(event):
                    self._take(http_event)
            yield event

    def _forget(self, stream: int) -> None:
        """Send no more on a stream. QUIC drops what it still has of it."""
        self._unfinished.discard(stream)
        for body in tuple(self._bodies):
            if body.stream == stream:
                self._bodies.remove(body)
                self.unsent = max(0, self.unsent - body.given)

    def _take(self, event: H3Event) -> None:
        if not isinstance(event, HeadersReceived | DataReceived):
            return
        assert self._http is not None
        stream = event.stream_id
        known = stream in self._unfinished
        if event.stream_ended:
            self._unfinished.discard(stream)
        if known or isinstance(event, DataReceived):
            return  # the body of a request, or trailers: nobody reads them
        if self._refused_from is not None and stream >= self._refused_from:
            self.quic.reset_stream(stream, ErrorCode.H3_REQUEST_REJECTED)
            return
        if not event.stream_ended:
            self._unfinished.add(stream)
        # Streams of requests are numbered by fours (RFC 9000 section 2.1); the next one may come
        # before this one.
        self._next_request = max(self._next_request, stream + 4)
        headers = dict(event.headers)
        response = self._respond(
            headers.get(b":method", b"").decode("latin-1"),
            headers.get(b":path", b"").decode("latin-1"),
        )
        self.requests += 1
        if response.size is not None:
            response.headers.append((b"content-length", b"%d" % response.size))
        first = next(response.body, None)
        self._http.send_headers(
            stream,
            [
                (b":status", b"%d" % response.status),
                (b"content-type", response.content_type.encode()),
                *response.headers,
            ],
            end_stream=first is None,
        )
        if first is not None:
            self._bodies.append(Body(stream, chain([first], response.body)))

    def datagrams(self, now: float) -> Iterator[Datagram]:
        """Yield what is to be sent now, and set `timer`."""
        while True:
            more = self._fill()
            sent = self.quic.datagrams_to_send(now)
            yield from sent
            self.unsent = max(0, self.unsent - sum(len(data) for data, _ in sent))
            if not sent and not more:
                break
        self.timer = self.quic.get_timer()

    def _fill(self) -> bool:
        """Give QUIC a chunk of each body in turn, while there is room; return whether any."""
        given = False
        while self._bodies and self.unsent < WINDOW and not self.closed:
            body = self._bodies.popleft()
            chunk = next(body.rest, None)
            assert self._http is not None
            self._http.send_data(body.stream, chunk or b"", end_stream=chunk is None)
            if chunk is not None:
                body.given += len(chunk)
                self.unsent += len(chunk)
                self._bodies.append(body)
            given = True
        return given

    # The end

    @property
    def idle(self) -> bool:
        """Whether the client has got all that it has asked for, as of the last `datagrams`."""
        if self._bodies or self.unsent:
            return False
        return self.timer is None or self.timer - self._heard >= QUIET

    def heard(self, now: float) -> None:
        """Note when the last datagram came."""
        self._heard = now

    def go_away(self) -> None:
        """Ask the client for no more requests (RFC 9114 section 5.2)."""
        if self._refused_from is None and self._http is not None:
            self._refused_from = self._next_request
            self.quic.send_stream_data(
                self._control_stream,
                encode_frame(FrameType.GOAWAY, encode_uint_var(self._refused_from)),
            )

    def close(self) -> None:
        """End the connection."""
        self.closing = True
        self._bodies.clear()
        self.quic.close(ErrorCode.H3_NO_ERROR)
