"""`TrainSlots`: slots that hold a message of one or more packets, as GRO gives them.

The kernel coalesces packets of one size from one sender (the last may be shorter) into one
message, a *train*. A slot holds one message and is free when its last packet was released. Slots
are counted in messages, what consumers see in packets.

Packets and messages are numbered by arrival. `head` is a packet's number, so that a release is
one store; `tail` is a message's, so that a commit is. The rest follows from the two.

The compiled twin is `Slots` with `trains`, in _compiled/.
"""

from __future__ import annotations

from typing import Any

from .packet import Address, Packet, make_packets, mark_released
from .slots import SCRIBBLE, Slots

LOST = 2**32 - 1
"""The segment size of a train whose own was cut off: its packets can't be told apart."""


class TrainSlots(Slots):
    """The memory of a ring and the state of its slots, for trains. See `Slots`."""

    __slots__ = ("_ends", "_first", "_made", "_segments", "_starts")

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
        # By slot: the numbers of its first packet, and of the one after its last; bytes of each
        # packet but the last, 0 for a message that is one packet.
        self._starts = [0] * capacity
        self._ends = [0] * capacity
        self._segments = [0] * capacity
        self._first = 0  # a message: none before it is held
        # What was handed out, by a packet's number.
        self._made: dict[int, tuple[memoryview, Packet | None]] = {}

    @property
    def held(self) -> int:
        """How many packets are held."""
        return self._end() - self.head

    @property
    def free(self) -> int:
        """How many slots can take a message now."""
        return self.capacity - (self.tail - self._oldest())

    def _end(self) -> int:
        return self._ends[(self.tail - 1 - self._base) % self.capacity] if self.tail else 0

    def _oldest(self) -> int:
        """Return the number of the oldest message held; `tail` if there is none."""
        first = self._first
        while first < self.tail and self._ends[(first - self._base) % self.capacity] <= self.head:
            first += 1
        self._first = first
        return first

    def free_run(self, count: int) -> tuple[int, int]:
        """See `Slots.free_run`."""
        free = self.free
        first = (self.tail - self._base) % self.capacity
        return first, min(count, free, self.capacity - first)

    def commit(self, wire_sizes: list[int], segments: list[int] | None = None) -> None:
        """See `Slots.commit`. `segments` are the packets' sizes; 0: the message is one packet."""
        first, count = (self.tail - self._base) % self.capacity, len(wire_sizes)
        free = min(self.free, self.capacity - first)
        if count > free:
            raise ValueError(f"commit of {count} messages into {free} free slots")
        end = self._end()
        for slot, size, segment in zip(
            range(first, first + count), wire_sizes, segments or [0] * count, strict=True
        ):
            self._starts[slot] = end
            packets = 1
            if segment == LOST:
                packets = 0
            elif segment:
                packets = max(1, -(-min(size, self.slot_size) // segment))
            end += packets
            self._ends[slot] = end
        self._wire_sizes[first : first + count] = wire_sizes
        self._segments[first : first + count] = segments or [0] * count
        self.tail += count

    def _places(self, start: int, stop: int | None) -> list[tuple[int, int, int, int, int]]:
        """Return number, slot, offset, size and length as sent of held packets."""
        places = []
        number = self.head + start
        last = self._end() if stop is None else self.head + stop
        message = self._oldest()
        while number < last:
            slot = (message - self._base) % self.capacity
            size, segment = min(self._wire_sizes[slot], self.slot_size), self._segments[slot]
            for packet in range(max(number, self._starts[slot]), min(last, self._ends[slot])):
                offset = segment * (packet - self._starts[slot])
                length = min(segment or size, size - offset)
                sent = length if segment else self._wire_sizes[slot]
                places.append((packet, slot, offset, length, sent))
                number = packet + 1
            message += 1
        return places

    def wire_sizes(self) -> list[int]:
        """See `Slots.wire_sizes`. A packet of a train was sent as long as it is."""
        return [sent for *_, sent in self._places(0, self.held)]

    def addresses(self, start: int, stop: int | None = None) -> list[Address]:
        """See `Slots.addresses`."""
        return [self.source.addresses(slot, 1)[0] for _, slot, *_ in self._places(start, stop)]

    def payloads(self, start: int, stop: int | None = None) -> list[memoryview]:
        """See `Slots.payloads`."""
        return [self._view(*place) for place in self._places(start, stop)]

    def hand_out(self, start: int, stop: int | None = None) -> list[Packet]:
        """See `Slots.hand_out`."""
        return [self._packet(*place) for place in self._places(start, stop)]

    def _view(self, number: int, slot: int, offset: int, length: int, sent: int) -> memoryview:
        if number in self._made and (number >= self._dying or not _is_dead(self._made[number][0])):
            return self._made[number][0]
        view = self._whole[slot][offset : offset + length]
        self._made[number] = view, None
        return view

    def _packet(self, number: int, slot: int, offset: int, length: int, sent: int) -> Packet:
        view = self._view(number, slot, offset, length, sent)
        packet = self._made[number][1]
        if packet is None:
            (packet,) = make_packets(
                [view], self.source.addresses(slot, 1), [sent], self._controls(slot, slot + 1)
            )
            self._made[number] = view, packet
        return packet

    def take_back(self, count: int | None) -> None:
        """See `Slots.take_back`."""
        if count is None:
            count = self.held
        if count > self.held:
            raise ValueError(f"{count} of {self.held} packets taken back")
        first = self.head
        self._dying = first + count
        for number, slot, offset, length, _ in self._places(0, count):
            view, packet = self._made.get(number, (None, None))
            if view is not None:
                try:
                    view.release()
                except BufferError as error:
                    self._dying = number
                    raise BufferError(number - first) from error
            if packet is not None:
                mark_released([packet])
            self._made.pop(number, None)
            self.head = number + 1
            if self._scribble:
                start = slot * self.slot_size + offset
                self.memory[start : start + length] = bytes([SCRIBBLE]) * length


def _is_dead(view: memoryview) -> bool:
    try:
        view.nbytes  # noqa: B018
    except ValueError:
        return True
    return False
