"""`serve_protocol`: what was written for `loop.create_datagram_endpoint`, by batches."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, SupportsIndex

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from .._arguments import whole_number
from .._compat import asyncio_loop
from .._packets.batch import NUM_RCVMMSGS, TRAIN_SIZE, new_slots
from .._receive.engine import check_engine
from .._receive.usable import ensure_usable
from .._system.control import has_gro
from .outbox import Outbox

if TYPE_CHECKING:
    import asyncio

_LONGEST = 256 * 1024
"""Bytes of a slot where a datagram can have more than 65,535, on unix sockets: what asyncio's own
transport takes at most."""


async def serve_protocol(
    sock: socket.socket,
    protocol: asyncio.DatagramProtocol,
    *,
    limit: SupportsIndex = NUM_RCVMMSGS,
    engine: str = "auto",
    send_engine: str = "auto",
    gso: bool = False,
    task_status: TaskStatus[asyncio.DatagramTransport] = TASK_STATUS_IGNORED,
) -> None:
    """Serve an `asyncio.DatagramProtocol` by batches, on asyncio or uvloop.

    Instead of ``loop.create_datagram_endpoint``. The protocol stays as it is::

        sock = await open_udp_socket("127.0.0.1", 9999)
        async with anyio.create_task_group() as tasks:
            transport = await tasks.start(serve_protocol, sock, protocol)

    or, where the protocol keeps the transport that `connection_made` gives it,
    ``task = asyncio.create_task(serve_protocol(sock, protocol))``.
    """
    loop = asyncio_loop()
    if loop is None:
        raise RuntimeError(
            "serve_protocol needs asyncio or uvloop: a DatagramProtocol and what it calls are "
            "asyncio's. On Trio use PacketReceiver and send_mmsg, or run the program by "
            'anyio.run(main, backend="asyncio")'
        )
    ensure_usable(sock)
    if isinstance(protocol, type) or not hasattr(protocol, "datagram_received"):
        raise TypeError(
            f"protocol is {protocol!r}; give an asyncio.DatagramProtocol, not what makes one"
        )
    limit = whole_number("limit", limit, 1, "give the number of datagrams, at least 1")
    inet = sock.family in (socket.AF_INET, socket.AF_INET6)
    gro = has_gro(sock)
    slots = new_slots(limit, TRAIN_SIZE if inet else _LONGEST, engine, gro)
    check_engine(engine)
    outbox = Outbox(sock, send_engine, gso)

    from .transport import BatchTransport  # here, so that programs on Trio do without asyncio

    transport = BatchTransport(loop, sock, protocol, slots, outbox, limit)
    try:
        transport.start_reading()
    except NotImplementedError:
        raise RuntimeError(
            "this event loop can't watch sockets; on Windows run the program by asyncio's "
            "SelectorEventLoop"
        ) from None
    try:
        transport.begin()
        task_status.started(transport)
        error = await transport.done
    finally:
        transport.finish()
    if error is not None:
        raise error
