"""Many connections behind one socket: which datagram belongs to whom, who may connect, timers."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Callable
from functools import partial

from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # it is public there
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionIdIssued, ConnectionIdRetired
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from .connection import Connection, Datagram
from .site import Response


class Endpoint:
    """A server's connections.

    Give it what arrives with `receive`, call `handle_timers` at `next_timer`, and send what
    `datagrams` returns after either. Times are seconds of one clock that never goes back.

    Args:
        configuration: Of QUIC, with a certificate.
        respond: Answers a request, by method and path.
        retry: Whether a client has to show first that it is where it claims to be (RFC 9000
            section 8.1.2). That costs a round trip, and forged addresses cost nothing then.
        most: How many connections there may be; more get no answer, and try again.

    Attributes:
        counts: What happened: connections, requests, datagrams ignored by cause.
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        respond: Callable[[str, str], Response],
        *,
        retry: bool = False,
        most: int = 10_000,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._configuration = configuration
        self._respond = respond
        self._retry = QuicRetryTokenHandler() if retry else None
        self._most = most
        self._by_id: dict[bytes, Connection] = {}
        self._ids: dict[Connection, set[bytes]] = {}
        self._active: dict[Connection, None] = {}  # those that may have something to send
        self._timers: list[tuple[float, int, Connection]] = []
        self._order = 0  # so that equal times don't compare connections
        self._answers: list[Datagram] = []  # of no connection
        self._stopping = False

    def __len__(self) -> int:
        return len(self._ids)

    def receive(self, data: bytes, address: tuple[str, int], now: float) -> None:
        """Take one datagram."""
        try:
            header = pull_quic_header(
                Buffer(data=data), host_cid_length=self._configuration.connection_id_length
            )
        except ValueError:
            self.counts["not QUIC"] += 1
            return
        connection = self._by_id.get(header.destination_cid)
        if connection is None:
            connection = self._admit(data, header, address, now)
        if connection is not None:
            connection.heard(now)
            self._drive(connection, partial(connection.quic.receive_datagram, data, address, now))

    def _admit(
        self, data: bytes, header: QuicHeader, address: tuple[str, int], now: float
    ) -> Connection | None:
        """Return a new connection for a client's first datagram, if it may have one."""
        if len(data) < SMALLEST_MAX_DATAGRAM_SIZE:  # no client's first one (RFC 9000, 5.2.2)
            self.counts["of no connection"] += 1
            return None
        unknown = header.version not in (None, *self._configuration.supported_versions)
        if unknown and header.packet_type != QuicPacketType.VERSION_NEGOTIATION:
            self._answers.append(
                (
                    encode_quic_version_negotiation(
                        source_cid=header.destination_cid,
                        destination_cid=header.source_cid,
                        supported_versions=self._configuration.supported_versions,
                    ),
                    address,
                )
            )
            return None
        if header.packet_type != QuicPacketType.INITIAL:
            self.counts["of no connection"] += 1
            return None
        if self._stopping or len(self) >= self._most:
            self.counts["refused"] += 1
            return None
        original, retried_as = header.destination_cid, None
        if self._retry is not None:
            if not header.token:
                self._ask_again(header, address, now, self._retry)
                return None
            try:
                original = self._retry.validate_token(
                    address=address,
                    destination_cid=header.destination_cid,
                    token=header.token,
                    now=now,
                )
            except ValueError:
                self.counts["bad token"] += 1
                return None
            retried_as = header.destination_cid
        quic = QuicConnection(
            configuration=self._configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retried_as,
        )
        connection = Connection(quic, self._respond)
        self._ids[connection] = set()
        self._name(header.destination_cid, connection)
        self._name(quic.host_cid, connection)
        self.counts["connections"] += 1
        return connection

    def _ask_again(
        self,
        header: QuicHeader,
        address: tuple[str, int],
        now: float,
        retry: QuicRetryTokenHandler,
    ) -> None:
        """Send a Retry: the client has to come again with a token that only it has seen."""
        assert header.version is not None
        name = os.urandom(8)
        token = retry.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=name,
            now=now,
        )
        answer = encode_quic_retry(
            version=header.version,
            source_cid=name,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
        self._answers.append((answer, address))
        self.counts["retries"] += 1

    def _name(self, name: bytes, connection: Connection) -> None:
        self._by_id[name] = connection
        self._ids[connection].add(name)

    def _drive(self, connection: Connection, step: Callable[[], object]) -> None:
        """Let a connection take a step, and do what it asks for then.

        A fault that one client finds in it ends that connection, and no other.
        """
        self._active[connection] = None
        requests = connection.requests
        try:
            step()
            for event in connection.take_events():
                if isinstance(event, ConnectionIdIssued):
                    self._name(event.connection_id, connection)
                elif isinstance(event, ConnectionIdRetired):
                    self._by_id.pop(event.connection_id, None)
                    self._ids[connection].discard(event.connection_id)
        except Exception:
            self.counts["faults"] += 1
            connection.closed = True
        self.counts["requests"] += connection.requests - requests
        if connection.closed:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self._active.pop(connection, None)
        for name in self._ids.pop(connection, ()):
            self._by_id.pop(name, None)

    # What goes out, and when

    def datagrams(self, now: float) -> list[Datagram]:
        """Return what is to be sent now; the datagrams of one connection stand together."""
        found, self._answers = self._answers, []
        active, self._active = self._active, {}
        for connection in active:
            before = connection.timer
            try:
                found += connection.datagrams(now)
            except Exception:  # as in `_drive`
                self.counts["faults"] += 1
                self._forget(connection)
                continue
            if connection.timer is not None and connection.timer != before:
                self._order += 1
                heapq.heappush(self._timers, (connection.timer, self._order, connection))
        return found

    def next_timer(self) -> float | None:
        """Return when `handle_timers` has to be called, or None."""
        timers = self._timers
        while timers and (timers[0][2].timer != timers[0][0] or timers[0][2] not in self._ids):
            heapq.heappop(timers)  # it was set anew meanwhile
        return timers[0][0] if timers else None

    def handle_timers(self, now: float) -> None:
        """Have the connections whose time has come look."""
        while (due := self.next_timer()) is not None and due <= now:
            connection = heapq.heappop(self._timers)[2]
            connection.timer = None
            # Clocks are rounded: the time that was asked for has come, whatever they say.
            self._drive(connection, partial(connection.quic.handle_timer, max(now, due)))

    # The end

    def go_away(self) -> None:
        """Take no new connections, and ask clients for no new requests."""
        self._stopping = True
        for connection in self._ids:
            connection.go_away()
            self._active[connection] = None

    def close_idle(self) -> None:
        """Close the connections of clients that have got what they asked for."""
        self._close(lambda connection: connection.idle)

    def close_all(self) -> None:
        """Close all connections."""
        self._close(lambda connection: True)

    def _close(self, which: Callable[[Connection], bool]) -> None:
        for connection in self._ids:
            if not connection.closing and which(connection):
                connection.close()
                self._active[connection] = None

    @property
    def is_over(self) -> bool:
        """Whether no client waits for anything."""
        return all(connection.closing for connection in self._ids)
