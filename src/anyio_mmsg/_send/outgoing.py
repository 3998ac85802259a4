"""Packets to be sent. Everything that can be refused is refused before the first send.

`Sendmmsg` reads packets itself; for `Sendto` they are laid out here as columns. Both only report
that something is wrong: `refuse` finds out which packet it is, and words the error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from mmap import mmap
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from .._packets import Packet, Slots
from .._packets.packet import Address
from .._system.addresses import ADDRESSES, sockaddrs_of
from .._system.sockaddr import encode_sockaddr
from .ancillary import Controls, Messages, SendOptions, parts

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    Payload: TypeAlias = ReadableBuffer
    """A payload: bytes or any object with a contiguous buffer."""
else:
    Payload = Any

_InetAddress: TypeAlias = tuple[str, int] | tuple[str, int, int] | tuple[str, int, int, int]

Destination: TypeAlias = _InetAddress | str | bytes | Packet | None
"""Where a packet goes: ``(host, port)`` with a numeric host, for AF_INET6 also with flowinfo and
scope id; for AF_UNIX a path, or an abstract name as bytes; a `Packet`, for its sender; None, for
the peer of a connected socket."""

Packets: TypeAlias = Iterable[
    Packet | tuple[Payload, Destination] | tuple[Payload, Destination, SendOptions | None]
]
"""What can be sent; a `PacketBatch` is one too."""

WRONG = (TypeError, ValueError, BufferError)
"""What is raised for a packet that can't be sent."""

GIVE = "give (data, address) pairs or (data, address, SendOptions), Packets, or a PacketBatch"


class Columns:
    """Packets that can be sent: a list of payloads, and one of their addresses.

    The payloads are pinned: to release or resize one is a BufferError, until `release`.

    Args:
        datas: Payloads.
        addresses: Where each goes, in the form that `socket.recvfrom` returns, whatever form the
            caller used; None for the peer of a connected socket.
        only_bytes: Whether all payloads are bytes.

    Attributes:
        controls: The control messages of each, or None if no packet has any.
        has_options: Whether some packets have options of their own.
    """

    __slots__ = ("_pins", "addresses", "controls", "datas", "has_options")

    def __init__(
        self, datas: Sequence[Payload], addresses: Sequence[Address], only_bytes: bool = False
    ) -> None:
        if len(datas) != len(addresses):
            raise RuntimeError("the packets changed while they were read")
        self.datas = datas
        self.addresses = addresses
        self.controls: list[Messages] | None = None
        self.has_options = False
        # An export of each. A memoryview of a memoryview is not one: it would outlive its release.
        # Bytes can't change.
        self._pins = () if only_bytes else list(map(PickleBuffer, datas))

    def release(self) -> None:
        """Let go of the payloads."""
        self._pins = self.datas = self.addresses = ()


def columns(family: int, most: int, items: list[Any]) -> Columns:
    """Return as columns what `send_mmsg` was given.

    Args:
        family: The socket's.
        most: The bytes that a payload can have.
        items: Pairs, and `Packet`s.

    Raises:
        TypeError: Something has the wrong type. `refuse` finds out which one.
        ValueError: A payload is too long, an address wrong, a packet released; likewise.
        BufferError: A payload is not contiguous; likewise.
    """
    if not items:
        return Columns([], [])
    if isinstance(items[0], Packet) and all(map(_is_packet, items)):
        datas: Any = [packet.data for packet in items]
        addresses: Sequence[Address] = [packet.address for packet in items]
        return Columns(datas, _canonical(family, addresses))
    options: Sequence[Any] = ()
    try:
        datas, addresses = zip(*items, strict=True)
    except (TypeError, ValueError):  # there are `Packet`s, or options
        datas, addresses, options = zip(*map(parts, items), strict=True)
    only_bytes = set(map(type, datas)) == {bytes}
    if not only_bytes:
        datas = [_checked(most, data) for data in datas]
    elif max(set(map(len, datas))) > most:
        raise ValueError(f"a payload of more than {most} bytes")
    made = Columns(datas, _canonical(family, addresses), only_bytes)
    if options:
        made.has_options = options.count(None) < len(options)
    return made


def batch_columns(family: int, slots: Slots) -> Columns:
    """Return as columns what a batch holds, each packet to go back to its sender.

    Read from its slots: what a subclass of `PacketBatch` overrides does not change what is sent.

    Raises:
        TypeError: As for `columns`.
        ValueError: As for `columns`.
    """
    return Columns(slots.payloads(0), _canonical(family, slots.addresses(0)))


def fan_columns(family: int, data: Payload, addresses: list[Address]) -> Columns:
    """Return as columns one payload, which was checked, for many addresses.

    Raises:
        TypeError: As for `columns`.
        ValueError: As for `columns`.
    """
    only_bytes = type(data) is bytes
    return Columns([data] * len(addresses), _canonical(family, addresses), only_bytes)


def _canonical(family: int, addresses: Sequence[Address]) -> list[Address]:
    """Return checked addresses in the numeric form, which `socket.sendto` does not look up."""
    if not addresses:
        return []
    sockaddrs, first, count = sockaddrs_of(family), addresses[0], len(addresses)
    if first is addresses[-1] and (count == 1 or addresses.count(first) == count):
        if isinstance(first, Packet):
            first = first.address
        return [ADDRESSES[sockaddrs[first]]] * count
    if any(map(_is_packet_type, set(map(type, addresses)))):
        addresses = [a.address if isinstance(a, Packet) else a for a in addresses]
    return list(map(ADDRESSES.__getitem__, map(sockaddrs.__getitem__, addresses)))


def listed(name: str, things: Iterable[Any], fix: str) -> list[Any]:
    """Return a list of what an iterable that a caller gave has now."""
    try:
        iterator = iter(things)
    except TypeError:
        raise TypeError(f"{name} is {things!r}; {fix}") from None
    return list(iterator)


def check_fan(most: int, data: Payload) -> Payload:
    """Check the one payload of `multi_target_send`; return it, or a copy, as `_checked` does.

    Raises:
        TypeError: It is not bytes-like.
        ValueError: It is too long, or not contiguous.
    """
    try:
        return _checked(most, data)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the {error}") from None


def refuse(
    family: int,
    most: int,
    items: Iterable[Any] | Slots,
    error: Exception,
    controls: Controls | None = None,
) -> NoReturn:
    """Raise `error`, which came from one of `items`, with the index of that one."""
    if isinstance(items, Slots):
        items = items.hand_out(0)
    for index, item in enumerate(items):
        try:
            try:
                data, address, options = parts(item)
            except (TypeError, ValueError):
                if isinstance(item, Packet):
                    raise
                raise TypeError(f"{item!r} is not a pair; {GIVE}") from None
            _checked(most, data)
            if isinstance(address, Packet):
                _check_sender(family, address)
            else:
                encode_sockaddr(family, address)
            if controls is not None:
                controls.of(address, options)
        except (TypeError, ValueError) as culprit:
            raise type(culprit)(f"packet {index}: {culprit}") from None
    raise error


def _checked(most: int, data: Payload) -> Payload:
    """Return a payload that can be sent; a copy, if an export does not keep its memory."""
    try:
        view = memoryview(data)
    except TypeError:
        hint = "; encode it" if isinstance(data, str) else ""
        raise TypeError(f"data is a {type(data).__name__}, not bytes-like{hint}") from None
    except BufferError as error:
        raise ValueError(f"data can't be read: {error}") from None
    except ValueError:
        if isinstance(data, memoryview):
            raise ValueError("data is a memoryview that was released") from None
        raise
    if not view.c_contiguous:
        raise ValueError("data is not contiguous; give bytes(data)")
    if view.nbytes > most:
        raise ValueError(f"data has {view.nbytes} bytes; a datagram carries {most} at most")
    kind = type(view.obj)
    return data if kind in _STEADY or not _may_move(kind) else bytes(view)


_STEADY = {bytes, bytearray, mmap}  # the usual ones, which keep their memory while it is exported


def _may_move(kind: type) -> bool:
    """Whether the memory of such objects may move though it is exported.

    Objects of ctypes are resized in spite of exports. A class with `__buffer__` in Python may give
    such memory; CPython then has an object of its own in its place (3.12).
    """
    if repr(kind) == "<class '_buffer_wrapper'>":
        return True
    return any(base.__module__ == "_ctypes" for base in kind.__mro__)


def _check_sender(family: int, packet: Packet) -> None:
    try:
        encode_sockaddr(family, packet.address)
    except TypeError:
        raise ValueError(
            "its sender's address is of another family than the socket; send its data to an "
            "address of the socket's"
        ) from None


# Functions for `map`, not generators: an interrupt may strike those when they are let go.


def _is_packet(thing: object) -> bool:
    return isinstance(thing, Packet)


def _is_packet_type(kind: type) -> bool:
    return issubclass(kind, Packet)
