"""Send by `sendmmsg(2)`, a call for a batch.

The header arrays are built once for a sender. They hold addresses of memory, so it is said here
who keeps that memory alive. Headers, iovecs, sockaddrs and control messages: this object owns
them. Payloads: the iovecs of one call point into one bytearray; `LinuxSender.send` holds an
export of it, so that it can neither move nor shrink, until the call is over. An iovec of an
earlier call is not looked at again before it is laid anew. Calls are made by this object's
methods, so no address is used after it is gone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from array import array
from collections.abc import Iterable
from ctypes import addressof, get_errno, sizeof
from itertools import accumulate
from typing import Any, Literal, TypeAlias

from ._libc import (
    MSG_DONTWAIT,
    SOL_UDP,
    UDP_MAX_SEGMENTS,
    UDP_SEGMENT,
    UIO_MAXIOV,
    Iovec,
    Mmsghdr,
    Msghdr,
    SegmentSize,
    Sendmmsg,
)
from ._outgoing import MAX_PAYLOAD, Outgoing
from ._sent import UNUSABLE, SendFailure, SendResult
from ._sockaddr import SOCKADDR_SIZE

_HEADER_SIZE = sizeof(Mmsghdr)
_NO_NAME, _INET_NAME, _INET6_NAME = 0, 16, 28  # bytes (sockaddr_in, sockaddr_in6)
_MAX_RUN = MAX_PAYLOAD[socket.AF_INET]  # bytes; a run is one datagram until it is cut
_NO_SEGMENTATION = {errno.EIO, errno.EINVAL, errno.EMSGSIZE}
"""How a route refuses segmentation: no checksums by its device, a segment above its MTU, headers
longer than usual."""

# What runs are laid from, and they themselves: payloads' addresses, sizes, sockaddrs, lengths.
_Runs: TypeAlias = tuple[Iterable[int], list[int], list[bytes], list[int]]
_NO_RUNS: _Runs = (), [], [], []

_NOT_ONE_PACKETS = UNUSABLE | {errno.EAGAIN, errno.EWOULDBLOCK}

# The address of a memory, without looking into it.
_Nothing = ctypes.c_char * 0


class SendmmsgRefusedError(Exception):
    """The system has no sendmmsg (ENOSYS), or a seccomp filter forbids it (EPERM)."""


class LinuxSender:
    """Sends by a sendmmsg for as many packets as there are. One call at a time may use it.

    Args:
        sendmmsg: The C library's, from `load_sendmmsg`.
    """

    def __init__(self, sendmmsg: Sendmmsg) -> None:
        self._sendmmsg = sendmmsg
        self._headers = (Mmsghdr * UIO_MAXIOV)()
        self._iovecs = (Iovec * UIO_MAXIOV)()
        self._names = (ctypes.c_char * (UIO_MAXIOV * SOCKADDR_SIZE))()
        self._segment_sizes = (SegmentSize * UIO_MAXIOV)()
        # Addresses into the arrays above: alive as long as self.
        self._headers_at = addressof(self._headers)
        self._names_at = addressof(self._names)
        self._iovecs_at = addressof(self._iovecs)
        # Their fields as columns. "L" is the format of a pointer and of a size_t: a Linux long is
        # as wide as either.
        self._name_bytes = memoryview(self._names).cast("B")
        self._payloads = _column(self._iovecs, Iovec.iov_base, "L")
        self._sizes = _column(self._iovecs, Iovec.iov_len, "L")
        self._name_pointers = _column(self._headers, Msghdr.msg_name, "L")
        self._name_lengths = _column(self._headers, Msghdr.msg_namelen, "I")
        self._iovec_pointers = _column(self._headers, Msghdr.msg_iov, "L")
        self._iovec_counts = _column(self._headers, Msghdr.msg_iovlen, "L")
        self._control_lengths = _column(self._headers, Msghdr.msg_controllen, "L")
        self._segments = _column(self._segment_sizes, SegmentSize.size, "H")
        # A header for each iovec, without control message: what packets are sent by, one each.
        every_iovec = range(self._iovecs_at, self._iovecs_at + sizeof(self._iovecs), sizeof(Iovec))
        self._one_each = memoryview(array("L", every_iovec))
        self._ones, self._zeros = (memoryview(array("L", [n]) * UIO_MAXIOV) for n in (1, 0))
        # The addresses of names that lie side by side, by length: the usual ones.
        self._every_name = {
            length: memoryview(
                array("L", [self._names_at + number * length for number in range(UIO_MAXIOV)])
            )
            for length in (_NO_NAME, _INET_NAME, _INET6_NAME)
        }
        # What columns are laid from, so as not to lay them again for more of the same: to one
        # destination, of one size, from one ring. To compare costs a tenth of laying.
        self._laid_payloads = range(0)
        self._laid_sizes: list[int] = []
        self._laid_runs = _NO_RUNS
        self._laid_sockaddrs: list[bytes] = []
        self._by_runs = True  # what the headers are laid for: one packet each, or by runs
        # For runs each header has its control message, of which the segments' size is missing.
        at, size = addressof(self._segment_sizes), sizeof(SegmentSize)
        for header, message in zip(self._headers, self._segment_sizes, strict=True):
            header.msg_hdr.msg_control = at
            at += size
            message.cmsg_len = SegmentSize.size.offset + SegmentSize.size.size  # CMSG_LEN
            message.cmsg_level = SOL_UDP
            message.cmsg_type = UDP_SEGMENT

    def send(self, sock: socket.socket, packets: Outgoing, result: SendResult) -> OSError | None:
        """See `anyio_mmsg._engine.Sender`.

        Raises:
            SendmmsgRefusedError: The call is not to be had; `result` tells what was sent before.
        """
        packets.gso = packets.gso and _has_segmentation(sock)
        while (start := packets.handled) < len(packets.sizes):
            memory, count, place = packets.gather(start, start + UIO_MAXIOV)
            export = _Nothing.from_buffer(memory)  # until the end of this turn
            stop = start + count
            sizes, sockaddrs = packets.sizes[start:stop], packets.sockaddrs[start:stop]
            places = place(addressof(export))
            runs = None
            if packets.gso:
                runs = self._lay_runs(places, sizes, sockaddrs)
            else:
                self._lay_one_each(places, sizes, sockaddrs)
            code = self._call(sock.fileno(), runs, packets, count, result)
            del export
            if code in (errno.EAGAIN, errno.EWOULDBLOCK):
                return None
            if code in UNUSABLE:
                return OSError(code, os.strerror(code))
            if code:  # a run was refused: from here on without
                packets.gso = False
        return None

    def _call(
        self,
        fd: int,
        runs: list[int] | None,
        packets: Outgoing,
        count: int,
        result: SendResult,
    ) -> int:
        """Send by the headers that are laid; return 0, or the errno that is not one packet's."""
        headers = count if runs is None else len(runs)
        done = 0
        while done < headers:
            at = self._headers_at + done * _HEADER_SIZE
            sent = self._sendmmsg(fd, at, headers - done, MSG_DONTWAIT)
            if sent > 0:
                # Fewer than asked for: the next one met an error, which it will tell alone.
                more = sent if runs is None else sum(runs[done : done + sent])
                packets.handled += more
                result.sent += more
                done += sent
                continue
            code = get_errno()
            if code == errno.EINTR:
                continue
            if code == errno.ENOSYS or (code == errno.EPERM and self._is_forbidden(fd)):
                raise SendmmsgRefusedError(os.strerror(code))
            is_run = runs is not None and runs[done] > 1
            if code in _NOT_ONE_PACKETS or (is_run and code in _NO_SEGMENTATION):
                return code
            error = OSError(code, os.strerror(code))
            result.failures.append(SendFailure(packets.handled, error))
            packets.handled += 1
            if runs is not None and is_run:
                self._shorten(done, runs[done] - 1)
                runs[done] -= 1
            else:
                done += 1
        return 0

    def _shorten(self, header: int, left: int) -> None:
        """Have a run begin with the packet after its first, which met an error."""
        self._laid_runs = _NO_RUNS
        if self._iovec_counts[header] == 1:  # it lies in one piece
            self._laid_payloads, self._laid_sizes = range(0), []
            size = self._segments[header]
            self._payloads[header] += size
            self._sizes[header] -= size
        else:
            self._iovec_pointers[header] += sizeof(Iovec)
            self._iovec_counts[header] = left
        if left == 1:
            self._control_lengths[header] = 0

    def _is_forbidden(self, fd: int) -> bool:
        """Whether EPERM was for the call, and not from a packet filter for the packet."""
        return (
            self._sendmmsg(fd, self._headers_at, 0, MSG_DONTWAIT) < 0
            and get_errno() == errno.EPERM
        )

    def _lay_one_each(
        self, places: Iterable[int], sizes: list[int], sockaddrs: list[bytes]
    ) -> None:
        """Have a header for each packet."""
        if self._by_runs:
            self._laid_runs = _NO_RUNS
            self._iovec_pointers[:] = self._one_each
            self._iovec_counts[:] = self._ones
            self._control_lengths[:] = self._zeros
            self._by_runs = False
        self._lay_payloads(places, sizes)
        self._lay_names(sockaddrs)

    def _lay_runs(
        self, places: Iterable[int], sizes: list[int], sockaddrs: list[bytes]
    ) -> list[int]:
        """Have a header for each run of packets, which the kernel cuts; return their lengths."""
        laid_places, laid_sizes, laid_sockaddrs, runs = self._laid_runs
        if places == laid_places and sizes == laid_sizes and sockaddrs == laid_sockaddrs:
            return runs
        self._by_runs, self._laid_runs = True, _NO_RUNS
        runs = _runs(sizes, sockaddrs)
        count = len(runs)
        firsts = list(accumulate(runs[:-1], initial=0))
        # A run of one goes without control message: it may be empty, and needs no cutting.
        control = [sizeof(SegmentSize) if run > 1 else 0 for run in runs]
        self._control_lengths[:count] = memoryview(array("L", control))
        self._segments[:count] = memoryview(array("H", [sizes[first] for first in firsts]))
        self._lay_names([sockaddrs[first] for first in firsts])
        if isinstance(places, range) and {sizes[first] for first in firsts} == {places.step}:
            # Each run lies in one piece: an iovec for it, which costs the kernel less than many.
            self._iovec_pointers[:count] = self._one_each[:count]
            self._iovec_counts[:count] = self._ones[:count]
            spans = zip(firsts, runs, strict=True)
            self._lay_payloads(
                [places[first] for first in firsts],
                [sum(sizes[first : first + run]) for first, run in spans],
            )
        else:
            at, size = self._iovecs_at, sizeof(Iovec)
            pointers = array("L", [at + first * size for first in firsts])
            self._iovec_pointers[:count] = memoryview(pointers)
            self._iovec_counts[:count] = memoryview(array("L", runs))
            self._lay_payloads(places, sizes)
        self._laid_runs = places, sizes, sockaddrs, runs
        return runs

    def _lay_payloads(self, places: Iterable[int], sizes: list[int]) -> None:
        """Have each of the first iovecs show a payload."""
        count = len(sizes)
        if not isinstance(places, range) or places != self._laid_payloads[:count]:
            self._laid_payloads = range(0)  # whatever interrupts this, it is laid or laid again
            self._payloads[:count] = memoryview(array("L", places))
            if isinstance(places, range):
                self._laid_payloads = places
        if sizes != self._laid_sizes[:count]:
            self._laid_sizes = []
            self._sizes[:count] = memoryview(array("L", sizes))
            self._laid_sizes = sizes

    def _lay_names(self, sockaddrs: list[bytes]) -> None:
        """Have each of the first headers name its destination."""
        count = len(sockaddrs)
        if sockaddrs == self._laid_sockaddrs[:count]:
            return
        self._laid_sockaddrs = []
        names = b"".join(sockaddrs)
        self._name_bytes[: len(names)] = names
        lengths = list(map(len, sockaddrs))
        self._name_lengths[:count] = memoryview(array("I", lengths))
        every = self._every_name.get(lengths[0])
        if every is not None and lengths.count(lengths[0]) == count:
            self._name_pointers[:count] = every[:count]
        else:  # unix sockets, or peers among the others
            starts = accumulate(lengths[:-1], initial=self._names_at)
            self._name_pointers[:count] = memoryview(array("L", starts))
        self._laid_sockaddrs = sockaddrs


def _column(table: ctypes.Array[Any], field: Any, of: Literal["L", "I", "H"]) -> memoryview:
    """See one field of all of a table's structs; the field's offset is that in its struct."""
    words = memoryview(table).cast("B").cast(of)
    stride = sizeof(table) // len(table) // words.itemsize
    return words[field.offset // words.itemsize :: stride]


def _has_segmentation(sock: socket.socket) -> bool:
    """Whether the kernel knows of it for this socket; an older one ignores the control message."""
    try:
        sock.getsockopt(SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True


def _runs(sizes: list[int], sockaddrs: list[bytes]) -> list[int]:
    """Divide packets into runs that can be one datagram until it is cut; tell their lengths.

    Those of a run go to one destination and are of one size, but for the last, which may be
    shorter. An empty packet is a run of its own: nothing would be cut off for it.
    """
    runs = []
    start, count = 0, len(sizes)
    while start < count:
        size, sockaddr = sizes[start], sockaddrs[start]
        most = max(1, min(UDP_MAX_SEGMENTS, _MAX_RUN // size)) if size else 1
        stop = min(count, start + most)
        at = start + 1
        if sizes[start:stop].count(size) == sockaddrs[start:stop].count(sockaddr) == stop - start:
            at = stop  # a whole run, found in no time
        while at < stop and sockaddrs[at] == sockaddr:
            if sizes[at] != size:
                at += 0 < sizes[at] < size
                break
            at += 1
        runs.append(at - start)
        start = at
    return runs
