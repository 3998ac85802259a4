"""Trains against a plain list, in any order of sending, receiving, reading and releasing.

All engines side by side, each with a socket of its own that gets the same packets.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anyio_mmsg import BatchFullError, Packet, PacketBatch, ReceiveEngine, recv_mmsg_nowait

from ..helpers import ENGINES
from .flow import Flow

Sent = tuple[bytes, int]
"""A packet's bytes, and the index of its sender."""


@contextmanager
def exported(view: memoryview) -> Iterator[None]:
    export = pickle.PickleBuffer(view)
    yield
    export.release()


class Side:
    """One engine: its batch and what was handed out, beside the number of the packet."""

    def __init__(self, engine: ReceiveEngine, capacity: int) -> None:
        self.flow = Flow()
        self.batch = PacketBatch(capacity, engine=engine, gro=True)
        self.out: list[tuple[int, Packet | memoryview]] = []


class Trains(RuleBasedStateMachine):
    @initialize(capacity=st.integers(1, 5))
    def make(self, capacity: int) -> None:
        self.sides = [Side(engine, capacity) for engine in ENGINES]
        self.capacity = capacity
        self.queued: list[list[Sent]] = []  # messages
        self.messages: list[int] = []  # the numbers of packets that those held are, or still have
        self.held: list[Sent] = []
        self.sent = self.released = 0

    def teardown(self) -> None:
        for side in self.sides:
            side.flow.__exit__()

    @precondition(lambda self: len(self.queued) < 12)
    @rule(
        count=st.integers(1, 20),
        size=st.integers(1, 30),
        last=st.integers(1, 30),
        sender=st.integers(0, 1),
    )
    def send_train(self, count: int, size: int, last: int, sender: int) -> None:
        sizes = [size] * (count - 1) + [min(last, size)]
        message = []
        for number, length in enumerate(sizes, start=self.sent):
            message.append((bytes([number % 256]) * length, sender))
        self.sent += count
        for side in self.sides:
            side.flow.send(*[data for data, _ in message], sender=sender)
        self.queued.append(message)

    @precondition(lambda self: len(self.queued) < 12)
    @rule(size=st.integers(0, 30), sender=st.integers(0, 1))
    def send_single(self, size: int, sender: int) -> None:
        data = bytes([self.sent % 256]) * size
        self.sent += 1
        for side in self.sides:
            side.flow.single(data, sender)
        self.queued.append([(data, sender)])

    @rule(limit=st.integers(1, 9))
    def receive(self, limit: int) -> None:
        count = min(limit, len(self.queued), self.capacity - len(self.messages))
        expected = [packet for message in self.queued[:count] for packet in message]
        for side in self.sides:
            try:
                taken = recv_mmsg_nowait(side.flow.receiver, side.batch, limit)
            except BatchFullError:
                assert len(self.messages) == self.capacity
            except anyio.WouldBlock:
                assert not self.queued
            else:
                assert taken == len(expected)
        self.messages += [len(message) for message in self.queued[:count]]
        self.held += expected
        del self.queued[:count]

    @rule(data=st.data())
    def release(self, data: Any) -> None:
        count = data.draw(st.integers(0, len(self.held)), label="count")
        for side in self.sides:
            side.batch.release(count)
        self.forget(count)

    def forget(self, count: int) -> None:
        del self.held[:count]
        self.released += count
        while count:
            part = min(count, self.messages[0])
            self.messages[0] -= part
            if not self.messages[0]:
                del self.messages[0]
            count -= part

    @rule(beyond=st.integers(1, 3))
    def release_too_many(self, beyond: int) -> None:
        for side in self.sides:
            with pytest.raises(ValueError, match="release of"):
                side.batch.release(len(self.held) + beyond)

    @rule()
    def clear(self) -> None:
        for side in self.sides:
            side.batch.clear()
        self.forget(len(self.held))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release_up_to_an_export(self, data: Any) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1), label="index")
        for side in self.sides:
            with (
                exported(side.batch[index].data),
                pytest.raises(BufferError, match=f"{index} of {len(self.held)} packets"),
            ):
                side.batch.clear()
        self.forget(index)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def index(self, data: Any) -> None:
        index = data.draw(st.integers(-len(self.held), len(self.held) - 1), label="index")
        for side in self.sides:
            packet = side.batch[index]
            self.check(side, packet, *self.held[index])
            side.out.append((self.released + index % len(self.held), packet))

    @rule()
    def iterate(self) -> None:
        for side in self.sides:
            packets = list(side.batch)
            assert len(packets) == len(self.held)
            for packet, sent in zip(packets, self.held, strict=True):
                self.check(side, packet, *sent)
            side.out.extend(enumerate(packets, start=self.released))

    @rule()
    def payloads(self) -> None:
        for side in self.sides:
            views = side.batch.payloads()
            assert views == [sent for sent, _ in self.held]
            side.out.extend(enumerate(views, start=self.released))

    @rule()
    def addresses(self) -> None:
        for side in self.sides:
            names = side.flow.names
            assert side.batch.addresses() == [names[sender] for _, sender in self.held]

    @rule()
    def sizes(self) -> None:
        for side in self.sides:
            assert side.batch.sizes() == [len(sent) for sent, _ in self.held]

    def check(self, side: Side, packet: Packet, sent: bytes, sender: int) -> None:
        assert packet.data == sent
        assert packet.size == packet.wire_size == len(sent)
        assert not packet.truncated
        assert packet.address == side.flow.names[sender]

    @invariant()
    def counts(self) -> None:
        for side in self.sides:
            assert len(side.batch) == len(self.held)
            assert side.batch.free == side.batch.capacity - len(self.messages)

    @invariant()
    def handed_out(self) -> None:
        for side in self.sides:
            for number, thing in side.out:
                if number < self.released:
                    with pytest.raises(ValueError, match="released"):
                        bytes(thing.data if isinstance(thing, Packet) else thing)
                else:
                    view = thing.data if isinstance(thing, Packet) else thing
                    assert view == self.held[number - self.released][0]
            # Those that were seen dead once stay so: no need to look at each step.
            side.out = [pair for pair in side.out if pair[0] >= self.released][-50:]


TestTrains = Trains.TestCase
TestTrains.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
