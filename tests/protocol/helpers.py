"""A protocol that notes what happens to it, and the two ways to serve it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import anyio

from anyio_mmsg import serve_protocol

Start: TypeAlias = Callable[[socket.socket, asyncio.DatagramProtocol], Awaitable[Any]]
"""Returns the transport, which has more than the type `asyncio.DatagramTransport` says."""


class Recorder(asyncio.DatagramProtocol):
    """Notes each call of it: the method's name, and its arguments but for the transport.

    `then` has functions to call after that, by the method's name.
    """

    def __init__(self, **then: Callable[..., object]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.then = then
        self.changed = asyncio.Event()
        self.transport: Any = None

    def _note(self, method: str, *arguments: Any) -> None:
        self.calls.append((method, *arguments))
        self.changed.set()
        if method in self.then:
            self.then[method](*arguments)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._note("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert type(data) is bytes
        self._note("received", data, addr)

    def error_received(self, exc: Exception) -> None:
        self._note("error", type(exc), getattr(exc, "errno", None))

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self._note("lost", exc)

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    @property
    def received(self) -> list[bytes]:
        return [call[1] for call in self.calls if call[0] == "received"]

    async def until(self, method: str, count: int = 1) -> None:
        """Wait until a method was called so often."""
        with anyio.fail_after(60):
            while self.names.count(method) < count:
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def serving(way: str, **options: Any) -> AsyncIterator[Start]:
    """Give a function that serves a protocol by a socket, and returns the transport.

    Args:
        way: "loop" and "endpoint" for that of the event loop, "ours" for `serve_protocol`.
        options: Of `serve_protocol`.
    """
    transports: list[asyncio.DatagramTransport] = []

    async def start(sock: socket.socket, protocol: asyncio.DatagramProtocol) -> Any:
        if way != "ours":
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(lambda: protocol, sock=sock)
        else:
            serve = partial(serve_protocol, **options)
            transport = await tasks.start(serve, sock, protocol)
        transports.append(transport)
        return transport

    async with anyio.create_task_group() as tasks:
        try:
            yield start
        finally:
            for transport in transports:
                if not transport.is_closing():
                    transport.abort()
        await turns(2)  # until then they call `connection_lost`


async def turns(count: int) -> None:
    """Let the loop make some turns."""
    for _ in range(count):
        await asyncio.sleep(0)
