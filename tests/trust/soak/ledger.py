"""What packets are like, and the books that are kept about them."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

from anyio_mmsg import PacketBatch


class FaultError(Exception):
    """Something is wrong, in the library or in the soak itself."""


NUMBER = struct.Struct("=Q")
"""How a packet begins: its number, in the order in which its sender sends."""

_BODIES = random.Random(1).randbytes(1 << 17)
_SIZES = 1024  # of which packets go through; any power of two

LARGEST = 65_000
"""Bytes of the largest packet. A little less than IPv4 can carry, so that IPv6 needs no fragments
on the loopback interface either: their loss is not counted at the socket."""


class Flow:
    """What one sender sends: packet n, each byte of it, follows from the sender and n.

    So a receiver compares every byte with what it has to be, those of packets that were cut too.
    That is more than a checksum would show.

    Args:
        sender: Its number.
        slot_size: Bytes of the receiver's slots: sizes lie around it, and one in some hundred is
            empty or `LARGEST`. 0 for sizes that stay the same for some dozen packets, so that
            they can go as trains.
    """

    def __init__(self, sender: int, slot_size: int) -> None:
        rng = random.Random(sender)
        self._shift = sender * 4001
        if slot_size:
            special = [0, 0, 1, 7, 8, slot_size - 1, slot_size, slot_size + 1, slot_size * 2]
            self._sizes = [rng.randint(8, slot_size * 5 // 4) for _ in range(_SIZES)]
            for at in rng.sample(range(_SIZES), 10 * len(special)):
                self._sizes[at] = rng.choice(special)
            self._sizes[rng.randrange(_SIZES)] = LARGEST
        else:
            self._sizes = []
            while len(self._sizes) < _SIZES:
                self._sizes += [rng.randint(NUMBER.size, 1400)] * rng.randint(1, 45)

    def size(self, number: int) -> int:
        """Bytes of packet `number`."""
        return self._sizes[number & _SIZES - 1]

    def packet(self, number: int) -> bytes:
        """Return packet `number`."""
        size = self._sizes[number & _SIZES - 1]
        start = (number * 67 + self._shift) & 0xFFFF
        if size < NUMBER.size:
            return NUMBER.pack(number)[:size]
        return NUMBER.pack(number) + _BODIES[start : start + size - NUMBER.size]


class Ledger:
    """The packets of one sender that have come: none twice, each as it was sent.

    Packets of less than 8 bytes have no number; they are counted only.

    Args:
        flow: What the sender sends.
        first: The number of the first packet that may come.
        slot_size: Bytes that are left of a packet at most.

    Attributes:
        count: Packets that have come.
        octets: Their bytes.
    """

    PAGE = 4096
    PAGES = 32
    """What is remembered, in packets: `PAGE` * `PAGES`. Between two packets of a sender that are
    handled in the wrong order, by tasks that take turns, are a few thousand others at most."""

    def __init__(self, flow: Flow, first: int, slot_size: int) -> None:
        self.flow = flow
        self.count = self.octets = 0
        self._slot_size = slot_size
        self._pages: dict[int, bytearray] = {}
        self._least = first

    def take(self, data: bytes, wire_size: int | None) -> None:
        """Enter a packet.

        Raises:
            FaultError: It has come before, or is not what was sent.
        """
        self.count += 1
        self.octets += len(data)
        if len(data) < NUMBER.size:
            if wire_size != len(data):
                raise FaultError(f"{data!r} is said to have had {wire_size} bytes")
            return
        (number,) = NUMBER.unpack_from(data)
        page = self._pages.get(number // self.PAGE)
        if page is None:
            page = self._new_page(number, data)
        if number < self._least:
            raise FaultError(f"packet {number} came after {self._least}, or twice")
        if page[number % self.PAGE]:
            raise FaultError(f"packet {number} came twice")
        page[number % self.PAGE] = 1
        expected = self.flow.packet(number)
        if wire_size != len(expected):
            raise FaultError(
                f"packet {number} was {len(expected)} bytes long; reported as {wire_size}"
            )
        if data != expected[: self._slot_size]:
            wrong = next(
                (i for i, (a, b) in enumerate(zip(data, expected, strict=False)) if a != b),
                len(data),
            )
            raise FaultError(
                f"packet {number} is corrupted from byte {wrong} on: {len(data)} bytes came of "
                f"{len(expected)}"
            )

    def _new_page(self, number: int, data: bytes) -> bytearray:
        newest = max(self._pages, default=self._least // self.PAGE)
        if not newest - self.PAGES <= number // self.PAGE <= newest + (1 << 20):
            raise FaultError(f"{data[:16]!r} says that it is packet {number}: corrupted, or late")
        page = self._pages[number // self.PAGE] = bytearray(self.PAGE)
        if len(self._pages) > self.PAGES:
            oldest = min(self._pages)
            del self._pages[oldest]
            self._least = max(self._least, (oldest + 1) * self.PAGE)
        return page


@dataclass
class Totals:
    """What happened to packets, added up. The fields that make an account balance come first."""

    sent: int = 0
    received: int = 0  # by the library, from the kernel
    dropped_by_kernel: int = 0
    unread: int = 0
    dropped_by_policy: int = 0  # of those received
    elsewhere: int = 0  # before any socket, by the kernel's count for the whole machine
    truncated: int = 0
    octets: int = 0  # received, without what was cut off
    batches: int = 0
    echoed: int = 0
    strangers: int = 0

    def add(self, other: Totals) -> None:
        """Add another one's numbers."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Book:
    """The account of one receiver, by what its consumers saw.

    Attributes:
        ledgers: By the address that packets come from.
        consumed: Packets that a consumer has read.
        dropped: Packets that a policy dropped; they are read too.
        strangers: Packets from nobody we know: another program's, meant for an earlier owner of
            the port.
        truncated: Packets that were longer than a slot.
        sampled: Batches whose columns were compared with their packets.
    """

    ledgers: dict[object, Ledger]
    consumed: int = 0
    dropped: int = 0
    strangers: int = 0
    truncated: int = 0
    batches: int = 0
    octets: int = 0
    _turn: int = field(default=0, repr=False)

    def read(self, batch: PacketBatch, most: int | None = None) -> int:
        """Check the first packets of a batch, all without `most`; return how many."""
        self._turn += 1
        if self._turn % 16 == 0:
            self._compare_columns(batch)
        ledgers, count = self.ledgers, 0
        for packet in batch:
            if count == most:
                break
            count += 1
            ledger = ledgers.get(packet.address)
            data = bytes(packet.data)
            self.octets += len(data)
            self.truncated += packet.truncated
            if ledger is None:
                self.strangers += 1
            else:
                ledger.take(data, packet.wire_size)
        return count

    def consume(self, batch: PacketBatch, most: int | None = None) -> int:
        """Check packets as their consumer."""
        count = self.read(batch, most)
        self.consumed += count
        return count

    def drop(self, batch: PacketBatch) -> None:
        """Check packets that a policy drops."""
        self.dropped += self.read(batch)

    def _compare_columns(self, batch: PacketBatch) -> None:
        packets = list(batch)
        found = list(zip(batch.payloads(), batch.addresses(), batch.sizes(), strict=True))
        if found != [(p.data, p.address, p.size) for p in packets]:
            raise FaultError("the columns of a batch differ from its packets")


def elsewhere() -> int:
    """Return how many packets of any kind the kernel has dropped before they met a socket.

    The queue of a processor may be full (net.core.netdev_max_backlog). That is the second column
    of /proc/net/softnet_stat, for the whole machine.
    """
    try:
        lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1], 16) for line in lines)


def settle(name: str, totals: Totals, before: int, *, trains: bool = False) -> None:
    """See that an account balances; enter what was lost elsewhere.

    Args:
        name: Whose account.
        totals: Its numbers.
        before: What `elsewhere` returned when it was opened.
        trains: Whether the kernel counts trains, so that as many packets or more are missing.

    Raises:
        FaultError: It does not balance.
    """
    missing = (
        totals.sent + totals.strangers - totals.received - totals.dropped_by_kernel - totals.unread
    )
    if trains and missing > 0 and totals.dropped_by_kernel:
        totals.dropped_by_kernel += missing
    elif 0 < missing <= elsewhere() - before:
        totals.elsewhere += missing
    elif missing:
        what = f"{missing} packets are missing" if missing > 0 else f"{-missing} too many came"
        raise FaultError(f"{name}: {what}: {totals}")


def equal(name: str, what: str, first: int, other: str, second: int) -> None:
    """See that two counts of one thing agree.

    Raises:
        FaultError: They do not.
    """
    if first != second:
        raise FaultError(f"{name}: {what} is {first}, but {other} is {second}")
