"""Batched, nonblocking UDP for Trio and asyncio, in structured concurrency.

One wait, then a batch of packets into memory that was allocated once. The packet's way::

    socket readable   _recv.py             the receive functions wait, and only they
    filled            _engine_*.py         an engine writes bytes into free slots
    committed         _batch.py            PacketBatch holds them, hands out Packet views
    released          _batch.py            the consumer gives the slots back

The way back: _outgoing.py checks what is to be sent, _sender_*.py hands it to the socket, a call
for a batch, and _send.py waits, only if there is no room.

Above that way stands _stream/, what applications start in a nursery: open.py opens sockets,
pool.py lends batches, receiver.py makes a stream of a socket, feed.py feeds consumers from it.
"""

from ._packets import Packet, compiled
from ._packets.batch import NUM_RCVMMSGS, PACKET_DATA_SIZE, BatchFullError, PacketBatch
from ._receive.functions import recv_mmsg, recv_mmsg_exact, recv_mmsg_nowait
from ._send.functions import multi_target_send, send_mmsg, send_mmsg_nowait
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
    "BatchFullError",
    "MulticastGroup",
    "Packet",
    "PacketBatch",
    "SendFailure",
    "SendResult",
    "UnusableSocketError",
    "compiled",
    "multi_target_send",
    "open_udp_socket",
    "recv_mmsg",
    "recv_mmsg_exact",
    "recv_mmsg_nowait",
    "send_mmsg",
    "send_mmsg_nowait",
]
