"""The ring alone: no socket, no event loop."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import weakref
from typing import Any

import pytest

from anyio_mmsg import NUM_RCVMMSGS, PACKET_DATA_SIZE, PacketBatch, ReceiveEngine
from anyio_mmsg._packets.packet import UNKNOWN_WIRE_SIZE

from ..helpers import Family, contents, drain, stub_engine


def filled(*datagrams: bytes, **fields: Any) -> PacketBatch:
    batch = PacketBatch(**fields)
    stub = stub_engine(batch)
    for number, data in enumerate(datagrams):
        stub.put(data, ("host", number))
    return batch


def test_defaults() -> None:
    batch = PacketBatch()
    assert (batch.capacity, batch.slot_size, batch.engine) == (64, 1232, "auto")
    assert PACKET_DATA_SIZE == 1280 - 40 - 8
    assert NUM_RCVMMSGS == 64
    assert [field.name for field in dataclasses.fields(PacketBatch)] == [
        "capacity",
        "slot_size",
        "engine",
        "gro",
        "ancillary",
        "memory",
    ]


def test_an_empty_batch() -> None:
    batch = PacketBatch(3)
    assert len(batch) == 0
    assert not batch
    assert batch.free == 3
    assert list(batch) == batch.payloads() == batch.addresses() == batch.sizes() == []
    assert batch.truncated() == batch.wire_sizes() == []
    batch.clear()
    batch.release(0)
    with pytest.raises(IndexError, match="packet 0 of a batch that holds 0"):
        batch[0]


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"capacity": 0}, ValueError, "capacity is 0; give the number of slots, at least 1"),
        ({"capacity": -1}, ValueError, "capacity is -1; "),
        ({"capacity": True}, TypeError, "capacity is True, a bool; "),
        ({"capacity": 2**63}, ValueError, "more than any memory; give fewer"),
        ({"slot_size": 2**100}, ValueError, "more than any memory; give fewer"),
        ({"capacity": 2**32, "slot_size": 2**32}, ValueError, "more than any memory"),
        ({"capacity": 2**48, "gro": True}, ValueError, "more than any memory"),
        ({"capacity": 2.0}, TypeError, "capacity is a float, not an int; "),
        ({"capacity": "64"}, TypeError, "capacity is a str, not an int; "),
        ({"slot_size": 0}, ValueError, "slot_size is 0; give the bytes of a slot, at least 1"),
        ({"slot_size": False}, TypeError, "slot_size is False, a bool; "),
        ({"engine": "epoll"}, ValueError, "engine is 'epoll'; give one of .*recvfrom_into"),
        ({"engine": None}, TypeError, "engine is a NoneType; give one of"),
    ],
)
def test_bad_arguments(fields: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        PacketBatch(**fields)


def test_packets() -> None:
    batch = filled(b"one", b"", b"three", capacity=8)
    assert contents(batch) == [b"one", b"", b"three"]
    assert batch
    assert (len(batch), batch.free) == (3, 5)
    assert batch.payloads() == batch._slots.copies() == [b"one", b"", b"three"]
    assert batch.sizes() == batch.wire_sizes() == [3, 0, 5]
    assert batch.truncated() == [False, False, False]
    assert batch.addresses() == [("host", 0), ("host", 1), ("host", 2)]
    assert [p.address for p in batch] == batch.addresses()
    assert batch[-1].data == batch[2].data == b"three"
    assert batch[-3].data == b"one"
    assert [p.data for p in batch[1:]] == [b"", b"three"]
    assert [p.data for p in reversed(batch)] == [b"three", b"", b"one"]
    for index in (3, -4):
        with pytest.raises(IndexError):
            batch[index]
    packet = batch[2]
    assert (packet.size, packet.wire_size, packet.truncated) == (5, 5, False)
    assert repr(packet) == "<Packet of 5 bytes from ('host', 2)>"


def test_repr_is_short_and_tells_the_state() -> None:
    batch = filled(b"x", capacity=4)
    assert repr(batch) == "<PacketBatch capacity=4 held=1 free=3>"


def test_a_datagram_longer_than_its_slot() -> None:
    batch = filled(b"12345678", b"1234", b"1", slot_size=4)
    cut, full, short = batch
    assert (cut.data, cut.size, cut.truncated, cut.wire_size) == (b"1234", 4, True, 8)
    assert (full.data, full.size, full.truncated, full.wire_size) == (b"1234", 4, False, 4)
    assert (short.data, short.size, short.truncated, short.wire_size) == (b"1", 1, False, 1)
    assert batch.sizes() == [4, 4, 1]
    assert batch.truncated() == [True, False, False]
    assert batch.wire_sizes() == [8, 4, 1]
    assert repr(cut) == "<Packet of 4 bytes from ('host', 0), truncated>"


def test_a_datagram_of_unknown_length() -> None:
    batch = PacketBatch(2, 4)
    stub_engine(batch).put(b"1234", wire_size=UNKNOWN_WIRE_SIZE)
    packet = batch[0]
    assert (packet.data, packet.size, packet.truncated, packet.wire_size) == (
        b"1234",
        4,
        True,
        None,
    )
    assert (batch.sizes(), batch.truncated(), batch.wire_sizes()) == ([4], [True], [None])


def test_views_are_read_only_and_inside_the_ring() -> None:
    batch = filled(b"abc", b"de", slot_size=4, capacity=2)
    assert batch[0].data.readonly
    assert batch.buffer.readonly
    assert batch.buffer == b"abc\0de\0\0"
    assert batch.buffer.nbytes == 8
    kept = batch.buffer
    kept.release()
    assert batch.buffer[:3] == b"abc"


def test_what_was_handed_out_dies_at_the_release() -> None:
    batch = filled(b"first", b"second", capacity=2)
    packets, views, columns = list(batch), [batch[0].data, batch[1].data], batch.payloads()
    batch.release()
    for dead in (views[0], columns[0]):
        with pytest.raises(ValueError, match="released"):
            bytes(dead)
    for attribute in ("data", "address", "size", "truncated", "wire_size"):
        with pytest.raises(ValueError, match="this packet was released"):
            getattr(packets[0], attribute)
    assert repr(packets[0]) == "<Packet, released>"
    assert views[1] == columns[1] == packets[1].data == b"second"
    assert packets[1].address == ("host", 1)
    batch.clear()
    stub_engine(batch).put(b"third")
    for dead_packet in packets:
        for attribute in ("data", "address", "size", "truncated", "wire_size"):
            with pytest.raises(ValueError, match="this packet was released"):
                getattr(dead_packet, attribute)
    assert contents(batch) == [b"third"]


def test_releasing_inside_the_loop_over_the_batch() -> None:
    batch = filled(b"a", b"b", b"c")
    seen = []
    for packet in batch:
        seen.append((bytes(packet.data), packet.address[1], len(batch)))
        batch.release()
    assert seen == [(b"a", 0, 3), (b"b", 1, 2), (b"c", 2, 1)]


@pytest.mark.parametrize("count", [-1, 3, 1000])
def test_release_of_what_is_not_there(count: int) -> None:
    batch = filled(b"a", b"b")
    with pytest.raises(ValueError, match=r"release|count is -1"):
        batch.release(count)
    assert contents(batch) == [b"a", b"b"]


@pytest.mark.parametrize("count", [True, False, 1.0, None])
def test_release_of_no_number(count: Any) -> None:
    batch = filled(b"a")
    with pytest.raises(TypeError, match="count is"):
        batch.release(count)
    assert len(batch) == 1


def test_release_of_memory_in_use() -> None:
    batch = filled(b"a", b"b", b"c")
    views = batch.payloads()
    # An object that reads through the view, as a numpy array made from it does.
    user = pickle.PickleBuffer(views[1])
    with pytest.raises(BufferError, match="1 of 3 packets, those before it, were released"):
        batch.release(3)
    assert contents(batch) == [b"b", b"c"]
    assert batch.free == batch.capacity - 2
    user.release()
    batch.clear()
    assert batch.free == batch.capacity


def test_a_view_that_the_consumer_released() -> None:
    batch = filled(b"a", b"b")
    with batch[0].data as data:
        assert data == b"a"
    assert batch[1].data == b"b"
    batch.clear()
    assert batch.free == batch.capacity


def test_a_fill_of_an_empty_ring_is_one_run() -> None:
    batch = filled(b"a", b"b", b"c", capacity=4)
    assert batch._slots.free_run(9) == (3, 1)
    batch.clear()
    assert batch._slots.free_run(9) == (0, 4)


def test_packets_outlive_the_name_of_their_batch() -> None:
    batch = filled(b"a")
    packet = batch[0]
    del batch
    gc.collect()
    assert (packet.data, packet.address, packet.size) == (b"a", ("host", 0), 1)


def test_a_dropped_batch_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        batch = filled(b"a")
        view = batch[0].data
        gone = weakref.ref(batch)
        del batch
        assert gone() is None
        assert view == b"a"
    finally:
        gc.enable()


def test_there_is_one_packet_for_each_datagram() -> None:
    batch = filled(b"a", b"b", b"c")
    first = batch[0]
    assert batch[0] is first is next(iter(batch)) is batch[-3]
    batch.release()
    assert batch[0] is not first


@pytest.mark.parametrize("early", [False, True], ids=["late", "early"])
def test_addresses_of_dead_packets_stay_dead(early: bool) -> None:
    """Whether they were decoded beforehand, when asked for, or never."""
    batch = filled(b"a", b"b", b"c")
    if early:
        assert batch[2].address == ("host", 2)
    asked, silent = batch[0], batch[1]
    assert asked.address == ("host", 0)
    batch.clear()
    for packet in (asked, silent):
        with pytest.raises(ValueError, match="released"):
            _ = packet.address


def test_assigning_to_the_arguments_changes_nothing(engine: ReceiveEngine) -> None:
    with Family("inet", None) as inet:
        receiver, sender = inet.pair()
        batch = PacketBatch(2, 4, engine)
        for name, value in (("capacity", 1), ("slot_size", 1232), ("engine", "nonsense")):
            with pytest.raises(AttributeError, match=f"{name} can't be set"):
                setattr(batch, name, value)
        for _ in range(3):
            sender.send(b"123456")
        drain(receiver, batch, 2)
        assert contents(batch) == [b"1234", b"1234"]
        assert batch.sizes() == [4, 4]
        assert batch[0].truncated


def test_batches_compare_by_identity() -> None:
    batch = PacketBatch()
    assert batch != PacketBatch()
    assert len({batch, PacketBatch()}) == 2


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_is_memory_in_use_is_not_copied(copier: Any) -> None:
    with pytest.raises(TypeError, match="make a new one"):
        copier(PacketBatch())
    with pytest.raises(TypeError, match=r"copy bytes\(packet\.data\)"):
        copier(filled(b"a")[0])


def test_clearing_while_an_engine_fills() -> None:
    """As a signal handler may: what is being filled stays where it is."""
    batch = filled(b"old", capacity=2)
    slots = batch._slots
    first, _ = slots.free_run(1)
    batch.clear()
    slots.memory[first * 1232 : first * 1232 + 3] = b"new"
    slots.commit([3], [None])
    assert batch.payloads() == [b"new"]


def test_replace_makes_a_new_ring() -> None:
    batch = dataclasses.replace(PacketBatch(8), capacity=2)
    assert (batch.capacity, batch.free, batch.buffer.nbytes) == (2, 2, 2 * 1232)
