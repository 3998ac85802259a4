"""Fixtures of the tests of sending."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from anyio_mmsg._send import turns
from anyio_mmsg._system.platform import Sendmmsg, why_no_batch_calls

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


@pytest.fixture(params=["sendto", "sendmmsg", "auto"])
def sending(request: pytest.FixtureRequest) -> str:
    """The engine to send by; "auto" is what most programs use, and has a shortcut of its own."""
    name = str(request.param)
    if name == "sendmmsg" and Sendmmsg is None:
        pytest.skip(f"sendmmsg {why_no_batch_calls()}")
    if name == "auto" and Sendmmsg is None:
        pytest.skip("in plain Python it is sendto")
    return name
