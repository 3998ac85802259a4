"""A world in which every packet is accounted for: what was sent, what is held, who sent it.

A packet says which one it is: its number, in order of sending, and the sender that sent it. As
a ring numbers its packets by arrival too, packet number n of the ring must be packet number n
that was sent, whatever happened in between. Nothing else has to be kept in mind.
"""

from __future__ import annotations

import functools
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio

from anyio_mmsg import BatchFullError, PacketBatch, ReceiveEngine, recv_mmsg_nowait

SLOT_SIZE = 48


@functools.cache
def body(number: int, sender: int) -> bytes:
    """The bytes of a packet; of different lengths, and some are longer than a slot."""
    text = b"packet %d of sender %d|" % (number, sender)
    return text + b"~" * random.Random(number).choice([0, 3, 20, 40])


class Sockets:
    """A receiver and three senders."""

    def __init__(self, stack: ExitStack) -> None:
        def open_one() -> socket.socket:
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            return sock

        self.receiver = open_one()
        self.senders = [open_one() for _ in range(3)]
        self.names = [sender.getsockname() for sender in self.senders]

    def empty(self) -> None:
        try:
            while True:
                self.receiver.recv(1)
        except BlockingIOError:
            pass


@contextmanager
def sockets() -> Iterator[Sockets]:
    with ExitStack() as stack:
        yield Sockets(stack)


class World:
    """One batch, and all that was ever sent to it.

    Args:
        sockets: What to send and receive by; emptied first.
        engine: That of the batch.
        capacity: That of the batch.
    """

    def __init__(self, sockets: Sockets, engine: ReceiveEngine, capacity: int = 5) -> None:
        sockets.empty()
        self.sockets = sockets
        self.batch = PacketBatch(capacity, SLOT_SIZE, engine)
        self.slots: Any = self.batch._slots  # lives on when the batch is closed
        self.sent = 0
        self.kept: list[tuple[int, Any]] = []  # packets and views that a consumer keeps

    def send(self, count: int) -> None:
        to = self.sockets.receiver.getsockname()
        for _ in range(count):
            sender = self.sent % 3
            self.sockets.senders[sender].sendto(body(self.sent, sender), to)
            self.sent += 1

    def receive(self, count: int) -> None:
        """Receive that many, which are there."""
        while count:
            count -= recv_mmsg_nowait(self.sockets.receiver, self.batch, count)

    def receive_if_possible(self, limit: int = 64) -> int:
        try:
            return recv_mmsg_nowait(self.sockets.receiver, self.batch, limit)
        except (anyio.WouldBlock, BatchFullError, anyio.BusyResourceError):
            return 0

    def check(self, keep: bool = False) -> None:
        """Check all that the batch holds, through every way that it shows it."""
        batch = self.batch
        held = len(batch)
        first, last = self.slots.head, self.slots.tail
        assert (held, held + batch.free) == (last - first, batch.capacity)
        assert 0 <= first <= last <= self.sent
        packets = list(batch)
        payloads, addresses, sizes = batch.payloads(), batch.addresses(), batch.sizes()
        assert len(packets) == len(payloads) == len(addresses) == len(sizes) == held
        for number, packet, data, address, size in zip(  # noqa: B905
            range(first, last), packets, payloads, addresses, sizes
        ):
            expected = body(number, number % 3)
            assert bytes(data) == bytes(packet.data) == expected[:SLOT_SIZE], number
            name = self.sockets.names[number % 3]
            assert packet.address == address == name, f"wrong sender of {number}"
            assert packet.size == size == min(len(expected), SLOT_SIZE)
            assert packet.wire_size == len(expected)
            assert packet.truncated == (len(expected) > SLOT_SIZE)
            if keep:
                self.kept += [(number, packet), (number, data)]
        self.check_kept()

    def check_kept(self) -> None:
        """Check what a consumer kept: it shows its own packet, or raises ValueError."""
        for number, thing in self.kept:
            expected = body(number, number % 3)[:SLOT_SIZE]
            try:
                if isinstance(thing, memoryview):
                    assert bytes(thing) == expected
                else:
                    assert bytes(thing.data) == expected
                    assert thing.size == len(expected)
                    assert thing.address == self.sockets.names[number % 3]
            except ValueError:
                continue
            assert number >= self.slots.head, f"packet {number} lives on after its release"

    def finish(self) -> None:
        """Go on as if nothing had happened, around the ring; all must come."""
        self.check()
        batch = self.batch
        self.send(batch.capacity - 1)
        while self.receive_if_possible() or len(batch):
            self.check()
            batch.release((len(batch) + 1) // 2)
        assert self.slots.tail == self.sent, "packets were lost"
        self.check_kept()
