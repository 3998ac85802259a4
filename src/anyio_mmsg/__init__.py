"""Batched, nonblocking UDP for Trio and asyncio, in structured concurrency.

One wait, then a batch of packets into memory that was allocated once. The packet's way::

    wait       _receive/functions.py  until the socket is readable
    fill       _receive/, _compiled/  an engine writes bytes, length and sender into free slots
    commit     _packets/slots.py      the slots are held
    hand out   _packets/              `PacketBatch` gives `Packet` views, oldest first
    release    _packets/slots.py      the consumer gives the slots back

Sending mirrors this in _send/: check and lay out first, then send, a call for a batch, and wait
only if there is no room. Above both stands _stream/, what applications start in a nursery.
_system/ has what the kernel offers, and _compiled/ the twins in C of what is hot.
docs/architecture.md has the whole house, and how each promise is kept.
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
    "TRANSIENT_ERRORS",
    "BatchFullError",
    "MulticastGroup",
    "Overload",
    "Packet",
    "PacketBatch",
    "PacketBatchPool",
    "PacketReceiver",
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
]
