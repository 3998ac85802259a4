"""`TrainSlots`: slots that hold a message of one or more packets, as GRO gives them.

The kernel coalesces packets of one size from one sender (the last may be shorter) into one
message, a *train*. A slot holds one message and is free when its last packet was released. Slots
are counted in messages, what consumers see in packets.

Packets and messages are numbered by arrival. `head` is a packet's number, so that a release is
one store; `tail` is a message's, so that a commit is. Work is done by message, not by packet:
what was handed out for one is one list, stored in one step beside the message's number, so that
it can't be taken for another's.

The compiled twin is `Slots` with `segments`, in _compiled/.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from operator import getitem
from typing import Any, TypeAlias, TypeVar

from .packet import Address, Packet, address_of, data_of, is_dead, make_packets, mark_released
from .slots import SCRIBBLE, Slots

_T = TypeVar("_T")

LOST = 2**32 - 1
"""The segment size of a train whose own was cut off: its packets can't be told apart."""

_Span: TypeAlias = tuple[int, int, int, int]
"""A message, its slot, and a range of its packets, counted from its first."""

_cut: Any = getitem  # a view, by a slice


class TrainSlots(Slots):
    """The memory of a ring and the state of its slots, for trains. See `Slots`."""

    __slots__ = ("_cars", "_first", "_handed", "_round", "_segments", "_starts")

    gro = True

    def __init__(
        self,
        memory: Any,
        capacity: int,
        slot_size: int,
        engine: str = "auto",
        scribble: bool = False,
        ancillary: bool = False,
    ) -> None:
        super().__init__(memory, capacity, slot_size, engine, scribble, ancillary)
        # By message, modulo `_round`: the number of its first packet, which for message `tail` is
        # the one that the next packet gets. They are one more than there are slots.
        self._round = capacity + 1
        self._starts = [0] * self._round
        self._first = 0  # a message: none before it is held
        # By slot: bytes of each packet but the last, 0 for a message that is one packet; a message
        # and the views of all its packets; a message and its `Packet`s.
        self._segments = [0] * capacity
        self._cars: list[tuple[int, list[memoryview]]] = [(-1, [])] * capacity
        self._handed: list[tuple[int, list[Packet]]] = [(-1, [])] * capacity

    @property
    def held(self) -> int:
        """How many packets are held."""
        return self._starts[self.tail % self._round] - self.head

    @property
    def free(self) -> int:
        """How many slots can take a message now."""
        return self.capacity - (self.tail - self._oldest())

    def _oldest(self) -> int:
        """Return the oldest message held; `tail` if there is none."""
        while True:
            before, head, tail = self._first, self.head, self.tail
            first = before
            while first < tail and self._starts[(first + 1) % self._round] <= head:
                first += 1
            if self._first == before and self.tail == tail:
                self._first = first
                return first

    # free -> held

    def free_run(self, count: int) -> tuple[int, int]:
        """See `Slots.free_run`."""
        free, tail = self.free, self.tail
        if free == self.capacity:  # an empty ring starts again at slot 0, to need one run
            self._base = tail
        first = (tail - self._base) % self.capacity
        return first, min(count, free, self.capacity - first)

    def commit(self, wire_sizes: list[int], segments: list[int] | None = None) -> None:
        """See `Slots.commit`. `segments` are the packets' sizes; 0: the message is one packet."""
        tail, count = self.tail, len(wire_sizes)
        first = (tail - self._base) % self.capacity
        free = min(self.free, self.capacity - first)
        if count > free:
            raise ValueError(f"commit of {count} messages into {free} free slots")
        segments = [0] * count if segments is None else segments
        number = self._starts[tail % self._round]
        for message, size, segment in zip(
            range(tail, tail + count), wire_sizes, segments, strict=True
        ):
            if not segment:
                number += 1
            elif segment != LOST:
                number += max(1, -(-min(size, self.slot_size) // segment))
            self._starts[(message + 1) % self._round] = number
        self._wire_sizes[first : first + count] = wire_sizes
        self._segments[first : first + count] = segments
        self.tail = tail + count

    # What is held. As in `Slots`: between the last call before an `if` that asks whether anything
    # has changed and the stores under it nothing comes in. That includes what allocates, since
    # the garbage collector may run finalizers.

    def wire_sizes(self) -> list[int]:
        """See `Slots.wire_sizes`. Packets of a train have no other length than they have."""
        return self._gather(*self._numbers(0, None), self._sizes_of)

    def addresses(self, start: int, stop: int | None = None) -> list[Address]:
        """See `Slots.addresses`."""
        return self._gather(*self._numbers(start, stop), self._addresses_of)

    def timestamps(self) -> list[int | None]:
        """See `Slots.timestamps`."""
        return self._gather(*self._numbers(0, None), self._timestamps_of)

    def payloads(self, start: int, stop: int | None = None) -> list[memoryview]:
        """See `Slots.payloads`."""
        return self._gather(*self._numbers(start, stop), self._views_of)

    def hand_out(self, start: int, stop: int | None = None) -> list[Packet]:
        """See `Slots.hand_out`."""
        return self._gather(*self._numbers(start, stop), self._packets_of)

    def _numbers(self, start: int, stop: int | None) -> tuple[int, int]:
        head, end = self.head, self._starts[self.tail % self._round]
        last = end if stop is None else head + stop
        if not head <= head + start <= last <= end:
            raise IndexError(f"packets {start} to {stop} of {end - head}")
        return head + start, last

    def _gather(self, first: int, last: int, of: Callable[[int, int, int], list[_T]]) -> list[_T]:
        """Return what `of` gives for packets by number, from `first` on and before `last`."""
        while first < last:
            head = self.head
            if self._dying > head:
                self._revive()
            found: list[_T] = []
            if first >= head:
                for message, slot, start, stop in self._spans(first, last):
                    found += of(head, message, slot)[start:stop]
            if self.head == head and self._dying <= head:
                if first >= head:
                    return found
                first = head  # some were released meanwhile
        return []

    def _spans(self, first: int, last: int) -> list[_Span]:
        """Return which packets of which messages have numbers from `first` on, before `last`."""
        spans = []
        message = self._oldest()
        starts, rounds = self._starts, self._round
        end = starts[message % rounds]
        while end < last and message < self.tail:
            start, end = end, starts[(message + 1) % rounds]
            if end > first:
                slot = (message - self._base) % self.capacity
                spans.append((message, slot, max(first - start, 0), min(last, end) - start))
            message += 1
        return spans

    # Of a message that is held if `head` is still the same afterwards; else they mean nothing.

    def _sizes_of(self, head: int, message: int, slot: int) -> list[int]:
        size, segment = self._wire_sizes[slot], self._segments[slot]
        if not segment:
            return [size]
        size = min(size, self.slot_size)
        count = max(1, -(-size // segment))
        return [segment] * (count - 1) + [size - segment * (count - 1)]

    def _views_of(self, head: int, message: int, slot: int) -> list[memoryview]:
        cars = self._cars[slot]
        if cars[0] != message:
            fresh = message, self._cut_views(slot)
            if self.head == head and self._cars[slot] is cars:
                self._cars[slot] = cars = fresh
        return cars[1]

    def _cut_views(self, slot: int) -> list[memoryview]:
        # A slot's own view does the clamping: no length that an engine reports, however wrong,
        # gives a slice beyond the slot.
        whole, segment = self._whole[slot][: self._wire_sizes[slot]], self._segments[slot]
        if not segment or whole.nbytes <= segment:
            return [whole]
        starts = range(0, whole.nbytes, segment)
        cuts = map(slice, starts, range(segment, starts[-1] + segment + 1, segment))
        return list(map(_cut, repeat(whole), cuts))

    def _packets_of(self, head: int, message: int, slot: int) -> list[Packet]:
        handed = self._handed[slot]
        if handed[0] != message:
            revivals, views = self._revivals, self._views_of(head, message, slot)
            made = make_packets(
                views,
                repeat(self.source.addresses(slot, 1)[0]),
                self._sizes_of(head, message, slot),
                repeat((self.source, slot)) if self.ancillary else None,
            )
            fresh = message, made
            if self.head == head and self._revivals == revivals and self._handed[slot] is handed:
                self._handed[slot] = handed = fresh
            elif self.head == head:  # a signal's handler has made them, or its own views
                return self._packets_of(head, message, slot)
        return handed[1]

    def _addresses_of(self, head: int, message: int, slot: int) -> list[Address]:
        if message < self._plugged:
            return list(map(address_of, self._packets_of(head, message, slot)))
        starts, rounds = self._starts, self._round
        count = starts[(message + 1) % rounds] - starts[message % rounds]
        addresses: list[Address] = self.source.addresses(slot, 1)
        return addresses * count

    def _timestamps_of(self, head: int, message: int, slot: int) -> list[int | None]:
        starts, rounds = self._starts, self._round
        count = starts[(message + 1) % rounds] - starts[message % rounds]
        timestamp: int | None = None
        if count and message < self._plugged:  # the last packet is released last
            timestamp = self._packets_of(head, message, slot)[-1].timestamp
        elif count:  # a train that was lost has no packets, and its control data is cut
            timestamp = self.source.timestamp(slot)
        return [timestamp] * count

    # held -> free

    def take_back(self, count: int | None) -> None:
        """See `Slots.take_back`."""
        first = head = self.head
        end = self._starts[self.tail % self._round]
        last = end if count is None else first + count
        if last > end:
            raise ValueError(f"{count} of {end - first} packets taken back")
        while head < last:
            if self._dying < last:
                self._dying = last
            dying, revivals, tail = self._dying, self._revivals, self.tail
            spans = self._spans(head, last)
            number, error = self._kill_spans(head, spans)
            if self.head == head and self._dying == dying and self._revivals == revivals:
                self.head = number
                if self._scribble:
                    self._overwrite_spans(spans, number - head, tail)
                if error is not None:
                    try:
                        raise BufferError(number - first) from error
                    finally:
                        del error  # else it and this frame keep each other alive
            head = self.head

    def _kill_spans(self, head: int, spans: list[_Span]) -> tuple[int, BufferError | None]:
        """Have what was handed out for packets from number `head` on raise ValueError.

        Returns:
            The number of the packet where that ended, and why, if its memory is in use.
        """
        number, error = head, None
        for message, slot, start, stop in spans:
            cars, handed = self._cars[slot], self._handed[slot]
            if self.head != head:
                break  # these are others: a signal's handler has released some
            count = stop - start
            if cars[0] == message:
                dead: list[None] = []
                try:
                    dead.extend(map(memoryview.release, cars[1][start:stop]))
                except BufferError as stuck:
                    error, count = stuck, len(dead)
                if handed[0] == message:
                    mark_released(handed[1][start : start + count])
            number += count
            if error is not None:
                break
        try:
            return number, error
        finally:
            del error  # as above

    def _overwrite_spans(self, spans: list[_Span], count: int, tail: int) -> None:
        """Scribble over the first `count` packets in `spans`, unless their slots are in use."""
        for _, slot, start, stop in spans:
            stop = min(stop, start + count)
            segment, at = self._segments[slot], slot * self.slot_size
            size = min(self._wire_sizes[slot], self.slot_size)
            used = slice(
                at + segment * start, at + (min(size, segment * stop) if segment else size)
            )
            junk = bytes([SCRIBBLE]) * (used.stop - used.start)
            if self.tail == tail and self.record is None:
                self.memory[used] = junk
            count -= stop - start
            if not count:
                break

    def _revive(self) -> None:
        """See `Slots._revive`."""
        while True:
            self._revivals += 1
            head, dying = self.head, self._dying
            for message, slot, start, stop in self._spans(head, dying):
                self._revive_views(head, message, slot, range(start, stop))
                self._revive_packets(head, message, slot, range(start, stop))
            if self.head == head and self._dying == dying:
                self._dying = head
                return

    def _revive_views(self, head: int, message: int, slot: int, which: range) -> None:
        cars = self._cars[slot]
        if cars[0] != message:
            return
        views, whole = cars[1][:], None
        for index in which:
            if is_dead(views[index]):
                whole = whole or self._cut_views(slot)
                views[index] = whole[index]
        fresh = message, views
        if self.head == head and self._cars[slot] is cars:
            self._cars[slot] = fresh

    def _revive_packets(self, head: int, message: int, slot: int, which: range) -> None:
        handed, cars = self._handed[slot], self._cars[slot]
        if handed[0] != message:
            return
        packets, views, sizes = handed[1][:], cars[1], self._sizes_of(head, message, slot)
        for index in which:
            old = packets[index]
            if data_of(old) is not views[index]:
                (packets[index],) = make_packets(
                    [views[index]],
                    [address_of(old)],
                    [sizes[index]],
                    repeat((self.source, slot)) if self.ancillary else None,
                )
                mark_released([old])
        fresh = message, packets
        if self.head == head and self._handed[slot] is handed and self._cars[slot] is cars:
            self._handed[slot] = fresh
