"""Fixtures of the tests of sending."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from anyio_mmsg._send import turns

from ..helpers import counted_waits


@pytest.fixture
def narrow() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A sender whose buffer is soon full, and the receiver: unix sockets hold what is unread."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no unix sockets on this platform")
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        for sock in (sender, receiver):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            sock.setblocking(False)
        yield sender, receiver


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """The sockets that were waited for."""
    return counted_waits(monkeypatch, turns, "wait_socket_writable")
