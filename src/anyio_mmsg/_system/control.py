"""Control messages: what to ask a socket for, and how to read what comes with a packet.

Numbers are Linux's (asm-generic/socket.h, linux/in.h, linux/in6.h, linux/udp.h); Python does not
name all of them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import Any, TypeAlias

from .._packets.packet import Control
from .platform import ON_LINUX, family_of

SOL_UDP, UDP_GRO = 17, 104
SOL_IP, IP_TOS, IP_TTL, IP_PKTINFO, IP_RECVTTL, IP_RECVTOS = 0, 1, 2, 8, 12, 13
SOL_IPV6, IPV6_RECVPKTINFO, IPV6_PKTINFO, IPV6_RECVHOPLIMIT, IPV6_HOPLIMIT = 41, 49, 50, 51, 52
IPV6_RECVTCLASS, IPV6_TCLASS = 66, 67
SO_TIMESTAMPNS_OLD, SO_TIMESTAMPNS_NEW = 35, 64  # with 32-bit and with 64-bit seconds

CONTROL_SIZE = 256
"""Bytes of a slot's control data, as in _compiled/compiled.h, which says why."""

CACHE_SIZE = 4096
"""Blocks of control data that are remembered as decoded. The number is that of addresses."""

Ancillary: TypeAlias = tuple[int, int, bytes]
"""Level, type and data of one control message, as `socket.recvmsg` gives it."""


def is_timestamp(message: Ancillary) -> bool:
    """Whether a control message is a timestamp."""
    return message[0] == socket.SOL_SOCKET and message[1] in (
        SO_TIMESTAMPNS_OLD,
        SO_TIMESTAMPNS_NEW,
    )


def nanoseconds(data: bytes) -> int | None:
    """Decode a timestamp: seconds and nanoseconds, of 64 bits each, or of 32 in the old form."""
    if len(data) >= 16:
        seconds, rest = struct.unpack_from("=qq", data)
    elif len(data) >= 8:
        seconds, rest = struct.unpack_from("=ii", data)
    else:
        return None
    return int(seconds) * 1_000_000_000 + int(rest)


def _number(data: bytes) -> int | None:
    """Decode a number that comes as 1 byte or as an int (IP_TOS does as either)."""
    if len(data) >= 4:
        return int(struct.unpack_from("=i", data)[0])
    return data[0] if data else None


def decode(messages: Iterable[Ancillary]) -> Control:
    """Decode control messages, but for a timestamp."""
    destination = interface = ecn = hop_limit = local = None
    for level, kind, data in messages:
        if (level, kind) == (SOL_IP, IP_PKTINFO) and len(data) >= 12:
            (index,) = struct.unpack_from("=i", data)
            spec, address = (socket.inet_ntop(socket.AF_INET, data[n : n + 4]) for n in (4, 8))
            # A dual-stack socket has said the destination already, mapped as the sender is.
            interface = interface or index
            destination = destination or address
            local = spec
        elif (level, kind) == (SOL_IPV6, IPV6_PKTINFO) and len(data) >= 20:
            address = socket.inet_ntop(socket.AF_INET6, data[:16])
            (interface,) = struct.unpack_from("=I", data, 16)
            destination = address
            local = local or address
        elif (level, kind) in ((SOL_IP, IP_TOS), (SOL_IPV6, IPV6_TCLASS)):
            number = _number(data)
            ecn = None if number is None else number & 3
        elif (level, kind) in ((SOL_IP, IP_TTL), (SOL_IPV6, IPV6_HOPLIMIT)):
            hop_limit = _number(data)
    return Control(None, destination, interface, ecn, hop_limit, local)


def segment_of(messages: Iterable[Ancillary]) -> int:
    """Return the segment size of a train, 0 for a single packet."""
    for level, kind, data in messages:
        if (level, kind) == (SOL_UDP, UDP_GRO):
            size = _number(data)
            return size if size is not None and 0 < size <= 65535 else 0
    return 0


_HEADER = struct.Struct("@nii")  # struct cmsghdr: length with this header, level, type


def split(raw: bytes) -> list[Ancillary]:
    """Take control data apart as the kernel wrote it (cmsg(3)); what is cut or wrong ends it."""
    messages = []
    at, word = 0, struct.calcsize("@n")
    while at + _HEADER.size <= len(raw):
        length, level, kind = _HEADER.unpack_from(raw, at)
        if not _HEADER.size <= length <= len(raw) - at:
            break
        messages.append((level, kind, raw[at + _HEADER.size : at + length]))
        at += -(-length // word) * word
    return messages


class ControlCache(dict[Any, Control]):
    """Decoded control data without a timestamp, by its bytes or by a tuple of its messages.

    A dict, since a hit then costs no call into Python. Emptied when it is full: senders choose
    some of these values.
    """

    def __missing__(self, key: bytes | tuple[Ancillary, ...]) -> Control:
        if len(self) >= CACHE_SIZE:
            self.clear()
        control = self[key] = decode(split(key) if isinstance(key, bytes) else key)
        return control


CONTROLS = ControlCache()


def control_of(messages: list[Ancillary]) -> Control:
    """Return what control messages say."""
    if messages and is_timestamp(messages[0]):
        return CONTROLS[tuple(messages[1:])]._replace(timestamp=nanoseconds(messages[0][2]))
    return CONTROLS[tuple(messages)]


def ask_for(
    sock: socket.socket,
    *,
    timestamps: bool = False,
    destinations: bool = False,
    ecn: bool = False,
    hop_limits: bool = False,
    gro: bool = False,
) -> None:
    """Have the kernel give control data with each packet of a UDP socket; see `open_udp_socket`.

    Raises:
        ValueError: This platform can't.
        OSError: The kernel does not know an option, or the socket does not.
    """
    wanted = {
        "timestamps": timestamps,
        "destinations": destinations,
        "ecn": ecn,
        "hop_limits": hop_limits,
        "gro": gro,
    }
    names = [name for name, on in wanted.items() if on]
    if names and not ON_LINUX:
        raise ValueError(f"{names[0]}=True needs Linux; open the socket without it")
    if timestamps:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS_NEW, 1)
        except OSError:  # before Linux 5.1
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS_OLD, 1)
    # A dual-stack socket needs both versions' options; one of IPv6 alone ignores the
    # others, or refuses them.
    ipv4 = {IP_PKTINFO: destinations, IP_RECVTOS: ecn, IP_RECVTTL: hop_limits}
    ipv6 = {IPV6_RECVPKTINFO: destinations, IPV6_RECVTCLASS: ecn, IPV6_RECVHOPLIMIT: hop_limits}
    if family_of(sock) == socket.AF_INET6:
        _set_all(sock, SOL_IPV6, ipv6)
        with contextlib.suppress(OSError):
            _set_all(sock, SOL_IP, ipv4)
    else:
        _set_all(sock, SOL_IP, ipv4)
    if gro:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)


def _set_all(sock: socket.socket, level: int, options: dict[int, bool]) -> None:
    for option, wanted in options.items():
        if wanted:
            sock.setsockopt(level, option, 1)


def has_gro(sock: socket.socket) -> bool:
    """Whether the kernel may coalesce packets on this socket."""
    if not ON_LINUX or family_of(sock) not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        return bool(sock.getsockopt(SOL_UDP, UDP_GRO))
    except OSError:  # before Linux 5.0, or not a UDP socket
        return False
