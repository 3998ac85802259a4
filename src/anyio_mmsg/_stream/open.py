"""Opening datagram sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, TypeAlias

import anyio

from .._arguments import whole_number
from .._compat import checkpoint
from .._system.deaf import hear_again, hear_nothing
from .._system.failures import named
from .._system.memory import discard_waiting, most_waiting
from .configure import Options
from .multicast import (
    MulticastGroup,
    Outgoing,
    as_groups,
    check_bound_to,
    hear_no_other_groups,
    join,
    membership,
)

_Found: TypeAlias = tuple[int, Any]
"""A family, and an address of it as bind(2) and connect(2) take it."""


async def open_udp_socket(
    local_host: str | None = None,
    local_port: int = 0,
    *,
    remote_host: str | None = None,
    remote_port: int | None = None,
    family: int = socket.AF_UNSPEC,
    v6only: bool | None = None,
    reuse_address: bool = False,
    reuse_port: bool = False,
    receive_buffer_size: int | None = None,
    send_buffer_size: int | None = None,
    multicast_groups: Iterable[MulticastGroup | str] | MulticastGroup | str = (),
    multicast_ttl: int | None = None,
    multicast_loop: bool | None = None,
    multicast_interface: str | int | None = None,
    timestamps: bool = False,
    destinations: bool = False,
    ecn: bool = False,
    hop_limits: bool = False,
    gro: bool = False,
    icmp_errors: bool = False,
    dont_fragment: bool = False,
) -> socket.socket:
    """Open a UDP socket that the receive functions take: bound and nonblocking.

    A checkpoint, always, before anything is opened.

    Args:
        local_host: Address or name of this machine to receive at. None: all of its IPv4
            addresses, or with ``family=socket.AF_INET6`` all of both versions; with a
            `remote_host` those of its version. If there are groups to join, None or the group's
            address: on Linux a socket that is bound to one of this machine's own hears no group.
        local_port: Port, 0 for any free one.
        remote_host: Address or name of the one peer to talk to. The socket is connected then: it
            receives from that peer alone, from its first packet on; `send_mmsg` takes None for
            its address, and errors that ICMP reports are raised.
        remote_port: The peer's port, 1 to 65535.
        family: `socket.AF_INET` or `socket.AF_INET6`, to choose where a name has both.
        v6only: Whether an IPv6 socket leaves IPv4 to others (IPV6_V6ONLY). None: the system's
            default; with `local_host` None, no.
        reuse_address: Set SO_REUSEADDR. Sockets that are bound with it to the port of one
            multicast group all get every packet. It is always set if there are groups to join. On
            Linux, processes of other users can then bind the same port in the same way, and the
            last one gets the packets to this machine's own addresses.
        reuse_port: Set SO_REUSEPORT. Sockets that are bound to one port with it, in any number of
            processes of one user, each get a share of the senders (socket(7)).
        receive_buffer_size: Bytes of the kernel's buffer for packets not read yet. Linux grants
            twice as many, and charges a packet of 1232 bytes some 2,300. A process with
            CAP_NET_ADMIN may have more than net.core.rmem_max. If fewer are granted, a
            RuntimeWarning, and the logger "anyio_mmsg.system", say how many, and what to do.
        send_buffer_size: The same for packets not sent yet, and net.core.wmem_max.
        multicast_groups: Groups to join, of the socket's family: addresses, or `MulticastGroup`s
            to say more.
        multicast_ttl: TTL, or hop limit, of packets that are sent to groups: 0 keeps them on this
            machine. None for the system's default, which is 1: this network.
        multicast_loop: Whether this machine hears its own packets to groups that it has joined.
            None for the system's default, which is yes.
        multicast_interface: The name or index of the interface that packets to groups leave by.
            None leaves the choice to the system's routes.
        timestamps: Have the kernel stamp packets as they come in: `Packet.timestamp`. This and
            the next three are read from batches that were made with ``ancillary=True``; Linux.
        destinations: Have the kernel report `Packet.destination` and `Packet.interface`: for
            servers at all addresses of a machine, and at groups. `send_mmsg` answers from there
            with ``reply_from_destination=True``.
        ecn: Have the kernel report `Packet.ecn`.
        hop_limits: Have the kernel report `Packet.hop_limit`.
        gro: Have the kernel coalesce packets of one size from one sender (UDP_GRO, Linux 5.0),
            which makes them cheaper where a sender uses GSO, or a network card brings a burst of
            one flow. Receive them into batches that were made with ``gro=True``; others are
            refused: at their first receive from the socket, after `configure_udp_socket`, and
            after a packet that was longer than its slot.
        icmp_errors: Have the kernel keep errors of packets that were sent, as reported by the
            network (ICMP) or by this machine (IP_RECVERR, Linux): a port where nobody listens, a
            host without a route, a packet that is too long for the path. `recv_mmsg` raises each
            as an `IcmpError` when there is no packet to read, `PacketReceiver` counts it and
            gives it to `on_error`, `recv_errors_nowait` returns them. The error of an earlier
            packet makes no other one fail: `send_mmsg` sends that one again at once. A packet
            that is too long both fails, and is reported with the path's MTU.
        dont_fragment: Send no fragments (IP_MTU_DISCOVER, Linux): a packet that is too long for
            the path, as far as it is known, is EMSGSIZE.

    Raises:
        OSError: No such host (`socket.gaierror`); the address is in use, or not this machine's,
            or the port not for this user; there is no route to the peer; a group can't be joined,
            because there is no route or interface, or because of a limit of the system. The
            message names the address, or the group and the limit.
        TypeError: A numeric argument is not an int, or a boolean one not a bool.
        ValueError: An argument is not as described above, or this platform can't do it.
    """
    groups = as_groups(multicast_groups)
    if family not in (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6):
        raise ValueError(f"family is {family!r}; give socket.AF_INET or socket.AF_INET6")
    local_port = whole_number("local_port", local_port, 0, "give 0 to 65535")
    if local_port > 65535:
        raise ValueError(f"local_port is {local_port}; give 0 to 65535, 0 for any free one")
    if bool(remote_host) != (remote_port is not None):
        raise ValueError("give remote_host and remote_port together, or neither")
    if remote_port is not None:
        remote_port = whole_number("remote_port", remote_port, 1, "give 1 to 65535")
        if remote_port > 65535:
            raise ValueError(f"remote_port is {remote_port}; give 1 to 65535")
    if v6only is not None and not isinstance(v6only, bool):
        raise TypeError(f"v6only is a {type(v6only).__name__}; give a bool, or None")
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("this platform has no SO_REUSEPORT; open the socket without reuse_port")
    switches = {
        "timestamps": timestamps,
        "destinations": destinations,
        "ecn": ecn,
        "hop_limits": hop_limits,
        "gro": gro,
        "icmp_errors": icmp_errors,
        "dont_fragment": dont_fragment,
    }
    shared = {"reuse_address": reuse_address, "reuse_port": reuse_port}
    for name, value in (shared | switches).items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} is a {type(value).__name__}; give True or False")
    options = Options(
        **{name: value or None for name, value in switches.items()},
        receive_buffer_size=receive_buffer_size,
        send_buffer_size=send_buffer_size,
    )
    options.check()
    outgoing = Outgoing.check(multicast_ttl, multicast_loop, multicast_interface)
    await checkpoint()  # uvloop's look-up of a numeric address is not a checkpoint
    kind, local, remote = await _resolve(local_host, local_port, remote_host, remote_port, family)
    if v6only is not None and kind != socket.AF_INET6:
        raise ValueError("v6only is for IPv6 sockets; give family=socket.AF_INET6 as well")
    memberships = [membership(group, kind) for group in groups]
    check_bound_to(local[0], memberships)

    sock = socket.socket(kind, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if reuse_address or groups:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        dual_stack = False
        if kind == socket.AF_INET6:
            if v6only is not None or not local_host:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bool(v6only))
            dual_stack = not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        options.apply(sock)
        outgoing.apply(sock, kind, dual_stack)
        if groups:
            hear_no_other_groups(sock, kind)
        deaf = remote is not None and hear_nothing(sock)
        try:
            sock.bind(local)
        except OSError as error:
            raise named(error, "binding to", local) from error
        join(sock, memberships)
        if remote is not None:
            try:
                sock.connect(remote)
            except OSError as error:
                raise named(error, "connecting to", remote) from error
            if deaf:
                hear_again(sock)
            else:  # what came before may be anybody's
                discard_waiting(sock, most_waiting(sock), [])
    except BaseException:
        sock.close()
        raise
    return sock


async def _resolve(
    local_host: str | None,
    local_port: int,
    remote_host: str | None,
    remote_port: int | None,
    family: int,
) -> tuple[int, Any, Any]:
    """Return the family of the socket, the address to bind, and that to connect to, or None."""
    remotes: list[_Found] = []
    if remote_host and remote_port is not None:
        remotes = await _look_up(remote_host, remote_port, family, 0)
    if local_host:
        locals_ = await _look_up(local_host, local_port, family, socket.AI_PASSIVE)
    elif family == socket.AF_INET6 or (remotes and remotes[0][0] == socket.AF_INET6):
        locals_ = [(socket.AF_INET6, ("::", local_port))]
    else:
        locals_ = [(socket.AF_INET, ("0.0.0.0", local_port))]
    if not remotes:
        kind, local = locals_[0]
        return kind, local, None
    for kind, remote in remotes:
        for other, local in locals_:
            if kind == other:
                return kind, local, remote
    raise ValueError(
        f"{local_host} and {remote_host} have no address of the same IP version; give a "
        f"local_host of the other version, or None"
    )


async def _look_up(host: str, port: int, family: int, flags: int) -> list[_Found]:
    try:
        found = await anyio.getaddrinfo(
            host, port, family=family, type=socket.SOCK_DGRAM, flags=flags
        )
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"{error.strerror}: {host!r}") from None
    # They are all addresses of that host; the first is the system's preference (RFC 6724). AnyIO
    # writes an IPv6 scope into the host, where bind(2) and connect(2) understand it too.
    return [(kind, address) for kind, _, _, _, address in found]
