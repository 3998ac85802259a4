"""Socket addresses: from sockaddr to what `socket.recvfrom` shows, and back. Nothing else."""

from __future__ import annotations

import operator
import os
import socket
import struct
from typing import Any, SupportsIndex

from .._packets.packet import Address

SOCKADDR_SIZE = 128
"""Bytes of sockaddr_storage: room for the address of any family (RFC 3493 section 3.10)."""

_AF_UNIX = getattr(socket, "AF_UNIX", None)
FAMILIES = {int(socket.AF_INET), int(socket.AF_INET6), _AF_UNIX}
"""Whose addresses are known here."""

_FAMILY = struct.Struct("=H")
_INET = struct.Struct("!2xH4s8x")  # family, port, address, padding
_INET6 = struct.Struct("!2xHI16s")  # family, port, flow info, address; the scope id follows
_SCOPE_ID = struct.Struct("=I")  # in the host's byte order, unlike the rest

_PATH_SIZE = 108  # of sun_path; the NUL at the end of a path has to fit, or not (unix(7), BUGS)


def decode_sockaddr(raw: bytes) -> Address:
    """Decode a sockaddr, cut to its length, into what `socket.recvfrom` gives for it.

    None for an empty one, a sender without a name, and for one that is shorter than its family's.
    A family other than AF_INET, AF_INET6 and AF_UNIX gives ``(family, bytes)``, as CPython does
    for families that it does not know.
    """
    if len(raw) < _FAMILY.size:
        return None
    (family,) = _FAMILY.unpack_from(raw)
    if family == socket.AF_INET:
        if len(raw) < _INET.size:
            return None
        port, host = _INET.unpack_from(raw)
        return socket.inet_ntop(socket.AF_INET, host), port
    if family == socket.AF_INET6:
        if len(raw) < _INET6.size + _SCOPE_ID.size:
            return None
        port, flowinfo, host = _INET6.unpack_from(raw)
        (scope_id,) = _SCOPE_ID.unpack_from(raw, _INET6.size)
        return socket.inet_ntop(socket.AF_INET6, host), port, flowinfo, scope_id
    name = raw[_FAMILY.size :]
    if family == _AF_UNIX:
        if name.startswith(b"\0"):
            return name  # abstract: every byte counts (unix(7))
        return os.fsdecode(name.partition(b"\0")[0])
    return family, name


def encode_sockaddr(family: int, address: Address) -> bytes:
    """Encode an address of a socket's family, in the form of `socket.sendto`, cut to its length.

    None, the peer of a connected socket, is an empty one. Names are not looked up: that blocks.

    Raises:
        TypeError: The address is not of the shape that its family has.
        ValueError: A part of it is out of range, or of another family, or a name.
    """
    if address is None:
        return b""
    if family == socket.AF_INET:
        if not isinstance(address, tuple) or len(address) != 2:
            raise TypeError(f"address is {address!r}; give (host, port) on an AF_INET socket")
        return inet_sockaddr(_packed(socket.AF_INET, address[0]), _port(address[1]))
    if family == socket.AF_INET6:
        if not isinstance(address, tuple) or not 2 <= len(address) <= 4:
            raise TypeError(
                f"address is {address!r}; give (host, port), or (host, port, flowinfo, "
                f"scope_id), on an AF_INET6 socket"
            )
        parts: tuple[Any, ...] = (*address, 0, 0)
        host, port, flowinfo, scope_id = parts[:4]
        flowinfo = _number("flowinfo", flowinfo, 0xFFFFF)  # 20 bits (RFC 8200 section 6)
        scope_id = _number("scope_id", scope_id, 0xFFFFFFFF)
        if has_zone(address):
            host, _, zone = str(host).partition("%")  # as RFC 4007 section 11 writes it
            index = scope_id_of(zone)
            if scope_id not in (0, index):
                raise ValueError(f"address is {address!r}, which has two scopes; give one")
            scope_id = index
        return inet_sockaddr(_packed(socket.AF_INET6, host), _port(port), flowinfo, scope_id)
    if family == _AF_UNIX:
        if not isinstance(address, (str, bytes)):
            raise TypeError(f"address is {address!r}; give a path, or an abstract name as bytes")
        try:
            name = os.fsencode(address)
        except UnicodeEncodeError as error:
            raise ValueError(f"address is {address!r}, which is not a path: {error}") from None
        if len(name) > _PATH_SIZE:
            raise ValueError(f"address is {address!r}; a unix socket's has at most 108 bytes")
        # An empty one stays empty, which the system refuses: with a NUL it would be abstract.
        if name and not name.startswith(b"\0") and len(name) < _PATH_SIZE:
            name += b"\0"
        return _FAMILY.pack(family) + name
    raise unknown_family(family)


def unknown_family(family: int) -> ValueError:
    return ValueError(
        f"the socket's family is {family}; packets can be sent to addresses of AF_INET, AF_INET6 "
        f"and AF_UNIX; to others connect the socket and give None"
    )


def has_zone(address: Address) -> bool:
    return isinstance(address, tuple) and isinstance(address[0], str) and "%" in address[0]


def inet_sockaddr(host: bytes, port: int = 0, flowinfo: int = 0, scope_id: int = 0) -> bytes:
    """Pack a sockaddr_in for 4 bytes of host, a sockaddr_in6 for 16."""
    if len(host) == 4:
        return _FAMILY.pack(socket.AF_INET) + _INET.pack(port, host)[2:]
    head = _FAMILY.pack(socket.AF_INET6) + _INET6.pack(port, flowinfo, host)[2:]
    return head + _SCOPE_ID.pack(scope_id)


def _packed(family: int, host: object) -> bytes:
    if not isinstance(host, str):
        raise TypeError(f"host is {host!r}; give a numeric address as str")
    packed = _numeric(family, host)
    if packed is not None:
        return packed
    if family == socket.AF_INET:
        wrong, fix = "IPv6", "an AF_INET6 socket sends there"
        other = _numeric(socket.AF_INET6, host)
    else:
        wrong, fix = "IPv4", f"write it as '::ffff:{host}' if the socket is not IPv6 only"
        other = _numeric(socket.AF_INET, host)
    if other is not None:
        raise ValueError(f"host is {host!r}, {wrong}, which is not the socket's; {fix}")
    raise ValueError(
        f"host is {host!r}, which is not a numeric address; look names up before, with "
        f"anyio.getaddrinfo"
    )


def _numeric(family: int, host: str) -> bytes | None:
    try:
        return socket.inet_pton(family, host)
    except (OSError, ValueError):  # the latter for a NUL in it, or a surrogate
        return None


def scope_id_of(zone: str) -> int:
    """Return the index of an interface, given by name or number.

    Raises:
        ValueError: This machine has no interface of that name.
    """
    if zone.isascii() and zone.isdigit() and len(zone) <= 10:
        return _number("scope_id", int(zone), 0xFFFFFFFF)
    try:
        return socket.if_nametoindex(zone)
    except (OSError, ValueError):
        raise ValueError(f"this machine has no interface {zone!r}") from None


def _port(port: SupportsIndex) -> int:
    # 0 too: a sender may forge it, and the system's refusal is then that one packet's error.
    return _number("port", port, 0xFFFF)


def _number(name: str, value: SupportsIndex, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; give an int, 0 to {most}") from None
    if not 0 <= number <= most:
        raise ValueError(f"{name} is {value}; give 0 to {most}")
    return number
