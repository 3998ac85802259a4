"""Send by `sendto`, one call for each packet. The reference: it runs everywhere.

A packet that has control data is sent by `sendmsg`.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import repeat, takewhile
from typing import Any, TypeVar

from .._packets.packet import Address
from .._system.control import Ancillary
from .._system.error_queue import reports_errors
from .._system.icmp import ICMP_ERRORS
from .._system.platform import MSG_DONTWAIT
from .ancillary import Messages
from .known import MAX_PAYLOAD, SOL_UDP, UDP_SEGMENT, Known
from .outgoing import Columns, Payload
from .result import UNUSABLE, SendFailure, SendResult

_T = TypeVar("_T")

MOST_SEGMENTS = 64
"""Segments of a run: every kernel with segmentation (4.18) takes 64; later ones take 128."""

NO_SEGMENTATION = {errno.EIO, errno.EINVAL, errno.EMSGSIZE}
"""How a route refuses segmentation: no checksums by its device, a segment above its MTU, headers
longer than usual."""

_MOST_BYTES = MAX_PAYLOAD[socket.AF_INET]  # of a run, which is one datagram until it is cut

MOST_STRUCK = 4
"""How often a packet is sent again after errors of `_OF_ROUTES`, which may be another packet's,
before the last one counts as its own. The network reports few of these: routers limit how many
they send, and this machine waits for seconds before it gives a neighbour up."""

MOST_REPORTED = 256
"""The same of all other errors, which only the network reports of a packet. They come as fast as
other threads and processes send by the same socket to a port where nobody listens. Measured with
three processes that do nothing else, on two cores: 43 in a row, at most, in 200,000 packets. It
ends, since a security module may refuse a packet by any error."""

_OF_ROUTES = {errno.EACCES, errno.EHOSTUNREACH, errno.ENETUNREACH}
"""How this machine refuses a packet that it has no route for, or may not send."""

_CHUNK = 256  # packets that are looked at in one go: few, as the buffer may be full soon


class Tally:
    """What a `Sendto` has handled, which a `SendResult` reads; it keeps no payload.

    One store changes the state, so it is right even if a signal handler raises between any two
    bytecodes.

    Args:
        handled: How many packets another sender has handled.
        failures: Those of them that were refused.
    """

    __slots__ = ("_failures", "_state")

    # Packets handled before this step; what its calls gave so far; how many packets each of them
    # sends, or None if each sends one; how many of the failures count.
    _state: tuple[int, list[int], list[int] | None, int]

    def __init__(self, handled: int, failures: Sequence[SendFailure]) -> None:
        self._failures = list(failures)
        self._state = handled, [], None, len(failures)

    @property
    def handled(self) -> int:
        """How many packets were sent or refused."""
        before, taken, lengths, _ = self._state
        return before + (len(taken) if lengths is None else sum(lengths[: len(taken)]))

    @property
    def failures(self) -> list[SendFailure]:
        """The packets that were refused, in order."""
        return self._failures[: self._state[3]]

    def begin(self, handled: int, lengths: list[int] | None = None) -> list[int]:
        """Begin a step; return a list that its calls extend, by an item each.

        Args:
            handled: As the property.
            lengths: How many packets each call sends; None: one.
        """
        taken: list[int] = []
        self._state = handled, taken, lengths, self._state[3]
        return taken

    def refuse(self, error: OSError) -> None:
        """Record that the next packet was refused."""
        handled = self.handled
        self._failures.append(SendFailure(handled, error))
        self._state = handled + 1, [], None, len(self._failures)

    def next_run(self) -> int:
        """Return how many packets the next call of this step sends."""
        _, taken, lengths, _ = self._state
        return lengths[len(taken)] if lengths is not None and len(taken) < len(lengths) else 1


class Sendto:
    """Sends by a `sendto` for each packet. An object is one send.

    What was sent is recorded by the C-level step that sent it: a list that is extended by
    ``map(sock.sendto, ...)`` keeps what came before an exception, whatever raises.

    Args:
        known: What is known of the socket.
        columns: The packets.
        gso: Whether to use segmentation offload: `sendmsg` with a control message, a call for a
            run.
        first: The index of the first packet: those before it were handled by another sender.
        failures: Those of them that were refused.

    Attributes:
        count: How many packets there are, with those.
        progress: What was handled.
        refused: Whether the system refuses the call; never.
    """

    refused = False

    def __init__(
        self,
        known: Known,
        columns: Columns,
        gso: bool = False,
        first: int = 0,
        failures: Sequence[SendFailure] = (),
    ) -> None:
        self.count = first + len(columns.datas)
        self.progress = Tally(first, failures)
        self._known = known
        self._columns = columns
        self._gso = gso
        self._first = first

    @property
    def handled(self) -> int:
        """How many packets were sent or refused."""
        return self.progress.handled

    def send(self, sock: socket.socket, result: SendResult | None, keep: bool) -> int:
        """See `anyio_mmsg._send.engine.Sender`."""
        if result is not None:
            result._progress = self.progress
        try:
            return self._send(sock)
        finally:
            if not keep:
                self.release()

    def _send(self, sock: socket.socket) -> int:
        tally = self.progress
        struck, times = 0, dict[int, int]()  # which packet, and how often, by the most of its kind
        while (start := tally.handled) < self.count:
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
                if struck != tally.handled:
                    struck, times = tally.handled, {}
                if self._may_be_of_another(sock, number):
                    most = MOST_STRUCK if number in _OF_ROUTES else MOST_REPORTED
                    times[most] = times.get(most, 0) + 1
                    if times[most] <= most:
                        continue
                if number in NO_SEGMENTATION and tally.next_run() > 1:
                    self._gso = False  # from here on without
                    continue
                if number is None:  # CPython's own: a unix path without room for a NUL
                    error = OSError(errno.ENAMETOOLONG, str(error))
                # Without what leads to frames, which hold the socket.
                error.__context__ = None
                tally.refuse(error.with_traceback(None))
        return 0

    def _may_be_of_another(self, sock: socket.socket, number: int | None) -> bool:
        """Whether an error may be what the network reported of an earlier packet.

        EMSGSIZE is the packet's own, as what was pending before the call was taken away: to send
        it again would have the kernel queue a second report.
        """
        if number not in ICMP_ERRORS:
            return False
        if not self._known.reports:
            self._known.reports = reports_errors(sock)
        return self._known.reports and number != errno.EMSGSIZE

    def _unstruck(self, sock: socket.socket, things: Sequence[Any]) -> Iterable[Any]:
        """Return the things to send; if errors may strike, clear a pending one before each."""
        if not self._known.reports:
            return things
        return map(partial(_clear, sock), things)

    def release(self) -> None:
        """See `anyio_mmsg._send.engine.Sender`."""
        self._columns.release()

    def _next(self, start: int) -> tuple[Sequence[Payload], Sequence[Address]]:
        datas, addresses = self._columns.datas, self._columns.addresses
        if start == self._first and len(datas) <= _CHUNK:
            return datas, addresses
        chunk = slice(start - self._first, start - self._first + _CHUNK)
        return datas[chunk], addresses[chunk]

    def _controls(self, start: int) -> Sequence[Messages]:
        """Return the control messages of the packets that `_next` returns."""
        chunk = slice(start - self._first, start - self._first + _CHUNK)
        return [] if self._columns.controls is None else self._columns.controls[chunk]

    def _send_each(self, sock: socket.socket, start: int) -> None:
        """Send the next packets as long as all go to the peer, or all to addresses."""
        datas, addresses = self._next(start)
        taken = self.progress.begin(start)
        if self._columns.controls is not None:
            groups = self._unstruck(sock, list(zip(datas, strict=True)))
            calls = map(
                sock.sendmsg, groups, self._controls(start), repeat(MSG_DONTWAIT), addresses
            )
            taken.extend(calls)
        elif addresses[0] is None:
            if addresses.count(None) < len(addresses):
                datas = datas[: len(list(takewhile(_is_none, addresses)))]
            taken.extend(map(sock.send, self._unstruck(sock, datas), repeat(MSG_DONTWAIT)))
        else:
            if None in addresses:
                addresses = addresses[: addresses.index(None)]  # `map` ends with the shortest
            unstruck = self._unstruck(sock, datas)
            taken.extend(map(sock.sendto, unstruck, repeat(MSG_DONTWAIT), addresses))

    def _send_runs(self, sock: socket.socket, start: int) -> None:
        """Send the next packets, each run of them by one call that counts for all of it."""
        datas, addresses = self._next(start)
        sizes = [memoryview(data).nbytes for data in datas]
        given = self._controls(start)
        # One message has one destination, and one source.
        lengths = runs(sizes, list(zip(addresses, given, strict=True)) if given else addresses)
        groups, controls, names = [], [], []
        at = 0
        for length in lengths:
            groups.append(datas[at : at + length])
            control = [*given[at]] if given else []
            controls.append(control + _segments_of(sizes[at]) if length > 1 else control)
            names.append(addresses[at])
            at += length
        calls = map(
            sock.sendmsg, self._unstruck(sock, groups), controls, repeat(MSG_DONTWAIT), names
        )
        self.progress.begin(start, lengths).extend(calls)


def _clear(sock: socket.socket, thing: _T) -> _T:
    """Take an error away that is pending on a socket; return the thing."""
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return thing


def _is_none(address: Address) -> bool:
    return address is None


def _segments_of(size: int) -> list[Ancillary]:
    """Return the control message that asks for segments of a size: a native 16-bit number."""
    return [(SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))]


def runs(sizes: Sequence[int], addresses: Sequence[Any]) -> list[int]:
    """Divide packets into runs that can be one datagram until it is cut; return their lengths.

    Packets of a run have equal `addresses`, which may say more than where they go, and one size;
    only the last may be shorter. An empty packet is a run of its own: the kernel would cut no
    segment for it.
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
