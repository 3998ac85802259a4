"""What engines and senders promise, and which one a batch or a send gets.

The only place in the package that asks for the platform.
"""

from __future__ import annotations

import socket
import sys
from typing import Protocol

from ._batch import Address, PacketBatch
from ._engine_linux import LinuxEngine, RecvmmsgRefusedError
from ._engine_portable import PortableEngine
from ._libc import Recvmmsg, Sendmmsg, load_recvmmsg, load_sendmmsg
from ._outgoing import Outgoing
from ._sender_linux import LinuxSender, SendmmsgRefusedError
from ._sender_portable import PortableSender
from ._sent import SendResult
from ._system.platform import ON_LINUX

__all__ = [
    "Engine",
    "RecvmmsgRefusedError",
    "Sender",
    "check_sender",
    "engine_for",
    "fall_back",
    "send_now",
]


class Engine(Protocol):
    """Moves datagrams from a socket into one ring's slots. It neither waits nor changes states.

    Every engine gives the same bytes, lengths, addresses, order and errors.
    """

    def fill(
        self,
        sock: socket.socket,
        first: int,
        count: int,
        sizes: list[int],
        addresses: list[Address],
    ) -> OSError | None:
        """Read up to `count` datagrams into the free slots from `first` on.

        Args:
            sock: An open datagram socket; it is not waited for, even if it is a blocking one.
            first: The first slot of a run of free ones.
            count: How many, at least 1, none of them beyond the ring's end.
            sizes: Empty. Gets the length as sent of each datagram read, in order of arrival, at
                once when it was read, so that nothing is lost whatever happens next;
                `UNKNOWN_WIRE_SIZE` for one that was cut if the platform does not tell.
            addresses: Empty. Gets the senders, each before its datagram's size; or stays so, if
                the engine can tell them later, through what it has plugged in.

        Returns:
            The error that ended the reading, if any. Fewer sizes than `count` and no error: the
            socket ran dry. EINTR is no error, the call is made again.
        """
        ...


class Sender(Protocol):
    """Hands packets to a socket. It neither waits nor refuses any by itself.

    Every sender gives the same datagrams, order, counts and errors, but for one: what ICMP left on
    a connected socket while the call lasts may be told, and its packet not sent, or it is sent
    (sendmmsg drops an error after packets; sent again, that packet meets no error).
    """

    def send(self, sock: socket.socket, packets: Outgoing, result: SendResult) -> OSError | None:
        """Send packets from `packets.handled` on, until all are, or the socket's buffer is full.

        Args:
            sock: An open datagram socket; it is not waited for, even if it is a blocking one.
            packets: What to send, and which of them are handled: that is moved on, and its
                `gso` taken back where segmentation offload can't be had.
            result: Is told of each packet when the system has said that it was sent or refused.

        Returns:
            The error that makes the socket unusable, if any. EINTR is no error, the call is made
            again.
        """
        ...


# MSG_TRUNC as a flag makes Linux tell a datagram's length as sent; macOS and the BSDs at least
# tell that they cut it, through recvmsg; Windows raises WSAEMSGSIZE.
_DONTWAIT = _FLAGS = int(getattr(socket, "MSG_DONTWAIT", 0))
if ON_LINUX:
    _FLAGS |= int(socket.MSG_TRUNC)
    _ASK_FOR_FLAGS = False
    _recvmmsg: Recvmmsg | None = load_recvmmsg()
    _sendmmsg: Sendmmsg | None = load_sendmmsg()
else:
    _ASK_FOR_FLAGS = hasattr(socket.socket, "recvmsg_into")
    _recvmmsg = _sendmmsg = None

# Whether the system refused a call. That is the process's fate, not a batch's, hence global.
_refused = _sendmmsg_refused = False


def engine_for(batch: PacketBatch) -> Engine:
    """Return the engine of `batch`, made now if it has none.

    Raises:
        ValueError: The batch wants recvmmsg, and the platform has none.
    """
    engine: Engine | None = batch._engine
    if engine is not None:
        return engine
    wanted = batch._wanted_engine
    if wanted == "recvmmsg" and _recvmmsg is None:
        raise ValueError(
            'engine="recvmmsg" needs Linux, and this platform is '
            f'{sys.platform}; make the batch with engine="auto", which takes the best there is'
        )
    if wanted == "recvfrom_into" or _recvmmsg is None or _refused:
        engine = PortableEngine(batch._ring.memory, batch._slot_size, _FLAGS, _ASK_FOR_FLAGS)
        batch._plug(engine)
    else:
        linux = engine = LinuxEngine(batch._ring.memory, batch._slot_size, _recvmmsg)
        batch._plug(engine, linux.read_addresses, linux.read_sockaddrs)
    return engine


def fall_back(batch: PacketBatch) -> Engine:
    """Give `batch` the portable engine, after recvmmsg was refused, and all new batches too."""
    global _refused
    _refused = True
    batch._engine = None
    return engine_for(batch)


SENDERS = ("auto", "sendto", "sendmmsg")

_portable_sender = PortableSender(_DONTWAIT)

# Those that no call is using. There are as many as there were calls at once, in threads.
_linux_senders: list[LinuxSender] = []


def check_sender(wanted: str) -> None:
    """Raise ValueError if there is no such sender, or not on this platform."""
    if wanted not in SENDERS:
        raise ValueError(f"engine is {wanted!r}; give one of {SENDERS}")
    if wanted == "sendmmsg" and _sendmmsg is None:
        raise ValueError(
            f'engine="sendmmsg" needs Linux, and this platform is {sys.platform}; '
            f'give "auto", which takes the best there is'
        )


def send_now(
    wanted: str, sock: socket.socket, packets: Outgoing, result: SendResult
) -> OSError | None:
    """Do what `Sender.send` promises by the sender that is wanted and can be had."""
    global _sendmmsg_refused
    if wanted != "sendto" and _sendmmsg is not None and not _sendmmsg_refused:
        try:
            sender = _linux_senders.pop()
        except IndexError:
            sender = LinuxSender(_sendmmsg)
        try:
            return sender.send(sock, packets, result)
        except SendmmsgRefusedError:
            _sendmmsg_refused = True
        finally:
            _linux_senders.append(sender)
    return _portable_sender.send(sock, packets, result)
