"""Send by `sendto`, one call for each packet. The reference: it runs everywhere.

A packet that has control data is sent by `sendmsg`.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Sequence
from itertools import chain, repeat, takewhile
from typing import Any

from .._packets.packet import Address
from .._system.control import Ancillary
from .._system.platform import MSG_DONTWAIT, ON_LINUX
from .control import Messages
from .outgoing import MAX_PAYLOAD, Columns, Data
from .result import UNUSABLE, SendFailure, SendResult

# Segmentation offload (linux/udp.h), which Python does not name.
SOL_UDP = 17
UDP_SEGMENT = 103

MOST_SEGMENTS = 64
"""Segments of a run: what each kernel takes that has segmentation (4.18); later ones take 128."""

NO_SEGMENTATION = {errno.EIO, errno.EINVAL, errno.EMSGSIZE}
"""How a route refuses segmentation: no checksums by its device, a segment above its MTU, headers
longer than usual."""

_MOST_BYTES = MAX_PAYLOAD[socket.AF_INET]  # of a run, which is one datagram until it is cut

_CHUNK = 256  # packets that are looked at in one go: few, as the buffer may be full soon


class Sendto:
    """Sends by a `sendto` for each packet. An object is one send.

    What was sent is recorded by the C-level step that sent it: a list that is extended by
    ``map(sock.sendto, ...)`` keeps what came before an exception, whatever raises, and a
    `SendResult` watches that list.

    Args:
        columns: The packets.
        gso: Whether to use segmentation offload: `sendmsg` with a control message, a call for a
            run.
        first: The index of the first packet: those before it were handled by another sender.

    Attributes:
        count: How many packets there are, with those.
        refused: Whether the system refuses the call; never.
    """

    refused = False

    def __init__(self, columns: Columns, gso: bool = False, first: int = 0) -> None:
        self.count = first + len(columns.datas)
        self._columns = columns
        self._gso = gso
        self._first = first
        self._mixed = 0 < columns.addresses.count(None) < len(columns.addresses)
        # Handled: those before the last step, and those that this has sent so far.
        self._before = first
        self._taken: list[int] = []
        self._runs: dict[int, int] = {}  # of the last step: their lengths, by the first packet

    @property
    def handled(self) -> int:
        """How many packets were sent or refused."""
        return self._before + len(self._taken)

    def send(self, sock: socket.socket, result: SendResult) -> int:
        """See `anyio_mmsg._send.engine.Sender`."""
        while (start := self.handled) < self.count:
            self._before, self._taken = start, []
            result._watch(self._taken)
            try:
                if self._gso:
                    self._send_runs(sock, start)
                else:
                    self._send_each(sock, start)
            except BlockingIOError:
                return errno.EAGAIN
            except InterruptedError:
                continue
            except OSError as error:
                number = error.errno
                if number in UNUSABLE:
                    return number or 0
                if number in NO_SEGMENTATION and self._runs.get(self.handled, 1) > 1:
                    self._gso, self._runs = False, {}  # from here on without
                    continue
                if number is None:  # CPython's own: a unix path without room for a NUL
                    error = OSError(errno.ENAMETOOLONG, str(error))
                # Without what leads to frames, which hold the socket.
                error.__context__ = None
                error = error.with_traceback(None)
                result.failures.append(SendFailure(self.handled, error))
                self._before += 1
        return 0

    def release(self) -> None:
        """See `anyio_mmsg._send.engine.Sender`."""
        self._columns.release()

    def _next(self, start: int) -> tuple[Sequence[Data], Sequence[Address]]:
        chunk = slice(start - self._first, start - self._first + _CHUNK)
        return self._columns.datas[chunk], self._columns.addresses[chunk]

    def _controls(self, start: int) -> Sequence[Messages]:
        """Return the control messages of the packets that `_next` returns."""
        chunk = slice(start - self._first, start - self._first + _CHUNK)
        return [] if self._columns.controls is None else self._columns.controls[chunk]

    def _send_each(self, sock: socket.socket, start: int) -> None:
        """Send the next packets, as far as they go one way: to the peer, or to addresses."""
        datas, addresses = self._next(start)
        if self._columns.controls is not None:
            calls = map(
                sock.sendmsg, zip(datas), self._controls(start), repeat(MSG_DONTWAIT), addresses
            )
            self._taken.extend(calls)
        elif addresses[0] is None:
            if self._mixed:
                datas = datas[: len(list(takewhile(_is_none, addresses)))]
            self._taken.extend(map(sock.send, datas, repeat(MSG_DONTWAIT)))
        else:
            if self._mixed and None in addresses:
                addresses = addresses[: addresses.index(None)]  # `map` ends with the shortest
            self._taken.extend(map(sock.sendto, datas, repeat(MSG_DONTWAIT), addresses))

    def _send_runs(self, sock: socket.socket, start: int) -> None:
        """Send the next packets, each run of them by one call that counts for all of it."""
        datas, addresses = self._next(start)
        sizes = [memoryview(data).nbytes for data in datas]
        given = self._controls(start)
        # One message has one destination, and one source.
        lengths = runs(sizes, list(zip(addresses, given, strict=True)) if given else addresses)
        self._runs = {}
        groups, controls, names = [], [], []
        at = 0
        for length in lengths:
            self._runs[start + at] = length
            groups.append(datas[at : at + length])
            control = [*given[at]] if given else []
            controls.append(control + _segments_of(sizes[at]) if length > 1 else control)
            names.append(addresses[at])
            at += length
        calls = map(sock.sendmsg, groups, controls, repeat(MSG_DONTWAIT), names)
        # As many items for a call as it has sent packets, and all in one step.
        self._taken.extend(chain.from_iterable(map(repeat, calls, lengths)))


def _is_none(address: Address) -> bool:
    return address is None


def _segments_of(size: int) -> list[Ancillary]:
    """Return the control message that asks for segments of a size: a native 16-bit number."""
    return [(SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))]


def has_segmentation(sock: socket.socket) -> bool:
    """Whether the kernel has segmentation for this socket; an older one ignores the request."""
    if not ON_LINUX:
        return False
    try:
        sock.getsockopt(SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True


def runs(sizes: Sequence[int], addresses: Sequence[Any]) -> list[int]:
    """Divide packets into runs that can be one datagram until it is cut; return their lengths.

    Those of a run have equal `addresses`, which may say more than where they go, and are of one
    size, but for the last, which may be shorter. An empty packet is a run of its own: nothing
    would be cut off for it.
    """
    lengths = []
    start, count = 0, len(sizes)
    while start < count:
        size, address = sizes[start], addresses[start]
        most = max(1, min(MOST_SEGMENTS, _MOST_BYTES // size)) if size else 1
        stop = min(count, start + most)
        at = start + 1
        if sizes[start:stop].count(size) == addresses[start:stop].count(address) == stop - start:
            at = stop  # a whole run, found quickly
        while at < stop and addresses[at] == address:
            if sizes[at] != size:
                at += 0 < sizes[at] < size
                break
            at += 1
        lengths.append(at - start)
        start = at
    return lengths
