"""What an engine promises, and which one a batch gets.

The only place in the package that asks for the platform.
"""

from __future__ import annotations

import socket
import sys
from typing import Protocol

from ._batch import Address, PacketBatch
from ._engine_linux import LinuxEngine, RecvmmsgRefusedError
from ._engine_portable import PortableEngine
from ._libc import Recvmmsg, load_recvmmsg

__all__ = ["ON_LINUX", "Engine", "RecvmmsgRefusedError", "engine_for", "fall_back"]


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
                the engine can tell them later, through the `AddressBook` that it has given.

        Returns:
            The error that ended the reading, if any. Fewer sizes than `count` and no error: the
            socket ran dry. EINTR is no error, the call is made again.
        """
        ...


# MSG_TRUNC as a flag makes Linux tell a datagram's length as sent; macOS and the BSDs at least
# tell that they cut it, through recvmsg; Windows raises WSAEMSGSIZE.
_FLAGS = int(getattr(socket, "MSG_DONTWAIT", 0))
ON_LINUX = sys.platform == "linux"
if ON_LINUX:
    _FLAGS |= int(socket.MSG_TRUNC)
    _ASK_FOR_FLAGS = False
    _recvmmsg: Recvmmsg | None = load_recvmmsg()
else:
    _ASK_FOR_FLAGS = hasattr(socket.socket, "recvmsg_into")
    _recvmmsg = None

# Whether the system refused the call. That is the process's fate, not a batch's, hence global.
_refused = False


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
        engine = PortableEngine(batch._ring, batch._slot_size, _FLAGS, _ASK_FOR_FLAGS)
        batch._plug(engine)
    else:
        linux = engine = LinuxEngine(batch._ring, batch._slot_size, _recvmmsg)
        batch._plug(engine, linux.read_addresses)
    return engine


def fall_back(batch: PacketBatch) -> Engine:
    """Give `batch` the portable engine, after recvmmsg was refused, and all new batches too."""
    global _refused
    _refused = True
    batch._engine = None
    return engine_for(batch)
