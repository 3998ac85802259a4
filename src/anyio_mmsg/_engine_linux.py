"""Fill slots by `recvmmsg(2)`, a call for a batch.

The header arrays are built once for a batch. They hold addresses of memory, so it is said here
who keeps that memory alive: this object, all of it. It owns the arrays, and through `_ring` an
exported buffer of the batch's ring; a bytearray with an export can neither move nor shrink. The
kernel uses the addresses during a call only, and calls are made by this object's methods, so
none is used after the object is gone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from ctypes import addressof, get_errno, sizeof
from functools import lru_cache
from struct import Struct

from ._batch import Address
from ._libc import (
    MSG_DONTWAIT,
    MSG_TRUNC,
    UIO_MAXIOV,
    Iovec,
    Mmsghdr,
    Msghdr,
    Recvmmsg,
)
from ._sockaddr import ADDRESSES, SOCKADDR_SIZE

_HEADER_SIZE = sizeof(Mmsghdr)
_FEW = 4  # up to so many slots, one at a time is faster than all at once
_FLAGS = MSG_DONTWAIT | MSG_TRUNC  # no waiting, and msg_len tells the length as sent


class RecvmmsgRefusedError(Exception):
    """The system has no recvmmsg (ENOSYS), or a seccomp filter forbids it (EPERM)."""


class LinuxEngine:
    """Fills the slots of one ring, a recvmmsg for as many packets as there are.

    Args:
        ring: The memory of all slots.
        slot_size: Bytes of a slot; the ring has a whole number of them.
        recvmmsg: The C library's, from `load_recvmmsg`.
    """

    def __init__(self, ring: bytearray, slot_size: int, recvmmsg: Recvmmsg) -> None:
        capacity = len(ring) // slot_size
        self._recvmmsg = recvmmsg
        self._ring = (ctypes.c_char * len(ring)).from_buffer(ring)
        self._names = (ctypes.c_char * (capacity * SOCKADDR_SIZE))()
        self._iovecs = (Iovec * capacity)()
        self._headers = (Mmsghdr * capacity)()
        # Addresses into the three arrays above and the ring: alive as long as self.
        self._headers_at = addressof(self._headers)
        ring_at, names_at = addressof(self._ring), addressof(self._names)
        iovecs_at = addressof(self._iovecs)
        for slot in range(capacity):
            iovec = self._iovecs[slot]
            iovec.iov_base = ring_at + slot * slot_size
            iovec.iov_len = slot_size
            header = self._headers[slot].msg_hdr
            header.msg_name = names_at + slot * SOCKADDR_SIZE
            header.msg_namelen = SOCKADDR_SIZE
            header.msg_iov = iovecs_at + slot * sizeof(Iovec)
            header.msg_iovlen = 1
        # The same memory as Python sees it: bytes, and by slot the two numbers that are read.
        self._header_bytes = memoryview(self._headers).cast("B")
        self._name_bytes = memoryview(self._names).cast("B")
        words = self._header_bytes.cast("I")
        stride = _HEADER_SIZE // words.itemsize
        self._lengths = words[Mmsghdr.msg_len.offset // words.itemsize :: stride]
        self._name_lengths = words[Msghdr.msg_namelen.offset // words.itemsize :: stride]
        # The kernel overwrites msg_namelen, which is what it may write the next time, so each
        # header that was used is laid anew before it is used again, from this copy.
        self._armed = memoryview(bytes(self._header_bytes))
        self._used = 0  # no slot from here on was used since it was armed

    def fill(
        self,
        sock: socket.socket,
        first: int,
        count: int,
        sizes: list[int],
        addresses: list[Address],
    ) -> OSError | None:
        """See `anyio_mmsg._engine.Engine`. Leaves `addresses` to be read when asked for.

        Raises:
            RecvmmsgRefusedError: The call is not to be had; nothing was read.
        """
        stop = first + count
        if first < self._used:
            self._arm(first, stop)
        fd = sock.fileno()
        at = first
        while at < stop:
            # The kernel cuts a larger number to UIO_MAXIOV in silence. No timeout: it is looked
            # at only after a datagram came (recvmmsg(2), BUGS).
            asked = stop - at if stop - at < UIO_MAXIOV else UIO_MAXIOV
            got = self._recvmmsg(fd, self._headers_at + at * _HEADER_SIZE, asked, _FLAGS, None)
            if got < 0:
                code = get_errno()
                if code == errno.EINTR:
                    continue
                if code in (errno.EAGAIN, errno.EWOULDBLOCK):
                    break
                if code in (errno.ENOSYS, errno.EPERM):
                    if at > first:
                        break  # refused from now on, as the next call will find
                    raise RecvmmsgRefusedError(os.strerror(code))
                return OSError(code, os.strerror(code))
            if got == 1:
                sizes.append(self._lengths[at])
            else:
                sizes += self._lengths[at : at + got].tolist()
            at += got
            if at > self._used:
                self._used = at
            if got < asked:
                break  # dry, or an error that the kernel keeps for the next call
        return None

    def _arm(self, first: int, stop: int) -> None:
        end = min(stop, self._used)
        if end - first > _FEW:
            start, last = first * _HEADER_SIZE, end * _HEADER_SIZE
            self._header_bytes[start:last] = self._armed[start:last]
        else:
            for slot in range(first, end):
                self._name_lengths[slot] = SOCKADDR_SIZE
        if first < self._used <= stop:
            self._used = first

    def read_addresses(self, first: int, count: int) -> list[Address]:
        """Return the senders of the packets in `count` slots from `first` on."""
        return list(map(ADDRESSES.__getitem__, self.read_sockaddrs(first, count)))

    def read_sockaddrs(self, first: int, count: int) -> list[bytes]:
        """Return their sockaddrs, each cut to its length."""
        stop = first + count
        raws: list[bytes] = []
        if count > _FEW:
            lengths = self._name_lengths[first:stop].tolist()
            # Of one family, that is of one length, but for the paths of unix sockets.
            if lengths.count(lengths[0]) == count:
                for at in range(first, stop, _COLUMN):
                    unpack = _column(lengths[0], min(stop - at, _COLUMN)).unpack_from
                    raws += unpack(self._name_bytes, at * SOCKADDR_SIZE)
                return raws
        for slot in range(first, stop):
            start = slot * SOCKADDR_SIZE
            raws.append(bytes(self._name_bytes[start : start + self._name_lengths[slot]]))
        return raws


_COLUMN = 64  # sockaddrs taken out in one go; larger ones gain nothing


@lru_cache(3 * _COLUMN)  # the lengths of IPv4, IPv6 and one more
def _column(length: int, count: int) -> Struct:
    """The first `length` bytes of each of `count` sockaddrs."""
    return Struct(f"{length}s{SOCKADDR_SIZE - length}x" * count)
