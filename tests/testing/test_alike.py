"""A batch that was made and one that was received can't be told apart by what is public."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine
from anyio_mmsg.testing import Datagram, fill_batch

from ..control.packets import ALL, LOOPBACK, Line
from ..gro.flow import Flow, numbered
from ..gro.flow import drain as drain_trains
from ..helpers import Family, drain, have_ipv6

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="control data and trains need it")
SIZES = [0, 1, 15, 16, 17, 40]  # for slots of 16 bytes
ROUNDS = 25


def of(what: Callable[[], Any]) -> Any:
    """Return what something gives, or the error that it raises."""
    try:
        value = what()
    except Exception as error:
        return type(error), str(error)
    if isinstance(value, memoryview):
        return bytes(value), value.readonly, value.format, value.itemsize, value.contiguous
    return value


PACKET = [
    "data", "address", "size", "truncated", "wire_size",
    "timestamp", "hardware_timestamp", "destination", "interface", "ecn", "hop_limit",
]  # fmt: skip
COLUMNS = [
    "payloads", "addresses", "sizes",
    "timestamps", "destinations", "interfaces", "ecns", "hop_limits",
]  # fmt: skip


def look_at(packet: Any) -> Any:
    assert set(PACKET) == {name for name in dir(packet) if not name.startswith("_")}
    seen = {name: of(lambda name=name: getattr(packet, name)) for name in PACKET}  # type: ignore[misc]
    wrong = [of(lambda: setattr(packet, "data", b"")), of(lambda: delattr(packet, "address"))]
    return type(packet), repr(packet), seen, wrong, of(lambda: packet.data[0])


def look(batch: PacketBatch, kept: list[Any]) -> Any:
    """Return all that a batch shows, and what packets and views from before show."""
    columns = [of(getattr(batch, name)) for name in COLUMNS]
    return (
        [type(batch), repr(batch), len(batch), bool(batch), batch.free, batch.closed],
        [batch.capacity, batch.slot_size, batch.gro, batch.ancillary],
        [list(map(type, column)) for column in columns],
        columns,
        [look_at(packet) for packet in batch],
        [look_at(packet) for packet in batch[1:3]],
        [of(lambda index=index: look_at(batch[index])) for index in (0, -1, 99)],  # type: ignore[misc]
        [len(batch.buffer), batch.buffer.readonly],
        [look_at(packet) for packet, _ in kept],
        [of(lambda view=view: bytes(view)) for _, view in kept],  # type: ignore[misc]
    )


class Twins:
    """A batch that receives, and one that is told the same; each step is done to both."""

    def __init__(self, **arguments: Any) -> None:
        self.received = PacketBatch(**arguments)
        arguments.pop("engine")
        self.made = PacketBatch(**arguments)
        self._kept: tuple[list[Any], list[Any]] = ([], [])

    def both(self, step: Callable[[PacketBatch], Any]) -> None:
        assert of(lambda: step(self.received)) == of(lambda: step(self.made))
        self.compare()

    def compare(self) -> None:
        assert look(self.received, self._kept[0]) == look(self.made, self._kept[1])

    def keep(self) -> None:
        for batch, kept in zip((self.received, self.made), self._kept):  # noqa: B905
            kept += [(packet, packet.data) for packet in batch]
            del kept[:-6]

    def use(self, dice: random.Random) -> None:
        """Do as a consumer does."""
        self.compare()
        if dice.random() < 0.5:
            self.keep()
        count = dice.choice([0, 1, 2, len(self.made), len(self.made) + 1])
        self.both(lambda batch: batch.release(count))
        if dice.random() < 0.2:
            self.both(lambda batch: batch.clear())


@contextmanager
def twins(**arguments: Any) -> Iterator[Twins]:
    both = Twins(**arguments)
    yield both
    both.keep()
    received, made = both.received, both.made
    assert of(received.close) == of(made.close)
    assert repr(received) == repr(made)
    assert [look_at(packet) for packet, _ in both._kept[0]] == [
        look_at(packet) for packet, _ in both._kept[1]
    ]
    assert of(lambda: len(received)) == of(lambda: len(made))


def test_packets_of_every_family(engine: ReceiveEngine, family: Family) -> None:
    receiver, senders = family.open(), [family.open(), family.open(), family.unbound()]
    if family.name != "unix":
        senders.pop()  # it would get a name when it sends
    dice = random.Random(0)
    with twins(capacity=7, slot_size=16, engine=engine) as both:
        for _ in range(ROUNDS):
            given: list[Any] = []
            for _ in range(dice.randint(0, both.made.free)):
                sender, data = dice.choice(senders), dice.randbytes(dice.choice(SIZES))
                sender.sendto(data, receiver.getsockname())
                given.append((data, sender.getsockname() or None))
            drain(receiver, both.received, len(given))
            assert fill_batch(both.made, given) == len(given)
            both.use(dice)


def with_times(batch: PacketBatch, given: list[dict[str, Any]]) -> list[Datagram]:
    """Return datagrams with the time at which the kernel says that they came."""
    times = batch.timestamps()[len(batch) - len(given) :] if given else []
    return [Datagram(**each, timestamp=time) for each, time in zip(given, times)]  # noqa: B905


@only_linux
@pytest.mark.parametrize(
    "kind",
    [
        "inet",
        *[
            pytest.param(
                kind, marks=pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
            )
            for kind in ("inet6", "mapped")
        ],
    ],
)
@pytest.mark.parametrize("ancillary", [True, False])
def test_control_data(kind: str, ancillary: bool, engine: ReceiveEngine) -> None:
    dice = random.Random(1)
    arguments = {"capacity": 7, "slot_size": 16, "ancillary": ancillary}
    with Line(kind, **ALL) as line, twins(**arguments, engine=engine) as both:
        for _ in range(ROUNDS):
            given: list[dict[str, Any]] = []
            for _ in range(dice.randint(0, both.made.free)):
                data, host = dice.randbytes(dice.choice(SIZES)), dice.choice(line.hosts)
                tos, hops = dice.randrange(256), dice.randint(1, 255)
                line.send(data, host, tos, hops)
                given.append({"data": data, "address": line.name})
                if ancillary:
                    control = {"destination": line.shown(host), "interface": LOOPBACK}
                    given[-1] |= {**control, "ecn": tos & 3, "hop_limit": hops}
            drain(line.receiver, both.received, len(given))
            if ancillary:
                fill_batch(both.made, with_times(both.received, given))
            else:
                fill_batch(both.made, [Datagram(**each) for each in given])
            both.use(dice)


@only_linux
@pytest.mark.parametrize("asked", [[], ["timestamps"], ["ecn"], ["hop_limits", "destinations"]])
def test_a_part_of_the_control_data(asked: list[str], engine: ReceiveEngine) -> None:
    arguments = {"capacity": 4, "slot_size": 16, "ancillary": True}
    options = dict.fromkeys(asked, True)
    with Line("inet", **options) as line, twins(**arguments, engine=engine) as both:
        line.send(b"x", tos=2, hops=9)
        drain(line.receiver, both.received, 1)
        given: dict[str, Any] = {"data": b"x", "address": line.name}
        if "timestamps" in asked:
            given["timestamp"] = both.received[0].timestamp
        if "ecn" in asked:
            given["ecn"] = 2
        if "hop_limits" in asked:
            given |= {"hop_limit": 9, "destination": line.hosts[0], "interface": LOOPBACK}
        fill_batch(both.made, [Datagram(**given)])
        both.compare()


@only_linux
@pytest.mark.parametrize("ancillary", [True, False])
def test_trains(ancillary: bool, engine: ReceiveEngine) -> None:
    dice = random.Random(2)
    options: dict[str, Any] = {"timestamps": True, "ecn": True} if ancillary else {}
    arguments = {"capacity": 5, "gro": True, "ancillary": ancillary}
    try:
        flow = Flow(**options)
    except OSError:
        pytest.skip("this kernel has no UDP_GRO")
    with flow, twins(**arguments, engine=engine) as both:
        for _ in range(ROUNDS):
            given: list[dict[str, Any]] = []
            for _ in range(dice.randint(0, both.made.free)):
                sender = dice.randrange(2)
                given.append({"address": flow.names[sender]})
                if dice.random() < 0.3:
                    packets = flow.single(dice.randbytes(dice.choice([0, 1, 1500])), sender)
                else:
                    size = dice.randint(1, 1400)
                    packets = numbered(dice.randint(2, 40), size, dice.randint(1, size))
                    flow.send(*packets, sender=sender)
                    given[-1]["segment_size"] = size
                given[-1]["data"] = b"".join(packets)
                if ancillary:
                    given[-1]["ecn"] = 0
            before = len(both.received)
            taken = drain_trains(flow.receiver, both.received) if given else 0
            if ancillary:
                add_times(both.received, before, given)
            assert fill_batch(both.made, [Datagram(**each) for each in given]) == taken
            both.use(dice)


def add_times(batch: PacketBatch, first: int, given: list[dict[str, Any]]) -> None:
    """Add the time at which each message came, by the kernel; `first` is its first packet."""
    for each in given:
        each["timestamp"] = batch[first].timestamp
        size, segment = len(each["data"]), each.get("segment_size")
        first += -(-size // segment) if segment else 1


def test_the_comparison_notices() -> None:
    """That what is compared above would show differences."""
    for one, other in (
        (Datagram(b"x"), Datagram(b"y")),
        (Datagram(b"x"), Datagram(b"x", ("192.0.2.1", 1))),
        (Datagram(bytes(17)), Datagram(bytes(18))),
        (Datagram(b"x", ecn=1), Datagram(b"x", ecn=2)),
        (Datagram(b"x", timestamp=1), Datagram(b"x")),
    ):
        both = Twins(capacity=4, slot_size=16, ancillary=True, engine="auto")
        fill_batch(both.received, [one])
        fill_batch(both.made, [one])
        both.compare()
        fill_batch(both.received, [one])
        fill_batch(both.made, [other])
        with pytest.raises(AssertionError):
            both.compare()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_long_datagrams_of_unix_sockets(engine: ReceiveEngine, tmp_path: Any) -> None:
    with Family("unix", tmp_path) as family, twins(slot_size=65_536, engine=engine) as both:
        receiver, sender = family.pair()
        for size in (65_535, 65_536, 100_000):
            sender.send(bytes(size))
            drain(receiver, both.received, 1)
            fill_batch(both.made, [(bytes(size), sender.getsockname())])
        both.compare()
