"""What a packet is sent with, as control data: the address it comes from, and its ECN codepoint.

The numbers and layouts are Linux's (ip(7), ipv6(7)). On a dual-stack socket the messages of both
versions go along where they differ: the kernel's path for IPv4 peers, whose addresses are mapped,
ignores those of IPv6, but for IPV6_PKTINFO with a mapped address, and the other path ignores those
of IPv4.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from .._arguments import whole_number
from .._packets import Packet
from .._system.control import (
    IP_PKTINFO,
    IP_TOS,
    IPV6_PKTINFO,
    IPV6_TCLASS,
    SOL_IP,
    SOL_IPV6,
    Ancillary,
)
from .._system.platform import ON_LINUX, family_of
from .._system.sockaddr import scope_id_of

_T = TypeVar("_T")

Messages: TypeAlias = tuple[Ancillary, ...]
"""The control messages of a packet."""

IPV6_V6ONLY = 26  # linux/in6.h

NO_DESTINATION = (
    "this packet came without its destination, which the answer is to come from; open its socket "
    "with open_udp_socket(destinations=True)"
)

_INET, _INET6 = int(socket.AF_INET), int(socket.AF_INET6)
_MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address in IPv6's form (RFC 4291)
_INT = struct.Struct("@i")
_HEADER = struct.Struct("@nii")  # struct cmsghdr: length with this header, level, type


class Controls:
    """What control data the packets of one call have.

    Args:
        sock: The socket, which is open.
        reply_from_destination: Whether a packet that answers another one comes from where that
            one was sent to.
        source: Where all packets come from, or None.
        ecn: The ECN codepoint of all packets, or None.

    Attributes:
        replies: That `reply_from_destination`.
        same: The messages of every packet that answers no other one.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range, or the socket or the platform can't do it.
    """

    __slots__ = ("_ecn", "_family", "replies", "same")

    def __init__(
        self,
        sock: socket.socket,
        reply_from_destination: bool,
        source: str | None,
        ecn: int | None,
    ) -> None:
        self._family = family_of(sock)
        self.replies = reply_from_destination
        if (
            self._family not in (_INET, _INET6)
            or (reply_from_destination and source is not None)
            or not ON_LINUX
        ):
            raise _why_not(sock, reply_from_destination, source is not None, ecn is not None)
        is_dual = self._family == _INET6 and not sock.getsockopt(SOL_IPV6, IPV6_V6ONLY)
        self._ecn: Messages = () if ecn is None else _ecn_of(sock, is_dual, ecn)
        self.same: Messages = self._ecn
        if source is not None:
            if not isinstance(source, str):
                raise TypeError(
                    f"source is {source!r}; give a numeric address of this machine as str"
                )
            # An interface may come back with another index, so that a scope is looked up anew.
            look_up = _source_of if "%" in source else _known_source_of
            self.same = (look_up(self._family, is_dual, source), *self._ecn)

    def each(self, items: list[Any], form: Callable[[Messages], _T]) -> list[_T]:
        """Return what each of `items`, pairs and packets, has, in the form that `form` gives.

        Raises:
            ValueError: A packet has no destination. `refuse` finds out which one.
        """
        known: dict[str | None, _T] = {}
        forms = []
        for item in items:
            if isinstance(item, Packet):
                address = item
            else:
                _, address = item
            local = address._local if isinstance(address, Packet) else ""
            made = known.get(local)
            if made is None:
                made = form(self.of(address))
                if local and not local.startswith("fe"):  # link-local ones need their interface
                    known[local] = made
            forms.append(made)
        return forms

    def of(self, address: Any) -> Messages:
        """Return what a packet to `address` has: perhaps a `Packet`, that it answers.

        Raises:
            ValueError: The packet has no destination.
        """
        if not self.replies or not isinstance(address, Packet):
            return self.same
        local = address._local
        if local is None:
            raise ValueError(NO_DESTINATION)
        host = _packed(self._family, local)
        if host is None:
            raise ValueError(f"it was sent to {local}, which is of another family than the socket")
        if _is_multicast(host):
            return self._ecn  # as a source it is EINVAL
        interface = (address.interface or 0) if _is_link_local(host) else 0
        return (_pktinfo(host, interface), *self._ecn)


def _why_not(sock: socket.socket, replies: bool, has_source: bool, has_ecn: bool) -> ValueError:
    wanted = {"reply_from_destination=": replies, "source=": has_source, "ecn=": has_ecn}
    names = " and ".join(name for name, is_wanted in wanted.items() if is_wanted)
    if replies and has_source:
        return ValueError(f"{names} can't go together: both say where packets come from")
    if family_of(sock) not in (_INET, _INET6):
        return ValueError(
            f"{names} is for sockets of AF_INET and AF_INET6, and this one is of "
            f"{sock.family!r}; send without it"
        )
    return ValueError(f"{names} needs Linux; send without it")


@lru_cache(256)  # calls have few: an address or two, and few codepoints
def pack(messages: Messages) -> bytes:
    """Return control messages as the kernel reads them (cmsg(3)), each padded to whole words."""
    packed = b""
    for level, kind, data in messages:
        head = _HEADER.pack(_HEADER.size + len(data), level, kind)
        packed += head + data + bytes(-len(data) % struct.calcsize("@n"))
    return packed


def _packed(family: int, host: str) -> bytes | None:
    """Return the bytes of a numeric address in a socket's form, or None if it can't be one."""
    for version in (_INET, _INET6):
        try:
            packed = socket.inet_pton(version, host)
        except (OSError, ValueError):  # the latter for a NUL in it, or a surrogate
            continue
        if version == family:
            return packed
        return _MAPPED + packed if family == _INET6 else None
    return None


def _is_multicast(host: bytes) -> bool:
    """Whether an address is one of IPv6's groups, or of IPv4's in its form."""
    return len(host) == 16 and (host[0] == 0xFF or (host[:12] == _MAPPED and host[12] >> 4 == 14))


def _is_link_local(host: bytes) -> bool:
    """Whether an address is in fe80::/10, so that an interface is a part of it."""
    return len(host) == 16 and host[0] == 0xFE and host[1] >> 6 == 2


def _pktinfo(host: bytes, interface: int = 0) -> Ancillary:
    """Return the message that says where a packet comes from.

    An interface would also say where it goes out. 0 leaves that to the routes.
    """
    if len(host) == 4:
        return SOL_IP, IP_PKTINFO, struct.pack("=i4s4x", interface, host)
    return SOL_IPV6, IPV6_PKTINFO, host + struct.pack("=I", interface)


def _source_of(family: int, is_dual: bool, source: str) -> Ancillary:
    host, percent, zone = source.partition("%")
    packed = _packed(family, host)
    is_ipv4 = percent == "" and _packed(_INET, host) is not None
    if packed is None and _packed(_INET6, host) is None:
        raise ValueError(
            f"source is {source!r}, which is not a numeric address; give one of this machine's"
        )
    if packed is None or (is_ipv4 and family == _INET6 and not is_dual):
        raise ValueError(
            f"source is {source!r}, which is not of the socket's family; give one that is"
        )
    if not percent:
        return _pktinfo(packed)
    if len(packed) == 4 or _packed(_INET, host) is not None:
        raise ValueError(f"source is {source!r}, and an IPv4 address has no scope; leave it out")
    try:
        interface = scope_id_of(zone)
    except ValueError as error:
        raise ValueError(f"source is {source!r}: {error}") from None
    return _pktinfo(packed, interface if _is_link_local(packed) else 0)


_known_source_of = lru_cache(256)(_source_of)  # as many as one machine may have, or so


def _ecn_of(sock: socket.socket, is_dual: bool, ecn: int) -> Messages:
    fix = "give an ECN codepoint, 0 to 3"
    number = whole_number("ecn", ecn, 0, fix)
    if number > 3:
        raise ValueError(f"ecn is {number}; {fix}")
    # The message replaces the whole byte, of which the other six bits are the socket's DSCP.
    messages = []
    if family_of(sock) == _INET or is_dual:
        tos = sock.getsockopt(SOL_IP, IP_TOS) & ~3 | number
        messages.append((SOL_IP, IP_TOS, _INT.pack(tos)))
    if family_of(sock) == _INET6:
        tclass = sock.getsockopt(SOL_IPV6, IPV6_TCLASS) & ~3 | number
        messages.append((SOL_IPV6, IPV6_TCLASS, _INT.pack(tclass)))
    return tuple(messages)
