"""Fill slots by `recvfrom_into`, a call for a packet. The reference: it runs everywhere."""

from __future__ import annotations

import socket

from ._batch import UNKNOWN_WIRE_SIZE, Address, PacketBatch

WSAEMSGSIZE = 10040
"""Windows' error for a datagram that is longer than the buffer, which it has filled. Elsewhere
no errno is that large; EMSGSIZE itself is a real error there (a path MTU, ip(7))."""


class PortableEngine:
    """Fills one batch's slots, a `recvfrom_into` for each packet.

    Args:
        batch: Whose slots.
        true_length_flag: MSG_TRUNC if, given as a flag, it makes the call return a datagram's
            length as sent, though it was cut (Linux, recv(2)); else 0.
        ask_for_flags: Read by `recvmsg_into`, which tells of a datagram that was cut, but not
            its length (macOS and the BSDs, recv(2) there).
    """

    def __init__(
        self, batch: PacketBatch, true_length_flag: int = 0, ask_for_flags: bool = False
    ) -> None:
        ring = memoryview(batch._ring)
        starts = range(0, len(ring), batch.slot_size)
        self._slots = [ring[start : start + batch.slot_size] for start in starts]
        self._addresses: list[Address] = [None] * batch.capacity
        self._flags = true_length_flag
        self._ask_for_flags = ask_for_flags

    def fill(
        self, sock: socket.socket, first: int, count: int
    ) -> tuple[list[int], OSError | None]:
        """See `anyio_mmsg._engine.Engine`."""
        sizes: list[int] = []
        while len(sizes) < count:
            slot = first + len(sizes)
            try:
                if self._ask_for_flags:
                    size, _, flags, address = sock.recvmsg_into([self._slots[slot]])
                    if flags & socket.MSG_TRUNC:
                        size = UNKNOWN_WIRE_SIZE
                else:
                    size, address = sock.recvfrom_into(self._slots[slot], 0, self._flags)
            except BlockingIOError:
                break
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno != WSAEMSGSIZE:
                    return sizes, error
                size, address = UNKNOWN_WIRE_SIZE, None
            self._addresses[slot] = address
            sizes.append(size)
        return sizes, None

    def read_addresses(self, first: int, count: int) -> list[Address]:
        """See `anyio_mmsg._engine.Engine`."""
        addresses = self._addresses[first : first + count]
        self._addresses[first : first + count] = [None] * count  # the batch keeps them now
        return addresses
