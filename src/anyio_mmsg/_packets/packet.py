"""`Packet`, through which a consumer reads a datagram, and its states.

A packet's state is its class, so that reading an attribute checks nothing. All three classes have
one layout:

==============  ========================================================================
`_Blank`        Being made; nobody has it yet. The only one whose fields can be set.
`Packet`        Held: nothing writes to its slot.
`_Released`     Its slot was given back. Every attribute raises ValueError.
==============  ========================================================================

The compiled twin is in _compiled/packet.c.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, TypeAlias, cast, final

UNKNOWN_WIRE_SIZE = 2**32 - 1
"""What an engine reports for a datagram that was cut, if the platform does not report its length.
It is more than any datagram has (the length field of a UDP jumbogram has 32 bits and counts the 8
header bytes too, RFC 2675 section 4), so that slicing and comparing need no special case."""

Address: TypeAlias = tuple[str, int] | Any
"""Where a packet came from, as `socket.recvfrom` gives it for the family.

For type checkers it is ``(host, port)``, which IPv6 addresses begin with too, or anything. So
mistakes with ``(host, port)`` are reported, and ``isinstance`` narrows to another form. ``address:
Any = packet.address`` gives the scope id of IPv6 or the path of AF_UNIX without ``isinstance``."""

RELEASED = (
    "this packet was released: its slot may hold another one by now. "
    "Read a packet before its release, or copy what must live longer"
)
"""The words of the ValueError that a released packet raises, compiled or plain."""

NO_CONTROL = (
    "this batch holds no control data; make it with PacketBatch(ancillary=True), and ask the "
    "socket for it: open_udp_socket(timestamps=True, destinations=True, ecn=True, "
    "hop_limits=True)"
)


class Control(NamedTuple):
    """What a packet's control data says, except its timestamp; None: it does not say.

    Attributes:
        destination: The address it was sent to.
        interface: The index of the interface where it came in.
        ecn: Its ECN codepoint, 0 to 3 (RFC 3168 section 5).
        hop_limit: What was left of its TTL or hop limit.
        local: The address of this machine to answer from (`ipi_spec_dst`, ip(7)): other than the
            destination where that is a multicast or broadcast address.
    """

    destination: str | None = None
    interface: int | None = None
    ecn: int | None = None
    hop_limit: int | None = None
    local: str | None = None


class Decoder(Protocol):
    """Reads control data: the first item of the tuple that comes with a packet at `commit`."""

    def timestamp(self, control: tuple[Any, ...]) -> int | None:
        """Return the timestamp in nanoseconds, if there is one.

        Raises:
            ValueError: The control data was cut.
        """
        ...

    def timestamps(self, controls: Sequence[tuple[Any, ...]]) -> list[int | None]:
        """Return `timestamp` of each."""
        ...

    def hardware_timestamp(self, control: tuple[Any, ...]) -> int | None:
        """Return the timestamp of the network card in nanoseconds, if there is one.

        Raises:
            ValueError: As for `timestamp`.
        """
        ...

    def control(self, control: tuple[Any, ...]) -> Control:
        """Return what else the control data says.

        Raises:
            ValueError: As for `timestamp`.
        """
        ...


class _Fields:
    if TYPE_CHECKING:  # read-only for all but `_Blank`

        @property
        def data(self) -> memoryview: ...
        @property
        def address(self) -> Address: ...

    else:
        __slots__ = ("_control", "_wire_size", "address", "data")

    _wire_size: int
    _control: tuple[Any, ...] | None  # a `Decoder`, and what it decodes; None without any


class _Blank(_Fields):
    __slots__ = ()


@final
class Packet(_Fields):
    """One datagram held by a `PacketBatch`: a view, not a copy. Read-only.

    It is valid until the batch releases it. From then on its attributes raise ValueError, as does
    reading a view that the consumer kept; it never shows another packet's bytes. Copy with
    ``bytes(packet.data)`` what must live longer.

    What looks into the memory without holding an export of `data` is not stopped by a release,
    and shows the next packet: a slice or a ``cast`` of the view, ``numpy.frombuffer``, a parser
    that keeps one of these, ``asyncio.StreamWriter.write(packet.data)``. Copy first. In Python's
    development mode (``-X dev``) released slots are overwritten, so that such a mistake shows.
    CPython compares a dead view by ``==`` without reading it: that gives False.

    Attributes:
        data: Exactly the bytes received, read-only; empty for an empty datagram.
        address: The sender, in the form of `socket.socket.recvfrom`: ``(host, port)`` for
            AF_INET, ``(host, port, flowinfo, scope_id)`` for AF_INET6, for AF_UNIX a path as str
            or an abstract name as bytes; None for a sender without a name, and for a truncated
            datagram on Windows, which does not report its sender.
    """

    __slots__ = ()

    def __new__(cls) -> Packet:
        raise TypeError("cannot create 'anyio_mmsg.Packet' instances: batches do")

    @property
    def size(self) -> int:
        """Bytes received, ``len(data)``; at most the batch's `slot_size`.

        Raises:
            ValueError: The packet was released.
        """
        return self.data.nbytes

    @property
    def truncated(self) -> bool:
        """Whether the datagram was longer than the slot, so that its end is lost.

        Raises:
            ValueError: The packet was released.
        """
        return self._wire_size > self.data.nbytes

    @property
    def wire_size(self) -> int | None:
        """Bytes of the datagram as it was sent.

        Equal to `size` unless `truncated`. None if it was truncated and the platform does not
        report the length; Linux always does.

        Raises:
            ValueError: The packet was released.
        """
        unknown = self.truncated and self._wire_size == UNKNOWN_WIRE_SIZE
        return None if unknown else self._wire_size

    @property
    def timestamp(self) -> int | None:
        """When the kernel took the packet in, in nanoseconds since the epoch.

        None: this packet came without one. Linux begins to stamp some time after the first socket
        asked for it; until then a packet gets the time at which it is read.

        Raises:
            ValueError: The packet was released; its batch was made without ``ancillary=True``; or
                its control data was cut.
        """
        control = self._control
        if control is None:
            raise ValueError(NO_CONTROL)
        timestamp: int | None = control[0].timestamp(control)
        return timestamp

    @property
    def hardware_timestamp(self) -> int | None:
        """When the network card took the packet in, in nanoseconds by its own clock, or None.

        For sockets on which the program has asked for it: SO_TIMESTAMPING with
        SOF_TIMESTAMPING_RX_HARDWARE and SOF_TIMESTAMPING_RAW_HARDWARE (Linux), on a card that can
        do it. The clock is the card's own; its epoch is arbitrary unless something sets it (PTP).

        Raises:
            ValueError: As for `timestamp`.
        """
        control = self._control
        if control is None:
            raise ValueError(NO_CONTROL)
        timestamp: int | None = control[0].hardware_timestamp(control)
        return timestamp

    @property
    def destination(self) -> str | None:
        """The address that the packet was sent to, or None.

        A unicast address of this machine, or the group or broadcast address. On a dual-stack
        socket that of an IPv4 packet is mapped, as its `address` is.

        Raises:
            ValueError: As for `timestamp`.
        """
        return self._ask().destination

    @property
    def interface(self) -> int | None:
        """The index of the interface where the packet came in, or None.

        Raises:
            ValueError: As for `timestamp`.
        """
        return self._ask().interface

    @property
    def ecn(self) -> int | None:
        """The packet's ECN codepoint, 0 to 3 (RFC 3168 section 5), or None.

        Raises:
            ValueError: As for `timestamp`.
        """
        return self._ask().ecn

    @property
    def hop_limit(self) -> int | None:
        """What was left of the packet's TTL or hop limit, or None.

        Raises:
            ValueError: As for `timestamp`.
        """
        return self._ask().hop_limit

    @property
    def _local(self) -> str | None:
        """The address of this machine to answer from."""
        return self._ask().local

    def _ask(self) -> Control:
        control = self._control
        if control is None:
            raise ValueError(NO_CONTROL)
        decoded: Control = control[0].control(control)
        return decoded

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Packet is read-only: its {name!r} can't be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Packet is read-only: its {name!r} can't be deleted")

    def __repr__(self) -> str:
        try:
            size, cut = self.size, ", truncated" if self.truncated else ""
        except ValueError:  # its consumer has released the view
            return f"<Packet from {self.address!r}, its data was released>"
        return f"<Packet of {size} bytes from {self.address!r}{cut}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Packet is a view of its batch's memory: copy bytes(packet.data)")


class _Released(Packet):  # type: ignore[misc]  # final for all others
    """A packet whose slot was given back."""

    __slots__ = ()

    @property
    def data(self) -> NoReturn:
        raise ValueError(RELEASED)

    if not TYPE_CHECKING:
        address = timestamp = hardware_timestamp = destination = interface = data
        ecn = hop_limit = _local = data

    def __repr__(self) -> str:
        return "<Packet, released>"


Packet.__module__ = "anyio_mmsg"


def make_packets(
    views: Iterable[memoryview],
    addresses: Iterable[Address],
    wire_sizes: Iterable[int],
    controls: Iterable[tuple[Any, ...] | None] | None = None,
) -> list[Packet]:
    """Return a packet for each view, sender, length as sent, and control data if there is any."""
    packets: list[Any] = []
    for view, address, wire_size, control in zip(  # noqa: B905
        views, addresses, wire_sizes, repeat(None) if controls is None else controls
    ):
        packet: Any = _Blank()
        packet.data = view
        packet.address = address
        packet._wire_size = wire_size
        packet._control = control
        packet.__class__ = Packet
        packets.append(packet)
    return packets


# Assigning to __class__ goes through __setattr__, which refuses.
_set_class = cast("Callable[[Packet, type], None]", object.__dict__["__class__"].__set__)


# PyPy doesn't count; there each packet counts as one that somebody has.
_count_references: Callable[[object], int] = getattr(sys, "getrefcount", lambda _: 2**31)


def _references(packets: list[Packet]) -> list[int]:
    return list(map(_count_references, packets))


def mark_released(packets: list[Packet]) -> None:
    """Have `packets` raise ValueError from now on.

    Packets that nobody else refers to are left alone, since nobody can read them.
    """
    for packet, count in zip(packets, _references(packets)):  # noqa: B905
        if count > _OURS:
            _set_class(packet, _Released)


_probe: list[Any] = [_Blank()]
_OURS = _references(_probe[:])[0] if hasattr(sys, "getrefcount") else 0
"""How often a packet is referred to that only `Slots` and a copy of its list have."""
