"""Closing a socket that tasks may be waiting for."""

from __future__ import annotations

import socket

from .._compat import checkpoint, notify_closing
from .._receive.usable import ensure_socket
from .port import let_receiver_go


async def aclose_udp_socket(sock: socket.socket) -> None:
    """Close a socket, and wake the tasks that wait for it.

    They get `anyio.ClosedResourceError`. After a bare ``sock.close()`` they would wait for ever,
    since the event loop does not learn of it, and a new socket with the same number would be busy.
    Waking them needs AnyIO 4.10; with an older version waiting tasks are not woken.
    `PacketReceiver.aclose` closes the socket of a receiver, and counts what is left; this wakes it
    too.

    A checkpoint. The socket is closed before it, even if the call is cancelled. Closing a closed
    socket does nothing.

    Args:
        sock: Any socket. Packets that it has not received are lost.

    Raises:
        TypeError: `sock` is not a `socket.socket`.
    """
    ensure_socket(sock)
    if sock.fileno() >= 0:
        notify_closing(sock)
        sock.close()
    let_receiver_go(sock)  # again, if an interrupt has kept an earlier call from it
    await checkpoint()
