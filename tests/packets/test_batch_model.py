"""The ring against a plain list, in any order of receiving, reading and releasing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anyio_mmsg import Packet, PacketBatch

from ..helpers import stub_engine


class Ring(RuleBasedStateMachine):
    @initialize(capacity=st.integers(1, 9), slot_size=st.integers(1, 4))
    def make(self, capacity: int, slot_size: int) -> None:
        self.batch = PacketBatch(capacity, slot_size)
        self.stub = stub_engine(self.batch)
        self.held: list[tuple[bytes, int]] = []  # what was sent, and by whom
        self.sent = 0
        # What was handed out, beside the number of the packet that it shows.
        self.out: list[tuple[int, Packet | memoryview]] = []
        self.released = 0

    @precondition(lambda self: self.batch.free)
    @rule(data=st.data())
    def receive(self, data: Any) -> None:
        for size in data.draw(
            st.lists(st.integers(0, 6), min_size=1, max_size=self.batch.free), label="sizes"
        ):
            self.sent += 1
            sent = bytes([self.sent % 256]) * size
            self.stub.put(sent, self.sent)
            self.held.append((sent, self.sent))

    @rule(data=st.data())
    def release(self, data: Any) -> None:
        count = data.draw(st.integers(0, len(self.held)), label="count")
        self.batch.release(count)
        del self.held[:count]
        self.released += count

    @rule(beyond=st.integers(1, 3))
    def release_too_many(self, beyond: int) -> None:
        with pytest.raises(ValueError, match="release of"):
            self.batch.release(len(self.held) + beyond)

    @rule()
    def clear(self) -> None:
        self.batch.clear()
        self.released += len(self.held)
        self.held.clear()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def index(self, data: Any) -> None:
        index = data.draw(st.integers(-len(self.held), len(self.held) - 1), label="index")
        packet = self.batch[index]
        self.check(packet, *self.held[index])
        self.out.append((self.released + index % len(self.held), packet))

    @rule()
    def iterate(self) -> None:
        for number, packet in enumerate(self.batch, start=self.released):
            self.check(packet, *self.held[number - self.released])
            self.out.append((number, packet))

    @rule()
    def payloads(self) -> None:
        views = self.batch.payloads()
        assert views == [sent[: self.batch.slot_size] for sent, _ in self.held]
        self.out.extend(enumerate(views, start=self.released))

    @rule()
    def copies(self) -> None:
        copies = self.batch._slots.copies()
        assert copies == [sent[: self.batch.slot_size] for sent, _ in self.held]
        assert {type(copy) for copy in copies} <= {bytes}

    @rule()
    def addresses(self) -> None:
        assert self.batch.addresses() == [sender for _, sender in self.held]

    @rule()
    def sizes(self) -> None:
        assert self.batch.sizes() == [
            min(len(sent), self.batch.slot_size) for sent, _ in self.held
        ]
        assert self.batch.wire_sizes() == [len(sent) for sent, _ in self.held]
        assert self.batch.truncated() == [
            len(sent) > self.batch.slot_size for sent, _ in self.held
        ]

    def check(self, packet: Packet, sent: bytes, sender: int) -> None:
        assert packet.data == sent[: self.batch.slot_size]
        assert packet.size == len(packet.data)
        assert packet.wire_size == len(sent)
        assert packet.truncated == (len(sent) > self.batch.slot_size)
        assert packet.address == sender

    @invariant()
    def counts(self) -> None:
        assert len(self.batch) == len(self.held)
        assert bool(self.batch) == bool(self.held)
        assert self.batch.free == self.batch.capacity - len(self.held)

    @invariant()
    def handed_out(self) -> None:
        for number, thing in self.out:
            if number < self.released:
                with pytest.raises(ValueError, match="released"):
                    bytes(thing.data if isinstance(thing, Packet) else thing)
                if isinstance(thing, Packet):
                    with pytest.raises(ValueError, match="released"):
                        _ = thing.address
            else:
                view = thing.data if isinstance(thing, Packet) else thing
                assert view == self.held[number - self.released][0][: self.batch.slot_size]
        # Those that were seen dead once stay so: no need to look at each step.
        self.out = [pair for pair in self.out if pair[0] >= self.released][-50:]


TestRing = Ring.TestCase
TestRing.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
