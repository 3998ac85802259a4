"""The ring, and every rule about its slots. No socket, no ctypes, no event loop.

A slot is in one of two states:

=======  ==============================================================================
free     Holds nobody's bytes. An engine may write to it, inside a run of slots that
         `PacketBatch._free_run` named, until `PacketBatch._commit`.
held     Holds one packet. Nothing writes to it. Consumers read it through views.
=======  ==============================================================================

=============  ================================  ========================================
from, to       by                                who calls it
=============  ================================  ========================================
free -> held   `PacketBatch._commit`             the receive functions, after an engine
held -> free   `PacketBatch.release`, `.clear`   the consumer; all views of the slot that
                                                 the batch handed out are dead before
=============  ================================  ========================================

Which slots are held is said by two counters alone. Packets are numbered by arrival: `_head`
is the number of the oldest one held, `_tail` the number that the next one gets, and packet
number n lies in slot n % capacity. Numbers are never used twice, so a `Packet` whose number
is below `_head` has been released, whoever has its slot by then.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any, NoReturn, SupportsIndex, TypeAlias, overload

PACKET_DATA_SIZE = 1232
"""Bytes of a slot, unless told otherwise: the UDP payload that every IPv6 path carries
unfragmented. 1280 (the minimum MTU, RFC 8200 section 5) - 40 (IPv6 header) - 8 (UDP header).
"""

NUM_RCVMMSGS = 64
"""The most packets that one receive call takes, and the slots of a batch, unless told
otherwise. The number is that of Solana's streamer; from there on one wait for the socket costs
less than the packets it brings."""

ENGINES = ("auto", "recvfrom_into", "recvmmsg")

UNKNOWN_WIRE_SIZE = 2**32
"""What an engine reports for a datagram that was cut, if the platform does not tell its length.
Longer than any datagram (a UDP jumbogram's length field has 32 bits, RFC 2675 section 4), so
that slicing and comparing need no special case."""

Address: TypeAlias = Any
"""What `socket.recvfrom` gives for the family; `Any` for the reason that it is so in typeshed:
a union would have to be taken apart by every caller, who knows the family."""


class BatchFullError(Exception):
    """A receive function was given a batch that has no free slot.

    Nothing was read. Give packets back with `PacketBatch.release` or `PacketBatch.clear`, then
    receive again.
    """


def positive_int(name: str, value: SupportsIndex, fix: str) -> int:
    """Return `value` as an int of at least 1, or raise a TypeError or ValueError naming it."""
    if isinstance(value, bool):
        raise TypeError(f"{name} is {value}, a bool; {fix}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is a {type(value).__name__}, not an int; {fix}") from None
    if number < 1:
        raise ValueError(f"{name} is {number}; {fix}")
    return number


class Packet:
    """One datagram held by a `PacketBatch`: a view, not a copy.

    It is valid until the batch releases it. From then on its attributes raise ValueError, as does
    reading its `data`, even through a name that the consumer kept; it never shows another packet's
    bytes. Copy with ``bytes(packet.data)`` what has to live longer. A slice that the
    consumer cuts from `data` is the consumer's own affair: nobody tells it of the release, and
    after the next receive it shows whatever lies in the slot then.

    Attributes:
        data: Exactly the bytes received, read-only; empty for an empty datagram.
    """

    __slots__ = ("_address", "_batch", "_number", "data")

    data: memoryview
    _address: Address  # _NOT_DECODED if nobody had asked for one when the packet was handed out
    _batch: PacketBatch
    _number: int

    @property
    def address(self) -> Address:
        """The sender, in the form of `socket.recvfrom`.

        ``(host, port)`` for AF_INET, ``(host, port, flowinfo, scope_id)`` for AF_INET6, for
        AF_UNIX a path as str or an abstract name as bytes; None for a sender without a name,
        and for a truncated datagram on Windows, which then does not tell.

        Raises:
            ValueError: The packet was released.
        """
        if self._number < self._batch._head:
            _raise_released()
        if self._address is _NOT_DECODED:
            self._address = self._batch._address_of(self._number)
        return self._address

    @property
    def size(self) -> int:
        """Bytes received: ``len(data)``, at most the batch's `slot_size`.

        Raises:
            ValueError: The packet was released.
        """
        return min(self._wire_size(), self._batch.slot_size)

    @property
    def truncated(self) -> bool:
        """Whether the datagram was longer than the slot, so that its end is lost.

        Raises:
            ValueError: The packet was released.
        """
        return self._wire_size() > self._batch.slot_size

    @property
    def wire_size(self) -> int | None:
        """Bytes of the datagram as it was sent.

        Equal to `size` unless `truncated`. None if it was truncated and the platform does not
        tell; Linux always tells.

        Raises:
            ValueError: The packet was released.
        """
        size = self._wire_size()
        return None if size == UNKNOWN_WIRE_SIZE else size

    def _wire_size(self) -> int:
        batch = self._batch
        if self._number < batch._head:
            _raise_released()
        return batch._wire_sizes[self._number % len(batch._wire_sizes)]

    def __repr__(self) -> str:
        if self._number < self._batch._head:
            return "<Packet, released>"
        return (
            f"<Packet of {self.size} bytes from {self.address!r}"
            f"{', truncated' if self.truncated else ''}>"
        )


def _raise_released() -> NoReturn:
    raise ValueError(
        "this packet was released: its slot may hold another one by now. "
        "Read a packet before the release, or copy what must live longer"
    )


_new_packet = object.__new__
_NOT_DECODED: Any = object()


@dataclass(eq=False, repr=False)
class PacketBatch:
    """A ring of fixed slots in memory that is allocated once, and the packets that it holds.

    The receive functions append packets; the consumer reads them, oldest first, and gives their
    slots back with `release` or `clear`. A slot that holds a packet is never written to. A batch
    belongs to one event loop's thread; one task at a time may fill it, others may read and
    release meanwhile.

    Args:
        capacity: Slots, at least 1.
        slot_size: Bytes of a slot, at least 1. What a datagram has beyond is cut off and shows
            in `Packet.truncated`. 65,507 takes any UDP payload over IPv4 (65,535 less 20 for the
            IP header and 8 for that of UDP), 65,527 any over IPv6.
        engine: "recvfrom_into", one call for a packet, on every platform; "recvmmsg", one call
            for a batch, on Linux; "auto", the fastest that the platform has.

    The arguments describe memory that exists from then on; assigning to them changes nothing.

    Raises:
        TypeError: `capacity` or `slot_size` is no int, or a bool; `engine` is no str.
        ValueError: `capacity` or `slot_size` is below 1, or `engine` is unknown.
    """

    capacity: int = NUM_RCVMMSGS
    slot_size: int = PACKET_DATA_SIZE
    engine: str = "auto"

    def __post_init__(self) -> None:
        self.capacity = positive_int(
            "capacity", self.capacity, "give the number of slots, at least 1"
        )
        self.slot_size = positive_int(
            "slot_size", self.slot_size, "give the bytes of a slot, at least 1"
        )
        if not isinstance(self.engine, str):
            raise TypeError(f"engine is a {type(self.engine).__name__}; give one of {ENGINES}")
        if self.engine not in ENGINES:
            raise ValueError(f"engine is {self.engine!r}; give one of {ENGINES}")
        self._ring = bytearray(self.capacity * self.slot_size)
        ring = memoryview(self._ring).toreadonly()
        starts = range(0, len(ring), self.slot_size)
        self._slots = [ring[start : start + self.slot_size] for start in starts]
        self._head = self._tail = 0
        # By slot: the length of the datagram as sent.
        self._wire_sizes = [0] * self.capacity
        # By age, oldest first: the views that were handed out, and the addresses that were
        # decoded. Both are made when asked for, so either may be shorter than what is held.
        self._views: deque[memoryview] = deque()
        self._addresses: deque[Address] = deque()
        # Whether a consumer ever asked a packet for its address: then later packets are handed
        # out with theirs, decoded all at once.
        self._addresses_wanted = False
        # The engine of this ring, made at its first fill, and the reader of its addresses: for
        # a run of slots (first, count) the senders of the packets there.
        self._engine: Any = None
        self._read_addresses: Callable[[int, int], list[Address]] | None = None
        self._filling = False  # a receive function is at work, perhaps waiting

    # What is held

    @property
    def free(self) -> int:
        """Slots that can take a packet now."""
        return len(self._slots) - (self._tail - self._head)

    def __len__(self) -> int:
        return self._tail - self._head

    def __iter__(self) -> Iterator[Packet]:
        """Iterate over the packets held now, oldest first; they may be released meanwhile."""
        views = self._views_of(self._tail - self._head)
        return iter(self._packets(self._head, views))

    @overload
    def __getitem__(self, index: SupportsIndex) -> Packet: ...
    @overload
    def __getitem__(self, index: slice) -> list[Packet]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Packet | list[Packet]:
        if isinstance(index, slice):
            return list(self)[index]
        held = self._tail - self._head
        wanted = operator.index(index)
        position = wanted + held if wanted < 0 else wanted
        if not 0 <= position < held:
            raise IndexError(f"packet {wanted} of a batch that holds {held}")
        view = self._views_of(position + 1)[position]
        return self._packets(self._head + position, (view,))[0]

    def payloads(self) -> list[memoryview]:
        """Return `Packet.data` of each packet held, oldest first."""
        return list(self._views_of(self._tail - self._head))

    def addresses(self) -> list[Address]:
        """Return `Packet.address` of each packet held, oldest first."""
        self._decode_addresses()
        return list(self._addresses)

    def sizes(self) -> list[int]:
        """Return `Packet.size` of each packet held, oldest first."""
        limit = self.slot_size
        sizes: list[int] = []
        for first, stop in self._runs(self._head, self._tail):
            sizes += self._wire_sizes[first:stop]
        if sizes and max(sizes) > limit:
            return [min(size, limit) for size in sizes]
        return sizes

    @property
    def buffer(self) -> memoryview:
        """The whole ring, capacity * slot_size bytes, read-only.

        A window on all slots, free and held: unlike a packet's view it stays valid, and shows
        whatever the slots hold at the time.
        """
        return memoryview(self._ring).toreadonly()

    # held -> free

    def release(self, count: int = 1) -> None:
        """Give the slots of the `count` oldest packets back.

        Their `Packet`s, and the views of them that the batch handed out, raise ValueError from
        then on. 0 releases nothing.

        Raises:
            TypeError: `count` is no int, or a bool.
            ValueError: `count` is negative or more than is held; nothing was released.
            BufferError: Something still looks into a packet's memory through its view, a numpy
                array for instance. That packet and those after it are still held, those before
                it were released.
        """
        if type(count) is not int or count < 0:
            count = positive_int("count", count, "give the number of packets to release")
        held = self._tail - self._head
        if count > held:
            raise ValueError(
                f"release of {count} packets from a batch that holds {held}; "
                f"release len(batch) at most, or use clear()"
            )
        self._release(count)

    def clear(self) -> None:
        """Give all slots back.

        Raises:
            BufferError: As for `release`.
        """
        self._release(self._tail - self._head)

    def _release(self, count: int) -> None:
        views = self._views if count >= len(self._views) else islice(self._views, count)
        view: memoryview | None = None
        try:
            for view in views:
                view.release()
        except BufferError:
            done = next(i for i, other in enumerate(self._views) if other is view)
            self._free(done)
            raise BufferError(
                f"the memory of a packet is still in use through its data (by a numpy array, a "
                f"ctypes object or the like); drop that object, then release. {done} of {count} "
                f"packets, those before it, were released"
            ) from None
        self._free(count)

    def _free(self, count: int) -> None:
        self._head += count
        if self._head == self._tail:
            # An empty ring starts again at slot 0, so that the next fill is one run.
            self._head = self._tail = -(-self._tail // len(self._slots)) * len(self._slots)
            self._views.clear()
            self._addresses.clear()
        else:
            for column in (self._views, self._addresses):
                for _ in range(min(count, len(column))):
                    column.popleft()

    # free -> held: for the receive functions

    def _free_run(self, count: int) -> tuple[int, int]:
        """The next free slots that lie side by side: the first, and how many of `count`."""
        first = self._tail % len(self._slots)
        return first, min(count, self.free, len(self._slots) - first)

    def _commit(self, wire_sizes: list[int]) -> None:
        """Take the next free slots as held; they have datagrams of these lengths."""
        first = self._tail % len(self._slots)
        self._wire_sizes[first : first + len(wire_sizes)] = wire_sizes
        self._tail += len(wire_sizes)

    def _plug(self, engine: Any, read_addresses: Callable[[int, int], list[Address]]) -> None:
        """Let `engine` fill the free slots from now on."""
        self._decode_addresses()  # those of packets held are in the last engine's memory
        self._engine = engine
        self._read_addresses = read_addresses

    # Making what is handed out

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The slots of the packets numbered start to stop, as (first, stop) runs, at most two."""
        capacity = len(self._slots)
        while start < stop:
            first = start % capacity
            last = min(first + stop - start, capacity)
            yield first, last
            start += last - first

    def _views_of(self, count: int) -> deque[memoryview]:
        """The views handed out so far, after making sure that there are `count` at least."""
        views = self._views
        for first, stop in self._runs(self._head + len(views), self._head + count):
            # A slot's own view does the clamping: no length that an engine reports, however
            # wrong, gives a slice beyond the slot.
            sizes = self._wire_sizes[first:stop]
            slots = self._slots[first:stop]
            views.extend([slot[:size] for slot, size in zip(slots, sizes, strict=True)])
        return views

    def _packets(self, number: int, views: Collection[memoryview]) -> list[Packet]:
        """Packets numbered from `number` on, one for each view."""
        addresses: Iterable[Address] = repeat(_NOT_DECODED)
        if self._addresses_wanted:
            self._decode_addresses()
            addresses = islice(self._addresses, number - self._head, None)
        packets: list[Packet] = list(map(_new_packet, repeat(Packet, len(views))))
        for packet, view, address in zip(packets, views, addresses):  # noqa: B905
            packet.data = view
            packet._address = address
            packet._batch = self
            packet._number = number
            number += 1
        return packets

    def _address_of(self, number: int) -> Address:
        self._addresses_wanted = True
        self._decode_addresses()
        return self._addresses[number - self._head]

    def _decode_addresses(self) -> None:
        start = self._head + len(self._addresses)
        for first, stop in self._runs(start, self._tail):
            assert self._read_addresses is not None  # held packets came through an engine
            self._addresses.extend(self._read_addresses(first, stop - first))

    def __repr__(self) -> str:
        return f"<PacketBatch capacity={self.capacity} held={len(self)} free={self.free}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PacketBatch is memory in use: make a new one instead of a copy")
