"""The error queue of a socket (Linux, IP_RECVERR): whose it is, and how to read it.

While an entry waits there, poll reports an error at once, again and again. So whoever waits for
the socket has to read the queue. It is one queue for everything, and can't be peeked at: a
program that reads transmit timestamps from it would lose them to us. `read_errors` reads a queue
only if it is ours to read.

Numbers are Linux's (linux/in.h, linux/in6.h, linux/errqueue.h, asm-generic/socket.h,
linux/net_tstamp.h); Python does not name all of them.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from functools import partial
from typing import Any
from weakref import ref

from .icmp import IcmpError
from .platform import MSG_DONTWAIT, ON_LINUX, family_of, inode_of
from .sockaddr import decode_sockaddr

_SOL_IP, IP_RECVERR = 0, 11
_SOL_IPV6, IPV6_RECVERR = 41, 25
_RECVERRS = ((_SOL_IP, IP_RECVERR), (_SOL_IPV6, IPV6_RECVERR))
_MSG_ERRQUEUE = 0x2000

_EXTENDED_ERR = struct.Struct("=IBBBxI4x")  # sock_extended_err: errno, origin, type, code, info
_LOCAL, _ICMP, _ICMP6 = 1, 2, 3  # SO_EE_ORIGIN_*; from 4 on they are not errors of packets

_SO_TIMESTAMPING, _SO_ZEROCOPY, _SO_TXTIME = 37, 60, 61
# SOF_TIMESTAMPING_*: TX_HARDWARE, TX_SOFTWARE, TX_SCHED, TX_ACK and TX_COMPLETION ask for
# timestamps. OPT_ID and OPT_TSONLY choose the form of a report. A program that asks by sendmsg(2)
# sets these alone.
_TX_FLAGS = 1 << 0 | 1 << 1 | 1 << 8 | 1 << 9 | 1 << 18 | 1 << 7 | 1 << 11
_TXTIME = struct.Struct("=iI")  # clock, flags; struct sock_txtime
_TXTIME_REPORT_ERRORS = 2

_DATA_SIZE = 65_535
_CONTROL_SIZE = 512  # what the socket's options add to an entry comes along

ASKED: dict[int, tuple[Any, int]] = {}
"""The sockets that we have asked for errors, by id: a weak reference to each, and its inode."""


def report_errors(sock: socket.socket, on: bool) -> None:
    """Have the kernel queue the errors that it hears of, and remember that we asked for them.

    When this is switched off, the kernel throws queued errors away.

    Raises:
        OSError: The kernel, or the socket, does not know the option.
        ValueError: The program reads something else from the queue.
    """
    if on and _has_other_readers(sock):
        raise ValueError(
            "the socket was asked for transmit timestamps (SO_TIMESTAMPING), MSG_ZEROCOPY or "
            "SO_TXTIME, whose reports come by the same queue and would be lost; use two sockets, "
            "or leave icmp_errors out"
        )
    if family_of(sock) == socket.AF_INET6:
        sock.setsockopt(_SOL_IPV6, IPV6_RECVERR, on)
    sock.setsockopt(_SOL_IP, IP_RECVERR, on)  # a dual-stack socket needs both
    if on:
        # Forgotten with the socket, by C functions alone: no interrupt comes between.
        ASKED[id(sock)] = ref(sock, partial(ASKED.pop, id(sock))), inode_of(sock)
    else:
        ASKED.pop(id(sock), None)


def reports_errors(sock: socket.socket) -> bool:
    """Whether the kernel queues errors for this socket, whoever asked for them."""
    if not ON_LINUX or family_of(sock) not in (socket.AF_INET, socket.AF_INET6):
        return False
    return any(_option(sock, *option) for option in _RECVERRS)


def _option(sock: socket.socket, level: int, option: int) -> int:
    try:
        return sock.getsockopt(level, option)
    except OSError:  # closed, or an option that this socket or kernel does not have
        return 0


def _has_other_readers(sock: socket.socket) -> bool:
    """Whether the program reads from the queue itself, as far as the socket's options say."""
    if _option(sock, socket.SOL_SOCKET, _SO_TIMESTAMPING) & _TX_FLAGS:
        return True
    if _option(sock, socket.SOL_SOCKET, _SO_ZEROCOPY):
        return True
    try:
        _, flags = _TXTIME.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_TXTIME, _TXTIME.size))
    except (OSError, struct.error):
        return False
    return bool(flags & _TXTIME_REPORT_ERRORS)


def ours_to_read(sock: socket.socket) -> bool:
    """Whether the library may read the error queue of a socket.

    It may where errors are queued, by our option or by the program's, unless the program has
    asked for something else that comes by that queue, and did not have us ask for errors.
    """
    asked = ASKED.get(id(sock))
    if asked is not None and asked[1] == inode_of(sock):
        return True
    return reports_errors(sock) and not _has_other_readers(sock)


def errors_pending(sock: socket.socket) -> bool:
    """Whether poll reports an error at once: the queue has an entry, or an error is pending."""
    if not ON_LINUX:
        return False
    poll = select.poll()
    try:
        poll.register(sock, 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except (OSError, ValueError):  # closed
        return False


def read_errors(sock: socket.socket, limit: int) -> list[IcmpError]:
    """Read a socket's error queue, if it is ours to read: `limit` errors at most, oldest first.

    Never waits. Other entries that it meets are dropped. It leaves no error pending that would
    strike the next receive or send.

    Args:
        sock: A nonblocking socket of any kind.
        limit: At least 1.

    Returns:
        The errors; an empty list if there is none, or if the queue is the program's.
    """
    errors: list[IcmpError] = []
    if not errors_pending(sock) or not ours_to_read(sock):  # the cheapest question first
        return errors
    while len(errors) < limit:
        try:
            data, messages, _, address = sock.recvmsg(
                _DATA_SIZE, _CONTROL_SIZE, _MSG_ERRQUEUE | MSG_DONTWAIT
            )
        except OSError:  # it is empty
            return errors
        error = _decode(data, messages, address)
        if error is not None:
            errors.append(error)
    # The kernel has made the next entry's error the pending one: it would be reported twice.
    _option(sock, socket.SOL_SOCKET, socket.SO_ERROR)
    return errors


def _decode(data: bytes, messages: list[tuple[int, int, bytes]], address: Any) -> IcmpError | None:
    """Decode an entry; None for one that is not the error of a packet."""
    for level, kind, content in messages:
        if (level, kind) in _RECVERRS and len(content) >= _EXTENDED_ERR.size:
            code, origin, icmp_type, icmp_code, info = _EXTENDED_ERR.unpack_from(content)
            if origin not in (_LOCAL, _ICMP, _ICMP6) or not code:
                return None
            local = origin == _LOCAL
            mtu = info if code == errno.EMSGSIZE else None
            offender = None if local else _host_in(content[_EXTENDED_ERR.size :])
            return IcmpError(code, address, offender, icmp_type, icmp_code, mtu, local, data)
    return None


def _host_in(sockaddr: bytes) -> str | None:
    """Return the host of a sockaddr of AF_INET or AF_INET6; AF_UNSPEC says that there is none."""
    address: Any = decode_sockaddr(sockaddr)
    return address[0] if isinstance(address, tuple) and isinstance(address[0], str) else None
