"""`Packet`, what a consumer reads a datagram by, and its states.

A packet's state is its class, so that reading an attribute checks nothing. All three classes have
one layout:

==============  ========================================================================
`_Blank`        Being made; nobody has it yet. The only one whose fields can be set.
`Packet`        Held: its slot is written to by nobody.
`_Released`     Its slot was given back. Every attribute raises ValueError.
==============  ========================================================================

The compiled twin is in _compiled/packets.c.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeAlias, cast, final

UNKNOWN_WIRE_SIZE = 2**32 - 1
"""What an engine reports for a datagram that was cut, if the platform does not report its length.
Longer than any datagram (the length field of a UDP jumbogram has 32 bits and counts the 8 bytes
of the header too, RFC 2675 section 4), so that slicing and comparing need no special case."""

Address: TypeAlias = Any
"""What `socket.recvfrom` gives for the family; `Any` for the reason that typeshed says so: every
caller would have to take a union apart, though it knows the family."""

RELEASED = (
    "this packet was released: its slot may hold another one by now. "
    "Read a packet before its release, or copy what must live longer"
)
"""The words of the ValueError that a released packet raises, compiled or plain."""


class _Fields:
    __slots__ = ("_wire_size", "address", "data")

    data: memoryview
    address: Address
    _wire_size: int


class _Blank(_Fields):
    __slots__ = ()


@final
class Packet(_Fields):
    """One datagram held by a `PacketBatch`: a view, not a copy. Read-only.

    It is valid until the batch releases it. From then on its attributes raise ValueError, as does
    reading a view that the consumer kept; it never shows another packet's bytes. Copy with
    ``bytes(packet.data)`` what has to live longer.

    What looks into the memory without holding an export of `data` is not stopped by a release,
    and shows the next packet: a slice or a ``cast`` of the view, ``numpy.frombuffer``, a parser
    that keeps one of these, ``asyncio.StreamWriter.write(packet.data)``. Copy first. In Python's
    development mode (``-X dev``) released slots are overwritten, so that such a mistake shows.
    To compare a dead view with ``==`` is no reading for CPython, and gives False.

    Attributes:
        data: Exactly the bytes received, read-only; empty for an empty datagram.
        address: The sender, in the form of `socket.recvfrom`: ``(host, port)`` for AF_INET,
            ``(host, port, flowinfo, scope_id)`` for AF_INET6, for AF_UNIX a path as str or an
            abstract name as bytes; None for a sender without a name, and for a truncated datagram
            on Windows, which does not report its sender.
    """

    __slots__ = ()

    def __new__(cls) -> NoReturn:
        raise TypeError("cannot create 'anyio_mmsg.Packet' instances: batches do")

    @property
    def size(self) -> int:
        """Bytes received: ``len(data)``, at most the batch's `slot_size`.

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

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Packet is read-only: its {name!r} can't be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Packet is read-only: its {name!r} can't be deleted")

    def __repr__(self) -> str:
        cut = ", truncated" if self.truncated else ""
        return f"<Packet of {self.size} bytes from {self.address!r}{cut}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Packet is a view of its batch's memory: copy bytes(packet.data)")


class _Released(Packet):  # type: ignore[misc]  # final for all others
    """A packet whose slot was given back."""

    __slots__ = ()

    @property
    def data(self) -> NoReturn:  # type: ignore[override]
        raise ValueError(RELEASED)

    address = data

    def __repr__(self) -> str:
        return "<Packet, released>"


Packet.__module__ = "anyio_mmsg"


def make_packets(
    views: Iterable[memoryview], addresses: Iterable[Address], wire_sizes: Iterable[int]
) -> list[Packet]:
    """Return a packet for each view, address and length as sent."""
    packets: list[Any] = []
    for view, address, wire_size in zip(views, addresses, wire_sizes):  # noqa: B905
        packet: Any = _Blank()
        packet.data = view
        packet.address = address
        packet._wire_size = wire_size
        packet.__class__ = Packet
        packets.append(packet)
    return packets


# Assigning to __class__ goes through __setattr__, which refuses.
_set_class = cast("Callable[[Packet, type], None]", object.__dict__["__class__"].__set__)


_count_references: Callable[[object], int] = getattr(sys, "getrefcount", lambda _: 2**31)


def _references(packets: list[Packet]) -> list[int]:
    return list(map(_count_references, packets))


def mark_released(packets: list[Packet]) -> None:
    """Have `packets` raise ValueError from now on.

    Those that nobody else refers to are left alone, as nobody will ever ask them.
    """
    for packet, count in zip(packets, _references(packets)):  # noqa: B905
        if count > _OURS:
            _set_class(packet, _Released)


_probe: list[Any] = [_Blank()]
_OURS = _references(_probe[:])[0]
"""How often a packet is referred to that only `Slots` and a copy of its list have."""
