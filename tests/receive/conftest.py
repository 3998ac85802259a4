"""What tests of receiving share."""

from __future__ import annotations

import socket

import pytest

from anyio_mmsg._receive import functions

from ..helpers import counted_waits


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """The sockets that were waited for."""
    return counted_waits(monkeypatch, functions, "wait_socket_readable")
