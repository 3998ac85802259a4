"""The slots of a ring: their memory, which of them are held, and the only code that changes that.

A slot is in one of two states:

=======  ==============================================================================
free     Holds nobody's bytes. An engine may write to it, inside a run of slots that
         `Slots.free_run` named, until `Slots.commit`.
held     Holds one packet. Nothing writes to it. Consumers read it through views.
=======  ==============================================================================

=============  ==================  ====================================================
from, to       by                  who calls it
=============  ==================  ====================================================
free -> held   `Slots.commit`      an engine, right after it read
held -> free   `Slots.take_back`   `PacketBatch.release`, `clear` and `close`
=============  ==================  ====================================================

Packets are numbered by arrival: `head` is the number of the oldest one held, `tail` the number
that the next one gets, and packet number n lies in slot (n - base) % capacity. So one store moves
a state: a signal handler may raise or run between any two bytecodes, and never sees half a step.
Arrays are indexed by slot; they are written while the slots are free, then `tail` moves; views
die, then `head` moves.

The compiled twin is in _compiled/packets.c.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from operator import getitem
from typing import Any, Protocol, TypeVar

from .packet import Address, Packet, make_packets, mark_released

_T = TypeVar("_T")

SCRIBBLE = 0xDD
"""What released slots are filled with in Python's development mode: a byte that is neither text
nor zero, as debug allocators use it."""


class Source(Protocol):
    """Knows who sent the packets in slots: the engine that filled them."""

    def addresses(self, first: int, count: int) -> list[Address]:
        """Return the senders of the packets in `count` slots from `first` on."""
        ...


class Slots:
    """The memory of a ring and the state of its slots.

    Args:
        memory: A writable buffer of `capacity` * `slot_size` bytes. It must not be resized.
        capacity: How many slots, at least 1.
        slot_size: Bytes of each, at least 1.
        engine: The name of the engine that is to fill them.
        scribble: Whether to overwrite the bytes of released slots.

    Attributes:
        head: The number of the oldest packet held.
        tail: The number that the next packet gets.
        source: Who knows the senders, set by `plug`; None until the first fill.
        record: What an engine read and has not committed yet, or None. See `Source.settle` of
            the engine that uses it.
        filler: The coroutine that receives into these slots, or None. See `filling`.
        borrower: Who has these slots on loan, as their pool needs it.
    """

    __slots__ = (
        "_base",
        "_dying",
        "_packed",
        "_packets",
        "_scribble",
        "_viewed",
        "_views",
        "_whole",
        "_wire_sizes",
        "borrower",
        "capacity",
        "engine",
        "filler",
        "head",
        "memory",
        "record",
        "slot_size",
        "source",
        "tail",
    )

    def __init__(
        self,
        memory: bytearray,
        capacity: int,
        slot_size: int,
        engine: str = "auto",
        scribble: bool = False,
    ) -> None:
        if len(memory) != capacity * slot_size:
            raise ValueError(f"{capacity} slots of {slot_size} bytes in {len(memory)}")
        self.memory = memory
        self.capacity = capacity
        self.slot_size = slot_size
        self.engine = engine
        self.head = self.tail = self._base = 0
        # Views and packets are made when asked for, oldest first; those below these numbers are.
        self._viewed = self._packed = 0
        # Views of packets below this number may be dead, since `take_back` was interrupted.
        self._dying = 0
        self.source: Any = None
        self.record: Any = None
        self.filler: Any = None
        self.borrower: Any = None
        self._scribble = scribble
        view = memoryview(memory).toreadonly()
        starts = range(0, len(view), slot_size)
        # By slot: all of its memory; the length of its datagram as sent; what was handed out.
        self._whole = [view[start : start + slot_size] for start in starts]
        self._wire_sizes = [0] * capacity
        self._views = self._whole[:]
        self._packets: list[Any] = [None] * capacity

    @property
    def filling(self) -> bool:
        """Whether a task is receiving into these slots.

        The interpreter knows it: the task's coroutine is running, or suspended in an await. A
        flag could stay set after an interrupt.
        """
        filler = self.filler
        return filler is not None and (filler.cr_running or filler.cr_await is not None)

    # free -> held, for engines

    def free_run(self, count: int) -> tuple[int, int]:
        """Return the next free slots that lie side by side: the first, and how many of `count`."""
        tail, capacity = self.tail, self.capacity
        free = capacity - (tail - self.head)
        if free == capacity:  # an empty ring starts again at slot 0, to need one run
            self._base = tail
        first = (tail - self._base) % capacity
        return first, min(count, free, capacity - first)

    def commit(self, wire_sizes: list[int]) -> None:
        """Take the next free slots as held; they have datagrams of these lengths, as sent."""
        # Not by `free_run`: since the engine asked it, the ring may have become empty.
        first, count = (self.tail - self._base) % self.capacity, len(wire_sizes)
        free = min(self.capacity - (self.tail - self.head), self.capacity - first)
        if count > free:
            raise ValueError(f"commit of {count} packets into {free} free slots")
        self._wire_sizes[first : first + count] = wire_sizes
        self.tail += count

    def plug(self, source: Source | None) -> None:
        """Let `source` fill the free slots from now on."""
        self.hand_out(0, self.tail - self.head)  # whose senders only the last one knows
        self.source = source

    # What is held. Each method makes what is missing, for packets `start` to `stop`, counted from
    # the oldest.

    def _runs(self, start: int, stop: int) -> list[slice]:
        """Return the slots of held packets: one run, or two around the ring's end."""
        first = (self.head + start - self._base) % self.capacity
        last = first + stop - start
        if last <= self.capacity:
            return [slice(first, last)]
        return [slice(first, self.capacity), slice(0, last - self.capacity)]

    def wire_sizes(self) -> list[int]:
        """Return the lengths, as sent, of all packets held."""
        return self._column(self._wire_sizes, 0, self.tail - self.head)

    def addresses(self, start: int, stop: int) -> list[Address]:
        """Return the senders of held packets."""
        found: list[Address] = []
        for run in self._runs(start, stop) if start < stop else ():
            found += self.source.addresses(run.start, run.stop - run.start)
        return found

    def payloads(self, start: int, stop: int) -> list[memoryview]:
        """Return the views of held packets."""
        self._make_views(self.head + stop)
        return self._column(self._views, start, stop)

    def hand_out(self, start: int, stop: int) -> list[Packet]:
        """Return the `Packet`s of held packets."""
        self._make_packets(self.head + stop)
        return self._column(self._packets, start, stop)

    def _column(self, by_slot: list[_T], start: int, stop: int) -> list[_T]:
        runs = self._runs(start, stop)
        return by_slot[runs[0]] if len(runs) == 1 else by_slot[runs[0]] + by_slot[runs[1]]

    def _make_views(self, until: int) -> None:
        head = self.head
        if self._dying > head:
            self._revive()
        old = self._viewed if self._viewed > head else head
        if old < until:
            for run in self._runs(old - head, until - head):
                # A slot's own view does the clamping: no length that an engine reports, however
                # wrong, gives a slice beyond the slot.
                sizes = self._wire_sizes[run]
                cuts: Iterable[slice] = map(slice, sizes)
                if sizes.count(sizes[0]) == len(sizes):  # one slice object serves for all
                    cuts = repeat(slice(sizes[0]))
                views: Any = map(getitem, self._whole[run], cuts)
                self._views[run] = list(views)
            self._viewed = until

    def _make_packets(self, until: int) -> None:
        self._make_views(until)
        head = self.head
        old = self._packed if self._packed > head else head
        if old < until:
            for run in self._runs(old - head, until - head):
                addresses = self.source.addresses(run.start, run.stop - run.start)
                self._packets[run] = make_packets(
                    self._views[run], addresses, self._wire_sizes[run]
                )
            self._packed = until

    # held -> free

    def take_back(self, count: int) -> None:
        """Free the slots of the `count` oldest packets; what was handed out for them is dead then.

        Raises:
            BufferError: Something looks into a packet's memory through its view. That packet and
                those after it are still held, those before it are not. Its argument is their
                number.
        """
        first = number = self.head
        if count > self.tail - first:
            raise ValueError(f"{count} of {self.tail - first} packets taken back")
        self._dying = first + count
        error = None
        for run in self._runs(0, count):
            number, error = self._kill(run, number)
            if error is not None:
                break
        self.head = number
        self._dying = number
        if error is not None:
            raise BufferError(number - first) from error

    def _kill(self, run: slice, number: int) -> tuple[int, BufferError | None]:
        """Have what was handed out for `run` raise ValueError, from packet `number` on.

        Returns:
            The number of the packet where that ended, and why, if its memory is in use.
        """
        count, error = run.stop - run.start, None
        if number < self._viewed:
            dead: list[None] = []
            views = self._views[run][: self._viewed - number]
            try:
                dead.extend(map(memoryview.release, views))
            except BufferError as stuck:
                error, count = stuck, len(dead)
            if number < self._packed:
                mark_released(self._packets[run][: min(count, self._packed - number)])
        if self._scribble:
            for slot in range(run.start, run.start + count):
                used = min(self._wire_sizes[slot], self.slot_size)
                start = slot * self.slot_size
                self.memory[start : start + used] = bytes([SCRIBBLE]) * used
        return number + count, error

    def _revive(self) -> None:
        """Make anew what an interrupted `take_back` has killed: the packets are still held."""
        number = self.head
        for run in self._runs(0, max(0, min(self._dying, self._viewed) - number)):
            for slot in range(run.start, run.stop):
                if _is_dead(self._views[slot]):
                    self._views[slot] = view = self._whole[slot][: self._wire_sizes[slot]]
                    if number < self._packed:
                        mark_released([self._packets[slot]])
                        (self._packets[slot],) = make_packets(
                            [view], self.source.addresses(slot, 1), [self._wire_sizes[slot]]
                        )
                number += 1
        self._dying = self.head


def _is_dead(view: memoryview) -> bool:
    try:
        view.nbytes  # noqa: B018
    except ValueError:
        return True
    return False
