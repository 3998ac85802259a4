"""`recv_datagrams`: datagrams as bytes, and nothing to give back.

What was read is in a list, the *record*, by the C-level step that read it. If an interrupt keeps a
call from returning its record, the socket's `Outlook` keeps it for the next call on that socket.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from itertools import repeat
from typing import Any, SupportsIndex

from anyio import WouldBlock

from .._arguments import whole_number
from .._compat import checkpoint, waits
from .._packets import Slots
from .._packets.batch import NUM_RCVMMSGS
from .._packets.memory import paged
from .._packets.packet import Address
from .._system.control import CONTROL_SIZE, segment_of
from .._system.options import has_gro
from .._system.platform import (
    MSG_DONTWAIT,
    ON_WINDOWS,
    Recvmmsg,
    Refused,
    family_of,
    give_up,
    take_datagrams,
)
from .engine import batch_engine
from .functions import as_ended, conclude, pause_between, raise_deferred
from .outlook import Outlook, _outlooks, inode_of, outlook_for
from .recvfrom_into import SEGMENT_SIZE_LOST
from .usable import ensure_usable

MAX_SIZE = 65_535
"""Bytes that cut no UDP datagram: the length field of its header has 16 bits (RFC 768)."""

_STRIDE = 65_536 + 1_600
"""Bytes of a slot, for `MAX_SIZE`. The extra bytes make usual datagrams begin at different places
of the processor's caches, which would hold few of them if all began at a multiple of 64 KiB."""

_LONGEST = 16 * 1024 * 1024
"""The most bytes of a datagram of another family, so that a larger `max_size` asks for no more
memory. For a datagram of a unix socket Linux allocates one piece of 4 MiB at most, and some pages
(`sock_alloc_send_pskb`, net/core/sock.c)."""

_INTERNET = {int(socket.AF_INET), int(socket.AF_INET6)}
_UNIX = getattr(socket, "AF_UNIX", None)
_MSG_CTRUNC = int(getattr(socket, "MSG_CTRUNC", 0))


async def recv_datagrams(
    sock: socket.socket, limit: SupportsIndex = NUM_RCVMMSGS, *, max_size: SupportsIndex = MAX_SIZE
) -> list[tuple[bytes, Address]]:
    """Wait until a datagram is there, then return all that are there, as bytes.

    There is nothing to give back: each datagram is a copy. It needs no batch, and it takes
    sockets with and without GRO, which gives its packets one by one.

    A checkpoint, always. If it is cancelled, no datagram is lost: nothing has been read. If an
    exception of a signal handler keeps datagrams from being returned, the next call on the same
    socket returns them first.

    Args:
        sock: As for `recv_mmsg`.
        limit: The most datagrams to take, at least 1. On a socket with GRO it counts the kernel's
            messages, so the list may be longer.
        max_size: Bytes, at least 1, at which a datagram is cut, as by ``sock.recvfrom(max_size)``.
            The default cuts no UDP datagram; unix sockets have longer ones.

    Returns:
        ``(data, address)`` of each datagram, oldest first; never an empty list. Addresses have
        the form of `Packet.address`.

    Raises:
        TypeError: `sock` is not a `socket.socket`; `limit` or `max_size` is not an int.
        ValueError: `limit` or `max_size` is below 1; `sock` is blocking, or not a datagram socket.
        anyio.BusyResourceError: Another task is waiting for the socket.
        anyio.ClosedResourceError: The socket is closed, or was closed during the wait.
        OSError: As for `recv_mmsg`.
    """
    limit, most = _check(sock, limit, max_size)
    outlook = outlook_for(sock)
    record: list[Any] = []
    try:
        if outlook.more or outlook.unreturned:
            await checkpoint()
            _receive(sock, outlook, limit, most, record)
            if record:
                return record
        look, readable = waits()  # from here on as in `receive_into`
        if look is not None:
            await look()
        empty_wakes = 0
        while not record:
            if empty_wakes:
                await pause_between(sock, empty_wakes)
            try:
                await readable(sock)
            except (OSError, ValueError) as error:
                raise as_ended(sock, error) from None
            outlook.woken = True
            _receive(sock, outlook, limit, most, record)
            empty_wakes += 1
        return record
    except BaseException:
        # No call comes between the test and the stores, so another interrupt changes nothing.
        kept = outlook.unreturned
        if record and not (kept and kept[0] is record[0]):
            kept[:0] = record
            outlook.home = inode_of(sock), os.getpid()
        raise


def recv_datagrams_nowait(
    sock: socket.socket, limit: SupportsIndex = NUM_RCVMMSGS, *, max_size: SupportsIndex = MAX_SIZE
) -> list[tuple[bytes, Address]]:
    """Return the datagrams that are there now, as bytes: `recv_datagrams` without the waiting.

    Args:
        sock: As for `recv_datagrams`.
        limit: As for `recv_datagrams`.
        max_size: As for `recv_datagrams`.

    Returns:
        As `recv_datagrams`.

    Raises:
        anyio.WouldBlock: No datagram is there.
        Exception: Otherwise as `recv_datagrams`.
    """
    outlook = _outlooks.get(id(sock))
    record: list[Any] = []
    try:
        spare = take_datagrams(outlook, sock, limit, max_size, record) if take_datagrams else None
        if spare is None:
            limit, most = _check(sock, limit, max_size)
            outlook = outlook_for(sock)
            _receive_unusual(sock, outlook, limit, most, record)
        elif spare is not True and outlook is not None:
            _conclude(sock, outlook, spare, int(limit), int(max_size), record)
        if not record:
            raise WouldBlock
        return record
    except BaseException:
        if record and outlook is not None:  # as above
            kept = outlook.unreturned
            if not (kept and kept[0] is record[0]):
                kept[:0] = record
                outlook.home = inode_of(sock), os.getpid()
        raise


def _check(sock: socket.socket, limit: SupportsIndex, most: SupportsIndex) -> tuple[int, int]:
    ensure_usable(sock)
    if type(limit) is not int or limit < 1:
        limit = whole_number("limit", limit, 1, "give the number of packets, at least 1")
    if type(most) is not int or most < 1:
        most = whole_number("max_size", most, 1, "give the bytes of a datagram, at least 1")
    return limit, most


def _receive(
    sock: socket.socket, outlook: Outlook, limit: int, most: int, record: list[Any]
) -> None:
    """Put the datagrams that are there into `record`. Never waits."""
    spare = take_datagrams(outlook, sock, limit, most, record) if take_datagrams else None
    if spare is None:
        _receive_unusual(sock, outlook, limit, most, record)
    elif spare is not True:
        _conclude(sock, outlook, spare, limit, most, record)


def _receive_unusual(
    sock: socket.socket, outlook: Outlook, limit: int, most: int, record: list[Any]
) -> None:
    """Do what `_receive` does, without `take_datagrams`, whose reference it is."""
    kept = outlook.unreturned
    if kept:
        if outlook.home in (None, (inode_of(sock), os.getpid())):
            record += kept[:limit]
            del kept[:limit]
            record[:] = _datagrams_in(record, most)
            return
        del kept[:]  # the socket was initialised again; or its forked parent returns them
    if outlook._error is not None or outlook.struck:
        raise_deferred(sock, outlook)
    family = family_of(sock)
    in_slots = Recvmmsg is not None and not Refused.recvmmsg
    if in_slots and family in _INTERNET:
        _by_slots(sock, outlook, _trains, limit, most, record)
    elif in_slots and family == _UNIX and most <= MAX_SIZE:
        # Without room for control data: with it the kernel would install file descriptors.
        _by_slots(sock, outlook, _singles, limit, most, record)
    else:
        reader, longest = _Recvfrom(), MAX_SIZE if family in _INTERNET else _LONGEST
        reader.datagrams(sock, limit, min(most, longest), record)
        conclude(sock, outlook, reader, len(record))
        if reader.rough and record:
            record[:] = _datagrams_in(record, most)


# By recvmmsg(2). Slots are taken off the list until the read is concluded, so each thread and
# each signal handler has its own. There are as many as were ever used at once.

_trains: list[tuple[Slots, Any]] = []
_singles: list[tuple[Slots, Any]] = []


def _by_slots(
    sock: socket.socket,
    outlook: Outlook,
    spares: list[tuple[Slots, Any]],
    limit: int,
    most: int,
    record: list[Any],
) -> None:
    try:
        spare = spares.pop()
    except IndexError:
        memory = paged(NUM_RCVMMSGS * _STRIDE)
        slots = Slots(memory, NUM_RCVMMSGS, _STRIDE, gro=spares is _trains)
        spare = slots, batch_engine(slots)
    slots, engine = spare
    outlook.spares = spares
    try:
        engine.datagrams(slots, sock, limit, most, record)
    except BaseException:
        if slots.held:  # there was no memory to copy the packets
            record.append(slots)
        else:
            spares.append(spare)
        raise
    _conclude(sock, outlook, spare, limit, most, record)


def _conclude(
    sock: socket.socket,
    outlook: Outlook,
    spare: tuple[Slots, Any],
    limit: int,
    most: int,
    record: list[Any],
) -> None:
    """Do what comes after a read by slots, which are empty again."""
    slots, engine = spare
    try:
        conclude(sock, outlook, engine, len(record))
    finally:
        (_trains if slots.gro else _singles).append(spare)
    if engine.refused:
        give_up("recvmmsg")
        if not record:
            _receive_unusual(sock, outlook, limit, most, record)


# Elsewhere


class _Recvfrom:
    """A `recvfrom` for each datagram: the reference, and the twin of `Recvmmsg.datagrams`.

    Attributes:
        error: See `anyio_mmsg._receive.engine.Reader`.
        dry: See `anyio_mmsg._receive.engine.Reader`.
        rough: Whether the record has messages that `_datagrams_in` has to take apart.
    """

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.dry = False
        self.rough = False

    def datagrams(self, sock: socket.socket, limit: int, most: int, record: list[Any]) -> None:
        """Put what is there at the end of `record`: datagrams, or messages of a GRO socket."""
        gro = has_gro(sock)
        self.rough = gro or ON_WINDOWS
        if ON_WINDOWS:
            most = max(most, MAX_SIZE)  # what is cut would be lost (WSAEMSGSIZE)
        while (left := min(limit - len(record), sys.maxsize)) > 0:
            try:
                if gro:
                    sizes, rooms = repeat(MAX_SIZE, left), repeat(CONTROL_SIZE)
                    record.extend(map(sock.recvmsg, sizes, rooms, repeat(MSG_DONTWAIT)))
                else:
                    record.extend(map(sock.recvfrom, repeat(most, left), repeat(MSG_DONTWAIT)))
            except BlockingIOError:
                self.dry = True
                break
            except InterruptedError:
                continue
            except OSError as error:
                self.dry, self.error = True, error.with_traceback(None)
                break
        if gro:
            whole = [message for message in record if _segment_of(message) is not None]
            if len(whole) < len(record):
                self.dry, self.error = True, OSError(errno.EMSGSIZE, SEGMENT_SIZE_LOST)
                record[:] = whole


def _segment_of(message: tuple[bytes, Any, int, Address]) -> int | None:
    """Return the size of the packets of a message that `recvmsg` returned; see `segment_of`."""
    return segment_of(message[1], bool(message[2] & _MSG_CTRUNC))


def _datagrams_in(record: list[Any], most: int) -> Iterator[tuple[bytes, Address]]:
    """Yield the datagrams of a record, which may have messages and slots too."""
    for each in record:
        if isinstance(each, Slots):
            yield from ((data[:most], address) for data, address in each.datagrams())
        elif len(each) == 2:
            yield each[0][:most], each[1]
        else:
            data, address = each[0], each[3]
            step = _segment_of(each) or len(data) or 1
            for at in range(0, len(data) or 1, step):
                yield data[at : at + min(step, most)], address
