"""The slots of a ring: their memory, which of them are held, and the only code that changes that.

A slot is in one of two states:

=======  ===================================================================================
free     Holds no packet. Engines write to it, in a run of `Slots.free_run`, until `commit`.
held     Holds one packet. Nothing writes to it. Consumers read it through views.
=======  ===================================================================================

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
die, then `head` moves. The compiled twin is in _compiled/slots.c and handout.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from operator import attrgetter, getitem
from typing import Any, TypeVar

from .packet import Address, Packet, address_of, data_of, is_dead, make_packets, mark_released
from .source import Source

_T = TypeVar("_T")

SCRIBBLE = 0xDD
"""What released slots are filled with in Python's development mode: a byte that is neither text
nor zero, as debug allocators use it."""

_cut: Any = getitem  # a view, by a slice


class Slots:
    """The memory of a ring and the state of its slots.

    Args:
        memory: A writable buffer of `capacity` * `slot_size` bytes. It must not be resized.
        capacity: How many slots, at least 1.
        slot_size: Bytes of each, at least 1.
        engine: The name of the engine that is to fill them.
        scribble: Whether to overwrite the bytes of released slots.
        ancillary: Whether packets give their control data.

    Attributes:
        head: The number of the oldest packet held.
        tail: The number that the next packet gets.
        source: What knows the senders, set by `plug`; None until the first fill.
        record: What an engine reads, or has read and not committed, or None. While there is one,
            no other engine is plugged: `Engine.settle` has to end it first.
        filler: The coroutine that receives into these slots, or None. See `filling`.
        checked: The last socket that the receive functions checked, by its `Outlook`.
        engines: The one engine of each kind that fills these slots.
        gro: Whether a slot holds a message of many packets: see `TrainSlots`.
    """

    __slots__ = (
        "_base",
        "_dying",
        "_packed",
        "_packets",
        "_plugged",
        "_revivals",
        "_scribble",
        "_viewed",
        "_views",
        "_whole",
        "_wire_sizes",
        "ancillary",
        "capacity",
        "checked",
        "engine",
        "engines",
        "filler",
        "head",
        "memory",
        "record",
        "slot_size",
        "source",
        "tail",
    )

    gro = False

    def __init__(
        self,
        memory: Any,
        capacity: int,
        slot_size: int,
        engine: str = "auto",
        scribble: bool = False,
        ancillary: bool = False,
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
        self._revivals = 0  # how often they were made again
        # Only their `Packet`s know the senders of packets below this number.
        self._plugged = 0
        self.source: Any = None
        self.record: Any = None
        self.filler: Any = None
        self.checked: Any = None
        self.engines: dict[object, Any] = {}
        self.ancillary = ancillary
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

    @property
    def held(self) -> int:
        """How many packets are held."""
        return self.tail - self.head

    @property
    def free(self) -> int:
        """How many slots can take a packet now."""
        return self.capacity - (self.tail - self.head)

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
        while self.source is not source:
            tail = self.tail
            self.hand_out(0)  # only the last source knows their senders
            if self.tail == tail:
                self._plugged = tail
                self.source = source

    # What is held. Each method makes what is missing, for packets `start` to `stop`, counted from
    # the oldest; to the last one if `stop` is None.
    #
    # A signal handler may use the same slots. The interpreter runs it after calls and before it
    # jumps back. So nothing comes between an `if` that asks whether anything has changed, with no
    # call after that question, and the stores under it. If something has, the step is repeated.

    def wire_sizes(self) -> list[int]:
        """Return the lengths, as sent, of all packets held."""
        return self._column(self._wire_sizes, *self._numbers(0, None))

    def tally(self) -> tuple[int, int, int]:
        """Return how many packets are held, their bytes, and how many of them were cut."""
        sizes, limit = self.wire_sizes(), self.slot_size
        some = max(sizes, default=0) > limit
        beyond = [size - limit for size in sizes if size > limit] if some else []
        return len(sizes), sum(sizes) - sum(beyond), len(beyond)

    def addresses(self, start: int, stop: int | None = None) -> list[Address]:
        """Return the senders of held packets."""
        return self._answers(*self._numbers(start, stop), "addresses", address_of)

    def timestamps(self) -> list[int | None]:
        """Return the timestamps of all packets held."""
        return self._answers(*self._numbers(0, None), "timestamps", attrgetter("timestamp"))

    def _answers(self, first: int, last: int, what: str, of: Callable[[Packet], _T]) -> list[_T]:
        """Return what the source says of packets, or their `Packet`s, if it did not fill them."""
        while first < last:
            if first < self._plugged:
                self._make_packets(last)
                return list(map(of, self._column(self._packets, first, last)))
            found: list[_T] = []
            for run in self._runs(first, last):
                found += getattr(self.source, what)(run.start, run.stop - run.start)
            if self.head <= first and self._plugged <= first:
                return found
            first = self.head
        return []

    def payloads(self, start: int, stop: int | None = None) -> list[memoryview]:
        """Return the views of held packets."""
        first, last = self._numbers(start, stop)
        self._make_views(last)
        return self._column(self._views, first, last)

    def copies(self) -> list[bytes]:
        """Return the bytes of all packets held."""
        return list(map(bytes, self.payloads(0)))

    def hand_out(self, start: int, stop: int | None = None) -> list[Packet]:
        """Return the `Packet`s of held packets."""
        first, last = self._numbers(start, stop)
        self._make_packets(last)
        return self._column(self._packets, first, last)

    def _numbers(self, start: int, stop: int | None) -> tuple[int, int]:
        head, tail = self.head, self.tail
        last = tail if stop is None else head + stop
        if not head <= head + start <= last <= tail:
            raise IndexError(f"packets {start} to {stop} of {tail - head}")
        return head + start, last

    def _runs(self, first: int, last: int) -> list[slice]:
        """Return the slots of packets by number: one run, or two around the ring's end."""
        start = (first - self._base) % self.capacity
        stop = start + last - first
        if stop <= self.capacity:
            return [slice(start, stop)]
        return [slice(start, self.capacity), slice(0, stop - self.capacity)]

    def _column(self, by_slot: list[_T], first: int, last: int) -> list[_T]:
        while first < last:
            runs = self._runs(first, last)
            one = len(runs) == 1
            column = by_slot[runs[0]] if one else by_slot[runs[0]] + by_slot[runs[1]]
            if self.head <= first:
                return column
            first = self.head  # some were released meanwhile
        return []

    def _make_views(self, until: int) -> None:
        while True:
            head, viewed = self.head, self._viewed
            if self._dying > head:
                self._revive()
            old = viewed if viewed > head else head
            if old >= until:
                return
            run = self._runs(old, until)[0]
            # A slot's own view does the clamping: no length that an engine reports, however
            # wrong, gives a slice beyond the slot.
            sizes = self._wire_sizes[run]
            cuts: Iterable[slice] = map(slice, sizes)
            if sizes.count(sizes[0]) == len(sizes):  # one slice object serves for all
                cuts = repeat(slice(sizes[0]))
            views = list(map(_cut, self._whole[run], cuts))
            made = old + len(views)
            if self._viewed == viewed and self.head == head:
                self._views[run] = views
                self._viewed = made

    def _make_packets(self, until: int) -> None:
        while True:
            revivals = self._revivals
            self._make_views(until)
            head, packed = self.head, self._packed
            old = packed if packed > head else head
            if old >= until:
                return
            run = self._runs(old, until)[0]
            addresses = self.source.addresses(run.start, run.stop - run.start)
            views, sizes = self._views[run], self._wire_sizes[run]
            controls = self._controls(run.start, run.stop)
            packets: list[Any] = make_packets(views, addresses, sizes, controls)
            made = old + len(packets)
            if self._packed == packed and self.head == head and self._revivals == revivals:
                self._packets[run] = packets
                self._packed = made

    def _controls(self, first: int, stop: int) -> Iterator[tuple[Any, int]] | None:
        """Return the source that has each packet's control data, and the slot, for some slots."""
        return zip(repeat(self.source), range(first, stop)) if self.ancillary else None

    # held -> free

    def take_back(self, count: int | None) -> None:
        """Free the slots of the `count` oldest packets; what was handed out for them is dead then.

        None takes all that are held.

        Raises:
            BufferError: Something looks into a packet's memory through its view. That packet and
                those after it are still held, those before it are not. Its argument is their
                number.
        """
        first = head = self.head
        tail = self.tail
        last = tail if count is None else first + count
        if last > tail:
            raise ValueError(f"{count} of {tail - first} packets taken back")
        while head < last:
            if self._dying < last:
                self._dying = last
            dying, revivals = self._dying, self._revivals
            number, error = head, None
            runs = self._runs(head, last)
            for run in runs:
                number, error = self._kill(head, run, number)
                if error is not None:
                    break
            if self.head == head and self._dying == dying and self._revivals == revivals:
                self.head = number
                if self._scribble:
                    self._overwrite(runs, number - head, tail)
                if error is not None:
                    try:
                        raise BufferError(number - first) from error
                    finally:
                        del error  # as in `_kill`
            head = self.head

    def _kill(self, head: int, run: slice, number: int) -> tuple[int, BufferError | None]:
        """Have what was handed out for `run` raise ValueError, from packet `number` on.

        Return the number of the packet where that ended, and the error if its memory is in use.
        """
        count, error = run.stop - run.start, None
        views, packets = self._views[run], self._packets[run]
        viewed, packed = self._viewed - number, self._packed - number
        if self.head != head:
            return number, None  # these are others: a signal's handler has released some
        if viewed > 0:
            dead: list[None] = []
            try:
                dead.extend(map(memoryview.release, views[:viewed]))
            except BufferError as stuck:
                error, count = stuck, len(dead)
            if packed > 0:
                del packets[min(count, packed) :]
                mark_released(packets)
        try:
            return number + count, error
        finally:
            del error  # else it and this frame keep each other alive

    def _overwrite(self, runs: list[slice], count: int, tail: int) -> None:
        """Scribble over the first `count` slots in `runs`, unless they are in use again."""
        for slot in [slot for run in runs for slot in range(run.start, run.stop)][:count]:
            start = slot * self.slot_size
            used = slice(start, start + min(self._wire_sizes[slot], self.slot_size))
            junk = bytes([SCRIBBLE]) * (used.stop - used.start)
            if self.tail == tail and self.record is None:
                self.memory[used] = junk

    def _revive(self) -> None:
        """Replace what an interrupted `take_back` has killed: the packets are still held."""
        self._revivals += 1
        number = self.head
        for run in self._runs(number, max(number, min(self._dying, self._viewed))):
            for slot in range(run.start, run.stop):
                view = self._views[slot]
                if is_dead(view):
                    fresh = self._whole[slot][: self._wire_sizes[slot]]
                    if self._views[slot] is view:
                        self._views[slot] = fresh
                if number < self._packed:
                    self._revive_packet(slot)
                number += 1
        self._dying = self.head

    def _revive_packet(self, slot: int) -> None:
        packet, view = self._packets[slot], self._views[slot]
        if data_of(packet) is not view:
            size, controls = self._wire_sizes[slot], self._controls(slot, slot + 1)
            (fresh,) = make_packets([view], [address_of(packet)], [size], controls)
            mark_released([packet])
            if self._packets[slot] is packet and self._views[slot] is view:
                self._packets[slot] = fresh
