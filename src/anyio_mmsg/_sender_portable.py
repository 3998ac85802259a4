"""Send by `sendto`, a call for a packet. The reference: it runs everywhere."""

from __future__ import annotations

import errno
import socket

from ._batch import Address
from ._outgoing import Data, Outgoing
from ._sent import UNUSABLE, SendFailure, SendResult

_CHUNK = 256  # packets that are looked at in one go: few, as the buffer may be full soon


class PortableSender:
    """Sends by a `sendto` for each packet.

    Args:
        flags: For each call.
    """

    def __init__(self, flags: int = 0) -> None:
        self._flags = flags

    def send(self, sock: socket.socket, packets: Outgoing, result: SendResult) -> OSError | None:
        """See `anyio_mmsg._engine.Sender`. There is no segmentation offload here."""
        while (start := packets.handled) < len(packets.sizes):
            for data, address in packets.datagrams(start, start + _CHUNK):
                error = self._send_one(sock, data, address)
                if isinstance(error, BlockingIOError):
                    return None
                if error is None:
                    result.sent += 1
                elif error.errno in UNUSABLE:
                    return error
                else:
                    if error.errno is None:  # CPython's own: a unix path without room for a NUL
                        error = OSError(errno.ENAMETOOLONG, str(error))
                    # Without the traceback, whose frames hold the socket.
                    error = error.with_traceback(None)
                    result.failures.append(SendFailure(packets.handled, error))
                packets.handled += 1
        return None

    def _send_one(self, sock: socket.socket, data: Data, address: Address) -> OSError | None:
        while True:
            try:
                if address is None:
                    sock.send(data, self._flags)
                else:
                    sock.sendto(data, self._flags, address)
            except InterruptedError:
                continue
            except OSError as error:
                return error
            return None
