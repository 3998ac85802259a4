"""What tests of receiving share."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import pytest

from anyio_mmsg._compat import wait_socket_readable
from anyio_mmsg._compat import waits as real_waits
from anyio_mmsg._receive import datagrams, functions


def wait_by(
    patch: pytest.MonkeyPatch, readable: Callable[[socket.socket], Awaitable[None]]
) -> None:
    """Have the receive functions wait by another function until a socket is readable."""
    for module in (functions, datagrams):
        patch.setattr(module, "waits", lambda: real_waits()._replace(readable=readable))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """The sockets that were waited for."""
    waited: list[socket.socket] = []

    async def counting_wait(sock: socket.socket) -> None:
        waited.append(sock)
        await wait_socket_readable(sock)

    wait_by(monkeypatch, counting_wait)
    return waited
