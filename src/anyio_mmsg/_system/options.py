"""Options of a UDP socket: setting them, and asking which are on.

Numbers are Linux's (asm-generic/socket.h, linux/in.h, linux/in6.h, linux/udp.h,
linux/net_tstamp.h); Python does not name all of them.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

from .control import (
    IP_PKTINFO,
    SOL_IP,
    SOL_IPV6,
    SOL_UDP,
    UDP_GRO,
)
from .error_queue import report_errors
from .platform import ON_LINUX, family_of
from .stamps import (
    SO_TIMESTAMP_NEW,
    SO_TIMESTAMP_OLD,
    SO_TIMESTAMPING_NEW,
    SO_TIMESTAMPING_OLD,
    SO_TIMESTAMPNS_NEW,
    SO_TIMESTAMPNS_OLD,
)

IP_MTU_DISCOVER, IP_RECVTTL, IP_RECVTOS = 10, 12, 13
IPV6_MTU_DISCOVER, IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS = 23, 49, 51, 66
PMTUDISC_WANT, PMTUDISC_DO, PMTUDISC_PROBE = 1, 2, 3
_INTERNET = (socket.AF_INET, socket.AF_INET6)

_RX_TIMESTAMPS = 1 << 2 | 1 << 3  # SOF_TIMESTAMPING_RX_HARDWARE, _RX_SOFTWARE


def check_asked(asked: Mapping[str, bool | None]) -> None:
    """Raise ValueError if this platform can't do what `ask_for` is to be asked."""
    names = [name for name, on in asked.items() if on]
    if names and not ON_LINUX:
        raise ValueError(f"{names[0]}=True needs Linux; leave it out")


def ask_for(
    sock: socket.socket,
    *,
    timestamps: bool | None = None,
    destinations: bool | None = None,
    ecn: bool | None = None,
    hop_limits: bool | None = None,
    gro: bool | None = None,
    icmp_errors: bool | None = None,
    dont_fragment: bool | None = None,
) -> None:
    """Switch options of a UDP socket on or off; None leaves one as it is. See `open_udp_socket`.

    On other systems than Linux there is nothing to switch off; see `check_asked`.

    Raises:
        OSError: The kernel does not know an option, or the socket does not.
        ValueError: `gro` is False, and it is on. Or the program reads something else from the
            error queue.
    """
    if not ON_LINUX:
        return
    if gro is False and has_gro(sock):
        raise ValueError(
            "gro can't be switched off on an open socket: what is queued would come with its "
            "packets glued together; open another socket"
        )
    if icmp_errors is not None:
        report_errors(sock, icmp_errors)
    if timestamps is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS_NEW, timestamps)
        except OSError:  # before Linux 5.1
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS_OLD, timestamps)
    ipv6 = {
        IPV6_RECVPKTINFO: destinations,
        IPV6_RECVTCLASS: ecn,
        IPV6_RECVHOPLIMIT: hop_limits,
        IPV6_MTU_DISCOVER: dont_fragment,
    }
    ipv4 = {
        IP_PKTINFO: destinations,
        IP_RECVTOS: ecn,
        IP_RECVTTL: hop_limits,
        IP_MTU_DISCOVER: dont_fragment,
    }
    # A dual-stack socket needs both versions' options; one of IPv6 alone ignores the
    # others, or refuses them.
    if family_of(sock) == socket.AF_INET6:
        _set_all(sock, SOL_IPV6, ipv6)
        with contextlib.suppress(OSError):
            _set_all(sock, SOL_IP, ipv4)
    else:
        _set_all(sock, SOL_IP, ipv4)
    if gro:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)


def _set_all(sock: socket.socket, level: int, options: dict[int, bool | None]) -> None:
    for option, on in options.items():
        if on is None:
            continue
        value = int(on)
        if option in (IP_MTU_DISCOVER, IPV6_MTU_DISCOVER):
            if on:
                value = PMTUDISC_DO
            elif sock.getsockopt(level, option) in (PMTUDISC_DO, PMTUDISC_PROBE):
                value = PMTUDISC_WANT
            else:
                continue  # they let packets be fragmented, each in its own way
        sock.setsockopt(level, option, value)


def has_gro(sock: socket.socket) -> bool:
    """Whether the kernel may coalesce packets on this socket."""
    if not ON_LINUX or family_of(sock) not in _INTERNET:
        return False
    return bool(_option(sock, SOL_UDP, UDP_GRO))


def has_control_data(sock: socket.socket) -> bool:
    """Whether the socket was asked, by anybody, for what batches hold with ``ancillary=True``."""
    if not ON_LINUX:
        return False
    stamps = SO_TIMESTAMPNS_NEW, SO_TIMESTAMPNS_OLD, SO_TIMESTAMP_NEW, SO_TIMESTAMP_OLD
    if any(_option(sock, socket.SOL_SOCKET, option) for option in stamps):
        return True
    if any(
        _option(sock, socket.SOL_SOCKET, option) & _RX_TIMESTAMPS
        for option in (SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW)
    ):
        return True
    if family_of(sock) not in _INTERNET:
        return False
    return any(
        _option(sock, level, option)
        for level, options in (
            (SOL_IP, (IP_PKTINFO, IP_RECVTOS, IP_RECVTTL)),
            (SOL_IPV6, (IPV6_RECVPKTINFO, IPV6_RECVTCLASS, IPV6_RECVHOPLIMIT)),
        )
        for option in options
    )


def _option(sock: socket.socket, level: int, option: int) -> int:
    try:
        return sock.getsockopt(level, option)
    except OSError:  # closed, or one that this kernel or socket does not have
        return 0
