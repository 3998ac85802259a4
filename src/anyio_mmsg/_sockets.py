"""Opening datagram sockets, closing them, and what the kernel tells of them."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import anyio

from ._batch import whole_number
from ._system.platform import ON_LINUX
from ._libc import (
    IP_MULTICAST_ALL,
    IPV6_MULTICAST_ALL,
    MCAST_JOIN_GROUP,
    MCAST_JOIN_SOURCE_GROUP,
    MEMINFO,
    MEMINFO_DROPS,
    MEMINFO_RCVBUF,
    MEMINFO_RMEM_ALLOC,
    SO_MEMINFO,
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    group_request,
)


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


async def open_udp_socket(
    local_host: str | None = None,
    local_port: int = 0,
    *,
    family: int = socket.AF_UNSPEC,
    reuse_address: bool = False,
    reuse_port: bool = False,
    receive_buffer_size: int | None = None,
    send_buffer_size: int | None = None,
    multicast_groups: Iterable[MulticastGroup | str] | MulticastGroup | str = (),
) -> socket.socket:
    """Open a UDP socket that the receive functions take: bound and nonblocking.

    Args:
        local_host: Address or name of this machine to receive at. None: all of its IPv4
            addresses, or with ``family=socket.AF_INET6`` all of both versions. If there are groups
            to join, None or a group's address: one of this machine's own hears no group.
        local_port: Port, 0 for any free one.
        family: `socket.AF_INET` or `socket.AF_INET6`, to choose where a name has both.
        reuse_address: Set SO_REUSEADDR. Of sockets that are bound to one multicast group's port
            so, each gets every packet. Set by itself if there are groups to join.
        reuse_port: Set SO_REUSEPORT. Of sockets that are bound to one port so, in any number of
            processes, each gets a share of the senders (socket(7)).
        receive_buffer_size: Bytes of the kernel's buffer for what was not read yet. Linux grants
            twice as many, and charges a packet of 1232 bytes some 2,300. Where the process may
            (CAP_NET_ADMIN), more than net.core.rmem_max allows. If fewer are granted, a
            RuntimeWarning tells how many, and what to do.
        send_buffer_size: The same for what was not sent yet, and net.core.wmem_max.
        multicast_groups: Groups to join, of the socket's family: addresses, or `MulticastGroup`s
            to say more.

    Raises:
        OSError: No such host (`socket.gaierror`); the address is in use, or not this machine's;
            a group can't be joined, for want of a route or an interface.
        TypeError: A number is none.
        ValueError: An argument is none of what is said above, or this platform can't do it.
    """
    if isinstance(multicast_groups, (str, MulticastGroup)):
        multicast_groups = [multicast_groups]
    groups = [g if isinstance(g, MulticastGroup) else MulticastGroup(g) for g in multicast_groups]
    if family not in (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6):
        raise ValueError(f"family is {family!r}; give socket.AF_INET or socket.AF_INET6")
    if whole_number("local_port", local_port, 0, "give 0 to 65535") > 65535:
        raise ValueError(f"local_port is {local_port}; give 0 to 65535, 0 for any free one")
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("this platform has no SO_REUSEPORT; open the socket without reuse_port")
    for name, size in (("receive", receive_buffer_size), ("send", send_buffer_size)):
        if size is not None:
            fix = "give bytes, at most 1,073,741,823 (half a C int's), or None for the default"
            if whole_number(f"{name}_buffer_size", size, 1, fix) >= 2**30:
                raise ValueError(f"{name}_buffer_size is {size}; {fix}")
    kind, address = await _resolve(local_host, local_port, family)
    joins = [_join_option(group, kind) for group in groups]
    sock = socket.socket(kind, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if reuse_address or groups:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if kind == socket.AF_INET6 and not local_host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if receive_buffer_size is not None:
            _set_buffer(sock, "receive", receive_buffer_size)
        if send_buffer_size is not None:
            _set_buffer(sock, "send", send_buffer_size)
        sock.bind(address)
        for group, (level, option, value) in zip(groups, joins, strict=True):
            try:
                sock.setsockopt(level, option, value)
            except OSError as error:
                raise OSError(error.errno, f"joining {group}: {error.strerror}") from error
        if joins and ON_LINUX:  # else it hears the groups of all sockets of the machine (ip(7))
            everybodys = IPV6_MULTICAST_ALL if kind == socket.AF_INET6 else IP_MULTICAST_ALL
            with contextlib.suppress(OSError):  # IPv6 has it since Linux 4.20
                sock.setsockopt(joins[0][0], everybodys, 0)
    except BaseException:
        sock.close()
        raise
    return sock


async def _resolve(host: str | None, port: int, family: int) -> tuple[int, Any]:
    if not host:
        if family == socket.AF_INET6:
            return socket.AF_INET6, ("::", port)
        return socket.AF_INET, ("", port)
    found = await anyio.getaddrinfo(
        host, port, family=family, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
    )
    # They are all addresses of that host; the first is the system's preference (RFC 6724). AnyIO
    # writes an IPv6 scope into the host, where bind(2) understands it too.
    kind, _, _, _, address = found[0]
    return kind, address


_BUFFERS = {
    "receive": (socket.SO_RCVBUF, SO_RCVBUFFORCE, "net.core.rmem_max"),
    "send": (socket.SO_SNDBUF, SO_SNDBUFFORCE, "net.core.wmem_max"),
}


_FULL = {"receive": "are lost", "send": "wait for it, or are not sent"}


def _set_buffer(sock: socket.socket, which: str, size: int) -> None:
    option, force, limit = _BUFFERS[which]
    # Linux doubles what it is given, to have room for its own books, and tells the double.
    factor = 2 if ON_LINUX else 1
    sock.setsockopt(socket.SOL_SOCKET, option, size)
    granted = sock.getsockopt(socket.SOL_SOCKET, option) // factor
    if granted < size and ON_LINUX:
        with contextlib.suppress(PermissionError):
            sock.setsockopt(socket.SOL_SOCKET, force, size)
        granted = sock.getsockopt(socket.SOL_SOCKET, option) // factor
    if granted < size:
        how = f"sysctl -w {limit}={size}" if ON_LINUX else "the system's limit on socket buffers"
        warnings.warn(
            f"the system granted a {which} buffer of {granted:,} bytes instead of {size:,}, and "
            f"packets that find no room {_FULL[which]}. Raise it: {how}",
            RuntimeWarning,
            stacklevel=3,
        )


def _join_option(group: MulticastGroup, family: int) -> tuple[int, int, bytes]:
    """Check a group; return level, option and value of the setsockopt that joins it."""
    try:
        address = ipaddress.ip_address(group.group)
        source = None if group.source is None else ipaddress.ip_address(group.source)
    except ValueError as error:
        raise ValueError(f"{group}: {error}; give numeric addresses") from None
    version = 6 if family == socket.AF_INET6 else 4
    if not address.is_multicast:
        raise ValueError(
            f"{group.group} is no multicast address; give one of 224.0.0.0/4, ff00::/8"
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
    index = _interface_index(group.interface)
    level = socket.IPPROTO_IPV6 if version == 6 else socket.IPPROTO_IP
    if ON_LINUX:
        option = MCAST_JOIN_SOURCE_GROUP if source else MCAST_JOIN_GROUP
        from_one = None if source is None else source.packed
        return level, option, group_request(index, address.packed, from_one)
    if source is not None:
        add: int | None = getattr(socket, "IP_ADD_SOURCE_MEMBERSHIP", None)
        if add is None or version == 6 or index:
            raise ValueError(f"{group}: this platform can't join one source so; leave source out")
        return level, add, address.packed + bytes(4) + source.packed  # struct ip_mreq_source
    if version == 6:
        return level, socket.IPV6_JOIN_GROUP, address.packed + struct.pack("@I", index)
    # struct ip_mreqn, which names the interface by its index
    return level, socket.IP_ADD_MEMBERSHIP, address.packed + bytes(4) + struct.pack("@i", index)


def _interface_index(interface: str | int | None) -> int:
    if interface is None:
        return 0
    names = {name: index for index, name in socket.if_nameindex()}
    if interface in names:
        return names[str(interface)]
    if not isinstance(interface, bool) and interface in names.values():
        return int(interface)
    raise ValueError(f"there is no interface {interface!r}; there are {', '.join(names)}")


def close_socket(sock: socket.socket) -> None:
    """Close a socket that a task may be waiting for: tell the event loop first."""
    if sock.fileno() >= 0:
        notify_closing = getattr(anyio, "notify_closing", None)  # since AnyIO 4.10
        if notify_closing is not None:
            notify_closing(sock)
        sock.close()


class SocketMemory(NamedTuple):
    """What the kernel tells of a socket's receive buffer.

    Attributes:
        used: Bytes that wait in it, as the kernel counts them.
        size: Bytes that it takes, counted so.
        drops: Packets that were dropped for want of room (or for a bad checksum, found when
            read) since the socket was opened, modulo 2**32.
    """

    used: int
    size: int
    drops: int


def socket_memory(sock: socket.socket) -> SocketMemory | None:
    """Ask the kernel about a socket's receive buffer; None where it does not tell."""
    if not ON_LINUX:
        return None
    try:
        numbers = MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO.size))
    except (OSError, struct.error):  # before Linux 4.12, or what emulates one
        return None
    return SocketMemory(
        numbers[MEMINFO_RMEM_ALLOC], numbers[MEMINFO_RCVBUF], numbers[MEMINFO_DROPS]
    )
