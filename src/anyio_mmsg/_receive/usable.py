"""Which sockets can be used, and what to say about the others."""

from __future__ import annotations

import socket

from anyio import ClosedResourceError

from .._system.platform import type_of

_DATAGRAM_TYPES = {int(socket.SOCK_DGRAM), int(socket.SOCK_RAW)}

_OPEN_ONE = (
    "open one with socket.socket(family, socket.SOCK_DGRAM), bind it, call setblocking(False)"
)
_WAYS_TO_A_SOCKET = {
    "trio": "Trio's becomes one by socket.socket(fileno=trio_socket.detach()), on which you then "
    "call setblocking(False)",
    "anyio": f"AnyIO reads from its own sockets itself (the raw_socket attribute is for options): "
    f"{_OPEN_ONE}",
    "asyncio": f"a transport reads from its own socket itself: {_OPEN_ONE}",
    "uvloop": f"a transport reads from its own socket itself: {_OPEN_ONE}",
}


def ensure_usable(sock: socket.socket) -> None:
    """Raise what `recv_mmsg` raises for a socket that it can't use."""
    if (
        issubclass(type(sock), socket.socket)  # as in `ensure_socket`
        and sock.fileno() >= 0
        and sock.gettimeout() == 0
        and type_of(sock) in _DATAGRAM_TYPES
    ):
        return  # as nearly always; below is what is wrong
    ensure_socket(sock)
    ensure_open(sock)
    if type_of(sock) not in _DATAGRAM_TYPES:
        raise ValueError(
            "sock is not a datagram socket; packets need one made with socket.SOCK_DGRAM"
        )
    if sock.gettimeout() != 0:
        raise ValueError("sock is blocking; call sock.setblocking(False) first")


def ensure_socket(sock: socket.socket) -> None:
    """Raise TypeError for what is not a `socket.socket`."""
    kind = type(sock)
    if not issubclass(kind, socket.socket):  # unlike isinstance, which a mock's `spec` deceives
        library = kind.__module__.partition(".")[0]
        raise TypeError(
            f"sock is a {kind.__module__}.{kind.__qualname__}, and has to be a socket.socket; "
            f"{_WAYS_TO_A_SOCKET.get(library, _OPEN_ONE)}"
        )


def ensure_open(sock: socket.socket) -> None:
    """Raise `anyio.ClosedResourceError` if `sock` is closed."""
    if sock.fileno() < 0:
        raise ClosedResourceError("the socket is closed")
