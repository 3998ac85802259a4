"""`PacketBatch`: what a consumer sees of a ring, and how its use ends."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol, SupportsIndex, cast, get_args, overload

from .._arguments import whole_number
from . import Packet, Slots
from .argument import argument, memory_argument
from .columns import Columns, columns_of
from .memory import Memory, borrowed, paged
from .packet import UNKNOWN_WIRE_SIZE, Address

PACKET_DATA_SIZE = 1232
"""Bytes of a slot by default: the UDP payload that every IPv6 path carries unfragmented. 1280 (the
minimum MTU, RFC 8200 section 5) - 40 (IPv6 header) - 8 (UDP header).
"""

NUM_RCVMMSGS = 64
"""The most packets that one receive call takes, and the slots of a batch, by default. The number
comes from Solana's streamer; with this many, a wait for the socket costs less than its packets."""

TRAIN_SIZE = 65_535
"""Bytes of a slot with ``gro=True``: the kernel coalesces packets up to the longest that an IP
packet can be (65,535, RFC 791 section 3.1, RFC 8200 section 3), so that no train is ever cut."""

ReceiveEngine = Literal["auto", "recvfrom_into", "recvmmsg"]

ENGINES = get_args(ReceiveEngine)


class BatchFullError(Exception):
    """A receive function was given a batch that has no free slot.

    Nothing was read. Give packets back with `PacketBatch.release` or `PacketBatch.clear`, then
    receive again.
    """


class Lease(Protocol):
    """Ends the loan of a batch's slots. A pool is one."""

    def end(self, slots: Slots) -> None:
        """Take `slots` back; their batch was closed. May be called from any thread."""
        ...


class Filler(Protocol):
    """What fills the slots of one ring: `Slots.filler`, once they were received into."""

    def busy(self, slots: Slots) -> bool:
        """Return whether a task, or another thread, is receiving into `slots`."""
        ...

    def settle(self, slots: Slots) -> None:
        """Commit what an interrupted receive has read and not committed."""
        ...


class _Closed:
    """Takes the place of a closed batch's slots: any use raises an error that explains why."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)  # as tools that inspect objects expect, such as Sphinx
        raise ValueError(
            "this batch was closed, and given back if it came from a pool: its memory may be in "
            "use elsewhere. Take another one"
        )


_CLOSED = cast(Slots, _Closed())


@dataclass(init=False, eq=False, repr=False)
class PacketBatch:
    """A ring of fixed slots in memory that is allocated once, and the packets that it holds.

    The receive functions append packets; the consumer reads them, oldest first, and gives their
    slots back with `release` or `clear`. A slot that holds a packet is never written to. A batch
    belongs to one event loop's thread; one task at a time may fill it, others may read and
    release meanwhile.

    Args:
        capacity: Slots, at least 1.
        slot_size: Bytes of a slot, at least 1. A longer datagram is cut to that, and shows it
            in `Packet.truncated`. 65,507 takes any UDP payload over IPv4 (65,535 less 20 for the
            IP header and 8 for the UDP header), 65,527 any over IPv6.
        engine: "recvfrom_into", one call for a packet, on every platform; "recvmmsg", one call
            for a batch, on Linux where the compiled module was built; "auto", the fastest
            available.
        gro: Take what the kernel has coalesced (UDP_GRO, Linux 5.0): a slot holds a *train*, one
            message of many packets of one size from one sender, the last perhaps shorter.
            `capacity`, `free` and limits count messages; all else counts packets, which are
            handed out one by one. The slots have 65,535 bytes, of which the system provides only
            what is written to. Without the compiled module, packets that come alone cost more
            than in a batch without ``gro`` (``python -m benchmarks gro``).
        ancillary: Have room for the control data of packets: timestamp, destination, interface,
            ECN, hop limit. Ask the socket for them too, see `open_udp_socket`.
        memory: Your own memory for the slots: anything writable and C-contiguous with at least
            capacity * slot_size bytes, such as a numpy array, an `mmap.mmap` or the ``buf`` of a
            `multiprocessing.shared_memory.SharedMemory`. Packets lie side by side from its
            beginning, and nothing else is written to it. The batch holds an export until it is
            closed, so that the memory can neither shrink nor be freed.

    Attributes:
        capacity: The argument; it can't be set. The other arguments likewise.

    Raises:
        TypeError: `capacity` or `slot_size` is not an int, or is a bool; `engine` is not a str;
            `gro` or `ancillary` is not a bool; `memory` is not a buffer, or one of Python objects.
        ValueError: `capacity` or `slot_size` is below 1, or so large that no memory can have all
            slots; `engine` is unknown; `slot_size` is given with ``gro=True`` and is not 65,535;
            or `memory` is read-only, not C-contiguous, or has fewer bytes than the slots.
    """

    capacity: int = argument(NUM_RCVMMSGS)
    slot_size: int = argument(PACKET_DATA_SIZE)
    engine: ReceiveEngine = argument("auto")  # noqa: RUF009  # a descriptor, which is shared
    gro: bool = argument(False)
    ancillary: bool = argument(False)
    memory: object = memory_argument()

    _slots = _CLOSED  # also of an object whose __init__ was not called, or raised
    _lease = cast("Lease | None", None)
    _given = cast("Memory | None", None)

    def __init__(
        self,
        capacity: SupportsIndex = NUM_RCVMMSGS,
        slot_size: SupportsIndex = PACKET_DATA_SIZE,
        engine: ReceiveEngine = "auto",
        gro: bool = False,
        ancillary: bool = False,
        memory: Memory | None = None,
    ) -> None:
        self._slots = new_slots(capacity, slot_size, engine, gro, ancillary, memory)
        self._given = memory

    # What is held

    @property
    def free(self) -> int:
        """Slots that can take a packet now."""
        return self._slots.free

    def __len__(self) -> int:
        return self._slots.held

    def __iter__(self) -> Iterator[Packet]:
        """Iterate over the packets held now, oldest first; they may be released meanwhile."""
        return iter(self._slots.hand_out(0))

    @overload
    def __getitem__(self, index: SupportsIndex) -> Packet: ...
    @overload
    def __getitem__(self, index: slice) -> list[Packet]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Packet | list[Packet]:
        if isinstance(index, slice):
            return list(PacketBatch.__iter__(self))[index]
        wanted = operator.index(index)  # which may run anything, so it comes first
        slots = self._slots
        held = slots.held
        position = wanted + held if wanted < 0 else wanted
        if not 0 <= position < held:
            raise IndexError(f"packet {wanted} of a batch that holds {held}")
        return slots.hand_out(position, position + 1)[0]

    def payloads(self) -> list[memoryview]:
        """Return `Packet.data` of each packet held, oldest first."""
        return self._slots.payloads(0)

    def addresses(self) -> list[Address]:
        """Return `Packet.address` of each packet held, oldest first."""
        return self._slots.addresses(0)

    def sizes(self) -> list[int]:
        """Return `Packet.size` of each packet held, oldest first."""
        slots = self._slots
        limit, sizes = slots.slot_size, slots.wire_sizes()
        if sizes and max(sizes) > limit:
            return [min(size, limit) for size in sizes]
        return sizes

    def truncated(self) -> list[bool]:
        """Return `Packet.truncated` of each packet held, oldest first."""
        slots = self._slots
        limit = slots.slot_size
        return [size > limit for size in slots.wire_sizes()]

    def wire_sizes(self) -> list[int | None]:
        """Return `Packet.wire_size` of each packet held, oldest first."""
        slots = self._slots
        limit, sizes = slots.slot_size, slots.wire_sizes()
        if sizes and max(sizes) == UNKNOWN_WIRE_SIZE > limit:
            return [None if size == UNKNOWN_WIRE_SIZE else size for size in sizes]
        return cast("list[int | None]", sizes)

    def timestamps(self) -> list[int | None]:
        """Return `Packet.timestamp` of each packet held, oldest first.

        Raises:
            ValueError: The batch was made without ``ancillary=True``, or control data was cut.
        """
        return self._slots.timestamps()

    def destinations(self) -> list[str | None]:
        """Return `Packet.destination` of each packet held, oldest first.

        Raises:
            ValueError: As for `timestamps`.
        """
        return [packet.destination for packet in PacketBatch.__iter__(self)]

    def interfaces(self) -> list[int | None]:
        """Return `Packet.interface` of each packet held, oldest first.

        Raises:
            ValueError: As for `timestamps`.
        """
        return [packet.interface for packet in PacketBatch.__iter__(self)]

    def ecns(self) -> list[int | None]:
        """Return `Packet.ecn` of each packet held, oldest first.

        Raises:
            ValueError: As for `timestamps`.
        """
        return [packet.ecn for packet in PacketBatch.__iter__(self)]

    def hop_limits(self) -> list[int | None]:
        """Return `Packet.hop_limit` of each packet held, oldest first.

        Raises:
            ValueError: As for `timestamps`.
        """
        return [packet.hop_limit for packet in PacketBatch.__iter__(self)]

    def datagrams(self) -> list[tuple[bytes, Address]]:
        """Return a copy of each packet held as bytes, with its address, oldest first.

        In one pass. The copies stay valid after a release.
        """
        return self._slots.datagrams()

    def columns(self) -> Columns:
        """Return all packets held as arrays, for numpy, pyarrow, polars, `array` or `struct`.

        `Columns.data` is the ring itself if the packets lie side by side in it, as they do
        whenever the batch was empty before the receive; a row has `slot_size` bytes then.
        Otherwise (after a partial release and a refill; with ``gro=True`` always, where a row has
        the bytes of the longest packet) it is a copy.

        Raises:
            ValueError: The batch holds no packets, or control data was cut.
        """
        return columns_of(self._slots)

    @property
    def buffer(self) -> memoryview:
        """The whole ring, capacity * slot_size bytes, read-only.

        A window on all slots, free and held: unlike a packet's view it stays valid, and shows
        whatever the slots hold at the time.
        """
        return memoryview(self._slots.memory).toreadonly()

    # held -> free

    def release(self, count: SupportsIndex = 1) -> None:
        """Give the slots of the `count` oldest packets back.

        Their `Packet`s, and the views of them that the batch handed out, raise ValueError from
        then on. 0 releases nothing. If a signal handler raises meanwhile, ``len(batch)`` says
        whether it is done; if it is not, do it again before reading on.

        Raises:
            TypeError: `count` is not an int, or is a bool.
            ValueError: `count` is negative or more than is held; nothing was released.
            BufferError: Something holds an export of a packet's view: a send function that waits,
                a `pickle.PickleBuffer`, a ctypes object made from it. That packet and those after
                it are still held, those before it were released.
        """
        if type(count) is not int or count < 0:
            count = whole_number("count", count, 0, "give the number of packets to release")
        slots = self._slots
        held = slots.held
        if count > held:
            raise ValueError(
                f"release of {count} packets from a batch that holds {held}; "
                f"release len(batch) at most, or use clear()"
            )
        try:
            slots.take_back(count)
        except BufferError as error:
            raise _in_use(count, error) from error

    def clear(self) -> None:
        """Give all slots back.

        Raises:
            BufferError: As for `release`.
        """
        _clear(self._slots)

    # The end: nothing is held, and nothing can be again

    def close(self) -> None:
        """End the use of this batch: release its packets, give its memory back.

        A batch of a pool goes back to the pool. From then on whatever is done with this object
        raises ValueError, closing it again too. ``with batch:`` closes it at the end.

        Raises:
            ValueError: It is closed already, or a task is receiving into it.
            BufferError: As for `release`; the batch is still open.
        """
        slots = self._slots
        filler: Filler | None = slots.filler
        if slots.reading or (filler is not None and filler.busy(slots)):
            raise ValueError("a task is receiving into this batch; cancel that, then close it")
        if filler is not None:
            filler.settle(slots)
        while True:
            _clear(slots)
            if self._slots is not slots:
                return  # a signal handler has closed it meanwhile
            if not slots.held:  # else one has received
                self._slots, self._given = _CLOSED, None
                break
        if self._lease is not None:
            self._lease.end(slots)
            self._lease = None

    @property
    def closed(self) -> bool:
        """Whether `close` was called; the only attribute of a closed batch that can be read."""
        return self._slots is _CLOSED

    def __enter__(self) -> PacketBatch:
        self._slots.capacity  # noqa: B018  # or a ValueError, if it is closed
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        slots = self._slots  # read once: it may be closed meanwhile
        if slots is _CLOSED:
            return "<PacketBatch, closed>"
        return f"<PacketBatch capacity={slots.capacity} held={slots.held} free={slots.free}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PacketBatch is memory in use: make a new one instead of a copy")


def is_busy(slots: Slots) -> bool:
    """Return whether a task, or another thread, is receiving into `slots`."""
    filler: Filler | None = slots.filler
    return slots.reading or (filler is not None and filler.busy(slots))


def settle(slots: Slots) -> int:
    """Commit what an interrupted receive has read into `slots`; return how many they hold."""
    filler: Filler | None = slots.filler
    if filler is not None:
        filler.settle(slots)
    return slots.held


def _clear(slots: Slots) -> None:
    try:
        slots.take_back(None)
    except BufferError as error:
        raise _in_use(slots.held + error.args[0], error) from error


def _in_use(count: int, error: BufferError) -> BufferError:
    """Return what to raise for a release of `count` packets that ended early."""
    return BufferError(
        f"the memory of a packet is still in use through its data (by a send that waits, "
        f"a ctypes object or the like); let that end, then release. "
        f"{error.args[0]} of {count} packets, those before it, were released"
    )


def new_slots(
    capacity: SupportsIndex,
    slot_size: SupportsIndex,
    engine: str,
    gro: bool = False,
    ancillary: bool = False,
    memory: Memory | None = None,
) -> Slots:
    """Return the slots of a new batch, for arguments of `PacketBatch`, and with its errors."""
    capacity = whole_number("capacity", capacity, 1, "give the number of slots, at least 1")
    slot_size = whole_number("slot_size", slot_size, 1, "give the bytes of a slot, at least 1")
    if not isinstance(engine, str):
        raise TypeError(f"engine is a {type(engine).__name__}; give one of {ENGINES}")
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; give one of {ENGINES}")
    for name, value in (("gro", gro), ("ancillary", ancillary)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} is a {type(value).__name__}; give True or False")
    if gro:
        if slot_size not in (PACKET_DATA_SIZE, TRAIN_SIZE):
            raise ValueError(
                f"slot_size is {slot_size}; leave it out with gro=True, where a slot has "
                f"{TRAIN_SIZE:,} bytes, so that no train is cut"
            )
        slot_size = TRAIN_SIZE
    size = capacity * slot_size
    if size > sys.maxsize:
        raise ValueError(
            f"{capacity:,} slots of {slot_size:,} bytes are more than any memory; give fewer"
        )
    if memory is not None:  # where nothing but packets is written
        own = borrowed(memory, size)
        return Slots(own, capacity, slot_size, engine, False, ancillary, gro)
    room = paged(size) if slot_size >= TRAIN_SIZE else bytearray(size)
    return Slots(room, capacity, slot_size, engine, sys.flags.dev_mode, ancillary, gro)
