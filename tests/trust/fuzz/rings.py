"""Targets: what rings make of messages whose lengths, senders and control data are any.

Each ring stands beside a plain list, and beside its twin: compiled and plain in one process.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from anyio_mmsg._packets import compiled
from anyio_mmsg._packets.packet import Control
from anyio_mmsg._packets.slots import LOST
from anyio_mmsg._packets.slots import Slots as PlainSlots
from anyio_mmsg._packets.sums import nothing
from anyio_mmsg._receive.recvfrom_into import RecvfromInto
from anyio_mmsg._system.addresses import ADDRESSES
from anyio_mmsg._system.control import CONTROL_SIZE
from anyio_mmsg._system.sockaddr import FAMILIES, decode_sockaddr
from anyio_mmsg._system.stamps import arrival_of, hardware_of

from .kernel import Kernel, Message, answer_recvmmsg, can_answer
from .library import INET, INET6, UNIX, expected_control
from .reader import Reader

CompiledSlots: Any = None
if compiled:
    CompiledSlots = importlib.import_module("anyio_mmsg._compiled").Slots

CTRUNC, TRUNC = 8, 32  # MSG_CTRUNC, MSG_TRUNC of Linux
SLOT_SIZES = 1, 7, 48, 300
ATTRIBUTES = "timestamp", "hardware_timestamp", *Control._fields[:4], "_local"


class Shape(NamedTuple):
    """What rings are made for."""

    capacity: int
    slot_size: int
    ancillary: bool
    gro: bool


class Seen(NamedTuple):
    """All that a packet shows."""

    data: bytes
    address: Any
    wire_size: int | None
    attributes: tuple[Any, ...] | str  # or why there are none


class Held(NamedTuple):
    """A message that is held, and what its packets show that are not released."""

    packets: deque[Seen]


def seen_in(packet: Any) -> Seen:
    """Read a packet."""
    data = bytes(packet.data)
    assert packet.size == len(data)
    assert packet.truncated == (packet.wire_size is None or packet.wire_size > len(data))
    attributes: Any = []
    for name in ATTRIBUTES:
        try:
            attributes.append(getattr(packet, name))
        except ValueError as error:
            attributes.append(" ".join(str(error).split()[:6]))
    if len(set(attributes)) == 1 and type(attributes[0]) is str:
        attributes = attributes[0]
    return Seen(data, packet.address, packet.wire_size, tuple(attributes))


NONE_KEPT = "this batch holds no control data;"
WAS_CUT = "the control data of this packet"


def expected_of(message: Message, shape: Shape) -> tuple[list[Seen], bool]:
    """Return what a message's packets show, and whether its segment size was lost."""
    messages, cut = message.messages, bool(message.flags & CTRUNC)
    control, segment = expected_control(messages)
    found = any((level, kind) == (17, 104) and len(data) >= 4 for level, kind, data in messages)
    if shape.gro and cut and not found and not any(m[0] in (0, 41) for m in messages):
        return [], True
    attributes: Any = (arrival_of(messages), hardware_of(messages), *control)
    if not shape.ancillary or cut:
        attributes = tuple(WAS_CUT if shape.ancillary else NONE_KEPT)
    segment = segment if shape.gro else 0
    address = decode_sockaddr(message.sockaddr)
    return packets_of(message.data, message.length, segment, address, attributes), False


def packets_of(
    slot: bytes, length: int, segment: int, address: Any, attributes: Any
) -> list[Seen]:
    """Cut a slot into the packets of a train; there is always one, unless it can't be known."""
    whole = slot[: min(length, len(slot))]
    if segment == LOST:
        return []
    if not segment:
        wire_size = None if length == 2**32 - 1 and length > len(whole) else length
        return [Seen(whole, address, wire_size, attributes)]
    pieces = [whole[at : at + segment] for at in range(0, len(whole) or 1, segment)]
    return [Seen(piece, address, len(piece), attributes) for piece in pieces]


class Ring:
    """Slots of one kind, and what was handed out of them."""

    def __init__(self, shape: Shape, is_compiled: bool) -> None:
        self.shape = shape
        self.slots: Any = new_slots(shape, is_compiled)
        self.handed: list[Any] = []

    def check(self, expected: list[Seen], looks: int) -> None:
        """Compare all that is held; `looks` says by which ways."""
        slots = self.slots
        assert slots.held == len(expected)
        if looks & 1:
            assert [bytes(view) for view in slots.payloads(0)] == [seen.data for seen in expected]
        if looks & 2:
            assert slots.addresses(0) == [seen.address for seen in expected]
        if looks & 4:
            sizes = [2**32 - 1 if s.wire_size is None else s.wire_size for s in expected]
            assert slots.wire_sizes() == sizes
            count, size, _, _, _, cut, _ = slots.tally(nothing(), 0)
            assert (count, size) == (len(sizes), sum(len(seen.data) for seen in expected))
            assert cut == sum(s.wire_size is None or s.wire_size > len(s.data) for s in expected)
        if looks & 8:
            packets = slots.hand_out(0)
            assert [seen_in(packet) for packet in packets] == expected
            self.handed = packets
        if looks & 16 and expected:
            stamps: Any
            try:
                stamps = slots.timestamps()
            except ValueError as error:
                stamps = "".join(" ".join(str(error).split()[:6]))
            all_of = len(ATTRIBUTES)
            wanted = [s.attributes[0] if len(s.attributes) == all_of else None for s in expected]
            reasons = ["".join(s.attributes) for s in expected if len(s.attributes) != all_of]
            assert stamps == (reasons[0] if reasons else wanted)

    def release(self, count: int) -> None:
        """Release the oldest packets; what was handed out for them has to say so."""
        old, self.handed = self.handed[:count], self.handed[count:]
        self.slots.take_back(count)
        for packet in old:
            try:
                packet.data  # noqa: B018
            except ValueError:
                continue
            raise AssertionError("a packet lives on after its release")


def new_slots(shape: Shape, is_compiled: bool) -> Any:
    kind = CompiledSlots if is_compiled else PlainSlots
    memory = bytearray(shape.capacity * shape.slot_size)
    return kind(memory, *shape[:2], "auto", False, shape.ancillary, shape.gro)


# Without a kernel: lengths, segment sizes and senders are said to the slots themselves.


class Said:
    """Decodes control data that is a number."""

    def timestamp(self, control: tuple[Any, int]) -> int:
        return control[1]

    def hardware_timestamp(self, control: tuple[Any, int]) -> int:
        return -control[1]

    def timestamps(self, controls: list[tuple[Any, int]]) -> list[int]:
        return [number for _, number in controls]

    def control(self, control: tuple[Any, int]) -> Control:
        return Control(hop_limit=control[1])


def trains(data: bytes) -> None:
    """Any lengths and segment sizes; packets are released in any steps."""
    reader = Reader(data)
    capacity, slot_size = 1 + reader.below(5), SLOT_SIZES[reader.below(4)]
    shape = Shape(capacity, slot_size, bool(reader.below(2)), True)
    rings = [Ring(shape, is_compiled) for is_compiled in ([False, True] if compiled else [False])]
    held: deque[Held] = deque()
    for turn in range(20):
        if not reader.left:
            break
        count, looks = reader.below(4), reader.number(1)
        sizes = [reader.number(1 + reader.below(4)) for _ in range(count)]
        segments = [(0, LOST, reader.number(1), reader.number(4))[reader.below(4)] for _ in sizes]
        runs = {ring.slots.free_run(count) for ring in rings}
        assert len(runs) == 1
        ((first, count),) = runs
        filled = [bytes([65 + turn]) * slot_size] * count
        names = range(turn * 10, turn * 10 + count)
        for ring in rings:
            start = first * slot_size
            ring.slots.memory[start : start + count * slot_size] = b"".join(filled)
            said = zip(itertools.repeat(Said()), names)
            ring.slots.commit(sizes[:count], names, said, segments[:count])
        for number, (slot, size, segment) in enumerate(zip(filled, sizes, segments)):  # noqa: B905
            name = turn * 10 + number
            attributes: Any = (name, -name, None, None, None, name, None)
            if not shape.ancillary:
                attributes = tuple(NONE_KEPT)
            held.append(Held(deque(packets_of(slot, size, segment, name, attributes))))
        check_and_release(rings, held, looks, reader)


def check_and_release(rings: list[Ring], held: deque[Held], looks: int, reader: Reader) -> None:
    """Compare rings with what is to be held, and release some of it."""
    expected = [seen for message in held for seen in message.packets]
    count = min(reader.number(1 + looks // 128), len(expected))
    for ring in rings:
        ring.check(expected, looks)
        ring.release(count)
    for _ in range(count):
        next(message for message in held if message.packets).packets.popleft()
    while held and not held[0].packets:
        held.popleft()
    for ring in rings:
        assert ring.slots.free == ring.shape.capacity - len(held)
        ring.check(list(itertools.chain(*(message.packets for message in held))), 0)


# With a kernel that says anything.


@functools.cache
def scripted() -> tuple[Kernel, Any]:
    """The kernel that answers recvmmsg in this process, and what it raised."""
    kernel = Kernel()
    return kernel, answer_recvmmsg(kernel)


class Portable(RecvfromInto):
    """The portable engine, for a kernel that is no socket."""

    def asks_by_message(self, sock: socket.socket) -> bool:
        return self.by_message


class Filled(Ring):
    """A ring that an engine fills from a kernel."""

    def __init__(self, shape: Shape, is_compiled: bool) -> None:
        super().__init__(shape, is_compiled)
        self.kernel = Kernel()
        self.raised: list[BaseException] = []
        if is_compiled:
            from anyio_mmsg._compiled import Recvmmsg

            self.kernel, (_, self.raised) = scripted()
            known = frozenset(FAMILIES)
            self.engine: Any = Recvmmsg(self.slots, ADDRESSES, known, shape.ancillary)
        else:
            self.engine = Portable(self.slots)

    def fill(self, messages: list[Message]) -> tuple[int, int, str | None]:
        """Read; return how many packets and messages came, and the error."""
        self.kernel.left = deque(messages)
        came = self.engine.fill(self.slots, self.kernel, len(messages))
        if self.raised:
            raise self.raised.pop()
        error, self.engine.error = self.engine.error, None
        return came, len(messages) - len(self.kernel.left), error and str(error)


def read_message(reader: Reader, slot_size: int) -> Message:
    """Return a message; those that a kernel would write take few bytes of input."""
    kind = reader.number(1)
    name = reader.block()[:128]
    name_size = reader.number(4) if kind & 1 else len(name)
    if kind & 2:  # whole control messages
        control = b""
        for _ in range(reader.below(6)):
            level, number = KINDS[reader.below(len(KINDS))]
            content = reader.block()[:48]
            control += struct.pack("@nii", 16 + len(content), level, number)
            control += content + bytes(-len(content) % 8)
    else:
        control = reader.block()
    control = control[:CONTROL_SIZE]
    control_size = reader.number(4) if kind & 4 else len(control)
    if kind & 16:
        control_size = min(control_size, len(control), reader.number(1))
    content = reader.block()
    length = reader.number(4) if kind & 8 else len(content)
    flags = reader.number(1) if kind & 32 else 0
    flags &= ~TRUNC  # which the sockets that this stands for set for longer messages alone
    return Message(
        content[:slot_size].ljust(slot_size, b"."),
        length,
        name,
        name_size,
        control,
        control_size,
        flags,
    )


KINDS = [(1, 35), (1, 64), (17, 104), (0, 1), (0, 2), (0, 8), (41, 50), (41, 52), (41, 67), (9, 9)]
KINDS += [(1, 37), (1, 65), (1, 29), (1, 63), (1, 58)]


def receive(data: bytes) -> None:
    """Any answers to the receiving calls: each engine shows what they say, and no more."""
    reader = Reader(data)
    options = reader.number(1)
    shape = Shape(
        1 + reader.below(5), SLOT_SIZES[options >> 2 & 3], bool(options & 1), bool(options & 2)
    )
    rings = [Filled(shape, False)]
    if compiled and can_answer():
        rings.append(Filled(shape, True))
    held: deque[Held] = deque()
    for _ in range(8):
        if not reader.left:
            break
        looks = reader.number(1)
        messages = [read_message(reader, shape.slot_size) for _ in range(1 + reader.below(4))]
        free = shape.capacity - len(held)
        answers = {ring.fill(messages) for ring in rings}
        assert len(answers) == 1, answers
        ((came, taken, error),) = answers
        found = [expected_of(message, shape) for message in messages[:taken]]
        lost = any(is_lost for _, is_lost in found)
        assert came == sum(len(packets) for packets, _ in found)
        assert taken == min(free, len(messages)) or lost
        assert bool(error) == lost
        held += [Held(deque(packets)) for packets, _ in found]
        while held and not held[0].packets:
            held.popleft()
        check_and_release(list(rings), held, looks, reader)


FAMILY_HEADS = [struct.pack("=H", family) for family in (INET, INET6, UNIX)]

TARGETS: dict[str, Callable[[bytes], None]] = {"trains": trains, "receive": receive}
