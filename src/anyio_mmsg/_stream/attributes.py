"""The attributes of `anyio.abc.SocketAttribute` that a datagram socket has."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

from anyio.abc import SocketAttribute

_AF_UNIX = getattr(socket, "AF_UNIX", None)


def socket_attributes(sock: socket.socket) -> Mapping[Any, Callable[[], Any]]:
    """Return what `anyio.TypedAttributeProvider.extra_attributes` promises, for a socket."""
    attributes: dict[Any, Callable[[], Any]] = {
        SocketAttribute.family: lambda: sock.family,
        SocketAttribute.raw_socket: lambda: sock,
    }
    if sock.fileno() < 0:
        return attributes
    attributes[SocketAttribute.local_address] = lambda: _host_and_port(sock.getsockname())
    with contextlib.suppress(OSError):  # it is not connected
        remote = _host_and_port(sock.getpeername())
        attributes[SocketAttribute.remote_address] = lambda: remote
        if sock.family != _AF_UNIX:
            attributes[SocketAttribute.remote_port] = lambda: remote[1]
    if sock.family != _AF_UNIX:
        attributes[SocketAttribute.local_port] = lambda: sock.getsockname()[1]
    return attributes


def _host_and_port(address: Any) -> Any:
    return address[:2] if isinstance(address, tuple) else address
