"""A loop that is turned by hand, and left by an interrupt as asyncio's is."""

from __future__ import annotations

import contextvars
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from anyio_mmsg import ReceiveEngine, SendEngine
from anyio_mmsg._protocol.making import Way, peer_of, transport_for


class Loop:
    """A loop that an interrupt leaves as it leaves asyncio's: what was to be called still is."""

    def __init__(self) -> None:
        self.soon: deque[Callable[[], None]] = deque()
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.readers: dict[Any, Callable[[], None]] = {}
        self.writers: dict[Any, Callable[[], None]] = {}

    def is_closed(self) -> bool:
        return False

    def add_reader(self, sock: Any, function: Any) -> None:
        self.readers[sock] = function

    def add_writer(self, sock: Any, function: Any) -> None:
        self.writers[sock] = function

    def remove_reader(self, sock: Any) -> None:
        self.readers.pop(sock, None)

    def remove_writer(self, sock: Any) -> None:
        self.writers.pop(sock, None)

    def call_soon(self, function: Any, *, context: contextvars.Context | None = None) -> None:
        self.soon.append(function)

    def call_later(
        self, delay: float, function: Any, *, context: contextvars.Context | None = None
    ) -> None:
        self.later.append((delay, function))

    def call_exception_handler(self, context: Any) -> None:
        raise AssertionError(context)

    def turn(self) -> None:
        readable, writable, _ = select.select(list(self.readers), list(self.writers), [], 0)
        self.soon += [self.readers[sock] for sock in readable]
        self.soon += [self.writers[sock] for sock in writable]
        for _ in range(len(self.soon)):
            if self.soon:
                self.soon.popleft()()


def served_by(
    loop: Loop, sock: socket.socket, engine: ReceiveEngine, send_engine: SendEngine, protocol: Any
) -> Any:
    """Return the transport of a protocol that a loop serves, after `connection_made`."""
    way = Way(8, engine, send_engine, False)
    transport = transport_for(cast(Any, loop), sock, protocol, way, peer_of(sock), id)
    transport.start_reading()
    transport.begin()
    return transport
