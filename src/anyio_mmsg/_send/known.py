"""What is known of a socket that sends packets. Asked once, since it does not change."""

from __future__ import annotations

import socket
from functools import partial
from weakref import ref

from .._system.addresses import sockaddrs_of
from .._system.error_queue import reports_errors
from .._system.platform import ON_LINUX, family_of, type_of

MAX_PAYLOAD = {int(socket.AF_INET): 65507, int(socket.AF_INET6): 65527}
"""Bytes that a datagram can carry, by family: 65,535 less 8 for the UDP header, and for IPv4 less
20 for its own (RFC 768, 791, 8200; IPv6's payload length does not count its header). Other
families have the socket's own limits."""

UNLIMITED = 2**31 - 1

# Segmentation offload (linux/udp.h), which Python does not name.
SOL_UDP = 17
UDP_SEGMENT = 103

_DGRAM, _RAW = int(socket.SOCK_DGRAM), int(socket.SOCK_RAW)


class Known:
    """What is known of one socket.

    Attributes:
        family: Its family, an int.
        most: The most bytes of a payload. For raw sockets only the system knows the limit.
        sockaddrs: The cache of its family's sockaddrs.
        reports: The network's errors come by its error queue (IP_RECVERR), as far as is known
            since the first send. Then an earlier packet's error may strike a send.
        segmentation: The kernel has segmentation for it; an older one ignores the request.
    """

    # Read by _compiled/shortcut.c.
    __slots__ = ("_sock", "family", "most", "reports", "segmentation", "sockaddrs")

    def __init__(self, sock: socket.socket) -> None:
        # Forgets this object with the socket, by C functions alone: no interrupt comes between.
        self._sock = ref(sock, partial(KNOWN.pop, id(sock)))
        self.family = family_of(sock)
        of_udp = type_of(sock) == _DGRAM
        self.most = MAX_PAYLOAD.get(self.family, UNLIMITED) if of_udp else UNLIMITED
        self.sockaddrs = sockaddrs_of(self.family)
        self.segmentation = has_segmentation(sock)
        self.reports = reports_errors(sock)


KNOWN: dict[int, Known] = {}
"""By id of the socket, with which an entry goes."""


def known_of(sock: socket.socket) -> Known:
    """Return what is known of `sock`."""
    known = KNOWN.get(id(sock))
    if known is None:
        known = KNOWN[id(sock)] = Known(sock)
    return known


def learn(sock: socket.socket) -> Known | None:
    """Return what is known of `sock`; None if it can't be used, or is closed."""
    if type_of(sock) not in (_DGRAM, _RAW) or sock.fileno() < 0:
        return None
    return known_of(sock)


def has_segmentation(sock: socket.socket) -> bool:
    """Whether the kernel has segmentation for this socket; an older one ignores the request."""
    if not ON_LINUX:
        return False
    try:
        sock.getsockopt(SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True
