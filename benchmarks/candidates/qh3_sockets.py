"""qh3's sockets: batches and trains in Rust (quinn-udp), the fastest that Python has besides.

They are internal there: qh3 is a QUIC library that uses them for its own transport, and it
promises them to nobody else. They are measured since they show what can be had.

Its `UdpSocketState` turns UDP_GRO on, gives bytes and the sender's address, and sends what goes
to one address as trains.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.spec import UnavailableError

if TYPE_CHECKING:
    from qh3._hazmat import UdpSocketState

NEEDS = ("qh3",)
CALLS, TRANSPORT = "qh3's UdpSocketState", "qh3's transport"


def open_state(sock: socket.socket) -> UdpSocketState:
    """Put a socket into its hands. The caller closes the socket, after its last use.

    Raises:
        UnavailableError: It does not work here.
    """
    from qh3._hazmat import UdpSocketState  # here: the other processes do without

    try:
        return UdpSocketState(sock.fileno())
    except (NotImplementedError, OSError) as error:
        raise UnavailableError(f"qh3's UdpSocketState can't be had: {error}") from None


async def open_transport(
    sock: socket.socket, make: Callable[[], asyncio.DatagramProtocol]
) -> asyncio.DatagramTransport:
    """Have its transport on the running loop, asyncio's or uvloop's."""
    from qh3.asyncio._transport import create_optimized_datagram_transport

    loop = asyncio.get_running_loop()
    transport, _ = await create_optimized_datagram_transport(loop, make, sock)
    return transport
