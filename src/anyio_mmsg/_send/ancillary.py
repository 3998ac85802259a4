"""What packets are sent with, as control data: `SendOptions`, and the options of a whole call.

The numbers and layouts are Linux's (ip(7), ipv6(7)). On a dual-stack socket an option of the whole
call becomes two messages where IPv4's and IPv6's differ. The kernel's path for IPv4 peers, whose
addresses are mapped, ignores IPv6 messages, except IPV6_PKTINFO with a mapped address; the other
path ignores IPv4 messages. A packet's own options become only the messages of its destination's
version.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from .._arguments import whole_number
from .._packets import Packet
from .._system.addresses import sockaddrs_of
from .._system.control import (
    IP_PKTINFO,
    IP_TOS,
    IP_TTL,
    IPV6_HOPLIMIT,
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


@dataclass(frozen=True)
class SendOptions:
    """What one packet is sent with: the third part of its tuple, ``(data, address, options)``.

    An option that is None is as the call says, or else as the socket has it. Packets with equal
    options can share a run with ``gso=True``. Checked when they are sent (Linux).

    To answer by the interface that a packet came in, and from the address that it was sent to::

        SendOptions(source=packet.destination, interface=packet.interface)

    Args:
        source: The address that the packet comes from: a numeric one of this machine, of the
            version of the destination; with a ``%scope`` if it is a link-local one. It wins over
            ``reply_from_destination=True``.
        interface: The index of the interface that the packet leaves by, at least 1
            (`socket.if_nametoindex`). The routes choose only among those of that interface.
        ecn: Its ECN codepoint, 0 to 3 (RFC 3168 section 5).
        hop_limit: How many routers may pass it on: IPv6's hop limit, 0 to 255; IPv4's TTL, 1 to
            255. With 0, IPv6 packets stay on this machine.
    """

    source: str | None = None
    interface: int | None = None
    ecn: int | None = None
    hop_limit: int | None = None

    @classmethod
    def reply_to(cls, packet: Packet) -> SendOptions:
        """Return what ``reply_from_destination=True`` sends an answer to a packet with.

        They hold no memory of the packet, so a session can keep them, and send with them later::

            SendOptions.reply_to(packet)  # of a socket with destinations=True

        Args:
            packet: The packet that is answered, whose batch has ``ancillary=True``.

        Returns:
            Options with the `source` that the packet was sent to, an IPv4 one not mapped. A
            group or a broadcast address can't be one: over IPv4 it is the machine's own address
            on that network then, over IPv6 None, which leaves it to the kernel. A link-local
            `source` comes with its `interface`.

        Raises:
            TypeError: `packet` is not a `Packet`.
            ValueError: The packet came without its destination, its batch has no control data or
                some that was cut, or the packet was released.
        """
        if not isinstance(packet, Packet):
            raise TypeError(f"packet is {packet!r}; give the Packet that is answered")
        local = packet._local
        if local is None:
            raise ValueError(NO_DESTINATION)
        host = _packed(_INET6, local)
        if host is None or _is_multicast(host):
            return cls()
        return cls(local, packet.interface or None if _is_link_local(host) else None)


Place: TypeAlias = tuple[bytes, int]
"""Where packets come from: an address in the socket's form, all zeros to leave it to the kernel;
and the index of an interface, 0 to leave that to the routes."""


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
        same: The messages of every packet that answers no other one and has no options.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range, or the socket or the platform can't do it.
    """

    __slots__ = ("_ecn", "_family", "_is_dual", "_own_ecn", "_place", "_sock", "replies", "same")

    def __init__(
        self,
        sock: socket.socket,
        reply_from_destination: bool = False,
        source: str | None = None,
        ecn: int | None = None,
    ) -> None:
        self._sock = sock
        self._family = family_of(sock)
        self.replies = reply_from_destination
        if (reply_from_destination or source is not None or ecn is not None) and (
            self._family not in (_INET, _INET6)
            or (reply_from_destination and source is not None)
            or not ON_LINUX
        ):
            raise _why_not(sock, reply_from_destination, source is not None, ecn is not None)
        is_inet6 = self._family == _INET6
        self._is_dual = is_inet6 and not sock.getsockopt(SOL_IPV6, IPV6_V6ONLY)
        self._own_ecn = ecn
        self._ecn: Messages = () if ecn is None else self._ecn_of(ecn)
        self._place = None if source is None else self._place_of(source)
        self.same: Messages = self._ecn
        if self._place is not None:
            self.same = (_pktinfo(*self._place), *self._ecn)

    def each(self, items: list[Any], form: Callable[[Messages], _T]) -> list[_T]:
        """Return what each of `items`, as `parts` takes them, has, in the form that `form` gives.

        Raises:
            TypeError: The options of a packet have the wrong type.
            ValueError: They are impossible, or a packet has no destination. `refuse` finds out
                which one.
        """
        known: dict[Any, _T] = {}
        forms: list[_T] = []
        one_version = None if self._is_dual else self._family == _INET
        last: Any = object()  # the options and the address that `forms` ends with
        last_address: Any = None
        for item in items:
            if type(item) is tuple and len(item) == 3:
                _, address, options = item
            else:
                _, address, options = parts(item)
            if options is last and address is last_address:
                forms.append(forms[-1])
                continue
            local = address._local if self.replies and isinstance(address, Packet) else ""
            key: Any = local
            if options is not None:
                by_ipv4 = self._by_ipv4(address) if one_version is None else one_version
                key = local, id(options), by_ipv4  # `items` has the options, so they stay
            made = known.get(key)
            if made is None:
                made = form(self.of(address, options))
                # Link-local ones need their interface.
                if local is not None and not local.startswith("fe"):
                    known[key] = made
            forms.append(made)
            last, last_address = options, address
        return forms

    def of(self, address: Any, options: SendOptions | None = None) -> Messages:
        """Return what a packet to `address` has: perhaps a `Packet`, that it answers.

        Raises:
            TypeError: Its options have the wrong type.
            ValueError: They are impossible; or the packet has no destination to answer from.
        """
        if options is not None:
            return self._own(address, options)
        if not self.replies or not isinstance(address, Packet):
            return self.same
        place = self._place_for(address)
        return self._ecn if place is None else (_pktinfo(*place), *self._ecn)

    def _own(self, address: Any, options: SendOptions) -> Messages:
        """Return what a packet with options of its own has."""
        if not isinstance(options, SendOptions):
            raise TypeError(f"options is {options!r}; give SendOptions or None")
        if options == NO_OPTIONS:
            return self.of(address)
        if self._family not in (_INET, _INET6) or not ON_LINUX:
            raise _why_no_options(self._sock)
        by_ipv4 = self._by_ipv4(address)
        place = self._own_place(address, options, by_ipv4)
        messages = [] if place is None else [_pktinfo(*place)]
        ecn = self._own_ecn if options.ecn is None else options.ecn
        if ecn is not None:
            messages.append(self._ecn_message(_ecn_number(ecn), by_ipv4))
        if options.hop_limit is not None:
            messages.append(_hop_limit_message(options.hop_limit, by_ipv4))
        return tuple(messages)

    def _own_place(self, address: Any, options: SendOptions, by_ipv4: bool) -> Place | None:
        if options.source is not None:
            place: Place | None = self._place_of(options.source)
        else:
            place = self._place_for(address)
        if place is not None:
            if _is_ipv4(place[0]) != by_ipv4:
                raise ValueError(
                    f"source is {options.source!r}, which is of another version of IP than the "
                    f"destination; give one of the same"
                )
            if _is_multicast(place[0]):
                raise ValueError(
                    f"source is {options.source!r}, a group; give an address of this machine"
                )
        if options.interface is None:
            return place
        fix = "give an interface's index, 1 to 2,147,483,647, or None"
        index = whole_number("interface", options.interface, 1, fix)
        if index >= 2**31:
            raise ValueError(f"interface is {index}; {fix}")
        if place is None:
            unnamed = bytes(4) if by_ipv4 else bytes(16)
            return _MAPPED + unnamed if by_ipv4 and self._is_dual else unnamed, index
        if options.source is not None and place[1] not in (0, index):
            raise ValueError(
                f"interface is {index}, and the scope of source {options.source!r} is another one"
            )
        return place[0], index

    def _place_for(self, address: Any) -> Place | None:
        """Return where a packet without a source of its own comes from, None: the kernel says."""
        if not self.replies or not isinstance(address, Packet):
            return self._place
        local = address._local
        if local is None:
            raise ValueError(NO_DESTINATION)
        host = _packed(self._family, local)
        if host is None:
            raise ValueError(f"it was sent to {local}, which is of another family than the socket")
        if _is_multicast(host):
            return None  # as a source it is EINVAL
        return host, (address.interface or 0) if _is_link_local(host) else 0

    def _place_of(self, source: str) -> Place:
        if not isinstance(source, str):
            raise TypeError(f"source is {source!r}; give a numeric address of this machine as str")
        # An interface may come back with another index, so that a scope is looked up anew.
        look_up = _place_of if "%" in source else _known_place_of
        return look_up(self._family, self._is_dual, source)

    def _by_ipv4(self, address: Any) -> bool:
        """Whether a packet to `address` goes by IPv4."""
        if not self._is_dual:
            return self._family == _INET
        if isinstance(address, Packet):
            address = address.address
        try:
            peer = self._sock.getpeername() if address is None else address
        except OSError:  # it has none
            return False
        return _is_ipv4(sockaddrs_of(_INET6)[peer][8:24])  # behind family, port and flowinfo

    def _ecn_of(self, ecn: int) -> Messages:
        number = _ecn_number(ecn)
        versions = (True, False) if self._is_dual else (self._family == _INET,)
        return tuple(self._ecn_message(number, by_ipv4) for by_ipv4 in versions)

    def _ecn_message(self, number: int, by_ipv4: bool) -> Ancillary:
        # The message replaces the whole byte, of which the other six bits are the socket's DSCP.
        level, kind = (SOL_IP, IP_TOS) if by_ipv4 else (SOL_IPV6, IPV6_TCLASS)
        return level, kind, _INT.pack(self._sock.getsockopt(level, kind) & ~3 | number)


NO_OPTIONS = SendOptions()


def parts(item: Any) -> tuple[Any, Any, SendOptions | None]:
    """Return the data, the address and the options of what can be sent: a tuple, or a `Packet`.

    Raises:
        TypeError: It is neither.
        ValueError: It has too few or too many parts; or the packet is released.
    """
    if isinstance(item, Packet):
        return item.data, item, None
    data, address, *options = item
    if not options:
        return data, address, None
    (own,) = options
    return data, address, own


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


def _why_no_options(sock: socket.socket) -> ValueError:
    if family_of(sock) not in (_INET, _INET6):
        return ValueError(
            f"SendOptions is for sockets of AF_INET and AF_INET6, and this one is of "
            f"{sock.family!r}; send without it"
        )
    return ValueError("SendOptions needs Linux; send without it")


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
    """Whether an address is a group."""
    return host[-4] >> 4 == 14 if _is_ipv4(host) else host[0] == 0xFF


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


def _is_ipv4(host: bytes) -> bool:
    """Whether an address is one of IPv4, or one in IPv6's form."""
    return len(host) == 4 or host[:12] == _MAPPED


def _place_of(family: int, is_dual: bool, source: str) -> Place:
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
        return packed, 0
    if len(packed) == 4 or _packed(_INET, host) is not None:
        raise ValueError(f"source is {source!r}, and an IPv4 address has no scope; leave it out")
    try:
        interface = scope_id_of(zone)
    except ValueError as error:
        raise ValueError(f"source is {source!r}: {error}") from None
    return packed, interface if _is_link_local(packed) else 0


_known_place_of = lru_cache(256)(_place_of)  # as many as one machine may have, or so


def _ecn_number(ecn: int) -> int:
    fix = "give an ECN codepoint, 0 to 3"
    number = whole_number("ecn", ecn, 0, fix)
    if number > 3:
        raise ValueError(f"ecn is {number}; {fix}")
    return number


def _hop_limit_message(hop_limit: int, by_ipv4: bool) -> Ancillary:
    least = 1 if by_ipv4 else 0
    fix = f"give {least} to 255 to this destination"
    number = whole_number("hop_limit", hop_limit, least, fix)
    if number > 255:
        raise ValueError(f"hop_limit is {number}; {fix}")
    level, kind = (SOL_IP, IP_TTL) if by_ipv4 else (SOL_IPV6, IPV6_HOPLIMIT)
    return level, kind, _INT.pack(number)
