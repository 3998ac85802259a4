"""Control messages: how to read what comes with a packet. `options` asks for it.

Numbers are Linux's (asm-generic/socket.h, linux/in.h, linux/in6.h, linux/udp.h); Python does not
name all of them.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from .._packets.packet import Control
from .stamps import Ancillary as Ancillary
from .stamps import stamps_in

SOL_UDP, UDP_GRO = 17, 104
SOL_IP, IP_TOS, IP_TTL, IP_PKTINFO = 0, 1, 2, 8
SOL_IPV6, IPV6_PKTINFO, IPV6_HOPLIMIT, IPV6_TCLASS = 41, 50, 52, 67

CONTROL_SIZE = 480
"""Bytes of a slot's control data, as in _compiled/compiled.h, which says why."""

CACHE_SIZE = 4096
"""How many decoded blocks of control data are remembered: as many as addresses."""


def _number(data: bytes) -> int | None:
    """Decode a number that comes as 1 byte or as an int (IP_TOS does as either)."""
    if len(data) >= 4:
        return int(struct.unpack_from("=i", data)[0])
    return data[0] if data else None


def decode(messages: Iterable[Ancillary]) -> Control:
    """Decode control messages, except timestamps. The compiled twin is in _compiled/control.c."""
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
    return Control(destination, interface, ecn, hop_limit, local)


def segment_of(messages: Iterable[Ancillary], cut: bool = False) -> int | None:
    """Return the segment size of a train, 0 for a single packet.

    The kernel writes it before what IP's options ask for (`udp_recvmsg`, net/ipv4/udp.c and
    net/ipv6/udp.c). So if control data was `cut`, it is lost only if nothing of these is there
    either: None.
    """
    for level, kind, data in messages:
        if (level, kind) == (SOL_UDP, UDP_GRO) and len(data) >= 4:
            (size,) = struct.unpack_from("=i", data)
            return int(size) if 0 < size <= 65535 else 0
        if level in (SOL_IP, SOL_IPV6):
            cut = False
    return None if cut else 0


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


class ControlCache(dict[tuple[Ancillary, ...], Control]):
    """Decoded control data without timestamps, by its messages.

    A dict, since a hit then costs no call into Python. Emptied when it is full: senders choose
    some of these values. The compiled module decodes them each time.
    """

    def __missing__(self, key: tuple[Ancillary, ...]) -> Control:
        if len(self) >= CACHE_SIZE:
            self.clear()
        control = self[key] = decode(key)
        return control


CONTROLS = ControlCache()


def control_of(messages: list[Ancillary]) -> Control:
    """Return what control messages say, except timestamps."""
    return CONTROLS[tuple(messages[stamps_in(messages) :])]
