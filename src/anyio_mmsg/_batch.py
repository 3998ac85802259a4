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
number n lies in slot n % capacity.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn, SupportsIndex, TypeAlias, TypeVar, cast, overload

from ._arguments import whole_number

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


ReadAddresses: TypeAlias = Callable[[int, int], list[Address]]
"""For a run of slots, (first, count), who sent the packets there."""

ReadSockaddrs: TypeAlias = Callable[[int, int], list[bytes]]
"""The same as the system has it: sockaddrs, each cut to its length, empty for a sender without a
name."""


class BatchFullError(Exception):
    """A receive function was given a batch that has no free slot.

    Nothing was read. Give packets back with `PacketBatch.release` or `PacketBatch.clear`, then
    receive again.
    """


class Ring:
    """The memory of a batch's slots, and who tells the senders of the packets in it."""

    __slots__ = ("memory", "read", "read_sockaddrs", "slot_size", "wanted")

    def __init__(
        self,
        memory: bytearray,
        slot_size: int,
        read: ReadAddresses,
        read_sockaddrs: ReadSockaddrs | None,
    ) -> None:
        self.memory = memory
        self.slot_size = slot_size
        self.read = read
        self.read_sockaddrs = read_sockaddrs  # None: the engine has none
        self.wanted = False  # whether anyone ever asked a packet for its address


class Packet:
    """One datagram held by a `PacketBatch`: a view, not a copy.

    It is valid until the batch releases it. From then on its attributes raise ValueError, as does
    reading a view that the consumer kept; it never shows another packet's bytes. Copy with
    ``bytes(packet.data)`` what has to live longer. A slice that the consumer cuts from `data` is
    the consumer's own affair: nobody tells it of the release, and after the next receive it shows
    whatever lies in the slot then. To compare a dead view with ``==`` is no reading for CPython,
    and gives False.

    Attributes:
        data: Exactly the bytes received, read-only; empty for an empty datagram.
        address: The sender, in the form of `socket.recvfrom`: ``(host, port)`` for AF_INET,
            ``(host, port, flowinfo, scope_id)`` for AF_INET6, for AF_UNIX a path as str or an
            abstract name as bytes; None for a sender without a name, and for a truncated datagram
            on Windows, which then does not tell.
    """

    # What state a packet is in is its class, all of one layout: `_Undecoded` until its address is
    # known, `Packet`, in the end `_Released`. So reading an attribute checks nothing.
    __slots__ = ("_ring", "_slot", "_wire_size", "address", "data")

    data: memoryview
    address: Address
    _wire_size: int
    _slot: int
    _ring: Ring

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
        tell; Linux always tells.

        Raises:
            ValueError: The packet was released.
        """
        unknown = self.truncated and self._wire_size == UNKNOWN_WIRE_SIZE
        return None if unknown else self._wire_size

    def __repr__(self) -> str:
        cut = ", truncated" if self.truncated else ""
        return f"<Packet of {self.size} bytes from {self.address!r}{cut}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Packet is a view of its batch's memory: copy bytes(packet.data)")


class _Undecoded(Packet):
    """A packet that was handed out before anyone had asked one of its ring for an address."""

    __slots__ = ()

    @property
    def address(self) -> Address:
        self._ring.wanted = True
        (address,) = self._ring.read(self._slot, 1)
        self.__class__ = Packet  # type: ignore[assignment]
        cast(Packet, self).address = address
        return address


class _Released(Packet):
    """A packet whose slot was given back."""

    __slots__ = ()

    @property
    def data(self) -> NoReturn:  # type: ignore[override]
        raise ValueError(
            "this packet was released: its slot may hold another one by now. "
            "Read a packet before its release, or copy what must live longer"
        )

    address = data

    def __repr__(self) -> str:
        return "<Packet, released>"


_new_packet: Callable[[type[Packet]], Packet] = object.__new__

_T = TypeVar("_T")


def _first(count: int, column: deque[_T]) -> Iterable[_T]:
    return column if count >= len(column) else islice(column, count)


def _after(count: int, column: deque[_T]) -> Iterable[_T]:
    return islice(column, count, None) if count else column


def _no_addresses(first: int, count: int) -> list[Address]:
    """For a ring whose packets all came with their addresses."""
    raise AssertionError(f"nobody knows the senders of {count} packets in slots from {first} on")


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
        self.capacity = whole_number(
            "capacity", self.capacity, 1, "give the number of slots, at least 1"
        )
        self.slot_size = whole_number(
            "slot_size", self.slot_size, 1, "give the bytes of a slot, at least 1"
        )
        if not isinstance(self.engine, str):
            raise TypeError(f"engine is a {type(self.engine).__name__}; give one of {ENGINES}")
        if self.engine not in ENGINES:
            raise ValueError(f"engine is {self.engine!r}; give one of {ENGINES}")
        self._slot_size = self.slot_size
        self._wanted_engine = self.engine
        memory = bytearray(self.capacity * self.slot_size)
        self._ring = Ring(memory, self.slot_size, _no_addresses, None)
        view = memoryview(memory).toreadonly()
        starts = range(0, len(view), self.slot_size)
        self._slots = [view[start : start + self.slot_size] for start in starts]
        self._head = self._tail = 0
        # By slot: the length of the datagram as sent.
        self._wire_sizes = [0] * self.capacity
        # By age, oldest first: what was handed out, and the addresses that were decoded. They
        # are made when asked for, so each may be shorter than what is held.
        self._views: deque[memoryview] = deque()
        self._packets: deque[Packet] = deque()
        self._addresses: deque[Address] = deque()
        # The engine of this ring, made at its first fill.
        self._engine: Any = None
        self._filling = False  # a receive function is at work, perhaps waiting
        self._reads = self._empty_reads = 0  # how often sockets were read, and nothing was there
        # While it is lent by a pool: what takes the memory back, as a new object, and who wants
        # to know of the packets in it if it is dropped without being closed.
        self._give_back: Callable[[Any], None] | None = None
        self._on_loss: Callable[[int], None] | None = None

    # What is held

    @property
    def free(self) -> int:
        """Slots that can take a packet now."""
        return len(self._slots) - (self._tail - self._head)

    def __len__(self) -> int:
        return self._tail - self._head

    def __iter__(self) -> Iterator[Packet]:
        """Iterate over the packets held now, oldest first; they may be released meanwhile."""
        return iter(list(self._packets_of(self._tail - self._head)))

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
        return self._packets_of(position + 1)[position]

    def payloads(self) -> list[memoryview]:
        """Return `Packet.data` of each packet held, oldest first."""
        return list(self._views_of(self._tail - self._head))

    def addresses(self) -> list[Address]:
        """Return `Packet.address` of each packet held, oldest first."""
        return list(self._addresses_of(self._tail - self._head))

    def sizes(self) -> list[int]:
        """Return `Packet.size` of each packet held, oldest first."""
        limit, sizes = self._slot_size, self._wire_sizes_held()
        if sizes and max(sizes) > limit:
            return [min(size, limit) for size in sizes]
        return sizes

    @property
    def buffer(self) -> memoryview:
        """The whole ring, capacity * slot_size bytes, read-only.

        A window on all slots, free and held: unlike a packet's view it stays valid, and shows
        whatever the slots hold at the time.
        """
        return memoryview(self._ring.memory).toreadonly()

    # held -> free

    def release(self, count: int = 1) -> None:
        """Give the slots of the `count` oldest packets back.

        Their `Packet`s, and the views of them that the batch handed out, raise ValueError from
        then on. 0 releases nothing.

        Raises:
            TypeError: `count` is no int, or a bool.
            ValueError: `count` is negative or more than is held; nothing was released.
            BufferError: Something still looks into a packet's memory through its view, a numpy
                array for instance, or a send function that waits. That packet and those after it
                are still held, those before it were released.
        """
        if type(count) is not int or count < 0:
            count = whole_number("count", count, 0, "give the number of packets to release")
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
        view: memoryview | None = None
        try:
            for view in _first(count, self._views):
                view.release()
        except BufferError as error:
            done = [other is view for other in self._views].index(True)
            self._free(done)
            raise BufferError(
                f"the memory of a packet is still in use through its data (by a send that waits, "
                f"a numpy array, a ctypes object or the like); let that end, then release. "
                f"{done} of {count} packets, those before it, were released"
            ) from error
        self._free(count)

    def _free(self, count: int) -> None:
        for packet in _first(count, self._packets):
            packet.__class__ = _Released
        self._head += count
        for column in (self._views, self._packets, self._addresses):
            if count >= len(column):
                column.clear()
            else:
                for _ in range(count):
                    column.popleft()

    # The end: nothing is held, and nothing can be again

    def close(self) -> None:
        """End the use of this batch: release its packets, give its memory back.

        A batch of a pool goes back to the pool. From then on whatever is done with this object
        raises ValueError, closing it again too. ``with batch:`` closes it at the end.

        Raises:
            ValueError: It is closed already, or a task is receiving into it.
            BufferError: As for `release`; the batch is still open.
        """
        if self._filling:
            raise ValueError("a task is receiving into this batch; cancel that, then close it")
        self.clear()
        heir, give_back = self.__class__.__new__(self.__class__), self._give_back
        heir.__dict__, self.__dict__ = self.__dict__, {}
        cast(Any, self).__class__ = _ClosedBatch
        if give_back is not None:
            give_back(heir)

    @property
    def closed(self) -> bool:
        """Whether `close` was called; the one thing that a closed batch still tells."""
        return False

    def __enter__(self) -> PacketBatch:
        self._filling  # noqa: B018  # or a ValueError, if it is closed
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # free -> held: for the receive functions

    def _free_run(self, count: int) -> tuple[int, int]:
        """The next free slots that lie side by side: the first, and how many of `count`."""
        capacity = len(self._slots)
        first, held = self._tail % capacity, self._tail - self._head
        if first and not held:  # an empty ring starts again at slot 0, to need one run
            self._head = self._tail = self._tail - first + capacity
            first = 0
        side_by_side = capacity - (held if held > first else first)
        return first, count if count < side_by_side else side_by_side

    def _commit(self, wire_sizes: list[int], addresses: list[Address]) -> None:
        """Take the next free slots as held.

        They have datagrams of these lengths, and from these senders; without addresses, the
        book will tell them.
        """
        first = self._tail % len(self._slots)
        self._wire_sizes[first : first + len(wire_sizes)] = wire_sizes
        if addresses:
            self._addresses_of(self._tail - self._head)  # of packets before, for the order
            self._addresses.extend(addresses[: len(wire_sizes)])  # one more, if interrupted
        self._tail += len(wire_sizes)

    def _plug(
        self,
        engine: Any,
        read_addresses: ReadAddresses = _no_addresses,
        read_sockaddrs: ReadSockaddrs | None = None,
    ) -> None:
        """Let `engine` fill the free slots from now on."""
        self._addresses_of(self._tail - self._head)  # they are in the last engine's memory
        self._engine = engine
        memory, slot_size = self._ring.memory, self._slot_size
        self._ring = Ring(memory, slot_size, read_addresses, read_sockaddrs)

    # Making what is handed out. Each method makes what is missing up to `count` packets, and lays
    # it out for one run of slots; around the ring's end there are two.

    def _run_of(self, start: int, stop: int) -> tuple[int, int]:
        """The slots of packets `start` to `stop`, counted from the oldest; or their first run."""
        capacity = len(self._slots)
        first = (self._head + start) % capacity
        last = first + stop - start
        return first, last if last <= capacity else capacity

    def _held_runs(self) -> list[range]:
        """The slots of all packets held, oldest first: one run, or two around the ring's end."""
        held = self._tail - self._head
        first, stop = self._run_of(0, held)
        return [range(first, stop), range(held - (stop - first))]

    def _wire_sizes_held(self) -> list[int]:
        held = self._tail - self._head
        first, stop = self._run_of(0, held)
        sizes = self._wire_sizes[first:stop]
        if len(sizes) < held:
            sizes += self._wire_sizes[: held - len(sizes)]
        return sizes

    def _views_of(self, count: int) -> deque[memoryview]:
        views = self._views
        while len(views) < count:
            first, stop = self._run_of(len(views), count)
            sizes = self._wire_sizes[first:stop]
            # A slot's own view does the clamping: no length that an engine reports, however
            # wrong, gives a slice beyond the slot.
            views.extend(
                [view[:size] for view, size in zip(self._slots[first:stop], sizes, strict=True)]
            )
        return views

    def _addresses_of(self, count: int) -> deque[Address]:
        addresses = self._addresses
        while len(addresses) < count:
            first, stop = self._run_of(len(addresses), count)
            addresses.extend(self._ring.read(first, stop - first))
        return addresses

    def _packets_of(self, count: int) -> deque[Packet]:
        packets = self._packets
        while (old := len(packets)) < count:
            first, stop = self._run_of(old, count)
            views = _after(old, self._views_of(count))
            sizes = self._wire_sizes[first:stop]
            ring = self._ring
            if ring.wanted or len(self._addresses) >= count:
                addresses = _after(old, self._addresses_of(count))
                columns = zip(range(first, stop), sizes, views, addresses)  # noqa: B905
                for slot, size, view, address in columns:
                    packet = _new_packet(Packet)
                    packet.data = view
                    packet.address = address
                    packet._wire_size = size
                    packet._slot = slot
                    packet._ring = ring
                    packets.append(packet)
            else:
                for slot, size, view in zip(range(first, stop), sizes, views):  # noqa: B905
                    packet = _new_packet(_Undecoded)
                    packet.data = view
                    packet._wire_size = size
                    packet._slot = slot
                    packet._ring = ring
                    packets.append(packet)
        return packets

    def __repr__(self) -> str:
        return f"<PacketBatch capacity={self.capacity} held={len(self)} free={self.free}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PacketBatch is memory in use: make a new one instead of a copy")


class _ClosedBatch(PacketBatch):
    """What a batch is after `PacketBatch.close`: nothing is left of it but an explanation."""

    @property
    def closed(self) -> bool:
        return True

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") or name == "closed":
            return object.__getattribute__(self, name)
        raise ValueError(
            "this batch was closed, and given back if it came from a pool: its memory may be in "
            "use by somebody else. Take another one"
        )

    def __repr__(self) -> str:
        return "<PacketBatch, closed>"
