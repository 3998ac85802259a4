"""What the kernel reports about a socket's receive buffer."""

from __future__ import annotations

import errno
import socket
import struct
from itertools import repeat
from typing import Any, NamedTuple, TypeAlias

from .control import CONTROL_SIZE, Ancillary, segment_of
from .options import has_gro
from .platform import ON_LINUX

# linux/sock_diag.h, SK_MEMINFO_*, and asm-generic/socket.h; Python does not name them.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_RMEM_ALLOC, _RCVBUF, _DROPS = 0, 1, 8

_DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
_TRUNC = int(getattr(socket, "MSG_TRUNC", 0))  # as an argument: report the length as sent
_CTRUNC = int(getattr(socket, "MSG_CTRUNC", 0))
_WSAEMSGSIZE = 10040

_LEAST_CHARGE = 512
"""Bytes that the kernel charges a datagram at least. Linux charges 832 for an empty one
(struct sk_buff and what lies behind its data); the rest is caution."""

_UNIX_QUEUE = 1024
"""Datagrams that a unix socket's queue may hold, whatever its buffer: net.unix.max_dgram_qlen,
10 as the kernel comes and 512 under systemd. The rest is caution."""


class SocketMemory(NamedTuple):
    """What the kernel reports about a socket's receive buffer.

    Attributes:
        used: Bytes that wait in it, as the kernel counts them.
        size: Bytes that fit into it, counted the same way. 0: both are unknown, as of a script.
        drops: Packets that were dropped because there was no room (or a bad checksum, found when
            read) since the socket was opened, modulo 2**32.
    """

    used: int
    size: int
    drops: int


def socket_memory(sock: socket.socket) -> SocketMemory | None:
    """Ask the kernel about a socket's receive buffer; None where it doesn't report it."""
    if not ON_LINUX:
        return None
    try:
        numbers = _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except (OSError, struct.error):  # before Linux 4.12, or what emulates one
        return None
    return SocketMemory(numbers[_RMEM_ALLOC], numbers[_RCVBUF], numbers[_DROPS])


def most_waiting(sock: socket.socket) -> int:
    """Return how many packets may be in a socket's buffer now: never too few.

    Linux reports the bytes that internet sockets hold. Elsewhere the size of the buffer is the
    limit, and for unix sockets the length of their queue too. 0 for a closed socket.
    """
    try:
        memory = socket_memory(sock)
        if memory is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            return memory.used // _LEAST_CHARGE
        size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    except OSError:
        return 0
    return max(size // _LEAST_CHARGE, _UNIX_QUEUE)


Discarded: TypeAlias = "int | tuple[int, list[Ancillary], int, Any]"
"""What `recv_into` returned, or `recvmsg_into`."""


def packets_in(discarded: Discarded) -> int:
    """Return how many packets one message was."""
    if isinstance(discarded, int):
        return 1
    size, messages, flags, _ = discarded
    segment = segment_of(messages, bool(flags & _CTRUNC))
    return -(-size // segment) if size and segment else 1


def discard_waiting(sock: socket.socket, most: int, sizes: list[Discarded]) -> None:
    """Read and throw away what waits in a socket's buffer.

    Args:
        sock: A datagram socket; it is not waited for.
        most: How many messages to read at most, so that a peer who goes on sending doesn't keep
            us here.
        sizes: Gets an item for each message, in the step that reads it; see `packets_in`.
    """
    buffer = bytearray(1)  # the rest of a datagram is cut off
    buffers, gro = [buffer], has_gro(sock)
    stop, errors = len(sizes) + most, 0
    while (left := stop - len(sizes)) > 0 and errors <= most:
        try:
            if gro:
                flags, room = repeat(_DONTWAIT | _TRUNC), repeat(CONTROL_SIZE)
                sizes.extend(map(sock.recvmsg_into, repeat(buffers, left), room, flags))
                continue
            sizes.extend(map(sock.recv_into, repeat(buffer, left), repeat(1), repeat(_DONTWAIT)))
        except BlockingIOError:
            return
        except OSError as error:
            if getattr(error, "winerror", None) == _WSAEMSGSIZE:
                sizes.append(1)  # Windows reports so that it cut a datagram
            elif error.errno in (errno.EBADF, errno.ENOTSOCK):
                return
            else:
                errors += 1  # left by ICMP for an earlier packet: what waits is still there
