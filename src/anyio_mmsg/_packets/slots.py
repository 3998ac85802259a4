"""The slots of a ring: their memory, which of them are held, and the only code that changes that.

A slot is in one of two states:

=======  ===================================================================================
free     Holds nothing. Engines write to it, in a run of `Slots.free_run`, until `commit`.
held     Holds a message: one packet, or with `gro` a train of them. Nothing writes to it.
=======  ===================================================================================

=============  ==================  ====================================================
from, to       by                  who calls it
=============  ==================  ====================================================
free -> held   `Slots.commit`      an engine, right after it read
held -> free   `Slots.take_back`   `PacketBatch.release`, `clear` and `close`
=============  ==================  ====================================================

What a packet brings enters at `commit`: its bytes are in the slot, its length, sender and control
data are arguments. The ring asks nobody afterwards.

Messages are numbered by arrival: `head` is the number of the oldest one held, `tail` the number
that the next one gets, and message n lies in slot (n - base) % capacity. Packets are numbered by
arrival too; without `gro` the two are the same.

A signal handler may raise between any two bytecodes, but may not use the batch that it
interrupts. So arrays are written while slots are free, then one store moves `tail`; views die,
then one store moves `_state`. The compiled twin is in _compiled/slots.c and handout.c.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate, repeat
from operator import getitem
from typing import Any, TypeAlias, TypeVar

from .packet import NO_CONTROL, UNKNOWN_WIRE_SIZE, Address, Packet, make_packets, mark_released
from .sums import Sums, plus
from .tables import Tables

_T = TypeVar("_T")

SCRIBBLE = 0xDD
"""What released slots are filled with in Python's development mode: a byte that is neither text
nor zero, as debug allocators use it."""

LOST = 2**32 - 1
"""The segment size of a train whose own was cut off: its packets can't be told apart."""

_Arrays: TypeAlias = tuple[
    memoryview, memoryview, memoryview, memoryview | None, memoryview | None, memoryview | None
]

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
        gro: Whether a slot holds a message of many packets.

    Attributes:
        tail: The number that the next message gets.
        filler: What the receive functions keep with these slots, or None; see `Filler`.
        reading: Whether a thread is in a system call that fills them; compiled only.
    """

    __slots__ = (
        "_addresses",
        "_base",
        "_controls",
        "_counts",
        "_ends",
        "_handed",
        "_scribble",
        "_segments",
        "_state",
        "_tables",
        "_whole",
        "_wire_sizes",
        "ancillary",
        "capacity",
        "engine",
        "filler",
        "gro",
        "memory",
        "slot_size",
        "tail",
    )

    memory: Any
    capacity: int
    slot_size: int
    engine: str
    ancillary: bool
    gro: bool
    tail: int
    reading = False

    def __init__(
        self,
        memory: Any,
        capacity: int,
        slot_size: int,
        engine: str = "auto",
        scribble: bool = False,
        ancillary: bool = False,
        gro: bool = False,
    ) -> None:
        if len(memory) != capacity * slot_size:
            raise ValueError(f"{capacity} slots of {slot_size} bytes in {len(memory)}")
        self.memory, self.capacity, self.slot_size = memory, capacity, slot_size
        self.engine, self.ancillary, self.gro = engine, ancillary, gro
        self.filler: Any = None
        self._scribble = scribble
        self.tail = self._base = 0
        view = memoryview(memory).toreadonly()
        starts = range(0, len(view), slot_size)
        # By slot: all of its memory; bytes of its message as sent; the sender; control data.
        self._whole = [view[start : start + slot_size] for start in starts]
        self._wire_sizes = [0] * capacity
        self._addresses: list[Address] = [None] * capacity
        self._controls: list[Any] = [None] * capacity
        # By slot, for `gro`: bytes of each packet of a train but the last, 0 for a message that is
        # one packet; how many packets it is; the number of the first packet after the message.
        self._segments, self._counts, self._ends = ([0] * capacity for _ in range(3))
        # The oldest message held; how many of its packets were released; the number of the
        # oldest packet held. One tuple, so that one store changes all three.
        self._state = 0, 0, 0
        # The number of the first packet in the lists; the views made so far; the `Packet`s.
        self._handed: tuple[int, list[memoryview], list[Any]] = (0, [], [])
        self._tables = Tables()

    @property
    def head(self) -> int:
        """The number of the oldest message held."""
        return self._state[0]

    @property
    def oldest(self) -> int:
        """The number of the oldest packet held."""
        return self._state[2]

    @property
    def held(self) -> int:
        """How many packets are held."""
        head, _, oldest = self._state
        count = self.tail - head
        if self.gro and count:
            return self._ends[(self.tail - 1 - self._base) % self.capacity] - oldest
        return count

    @property
    def free(self) -> int:
        """How many slots can take a message now."""
        return self.capacity - (self.tail - self._state[0])

    # free -> held, for engines

    def free_run(self, count: int) -> tuple[int, int]:
        """Return the next free slots that lie side by side: the first, and how many of `count`."""
        free = self.capacity - (self.tail - self._state[0])
        if free == self.capacity:  # an empty ring starts again at slot 0, to need one run
            self._base = self.tail
        first = (self.tail - self._base) % self.capacity
        return first, min(count, free, self.capacity - first)

    def commit(
        self,
        wire_sizes: list[int],
        addresses: Iterable[Address],
        controls: Iterable[Any] | None = None,
        segments: list[int] | None = None,
    ) -> None:
        """Take the next free slots as held; they have messages of these lengths, as sent.

        Args:
            wire_sizes: The length of each message, as sent.
            addresses: Its sender.
            controls: Its control data, to be decoded when somebody asks; see `Packet._control`.
            segments: The sizes of its packets, with `gro`; 0: the message is one packet.
        """
        # `free_run` may answer differently now: the ring may be empty since the engine called it.
        first, count = (self.tail - self._base) % self.capacity, len(wire_sizes)
        free = min(self.capacity - (self.tail - self._state[0]), self.capacity - first)
        if count > free:
            raise ValueError(f"commit of {count} packets into {free} free slots")
        run = slice(first, first + count)
        self._wire_sizes[run], self._addresses[run] = wire_sizes, addresses
        if self.ancillary:
            self._controls[run] = [None] * count if controls is None else controls
        if self.gro:
            self._segments[run] = segments or [0] * count
            self._counts[run] = counts = list(map(self._count, range(first, first + count)))
            arrived = self._state[2] + self.held
            self._ends[run] = list(accumulate(counts, initial=arrived))[1:]
        self.tail += count
        if self.gro:  # free the oldest messages while they have no packets
            self._state = self._state_at(self._state[2])

    def _count(self, slot: int) -> int:
        """Return how many packets a slot's message is."""
        segment = self._segments[slot]
        if segment == LOST:
            return 0
        return max(1, -(-self._size_in(slot) // segment)) if segment else 1

    def _size_in(self, slot: int) -> int:
        return min(self._wire_sizes[slot], self.slot_size)

    # Reading held packets. `start` and `stop` count from the oldest one; if `stop` is None, up to
    # the last one.

    def wire_sizes(self) -> list[int]:
        """Return the lengths, as sent, of all packets held."""
        return self._sizes(0, self.held)

    def tally(self, sums: Sums, spare: int) -> Sums:
        """Return `sums` with this batch; it is full if at most `spare` slots are free."""
        sizes, limit = self.wire_sizes(), self.slot_size
        some = max(sizes, default=0) > limit
        beyond = [size - limit for size in sizes if size > limit] if some else []
        full = self.free <= spare
        return plus(sums, len(sizes), sum(sizes) - sum(beyond), len(beyond), full)

    def addresses(self, start: int, stop: int | None = None) -> list[Address]:
        """Return the senders of held packets."""
        return self._column(self._addresses, *self._range(start, stop))

    def timestamps(self) -> list[int | None]:
        """Return the timestamps of all packets held."""
        controls = self._column(self._controls, 0, self.held)
        if None in controls:
            raise ValueError(NO_CONTROL)
        timestamps: list[int | None] = controls[0][0].timestamps(controls) if controls else []
        return timestamps

    def payloads(self, start: int, stop: int | None = None) -> list[memoryview]:
        """Return the views of held packets."""
        first, last = self._range(start, stop)
        self._make_views()
        number, views, _ = self._handed
        at = self._state[2] - number
        return views[at + first : at + last]

    def copies(self) -> list[bytes]:
        """Return the bytes of all packets held."""
        return list(map(bytes, self.payloads(0)))

    def datagrams(self) -> list[tuple[bytes, Address]]:
        """Return the bytes and the senders of all packets held."""
        return list(zip(self.copies(), self.addresses(0)))  # noqa: B905

    def columns(self, allocate: Callable[[int], Any]) -> _Arrays:
        """Return all packets held as arrays: `data`, `sizes` and `wire_sizes` of `Columns`.

        And three more, which are None where only Python knows them: hosts, ports, timestamps.

        Args:
            allocate: Returns memory of zeros for a copy, of a number of bytes.
        """
        wire_sizes, limit = self.wire_sizes(), self.slot_size
        sizes = [min(size, limit) for size in wire_sizes]
        known = [s if w >= UNKNOWN_WIRE_SIZE else w for s, w in zip(sizes, wire_sizes)]  # noqa: B905
        data = self._rows(sizes, allocate)
        ours, theirs = memoryview(array("I", sizes)), memoryview(array("I", known))
        return data, ours.toreadonly(), theirs.toreadonly(), None, None, None

    def _rows(self, sizes: list[int], allocate: Callable[[int], Any]) -> memoryview:
        """Return the packets held, a row each: a view that dies with the first of them."""
        oldest, held, width = self._state[2], len(sizes), self.slot_size
        packets = range(oldest, oldest + held)
        rows = self._tables.view_of(packets)
        if rows is not None:
            return rows
        runs = [] if self.gro else self._runs(0, held)
        if len(runs) == 1:
            flat = memoryview(self.memory)[runs[0].start * width : runs[0].stop * width]
        else:
            width = max(1, *sizes) if self.gro else width
            flat = memoryview(allocate(held * width))
            for at, view in zip(range(0, held * width, width), self.payloads(0)):  # noqa: B905
                flat[at : at + view.nbytes] = view
        rows = flat.toreadonly().cast("B", (held, width))
        self._tables.add(packets, rows)
        return rows

    def hand_out(self, start: int, stop: int | None = None) -> list[Packet]:
        """Return the `Packet`s of held packets."""
        first, last = self._range(start, stop)
        self._make_views()
        number, views, packets = self._handed
        at = self._state[2] - number
        if len(packets) < len(views):
            packets += repeat(None, at - len(packets))  # in place of the released ones
            old, held = len(packets) - at, len(views) - at
            packets += make_packets(
                views[at + old :],
                self._column(self._addresses, old, held),
                self._sizes(old, held),
                self._column(self._controls, old, held) if self.ancillary else None,
            )
        return packets[at + first : at + last]

    def _range(self, start: int, stop: int | None) -> tuple[int, int]:
        held = self.held
        last = held if stop is None else stop
        if not 0 <= start <= last <= held:
            raise IndexError(f"packets {start} to {stop} of {held}")
        return start, last

    def _make_views(self) -> None:
        """Make the views that are missing of packets held."""
        head, _, oldest = self._state
        number, views, _ = self._handed
        made = number + len(views)
        if self.gro:
            for slot, start, stop in self._spans(made - oldest, self.held):
                segment, whole = self._segments[slot], self._whole[slot][: self._wire_sizes[slot]]
                if not segment or whole.nbytes <= segment:
                    views.append(whole)
                    continue
                starts = range(start * segment, stop * segment, segment)
                ends = range(start * segment + segment, stop * segment + segment, segment)
                views += map(_cut, repeat(whole), map(slice, starts, ends))
        else:
            for run in self._runs(made - oldest, self.tail - head):
                # A slot's own view does the clamping: no length that an engine reports, however
                # wrong, gives a slice beyond the slot. One slice serves for all if they are equal.
                sizes = self._wire_sizes[run]
                same = sizes and sizes.count(sizes[0]) == len(sizes)
                cuts: Iterable[slice] = repeat(slice(sizes[0])) if same else map(slice, sizes)
                views += map(_cut, self._whole[run], cuts)

    def _sizes(self, start: int, stop: int) -> list[int]:
        if not self.gro:
            return self._column(self._wire_sizes, start, stop)
        sizes: list[int] = []
        for slot, first, last in self._spans(start, stop):
            segment, inside = self._segments[slot], self._counts[slot]
            # A packet of a train was sent as long as it is.
            end = self._size_in(slot) - segment * (inside - 1)
            found = [segment] * (inside - 1) + [end] if segment else [self._wire_sizes[slot]]
            sizes += found[first:last]
        return sizes

    def _column(self, by_slot: list[_T], start: int, stop: int) -> list[_T]:
        """Return what the slots have for each packet."""
        found: list[_T] = []
        if self.gro:
            for slot, first, last in self._spans(start, stop):
                found += repeat(by_slot[slot], last - first)
            return found
        for run in self._runs(start, stop):
            found += by_slot[run]
        return found

    def _runs(self, start: int, stop: int) -> list[slice]:
        """Return the slots of packets, without `gro`: one run, or two around the ring's end."""
        if start >= stop:
            return []
        first = (self._state[0] + start - self._base) % self.capacity
        end = first + stop - start
        if end <= self.capacity:
            return [slice(first, end)]
        return [slice(first, self.capacity), slice(0, end - self.capacity)]

    def _spans(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Return the slots of packets, with `gro`, and a range of each slot's packets."""
        oldest = self._state[2]
        number, last = oldest + start, oldest + stop
        message, _, _ = self._state_at(number)
        spans = []
        while number < last:
            slot = (message - self._base) % self.capacity
            end = self._ends[slot]
            begin, until = end - self._counts[slot], min(end, last)
            if until > number:
                spans.append((slot, number - begin, until - begin))
            number, message = max(number, until), message + 1
        return spans

    def _state_at(self, number: int) -> tuple[int, int, int]:
        """Return what `_state` is when packet `number` is the oldest one held."""
        if not self.gro:
            return number, 0, number
        messages = range(self._state[0], self.tail)
        message = messages.start + bisect_right(messages, number, key=self._end_of)
        if message == self.tail:
            return message, 0, number
        slot = (message - self._base) % self.capacity
        return message, number - (self._ends[slot] - self._counts[slot]), number

    def _end_of(self, message: int) -> int:
        return self._ends[(message - self._base) % self.capacity]

    # held -> free

    def take_back(self, count: int | None) -> None:
        """Free the slots of the `count` oldest packets; what was handed out for them is dead then.

        None takes all that are held. After an interrupt it is done, or has to be done again.

        Raises:
            BufferError: Something looks into a packet's memory through its view. That packet and
                those after it are still held, those before it are not. Its argument is their
                number.
        """
        held = self.held
        done = held if count is None else count
        if done > held:
            raise ValueError(f"{count} of {held} packets taken back")
        oldest = self._state[2]
        number, views, packets = self._handed
        at = oldest - number
        dead: list[None] = []
        error = None
        try:
            self._tables.end(oldest + done)
            dead.extend(map(memoryview.release, views[at : at + done]))
        except BufferError as stuck:
            # Without its frames: it and this one would keep each other alive.
            error, done = stuck.with_traceback(None), len(dead)
        mark_released(packets[at : at + done])
        if self._scribble:
            self._overwrite(done)
        self._state = self._state_at(oldest + done)
        at += done
        if 2 * at >= len(views):  # so that at most half of the views are dead
            self._handed = oldest + done, views[at:], packets[at:]
        if error is not None:
            raise BufferError(done) from error

    def _overwrite(self, count: int) -> None:
        """Scribble over the bytes of the `count` oldest packets."""
        runs = [] if self.gro else self._runs(0, count)
        single = [(slot, 0, 1) for run in runs for slot in range(run.start, run.stop)]
        for slot, start, stop in self._spans(0, count) if self.gro else single:
            segment, size = self._segments[slot], self._size_in(slot)
            begin = slot * self.slot_size + segment * start
            end = slot * self.slot_size + (min(size, segment * stop) if segment else size)
            self.memory[begin:end] = bytes([SCRIBBLE]) * (end - begin)
