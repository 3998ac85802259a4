"""Batched, nonblocking UDP for Trio and asyncio, in structured concurrency.

One wait, then a batch of packets into memory that was allocated once::

    batch = PacketBatch()
    while True:
        await recv_mmsg(sock, batch)
        for packet in batch:
            print(packet.address, bytes(packet.data))
        batch.clear()

The packet's way through the house, from the top down; a wing imports only from those above it::

    _compiled/        the C module: twins of what is hot, and Linux's batch system calls
    _packets/         Slots, the ring; Packet, what is handed out; PacketBatch, what consumers see
    _system/          the kernel's names and options: addresses, control data, buffers
    _receive/         an engine fills free slots; functions.py waits for packets
    _send/            packets are checked, then a sender sends them; functions.py waits for room
    _stream/          what applications start in a nursery: sockets, pools, receivers, feed
    _protocol/        asyncio's datagram protocols, served by batches

docs/architecture.md has the whole map.
"""

from ._packets import Packet, compiled
from ._packets.batch import NUM_RCVMMSGS, PACKET_DATA_SIZE, BatchFullError, PacketBatch
from ._packets.packet import Address
from ._protocol.serve import serve_protocol
from ._receive.functions import recv_mmsg, recv_mmsg_exact, recv_mmsg_nowait
from ._send.functions import multi_target_send, send_mmsg, send_mmsg_nowait
from ._send.outgoing import Data, Destination, Packets
from ._send.result import SendFailure, SendResult, UnusableSocketError
from ._stream.feed import Overload, feed
from ._stream.multicast import MulticastGroup
from ._stream.open import open_udp_socket
from ._stream.pool import PacketBatchPool, PoolStatistics
from ._stream.receiver import PacketReceiver
from ._stream.statistics import ReceiverStatistics
from ._stream.transient import TRANSIENT_ERRORS

__all__ = [
    "NUM_RCVMMSGS",
    "PACKET_DATA_SIZE",
    "TRANSIENT_ERRORS",
    "Address",
    "BatchFullError",
    "Data",
    "Destination",
    "MulticastGroup",
    "Overload",
    "Packet",
    "PacketBatch",
    "PacketBatchPool",
    "PacketReceiver",
    "Packets",
    "PoolStatistics",
    "ReceiverStatistics",
    "SendFailure",
    "SendResult",
    "UnusableSocketError",
    "compiled",
    "feed",
    "multi_target_send",
    "open_udp_socket",
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
