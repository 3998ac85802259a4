"""Multicast: groups to join, and how packets to groups leave."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .._arguments import whole_number
from .._system.platform import ON_LINUX, ON_WINDOWS
from .._system.sockaddr import SOCKADDR_SIZE, inet_sockaddr

_IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# Options of Linux that Python does not name (linux/in.h, linux/in6.h).
_IPV6_MULTICAST_ALL = 29
_MCAST_JOIN_GROUP = 42
_MCAST_JOIN_SOURCE_GROUP = 46
_IP_MULTICAST_ALL = 49


@dataclass(frozen=True)
class MulticastGroup:
    """A multicast group to join.

    Attributes:
        group: The group's IPv4 or IPv6 address.
        interface: The name or the index of the interface to hear it on, such as "eth0"; None
            leaves the choice to the system's routes.
        source: The address of the only sender to hear (source-specific multicast, RFC 4607);
            None for all. Linux has it, and platforms whose `socket` has
            IP_ADD_SOURCE_MEMBERSHIP for IPv4.
    """

    group: str
    interface: str | int | None = None
    source: str | None = None


@dataclass(frozen=True)
class Membership:
    """A group that was checked for a socket's family, as the system wants it.

    Attributes:
        group: What the caller gave.
        address: The group's address.
        index: The interface's index, 0 for any.
        option: Level, option and value of the setsockopt that joins it.
    """

    group: MulticastGroup
    address: _IPAddress
    index: int
    option: tuple[int, int, bytes]


def as_groups(
    groups: Iterable[MulticastGroup | str] | MulticastGroup | str,
) -> list[MulticastGroup]:
    """Return the groups that a caller gave, each as a `MulticastGroup`."""
    if isinstance(groups, (str, MulticastGroup)):
        groups = [groups]
    return [g if isinstance(g, MulticastGroup) else MulticastGroup(g) for g in groups]


def membership(group: MulticastGroup, family: int) -> Membership:
    """Check a group for a socket of a family.

    Raises:
        ValueError: It is not a group, not of the family, or the platform can't join it like this.
    """
    try:
        address = ipaddress.ip_address(group.group)
        source = None if group.source is None else ipaddress.ip_address(group.source)
    except ValueError as error:
        raise ValueError(f"{group}: {error}; give numeric addresses") from None
    version = 6 if family == socket.AF_INET6 else 4
    if not address.is_multicast:
        raise ValueError(
            f"{group.group} is not a multicast address; give one of 224.0.0.0/4 or ff00::/8"
        )
    if getattr(address, "scope_id", None):
        raise ValueError(
            f"{group.group} has a scope; give it as the interface of a MulticastGroup"
        )
    if address.version != version or (source is not None and source.version != version):
        raise ValueError(
            f"{group} is not for the socket's IPv{version}; give family, or a local_host of "
            f"IPv{address.version}"
        )
    index = 0 if group.interface is None else interface_index(group.interface)
    return Membership(group, address, index, _join_option(group, address, index, source))


def _join_option(
    group: MulticastGroup, address: _IPAddress, index: int, source: _IPAddress | None
) -> tuple[int, int, bytes]:
    level = socket.IPPROTO_IPV6 if address.version == 6 else socket.IPPROTO_IP
    if ON_LINUX:
        # struct group_req, or group_source_req, which has one field more (RFC 3678): each
        # sockaddr_storage is aligned as for a pointer.
        request = struct.pack(f"@I0P{SOCKADDR_SIZE}s", index, inet_sockaddr(address.packed))
        if source is None:
            return level, _MCAST_JOIN_GROUP, request
        request += inet_sockaddr(source.packed).ljust(SOCKADDR_SIZE, b"\0")
        return level, _MCAST_JOIN_SOURCE_GROUP, request
    if source is not None:
        add: int | None = getattr(socket, "IP_ADD_SOURCE_MEMBERSHIP", None)
        if add is None or address.version == 6 or index:
            raise ValueError(
                f"{group}: this platform can't join a single source like this; leave source out"
            )
        return level, add, address.packed + bytes(4) + source.packed  # struct ip_mreq_source
    if address.version == 6:
        return level, socket.IPV6_JOIN_GROUP, address.packed + struct.pack("@I", index)
    return level, socket.IP_ADD_MEMBERSHIP, _ip_mreqn(address.packed, index)


def _ip_mreqn(group: bytes, index: int) -> bytes:
    """Pack the struct that names an interface by its index."""
    return group + bytes(4) + struct.pack("@i", index)


def interface_index(interface: str | int) -> int:
    """Return the index of an interface that is given by its name or index.

    Raises:
        ValueError: This machine has no interface of that name or index.
    """
    names = {name: index for index, name in socket.if_nameindex()}
    if interface in names:
        return names[str(interface)]
    if not isinstance(interface, bool) and interface in names.values():
        return int(interface)
    raise ValueError(f"this machine has no interface {interface!r}; there are {', '.join(names)}")


def check_bound_to(host: str, memberships: Sequence[Membership]) -> None:
    """Refuse a bound address at which the groups can't be heard.

    Linux delivers a packet by its destination: a socket bound to an address of this machine gets
    no packet for a group, and a socket bound to a group gets none for another group. Windows,
    where a socket can't be bound to a group, delivers them all.

    Raises:
        ValueError: The socket would hear nothing of a group.
    """
    if not ON_LINUX:
        return
    bound = ipaddress.ip_address(host.partition("%")[0])
    for member in memberships:
        if not bound.is_unspecified and bound != member.address:
            raise ValueError(
                f"a socket bound to {host} hears nothing of the group {member.address} on Linux; "
                f"leave local_host out (to choose the network, give the group's interface), or "
                f"give the group's address"
            )


def hear_no_other_groups(sock: socket.socket, family: int) -> None:
    """Have a socket hear only the groups that it joins itself. To be called before it is bound.

    Otherwise, on Linux, it hears the groups of all sockets of the machine (ip(7),
    IP_MULTICAST_ALL). An IPv6 socket never hears other IPv4 groups.
    """
    if not ON_LINUX:
        return
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    else:
        with contextlib.suppress(OSError):  # since Linux 4.20
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)


def join(sock: socket.socket, memberships: Sequence[Membership]) -> None:
    """Join groups.

    Raises:
        OSError: A group can't be joined; it names the group, and the limit if that is the reason.
    """
    joined = set()
    for member in memberships:
        try:
            sock.setsockopt(*member.option)
        except OSError as error:
            limit = _limit(member, (member.address, member.index) in joined)
            why = f" ({limit})" if limit and error.errno in (errno.ENOBUFS, errno.ENOMEM) else ""
            raise OSError(error.errno, f"joining {member.group}: {error.strerror}{why}") from error
        joined.add((member.address, member.index))


def _limit(member: Membership, joined_before: bool) -> str:
    """Name the setting that limits how many groups, or sources of one, a socket joins on Linux."""
    if not ON_LINUX:
        return ""
    ipv6 = member.address.version == 6
    if member.group.source is not None and joined_before:
        name = "net.ipv6.mld_max_msf" if ipv6 else "net.ipv4.igmp_max_msf"
        return f"{name} limits the sources of one group on a socket; raise it with sysctl -w"
    if ipv6:  # only memory limits it
        return "net.core.optmem_max limits the groups of one socket; raise it with sysctl -w"
    return (
        "net.ipv4.igmp_max_memberships limits the groups of one socket, 20 by default; raise it "
        "with sysctl -w, or open more sockets"
    )


@dataclass(frozen=True)
class Outgoing:
    """How packets to multicast groups leave; None leaves an option as the system has it.

    Attributes:
        ttl: How many routers may pass one on, plus 1: the TTL, or hop limit.
        loop: Whether sockets of this machine hear them.
        interface: The index of the interface that they leave by.
    """

    ttl: int | None
    loop: bool | None
    interface: int | None

    @classmethod
    def check(cls, ttl: int | None, loop: bool | None, interface: str | int | None) -> Outgoing:
        """Check what a caller gave.

        Raises:
            TypeError: `ttl` is not an int, `loop` not a bool.
            ValueError: `ttl` is not 0 to 255, or this machine does not have the interface.
        """
        if ttl is not None:
            fix = "give 0 (this machine) to 255, or None for the system's default"
            ttl = whole_number("multicast_ttl", ttl, 0, fix)
            if ttl > 255:
                raise ValueError(f"multicast_ttl is {ttl}; {fix}")
        if loop is not None and not isinstance(loop, bool):
            raise TypeError(f"multicast_loop is a {type(loop).__name__}; give a bool, or None")
        index = None if interface is None else interface_index(interface)
        return cls(ttl, loop, index)

    def apply(self, sock: socket.socket, family: int, dual_stack: bool) -> None:
        """Set the options; on a `dual_stack` socket also those for mapped IPv4 groups."""
        if family == socket.AF_INET or (dual_stack and ON_LINUX):
            for option, value in (
                (socket.IP_MULTICAST_TTL, self.ttl),
                (socket.IP_MULTICAST_LOOP, self.loop),
                (socket.IP_MULTICAST_IF, self._interface_of_ipv4()),
            ):
                if value is not None:
                    sock.setsockopt(socket.IPPROTO_IP, option, value)
        if family == socket.AF_INET6:
            for option, value in (
                (socket.IPV6_MULTICAST_HOPS, self.ttl),
                (socket.IPV6_MULTICAST_LOOP, self.loop),
                (socket.IPV6_MULTICAST_IF, self.interface),
            ):
                if value is not None:
                    sock.setsockopt(socket.IPPROTO_IPV6, option, value)

    def _interface_of_ipv4(self) -> bytes | None:
        if self.interface is None:
            return None
        if ON_WINDOWS:  # for which an address of 0.0.0.0/8 is an index
            return struct.pack("!I", self.interface)
        return _ip_mreqn(bytes(4), self.interface)
