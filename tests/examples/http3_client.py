"""A client of HTTP/3 by aioquic, without a socket, and a network between it and an `Endpoint`."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset


@dataclass
class Answer:
    """What a request got."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None


class Client:
    """One client, as bytes in and bytes out."""

    def __init__(self, certificate: Path, address: tuple[str, int], **options: Any) -> None:
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=H3_ALPN,
            cafile=str(certificate),
            server_name="localhost",
            **options,
        )
        self.quic = QuicConnection(configuration=configuration)
        self.http = H3Connection(self.quic)
        self.address = address
        self.answers: defaultdict[int, Answer] = defaultdict(Answer)
        self.ended: ConnectionTerminated | None = None
        self.control = bytearray()  # of the server's control stream, where GOAWAY is

    def ask(self, path: str, method: str = "GET", end: bool = True) -> Answer:
        """Begin a request."""
        stream = self.quic.get_next_available_stream_id()
        headers = [(":method", method), (":scheme", "https"), (":authority", "localhost")]
        self.http.send_headers(
            stream,
            [(name.encode(), value.encode()) for name, value in [*headers, (":path", path)]],
            end_stream=end,
        )
        return self.answers[stream]

    def take_events(self) -> None:
        """Note what has come."""
        while (event := self.quic.next_event()) is not None:
            self.take(event)

    def take(self, event: QuicEvent) -> None:
        """Note one event."""
        if isinstance(event, ConnectionTerminated):
            self.ended = event
        elif isinstance(event, StreamReset):
            self.answers[event.stream_id].reset = event.error_code
        elif getattr(event, "stream_id", None) == 3:  # the server's first unidirectional one
            self.control += event.data  # type: ignore[attr-defined]
        for answer in self.http.handle_event(event):
            assert isinstance(answer, HeadersReceived | DataReceived)
            found = self.answers[answer.stream_id]
            if isinstance(answer, HeadersReceived):
                found.headers.update(answer.headers)
            else:
                found.data += answer.data
            found.ended |= answer.stream_ended


class World:
    """An endpoint, its clients, and a network that loses and reorders; time is a number.

    Args:
        endpoint: An `http3.Endpoint`.
        loss: The part of datagrams that is lost.
        seed: Of what is lost, and how long each datagram takes.
    """

    def __init__(self, endpoint: Any, loss: float = 0.0, seed: int = 0) -> None:
        self.endpoint = endpoint
        self.now = 1000.0
        self.clients: dict[tuple[str, int], Client] = {}
        self.silent: set[tuple[str, int]] = set()  # clients that get nothing any more
        self._loss = loss
        self._random = random.Random(seed)
        self._flying: list[tuple[float, int, bytes, tuple[str, int], bool]] = []
        self._count = 0

    def connect(self, certificate: Path, **options: Any) -> Client:
        """Return a new client, which has begun to connect."""
        address = ("192.0.2.1", 1000 + len(self.clients))
        client = self.clients[address] = Client(certificate, address, **options)
        client.quic.connect(("192.0.2.53", 443), now=self.now)
        self.send()
        return client

    def send(self) -> None:
        """Take what everybody has to send."""
        for data, address in self.endpoint.datagrams(self.now):
            self._fly(data, address, False)
        for address, client in self.clients.items():
            for data, _ in client.quic.datagrams_to_send(self.now):
                self._fly(data, address, True)

    def _fly(self, data: bytes, address: tuple[str, int], to_server: bool) -> None:
        if self._random.random() >= self._loss:
            arrival = self.now + self._random.uniform(0.01, 0.03 if self._loss else 0.01)
            self._count += 1
            self._flying.append((arrival, self._count, data, address, to_server))

    def step(self) -> bool:
        """Let time go on to what happens next; return whether anything does within a minute."""
        times = [flight[0] for flight in self._flying]
        running = [client for client in self.clients.values() if client.ended is None]
        times += [client.quic.get_timer() or 1e9 for client in running]
        times.append(self.endpoint.next_timer() or 1e9)
        if min(times) > self.now + 60:
            return False
        # A clock goes on: aioquic does some things only after their time has come, not at it.
        self.now = max(self.now + 1e-6, min(times))
        arrived = sorted(flight for flight in self._flying if flight[0] <= self.now)
        self._flying = [flight for flight in self._flying if flight[0] > self.now]
        for _, _, data, address, to_server in arrived:
            if to_server:
                self.endpoint.receive(data, address, self.now)
            elif address not in self.silent and address in self.clients:
                self.clients[address].quic.receive_datagram(
                    data, ("192.0.2.53", 443), now=self.now
                )
        self.endpoint.handle_timers(self.now)
        for client in running:
            if (client.quic.get_timer() or 1e9) <= self.now:
                client.quic.handle_timer(self.now)
            client.take_events()
        self.send()
        return True

    def run(self, *until: Answer, steps: int = 100_000) -> None:
        """Go on until all of these answers have ended, or without them until nothing happens."""
        for _ in range(steps):
            if until and all(answer.ended or answer.reset is not None for answer in until):
                return
            if not self.step():
                assert not until, "nothing happens any more, and answers are missing"
                return
        timers = [client.quic.get_timer() for client in self.clients.values()]
        raise AssertionError(f"at {self.now}: {timers}, {self.endpoint.next_timer()}")
