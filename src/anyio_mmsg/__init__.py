"""Batched, nonblocking UDP for Trio and asyncio, in structured concurrency.

One wait, then every datagram that has arrived, as bytes::

    sock = await open_udp_socket("127.0.0.1", 9999)
    while True:
        for data, address in await recv_datagrams(sock):
            print(address, data)

A receiver hands out views, without a copy, in memory that was allocated once::

    async with PacketReceiver(sock) as receiver:
        async for batch in receiver:
            with batch:  # its memory is used again after this block
                for packet in batch:
                    print(packet.address, bytes(packet.data))

Or, with a batch and a loop of your own, here an echo server::

    batch = PacketBatch()
    while True:
        await recv_mmsg(sock, batch)
        await send_mmsg(sock, batch)  # each packet goes back to its sender
        batch.clear()

Receiving: `open_udp_socket`, `recv_datagrams`, `recv_datagrams_nowait`, which return bytes;
`PacketReceiver`, `feed`, `recv_mmsg`, `recv_mmsg_exact`, `recv_mmsg_nowait`, into a `PacketBatch`,
which holds `Packet`s and gives `Columns`, or into those of a `PacketBatchPool`.
Sending: `send_mmsg`, `send_mmsg_nowait`, `multi_target_send`; they return a `SendResult`.
``python -m anyio_mmsg`` tries out what this machine has.
"""

from ._build import __version__ as __version__
from ._packets import Packet, compiled
from ._packets.batch import (
    NUM_RCVMMSGS,
    PACKET_DATA_SIZE,
    BatchFullError,
    PacketBatch,
    ReceiveEngine,
)
from ._packets.columns import Columns
from ._packets.packet import Address
from ._protocol.loops import batched_loop_factory
from ._protocol.serve import serve_protocol
from ._receive.datagrams import recv_datagrams, recv_datagrams_nowait
from ._receive.errors import recv_errors_nowait
from ._receive.functions import recv_mmsg, recv_mmsg_exact, recv_mmsg_nowait
from ._send.ancillary import SendOptions
from ._send.engine import SendEngine
from ._send.functions import multi_target_send, send_mmsg, send_mmsg_nowait
from ._send.outgoing import Destination, Packets, Payload
from ._send.result import SendFailure, SendResult, UnusableSocketError
from ._stream.closing import aclose_udp_socket
from ._stream.configure import configure_udp_socket
from ._stream.feed import OverloadPolicy, feed
from ._stream.multicast import MulticastGroup
from ._stream.open import open_udp_socket
from ._stream.pool import PacketBatchPool, PoolStatistics
from ._stream.receiver import PacketReceiver
from ._stream.statistics import ReceiverStatistics, StatisticsDelta
from ._stream.transient import TRANSIENT_ERRORS
from ._system.icmp import IcmpError

__all__ = [
    "NUM_RCVMMSGS",
    "PACKET_DATA_SIZE",
    "TRANSIENT_ERRORS",
    "Address",
    "BatchFullError",
    "Columns",
    "Destination",
    "IcmpError",
    "MulticastGroup",
    "OverloadPolicy",
    "Packet",
    "PacketBatch",
    "PacketBatchPool",
    "PacketReceiver",
    "Packets",
    "Payload",
    "PoolStatistics",
    "ReceiveEngine",
    "ReceiverStatistics",
    "SendEngine",
    "SendFailure",
    "SendOptions",
    "SendResult",
    "StatisticsDelta",
    "UnusableSocketError",
    "aclose_udp_socket",
    "batched_loop_factory",
    "compiled",
    "configure_udp_socket",
    "feed",
    "multi_target_send",
    "open_udp_socket",
    "recv_datagrams",
    "recv_datagrams_nowait",
    "recv_errors_nowait",
    "recv_mmsg",
    "recv_mmsg_exact",
    "recv_mmsg_nowait",
    "send_mmsg",
    "send_mmsg_nowait",
    "serve_protocol",
]


def _name_their_home() -> None:
    """Have public names say that they are from here, where users import them from."""
    for name in __all__:
        thing = globals()[name]
        if getattr(thing, "__module__", "").startswith("anyio_mmsg."):
            thing.__module__ = "anyio_mmsg"


_name_their_home()
