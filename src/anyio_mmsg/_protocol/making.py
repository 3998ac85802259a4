"""How a transport is put together from a socket."""

from __future__ import annotations

import asyncio
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakSet

from .._packets.batch import TRAIN_SIZE, ReceiveEngine, new_slots
from .._packets.packet import Address
from .._receive.engine import check_engine
from .._send.engine import SendEngine
from .._system.options import has_gro
from .inbox import Inbox
from .outbox import Outbox
from .transport import BatchTransport
from .watch import Watch

_LONGEST = 256 * 1024
"""Bytes of a slot where a datagram can have more than 65,535, on unix sockets: what asyncio's own
transport takes at most."""

SERVED: WeakSet[socket.socket] = WeakSet()
"""Sockets that have a transport. A loop would forget one reader of a socket for another,
silently."""


class Way(NamedTuple):
    """How to receive and send; as for `serve_protocol`."""

    limit: int
    engine: ReceiveEngine
    send_engine: SendEngine
    gso: bool


def transport_for(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    way: Way,
    only: Address,
    at_end: Callable[[BaseException | None], object],
) -> BatchTransport:
    """Make the transport of a socket, which nothing calls yet.

    Args:
        loop: The running loop.
        sock: A nonblocking datagram socket.
        protocol: Whose methods are to be called.
        way: How to receive and send.
        only: As for `BatchTransport`.
        at_end: As for `BatchTransport`.

    Raises:
        ValueError: An engine is unknown, or unavailable here.
    """
    inet = sock.family in (socket.AF_INET, socket.AF_INET6)
    slots = new_slots(way.limit, TRAIN_SIZE if inet else _LONGEST, way.engine, has_gro(sock))
    check_engine(way.engine)
    return BatchTransport(
        protocol,
        Watch(loop, sock),
        Inbox(sock, slots, way.limit),
        Outbox(sock, way.send_engine, way.gso),
        {
            "socket": TransportSocket(sock),
            "sockname": _name_by(sock.getsockname),
            "peername": peer_of(sock),
        },
        only,
        at_end,
    )


def peer_of(sock: socket.socket) -> Address:
    """Return the peer of a connected socket; None if it is not connected."""
    return _name_by(sock.getpeername)


def _name_by(ask: Callable[[], Address]) -> Address:
    try:
        return ask()
    except OSError:
        return None
