"""`Datagram`: what a test says of a packet, and the form in which the kernel hands it over."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from .._arguments import whole_number
from .._packets import Packet
from .._packets.packet import Address
from .._send.known import MAX_PAYLOAD, UNLIMITED
from .._send.outgoing import Payload, check_fan
from .._system.control import (
    IP_PKTINFO,
    IP_TOS,
    IP_TTL,
    IPV6_HOPLIMIT,
    IPV6_PKTINFO,
    IPV6_TCLASS,
    SOL_IP,
    SOL_IPV6,
    SOL_UDP,
    UDP_GRO,
    Ancillary,
)
from .._system.sockaddr import decode_sockaddr, encode_sockaddr
from .._system.stamps import SO_TIMESTAMPING_NEW, SO_TIMESTAMPNS_NEW

_InetAddress: TypeAlias = tuple[str, int] | tuple[str, int, int] | tuple[str, int, int, int]

Sender: TypeAlias = _InetAddress | str | bytes | None
"""Who sent a packet: ``(host, port)`` with a numeric host, for AF_INET6 also with flowinfo and
scope id; for AF_UNIX a path, or an abstract name as bytes; None for a sender without a name."""

SENDER = ("192.0.2.1", 50000)
"""Who sent a packet whose sender a test does not say. 192.0.2.0/24 is for documentation
(RFC 5737); the port is any of the ephemeral ones."""

_MAPPED = bytes(10) + b"\xff\xff"  # what precedes an IPv4 address in IPv6's form (RFC 4291)
_AF_UNIX = getattr(socket, "AF_UNIX", None)
_INT, _TIMESPEC = struct.Struct("=i"), struct.Struct("=qq")

GIVE = "give bytes, (data, address) pairs, Datagrams or Packets"


class Message(NamedTuple):
    """A message as `socket.recvmsg` gives it: one packet, or a train.

    Attributes:
        data: Its bytes.
        address: Who sent it.
        control: Its control data.
        train: Whether it says how its bytes are cut into packets.
    """

    data: bytes
    address: Address
    control: list[Ancillary]
    train: bool


@dataclass(frozen=True)
class Datagram:
    """A packet that arrives in a test, with what the kernel says about it.

    One that is longer than a slot is cut, as the kernel does it, and shows as
    `Packet.truncated`. A field that is None was not asked for: the packet comes without it.

    Args:
        data: The payload: bytes, or any object with a contiguous buffer, which is copied.
        address: The sender; see `Sender`. Nothing is looked up.
        timestamp: When the kernel took it in, in nanoseconds since the epoch.
        hardware_timestamp: When the network card took it in, in nanoseconds by its clock.
        destination: The address that it was sent to, of the same kind as `address`.
        interface: The index of the interface where it came in. The kernel reports it with the
            destination; 1 if only the destination is given.
        ecn: Its ECN codepoint, 0 to 3.
        hop_limit: What is left of its TTL or hop limit, 0 to 255.
        segment_size: For batches with ``gro=True``: `data` is a train, packets of this many
            bytes, the last perhaps shorter.

    Attributes:
        data: The bytes.
        address: The sender, in the form that `Packet.address` has.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range, too long for a datagram, or of another family
            than `address`.
    """

    data: Payload
    address: Sender = SENDER
    timestamp: int | None = field(default=None, kw_only=True)
    hardware_timestamp: int | None = field(default=None, kw_only=True)
    destination: str | None = field(default=None, kw_only=True)
    interface: int | None = field(default=None, kw_only=True)
    ecn: int | None = field(default=None, kw_only=True)
    hop_limit: int | None = field(default=None, kw_only=True)
    segment_size: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        family = _family_of(self.address)
        # Without a name it is mostly of a unix socket, whose datagrams may be longer.
        named = self.address is not None
        check_fan(MAX_PAYLOAD.get(family, UNLIMITED) if named else UNLIMITED, self.data)
        address = decode_sockaddr(encode_sockaddr(family, self.address))
        object.__setattr__(self, "data", bytes(memoryview(self.data)))
        object.__setattr__(self, "address", address)
        for name, least, most in _RANGES:
            value = getattr(self, name)
            fix = f"give {least} to {most}"
            if value is not None and whole_number(name, value, least, fix) > most:
                raise ValueError(f"{name} is {value}; {fix}")
        if self.interface is not None and self.destination is None:
            raise ValueError(
                "interface is given without destination; the kernel says both or none"
            )
        _control_of(self)  # to refuse what can't be

    @classmethod
    def copy_of(cls, packet: Packet) -> Datagram:
        """Return the `Datagram` that would arrive as `packet` did, to record traffic for tests.

        The end of a packet that was cut is lost: zeros stand for it.

        Raises:
            TypeError: `packet` is not a `Packet`.
            ValueError: The packet was released.
        """
        if not isinstance(packet, Packet):
            raise TypeError(f"packet is a {type(packet).__name__}, and has to be a Packet")
        size, wire_size = packet.size, packet.wire_size
        missing = 1 if wire_size is None else wire_size - size
        data = bytes(packet.data) + bytes(missing)
        try:
            control = {name: getattr(packet, name) for name in _CONTROL}
        except ValueError:  # there is none
            control = {}
        return cls(data, packet.address, **control)


_RANGES = (
    ("timestamp", 0, 2**63 - 1),
    ("hardware_timestamp", 1, 2**63 - 1),
    ("interface", 1, 2**31 - 1),
    ("ecn", 0, 3),
    ("hop_limit", 0, 255),
    ("segment_size", 1, 65535),
)
_CONTROL = ("timestamp", "hardware_timestamp", "destination", "interface", "ecn", "hop_limit")

DatagramLike: TypeAlias = Datagram | Packet | Payload | tuple[Payload, Sender]
"""A packet that a test has arrive: a payload, from 192.0.2.1 port 50000; a payload and its sender;
a `Datagram`; or a `Packet`, of which a copy arrives."""


def _family_of(address: Sender) -> int:
    """Return the family of a sender: of AF_INET for one without a name."""
    if isinstance(address, tuple):
        is_inet6 = len(address) > 2 or ":" in str(address[:1])
        return int(socket.AF_INET6 if is_inet6 else socket.AF_INET)
    if address is None:
        return int(socket.AF_INET)
    if isinstance(address, (str, bytes)) and _AF_UNIX is not None:
        return int(_AF_UNIX)
    raise TypeError(
        f"address is {address!r}; give (host, port), a path or abstract name of a unix socket, or "
        f"None for a sender without a name"
    )


def _control_of(datagram: Datagram) -> list[Ancillary]:
    """Return the control data of a datagram, in the order in which Linux writes it.

    Timestamp first (`sock_recv_cmsgs`, net/socket.c), then the segment size (`udp_recvmsg`), then
    what IP's options ask for (net/ipv4/ip_sockglue.c, net/ipv6/datagram.c).
    """
    messages: list[Ancillary] = []
    if datagram.timestamp is not None:
        parts = _TIMESPEC.pack(*divmod(datagram.timestamp, 1_000_000_000))
        messages.append((int(socket.SOL_SOCKET), SO_TIMESTAMPNS_NEW, parts))
    if datagram.hardware_timestamp is not None:
        parts = bytes(2 * _TIMESPEC.size)  # the kernel's timestamp and an unused one: none
        parts += _TIMESPEC.pack(*divmod(datagram.hardware_timestamp, 1_000_000_000))
        messages.append((int(socket.SOL_SOCKET), SO_TIMESTAMPING_NEW, parts))
    if datagram.segment_size is not None:
        messages.append((SOL_UDP, UDP_GRO, _INT.pack(datagram.segment_size)))
    asked = [name for name in _CONTROL[2:] if getattr(datagram, name) is not None]
    if asked and isinstance(datagram.address, (str, bytes)):
        raise ValueError(f"{asked[0]} is given, and packets of unix sockets come without it")
    destination = _packed_destination(datagram)
    is_inet6 = len(_packed_host(datagram.address) or destination or b"") == 16
    if destination is not None:
        index = _INT.pack(datagram.interface or 1)
        if is_inet6:
            messages.append((SOL_IPV6, IPV6_PKTINFO, destination + index))
        if not is_inet6 or destination[:12] == _MAPPED:  # a dual-stack socket says both
            host = destination[-4:]
            # Where answers come from. For groups it is an address of the interface, which isn't
            # known here: 0.0.0.0 leaves the choice to the routes.
            local = bytes(4) if host[0] >= 224 else host
            messages.append((SOL_IP, IP_PKTINFO, index + local + host))
    if datagram.hop_limit is not None:
        level, kind = (SOL_IPV6, IPV6_HOPLIMIT) if is_inet6 else (SOL_IP, IP_TTL)
        messages.append((level, kind, _INT.pack(datagram.hop_limit)))
    if datagram.ecn is not None:
        level, kind = (SOL_IPV6, IPV6_TCLASS) if is_inet6 else (SOL_IP, IP_TOS)
        messages.append((level, kind, _INT.pack(datagram.ecn)))
    return messages


def _packed_host(address: Sender) -> Any:
    """Return the bytes of a sender's host, which was checked; None if it has none."""
    if not isinstance(address, tuple):
        return None
    family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    return socket.inet_pton(family, address[0])


def _packed_destination(datagram: Datagram) -> Any:
    """Return the bytes of the destination, or None.

    Raises:
        TypeError: It is not a str.
        ValueError: It is not a numeric address, or of another family than the sender's.
    """
    destination = datagram.destination
    if destination is None:
        return None
    if not isinstance(destination, str):
        raise TypeError(f"destination is {destination!r}; give a numeric address as str")
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    try:
        packed = socket.inet_pton(family, destination)
    except (OSError, ValueError):  # the latter for a NUL in it
        raise ValueError(
            f"destination is {destination!r}, which is not a numeric address"
        ) from None
    host = _packed_host(datagram.address)
    if host is not None and (
        len(host) != len(packed) or (host[:12] == _MAPPED) != (packed[:12] == _MAPPED)
    ):
        raise ValueError(
            f"destination is {destination!r}, of another family than the sender "
            f"{datagram.address!r}"
        )
    return packed


def datagrams(packets: Iterable[DatagramLike]) -> list[Datagram]:
    """Return `Datagram`s for all that a test may give.

    Raises:
        TypeError: One of them is none of these; with its index.
        ValueError: One can't be a datagram; likewise.
    """
    if isinstance(packets, (str, bytes, bytearray, memoryview, Datagram, Packet)):
        raise TypeError(
            f"packets is a {type(packets).__name__}, one payload; give a list of packets"
        )
    try:
        items = list(packets)
    except TypeError:
        raise TypeError(f"packets is {packets!r}; {GIVE}") from None
    made = []
    for index, item in enumerate(items):
        try:
            made.append(_datagram(item))
        except (TypeError, ValueError) as error:
            raise type(error)(f"packet {index}: {error}") from None
    return made


def _datagram(item: DatagramLike) -> Datagram:
    if isinstance(item, Datagram):
        return item
    if isinstance(item, Packet):
        return Datagram.copy_of(item)
    if isinstance(item, tuple):
        if len(item) != 2:
            raise TypeError(f"{item!r} is not a pair; {GIVE}")
        return Datagram(*item)
    return Datagram(item)


def messages_for(given: Iterable[Datagram], gro: bool, ancillary: bool) -> list[Message]:
    """Return the messages in which datagrams come into a batch.

    Raises:
        ValueError: The batch can't take one of them; with its index.
    """
    messages = []
    for index, datagram in enumerate(given):
        train, control = datagram.segment_size is not None, _control_of(datagram)
        if train and not gro:
            raise ValueError(
                f"packet {index}: segment_size is given, and the batch takes no trains; make it, "
                f"or its pool, with gro=True"
            )
        if len(control) > train and not ancillary:
            asked = next(name for name in _CONTROL if getattr(datagram, name) is not None)
            raise ValueError(
                f"packet {index}: {asked} is given, and the batch has no room for control data; "
                f"make it, or its pool, with ancillary=True"
            )
        messages.append(Message(bytes(datagram.data), datagram.address, control, train))
    return messages
