"""What pretends to be a socket is refused wherever one is accepted, in the usual sentence."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock, create_autospec

import pytest

import anyio_mmsg
from anyio_mmsg import PacketBatch, PacketReceiver

pytestmark = pytest.mark.anyio

CALLS: dict[str, Callable[[Any], Any]] = {
    "recv_mmsg": lambda sock: anyio_mmsg.recv_mmsg(sock, PacketBatch()),
    "recv_mmsg_exact": lambda sock: anyio_mmsg.recv_mmsg_exact(sock, PacketBatch()),
    "recv_mmsg_nowait": lambda sock: anyio_mmsg.recv_mmsg_nowait(sock, PacketBatch()),
    "recv_datagrams": anyio_mmsg.recv_datagrams,
    "recv_datagrams_nowait": anyio_mmsg.recv_datagrams_nowait,
    "aclose_udp_socket": anyio_mmsg.aclose_udp_socket,
    "recv_errors_nowait": anyio_mmsg.recv_errors_nowait,
    "send_mmsg": lambda sock: anyio_mmsg.send_mmsg(sock, [(b"x", None)]),
    "send_mmsg_nowait": lambda sock: anyio_mmsg.send_mmsg_nowait(sock, [(b"x", None)]),
    "multi_target_send": lambda sock: anyio_mmsg.multi_target_send(sock, b"x", [None]),
    "configure_udp_socket": anyio_mmsg.configure_udp_socket,
    "serve_protocol": lambda sock: anyio_mmsg.serve_protocol(sock, asyncio.DatagramProtocol()),
    "PacketReceiver": PacketReceiver,
}


class Pretender:
    """Says that it is a socket."""

    __class__ = socket.socket  # type: ignore[assignment]


PRETENDERS: dict[str, Callable[[], Any]] = {
    "Mock": lambda: Mock(spec=socket.socket),
    "MagicMock": lambda: MagicMock(spec_set=socket.socket),
    "AsyncMock": lambda: AsyncMock(spec=socket.socket),
    "autospec": lambda: create_autospec(socket.socket, instance=True),
    "Pretender": Pretender,
    "class": lambda: socket.socket,
    "fileno": lambda: 3,
}


def test_every_function_that_takes_a_socket_is_here() -> None:
    takers = set()
    for name in anyio_mmsg.__all__:
        thing = getattr(anyio_mmsg, name)
        if callable(thing) and not (inspect.isclass(thing) and issubclass(thing, BaseException)):
            try:
                parameters = inspect.signature(thing).parameters
            except (TypeError, ValueError):
                continue
            if "sock" in parameters:
                takers.add(name)
    assert takers == set(CALLS)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", PRETENDERS)
async def test_pretenders(call: str, kind: str, anyio_backend: Any) -> None:
    if call == "serve_protocol" and anyio_backend[0] == "trio":
        pytest.skip("serve_protocol is for asyncio")
    with pytest.raises(TypeError, match=r"sock is a .*, and has to be a socket\.socket; open one"):
        await CALLS[call](PRETENDERS[kind]())
