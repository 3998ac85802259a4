"""Fill slots by `recvfrom_into`, a call for a packet. The reference: it runs everywhere."""

from __future__ import annotations

import socket

from ._batch import UNKNOWN_WIRE_SIZE, Address

WSAEMSGSIZE = 10040
"""Windows' error for a datagram that is longer than the buffer, which it has filled. Elsewhere
no errno is that large; EMSGSIZE itself is a real error there (a path MTU, ip(7))."""


class PortableEngine:
    """Fills the slots of one ring, a `recvfrom_into` for each packet.

    Args:
        ring: The memory of all slots.
        slot_size: Bytes of a slot.
        flags: For each call. With MSG_TRUNC as one of them Linux returns a datagram's length as
            sent, though it was cut (recv(2)).
        ask_for_flags: Read by `recvmsg_into`, which tells of a datagram that was cut, but not
            its length (macOS and the BSDs, recv(2) there).
    """

    def __init__(
        self, ring: bytearray, slot_size: int, flags: int = 0, ask_for_flags: bool = False
    ) -> None:
        view = memoryview(ring)
        starts = range(0, len(view), slot_size)
        self._slots = [view[start : start + slot_size] for start in starts]
        self._flags = flags
        self._ask_for_flags = ask_for_flags

    def fill(
        self,
        sock: socket.socket,
        first: int,
        count: int,
        sizes: list[int],
        addresses: list[Address],
    ) -> OSError | None:
        """See `anyio_mmsg._engine.Engine`."""
        while len(sizes) < count:
            slot = self._slots[first + len(sizes)]
            try:
                if self._ask_for_flags:
                    size, _, flags, address = sock.recvmsg_into([slot], 0, self._flags)
                    if flags & socket.MSG_TRUNC:
                        size = UNKNOWN_WIRE_SIZE
                else:
                    size, address = sock.recvfrom_into(slot, 0, self._flags)
            except BlockingIOError:
                return None
            except InterruptedError:
                continue
            except OSError as error:
                if WSAEMSGSIZE not in (error.errno, getattr(error, "winerror", None)):
                    return error
                size, address = UNKNOWN_WIRE_SIZE, None
            addresses.append(address)
            sizes.append(size)
        return None
