"""`PacketBatch.datagrams` and `columns`: the same packets, as bytes and as arrays."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import ipaddress
import pickle
import struct
import weakref
from typing import Any

import pytest

from anyio_mmsg import Columns, PacketBatch, ReceiveEngine, compiled
from anyio_mmsg._packets.columns import NO_TIME
from anyio_mmsg._packets.packet import UNKNOWN_WIRE_SIZE

from ..helpers import Family, drain, stub_engine
from .test_batch import filled


def shape_of(view: memoryview) -> tuple[int, ...]:
    assert view.shape is not None
    return view.shape


def rows(columns: Columns) -> list[bytes]:
    """Each packet, by `data` and `sizes`."""
    whole, width = bytes(columns.data), shape_of(columns.data)[1]
    return [whole[i * width : i * width + size] for i, size in enumerate(columns.sizes)]


def hosts(columns: Columns) -> list[bytes]:
    whole = bytes(columns.hosts)
    return [whole[i : i + 16] for i in range(0, len(whole), 16)]


def check(batch: PacketBatch) -> Columns:
    """Compare all columns, and all datagrams, with the packets."""
    columns, packets = batch.columns(), list(batch)
    count = len(columns)
    assert count == len(batch) == len(packets)
    assert rows(columns) == [bytes(packet.data) for packet in packets]
    assert columns.sizes.tolist() == [packet.size for packet in packets]
    assert columns.wire_sizes.tolist() == [p.wire_size or p.size for p in packets]
    assert batch.datagrams() == [(bytes(p.data), p.address) for p in packets]
    for view, form, shape in (
        (columns.data, "B", (count, shape_of(columns.data)[1])),
        (columns.sizes, "I", (count,)),
        (columns.wire_sizes, "I", (count,)),
        (columns.hosts, "B", (count, 16)),
        (columns.ports, "H", (count,)),
        (columns.timestamps, "q", (count,)),
    ):
        if view is None:
            assert not batch.ancillary
            continue
        assert isinstance(view, memoryview)
        assert (view.format, shape_of(view)) == (form, shape)
        assert view.c_contiguous
        assert view.readonly
        assert view.itemsize == struct.calcsize(form)
    return columns


def test_datagrams_of_real_packets(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    batch = PacketBatch(8, 100, engine)
    sent = [b"", b"one", b"x" * 100, b"cut" * 100]
    for data in sent:
        sender.send(data)
    drain(receiver, batch, 4)
    datagrams = batch.datagrams()
    assert datagrams == [(data[:100], sender.getsockname()) for data in sent]
    assert [type(each) for each in datagrams] == [tuple] * 4
    assert [type(data) for data, _ in datagrams] == [bytes] * 4
    batch.clear()
    assert datagrams[1] == (b"one", sender.getsockname())
    assert batch.datagrams() == []


def test_columns_of_real_packets(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    other = family.open()
    batch = PacketBatch(8, 100, engine)
    for data in (b"", b"one", b"x" * 100, b"cut" * 100):
        sender.send(data)
    other.sendto(b"other", receiver.getsockname())
    drain(receiver, batch, 5)
    columns = check(batch)
    assert shape_of(columns.data) == (5, 100)
    assert columns.wire_sizes.tolist() == [0, 3, 100, 300, 5]
    assert columns.timestamps is None
    names = [sender.getsockname()] * 4 + [other.getsockname()]
    if family.name == "unix":
        assert bytes(columns.hosts) == bytes(5 * 16)
        assert columns.ports.tolist() == [0] * 5
        return
    prefix = "::ffff:" if family.name == "inet" else ""
    expected = [ipaddress.IPv6Address(prefix + name[0]).packed for name in names]
    assert hosts(columns) == expected
    assert columns.ports.tolist() == [name[1] for name in names]


def test_an_unbound_unix_sender(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.open(), family.unbound()
    batch = PacketBatch(2, engine=engine)
    sender.sendto(b"x", receiver.getsockname())
    drain(receiver, batch, 1)
    columns = check(batch)
    if family.name == "unix":
        assert batch.datagrams() == [(b"x", None)]
        assert bytes(columns.hosts) == bytes(16)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        (("10.1.2.3", 65535), "::ffff:10.1.2.3", 65535),
        (("fe80::1%eth0", 7, 0, 2), "fe80::1", 7),
        (("2001:db8::5", 1, 9, 0), "2001:db8::5", 1),
        (("00:11:22:33:44:55", 5), "::", 0),  # AF_BLUETOOTH
        ((3, 5), "::", 0),  # AF_VSOCK
        (("nonsense", 1, 2, 3), "::", 0),
        (("eth0", 1, 2, 3, b"x"), "::", 0),  # AF_PACKET
        ("/a/path", "::", 0),
        (b"\0name", "::", 0),
        (None, "::", 0),
    ],
)
def test_senders_of_all_families(address: Any, host: str, port: int) -> None:
    batch = PacketBatch(2)
    stub_engine(batch).put(b"x", address)
    columns = check(batch)
    assert hosts(columns) == [ipaddress.IPv6Address(host).packed]
    assert columns.ports.tolist() == [port]


def test_an_unknown_length_is_that_of_the_slot() -> None:
    batch = PacketBatch(2, 4)
    stub = stub_engine(batch)
    stub.put(b"long", None, UNKNOWN_WIRE_SIZE)
    stub.put(b"long", None, 5)
    assert check(batch).wire_sizes.tolist() == [4, 5]


@pytest.mark.parametrize("size", [2**31, 2**32 - 2, 65_536, 2**40])
def test_forged_lengths_stay_in_the_slot(size: int) -> None:
    batch = PacketBatch(2, 4)
    stub_engine(batch).put(b"four", None, size)
    columns = batch.columns()
    assert columns.sizes.tolist() == [4]
    assert rows(columns) == [b"four"]
    assert batch.datagrams() == [(b"four", None)]


# Where the packets lie


def test_the_ring_itself_while_they_lie_side_by_side() -> None:
    np = pytest.importorskip("numpy")
    batch = filled(b"a", b"b", b"c", b"d", capacity=4, slot_size=8)
    ring = np.frombuffer(batch.buffer, "u1")
    assert np.shares_memory(np.asarray(check(batch).data), ring)
    batch.release(2)
    columns = check(batch)
    assert np.shares_memory(np.asarray(columns.data), ring)  # still one run
    stub_engine(batch).put(b"e")
    columns = check(batch)  # around the end
    assert rows(columns) == [b"c", b"d", b"e"]
    assert shape_of(columns.data) == (3, 8)
    assert not np.shares_memory(np.asarray(columns.data), ring)
    batch.clear()
    stub_engine(batch).put(b"f")
    assert np.shares_memory(np.asarray(check(batch).data), ring)


def test_arrays_read_the_columns_without_a_copy() -> None:
    np = pytest.importorskip("numpy")
    batch = filled(*(struct.pack("<IH", i, 2 * i) + bytes(2) for i in range(9)), slot_size=8)
    columns = batch.columns()
    array = np.frombuffer(columns.data, [("number", "<u4"), ("twice", "<u2"), ("rest", "V2")])
    assert array["number"].tolist() == list(range(9))
    assert array["twice"].sum() == 2 * sum(range(9))
    assert np.asarray(columns.sizes).dtype == np.uint32
    assert np.asarray(columns.ports).dtype == np.uint16
    assert np.asarray(columns.hosts).shape == (9, 16)
    assert not array.flags.writeable


# How they end


def test_data_dies_with_the_first_of_its_packets() -> None:
    batch = filled(b"one", b"two", b"three", capacity=4)
    columns = batch.columns()
    later = columns.ports
    batch.release(0)
    assert shape_of(columns.data)[0] == 3
    batch.release(1)
    with pytest.raises(ValueError, match="released"):
        bytes(columns.data)
    assert columns.sizes.tolist() == [3, 3, 5]
    assert later.tolist() == [0, 0, 0]
    assert rows(check(batch)) == [b"two", b"three"]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("end", [PacketBatch.clear, PacketBatch.close, PacketBatch.release])
def test_data_dies_however_it_lies(wrapped: bool, end: Any) -> None:
    batch = filled(b"a", b"b", b"c", capacity=3)
    if wrapped:
        batch.release(2)
        stub_engine(batch).put(b"d")
    data = batch.columns().data
    end(batch)
    with pytest.raises(ValueError, match="released"):
        data.tolist()


def test_data_of_a_batch_that_is_dropped() -> None:
    batch = filled(b"a", b"b")
    columns = batch.columns()
    del batch
    gc.collect()
    assert rows(columns) == [b"a", b"b"]  # which keeps the memory


def test_the_same_packets_have_the_same_data() -> None:
    batch = filled(b"a", b"b", capacity=4)
    first = batch.columns()
    assert batch.columns().data is first.data
    stub_engine(batch).put(b"c")
    second = batch.columns()
    assert second.data is not first.data
    assert rows(first) == [b"a", b"b"]
    second.data.release()
    assert rows(batch.columns()) == [b"a", b"b", b"c"]
    batch.release()
    with pytest.raises(ValueError, match="released"):
        bytes(first.data)


def test_an_export_keeps_the_packets_held() -> None:
    batch = filled(b"a", b"b")
    columns = batch.columns()
    held = pickle.PickleBuffer(columns.data)
    with pytest.raises(BufferError, match="0 of 2 packets"):
        batch.clear()
    with pytest.raises(BufferError, match="0 of 1 packets"):
        batch.release(1)
    assert len(batch) == 2
    assert bytes(columns.data)[:1] == b"a"
    held.release()
    batch.clear()
    assert len(batch) == 0


def test_an_array_does_not_notice() -> None:
    np = pytest.importorskip("numpy")
    batch = filled(b"a", b"b")
    array = np.asarray(batch.columns().data)
    batch.clear()
    stub_engine(batch).put(b"z")
    assert bytes(array[0, :1]) == b"z"


@pytest.mark.skipif(not compiled, reason="in plain Python it may not use the very batch")
def test_callbacks_of_weak_references_may_use_the_batch() -> None:
    batch = filled(b"a", b"b", b"c")
    data = batch.columns().data
    told: list[int] = []

    def release_another(_: object) -> None:
        told.append(len(batch))
        if len(batch) > 1:
            batch.release(len(batch))

    refs = weakref.ref(data, release_another)
    del data
    batch.release(1)
    assert told == [3]
    assert len(batch) == 0
    del refs


# Timestamps are in tests/control; what is refused


def test_a_batch_without_packets() -> None:
    batch = PacketBatch()
    with pytest.raises(ValueError, match="no packets"):
        batch.columns()
    assert batch.datagrams() == []
    batch.close()
    for method in (batch.columns, batch.datagrams):
        with pytest.raises(ValueError, match="closed"):
            method()


def test_is_frozen_and_says_what_it_is() -> None:
    columns = filled(b"a", b"b").columns()
    with pytest.raises(dataclasses.FrozenInstanceError):
        columns.data = memoryview(b"")  # type: ignore[misc]
    assert repr(columns) == "<Columns of 2 packets>"
    assert len(columns) == 2
    assert [field.name for field in dataclasses.fields(Columns)] == [
        "data",
        "sizes",
        "wire_sizes",
        "hosts",
        "ports",
        "timestamps",
    ]
    with pytest.raises(TypeError, match="read-only"):
        columns.sizes[0] = 1
    assert NO_TIME == -(2**63)


def test_as_many_as_there_are_packets_at_most() -> None:
    batch = PacketBatch(3)
    stub = stub_engine(batch)
    made = []
    for _ in range(3):
        stub.put(b"x")
        made += [batch.columns() for _ in range(5)]
    assert len({id(columns.data) for columns in made}) == 3
    batch.release(2)
    for columns in made:
        with pytest.raises(ValueError, match="released"):
            len(columns.data)
    assert rows(batch.columns()) == [b"x"]


def test_nobody_can_write_to_what_they_show() -> None:
    columns = filled(b"a", b"b").columns()
    for view in (columns.data, columns.sizes, columns.hosts):
        assert view.readonly
        assert view.c_contiguous
        with pytest.raises(TypeError):
            ctypes.c_char.from_buffer(view)
        if compiled:
            with pytest.raises(TypeError, match="read-write"):
                struct.pack_into("B", view.obj, 0, 1)


@pytest.mark.parametrize("which", ["data", "sizes"])
def test_memory_that_refers_to_its_columns_can_be_collected(which: str) -> None:
    class Memory(bytearray):
        columns: memoryview

    memory = Memory(2 * 1232)
    batch = PacketBatch(2, memory=memory)
    stub_engine(batch).put(b"x")
    memory.columns = getattr(batch.columns(), which)
    collected = weakref.ref(memory)
    del memory, batch
    gc.collect()
    assert collected() is None
