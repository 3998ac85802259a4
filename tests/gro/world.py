"""A batch of trains in which every packet is accounted for, as tests/trust/world.py does it."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio

from anyio_mmsg import BatchFullError, PacketBatch, ReceiveEngine, recv_mmsg_nowait

from .flow import Flow


class World:
    """One batch, and all that was ever sent to it: trains of 1 to 4, from two senders in turn.

    As the ring in Python numbers its packets by arrival, packet number n of it must be packet
    number n that was sent, whatever happened in between.
    """

    def __init__(self, flow: Flow, engine: ReceiveEngine, capacity: int = 3) -> None:
        self.flow = flow
        try:
            while True:
                flow.receiver.recv(1)
        except BlockingIOError:
            pass
        self.batch = PacketBatch(capacity, engine=engine, gro=True)
        self.slots: Any = self.batch._slots  # lives on when the batch is closed
        self.trains = 0
        self.sent: list[tuple[bytes, Any]] = []  # by number: a packet, and who sent it
        self.kept: list[tuple[int, Any]] = []  # packets and views that a consumer keeps

    def send(self, trains: int) -> None:
        for _ in range(trains):
            sender, count = self.trains % 2, (3, 1, 4, 2)[self.trains % 4]
            self.trains += 1
            packets = [b"packet %06d" % (len(self.sent) + index) for index in range(count)]
            packets[-1] = packets[-1] if count % 2 else packets[-1][:-1]
            self.flow.send(*packets, sender=sender)
            self.sent += [(packet, self.flow.names[sender]) for packet in packets]

    def receive_if_possible(self, limit: int = 64) -> int:
        try:
            return recv_mmsg_nowait(self.flow.receiver, self.batch, limit)
        except (anyio.WouldBlock, BatchFullError, anyio.BusyResourceError):
            return 0

    def release_if_possible(self, count: int) -> None:
        with contextlib.suppress(ValueError):  # fewer are held; a handler has released some
            self.batch.release(count)

    def check(self, keep: bool = False) -> None:
        """Check all that the batch holds, through every way that it shows it."""
        held = len(self.batch)
        packets = list(self.batch)
        payloads, addresses = self.batch.payloads(), self.batch.addresses()
        sizes = self.batch.sizes()
        assert len(packets) == len(payloads) == len(addresses) == len(sizes) == held
        assert self.slots.copies() == payloads
        for number, packet, data, address, size in zip(  # noqa: B905
            range(self.slots.oldest, self.slots.oldest + held), packets, payloads, addresses, sizes
        ):
            expected, sender = self.sent[number]
            assert bytes(data) == bytes(packet.data) == expected, number
            assert packet.address == address == sender, f"wrong sender of {number}"
            assert packet.size == size == packet.wire_size == len(expected)
            if keep:
                self.kept += [(number, packet), (number, data)]
        assert 0 <= self.batch.free <= self.batch.capacity
        assert (self.batch.free == self.batch.capacity) == (held == 0)
        self.check_kept()

    def check_kept(self) -> None:
        for number, thing in self.kept:
            try:
                data = bytes(thing if isinstance(thing, memoryview) else thing.data)
            except ValueError:
                continue
            assert data == self.sent[number][0]
            assert number >= self.slots.oldest, f"packet {number} lives on after its release"

    def finish(self) -> None:
        """Go on as if nothing had happened; all packets must come."""
        self.check()
        for _ in range(2):
            while self.receive_if_possible() or len(self.batch):
                self.check()
                self.batch.release((len(self.batch) + 1) // 2)
                self.check()
            assert self.slots.oldest == len(self.sent), "packets were lost"
            self.send(4)
        self.check_kept()
