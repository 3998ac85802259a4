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

from itertools import chain
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
        held = self.tail - self.head
        if not held:  # an empty ring starts again at slot 0, to need one run
            self._base = self.tail
        first = (self.tail - self._base) % self.capacity
        return first, min(count, self.capacity - held, self.capacity - first)

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

    def held_runs(self, start: int = 0, stop: int | None = None) -> list[range]:
        """Return the slots of held packets: one run, or two around the ring's end."""
        if stop is None:
            stop = self.tail - self.head
        first = (self.head + start - self._base) % self.capacity
        last = first + stop - start
        if last <= self.capacity:
            return [range(first, last)]
        return [range(first, self.capacity), range(last - self.capacity)]

    def wire_sizes(self) -> list[int]:
        """Return the lengths, as sent, of all packets held."""
        return self._column(self._wire_sizes, self.held_runs())

    def addresses(self, start: int, stop: int) -> list[Address]:
        """Return the senders of held packets."""
        if start == stop:
            return []
        runs = self.held_runs(start, stop)
        return list(chain(*(self.source.addresses(run.start, len(run)) for run in runs)))

    def payloads(self, start: int, stop: int) -> list[memoryview]:
        """Return the views of held packets."""
        self._make_views(self.head + stop)
        return self._column(self._views, self.held_runs(start, stop))

    def hand_out(self, start: int, stop: int) -> list[Packet]:
        """Return the `Packet`s of held packets."""
        self._make_packets(self.head + stop)
        return self._column(self._packets, self.held_runs(start, stop))

    @staticmethod
    def _column(by_slot: list[_T], runs: list[range]) -> list[_T]:
        if len(runs) == 1:
            return by_slot[runs[0].start : runs[0].stop]
        return list(chain(*(by_slot[run.start : run.stop] for run in runs)))

    def _make_views(self, until: int) -> None:
        if self._dying > self.head:
            self._revive()
        old = max(self._viewed, self.head)
        if old >= until:
            return
        for run in self.held_runs(old - self.head, until - self.head):
            # A slot's own view does the clamping: no length that an engine reports, however
            # wrong, gives a slice beyond the slot.
            slots = slice(run.start, run.stop)
            columns = zip(self._whole[slots], self._wire_sizes[slots])  # noqa: B905
            self._views[slots] = [view[:size] for view, size in columns]
        self._viewed = until

    def _make_packets(self, until: int) -> None:
        self._make_views(until)
        old = max(self._packed, self.head)
        if old >= until:
            return
        for run in self.held_runs(old - self.head, until - self.head):
            slots = slice(run.start, run.stop)
            addresses = self.source.addresses(run.start, len(run))
            self._packets[slots] = make_packets(
                self._views[slots], addresses, self._wire_sizes[slots]
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
        number = self.head
        if count > self.tail - number:
            raise ValueError(f"{count} of {self.tail - number} packets taken back")
        self._dying = number + count
        done, error = 0, None
        for run in self.held_runs(0, count):
            killed, error = self._kill(run, number + done)
            done += killed
            if error is not None:
                break
        self.head = number + done
        self._dying = number + done
        if error is not None:
            raise BufferError(done) from error

    def _kill(self, run: range, number: int) -> tuple[int, BufferError | None]:
        """Have what was handed out for `run` raise ValueError; return for how many it does.

        `number` is that of the first packet in `run`. The error is that of the first one whose
        memory is in use.
        """
        count = min(len(run), max(0, self._viewed - number))
        views, error = self._views[run.start : run.start + count], None
        view: memoryview | None = None
        try:
            for view in views:
                view.release()
        except BufferError as stuck:
            error = stuck
            run = run[: [other is view for other in views].index(True)]
        packets = self._packets[run.start : run.stop][: max(0, self._packed - number)]
        mark_released(packets)
        if self._scribble:
            for slot in run:
                used = min(self._wire_sizes[slot], self.slot_size)
                start = slot * self.slot_size
                self.memory[start : start + used] = bytes([SCRIBBLE]) * used
        return len(run), error

    def _revive(self) -> None:
        """Make anew what an interrupted `take_back` has killed: the packets are still held."""
        count = max(0, min(self._dying, self._viewed) - self.head)
        for number, slot in enumerate(chain(*self.held_runs(0, count)), self.head):
            if _is_dead(self._views[slot]):
                self._views[slot] = view = self._whole[slot][: self._wire_sizes[slot]]
                if number < self._packed:
                    mark_released([self._packets[slot]])
                    (self._packets[slot],) = make_packets(
                        [view], self.source.addresses(slot, 1), [self._wire_sizes[slot]]
                    )
        self._dying = self.head


def _is_dead(view: memoryview) -> bool:
    try:
        view.nbytes  # noqa: B018
    except ValueError:
        return True
    return False
