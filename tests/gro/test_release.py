"""Packets of trains are given back one by one, their slot with the last of them."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref

import pytest

from anyio_mmsg import Packet, PacketBatch, ReceiveEngine, compiled, recv_mmsg_nowait
from anyio_mmsg._packets import Slots

from .flow import Flow, check, drain, numbered


@pytest.fixture
def batch(engine: ReceiveEngine) -> PacketBatch:
    return PacketBatch(4, engine=engine, gro=True)


def assert_dead(packet: Packet, view: memoryview) -> None:
    with pytest.raises(ValueError, match="was released"):
        _ = packet.data
    with pytest.raises(ValueError, match="was released"):
        _ = packet.address
    with pytest.raises(ValueError, match="released"):
        bytes(view)


def test_inside_a_train(inet: Flow, batch: PacketBatch) -> None:
    packets = inet.send(*numbered(10, 50, last=3))
    drain(inet.receiver, batch)
    kept = [(packet, packet.data) for packet in batch]
    for count in (1, 3, 0, 5):
        batch.release(count)
        del packets[:count]
        check(batch, packets, inet.names[:1] * len(packets))
        assert batch.free == 3
        released = 10 - len(packets)
        for packet, view in kept[:released]:
            assert_dead(packet, view)
        assert [bytes(view) for _, view in kept[released:]] == packets
        assert [packet for packet, _ in kept[released:]] == list(batch)
    batch.release()
    assert (batch.free, len(batch)) == (4, 0)


def test_of_more_than_is_held(inet: Flow, batch: PacketBatch) -> None:
    inet.send(*numbered(10, 50))
    drain(inet.receiver, batch)
    batch.release(4)
    with pytest.raises(ValueError, match="release of 7 packets from a batch that holds 6"):
        batch.release(7)
    assert len(batch) == 6


def test_a_slot_is_filled_anew_only_after_its_last_packet(
    engine: ReceiveEngine, inet: Flow
) -> None:
    batch = PacketBatch(2, engine=engine, gro=True)
    first = inet.send(*numbered(5, 50))
    second = inet.send(*numbered(5, 50, start=10))
    third = inet.send(*numbered(5, 50, start=20))
    assert drain(inet.receiver, batch) == 10
    for count in range(5):
        assert batch.free == 0
        assert batch.payloads() == (first + second)[count:]
        batch.release()
    assert batch.free == 1
    assert drain(inet.receiver, batch) == 5
    assert batch.payloads() == second + third


def test_over_several_trains(inet: Flow, batch: PacketBatch) -> None:
    packets = inet.send(*numbered(4, 10)) + inet.single(b"one") + inet.send(*numbered(6, 20))
    drain(inet.receiver, batch)
    kept = [(packet, packet.data) for packet in batch]
    batch.release(7)
    assert batch.free == 3
    for packet, view in kept[:7]:
        assert_dead(packet, view)
    check(batch, packets[7:], inet.names[:1] * 4)
    batch.clear()
    for packet, view in kept:
        assert_dead(packet, view)
    assert batch.free == 4


def test_an_export_in_the_middle(inet: Flow, batch: PacketBatch) -> None:
    packets = inet.single(b"before") + inet.send(*numbered(10, 50))
    drain(inet.receiver, batch)
    kept = list(batch)
    export = pickle.PickleBuffer(batch[5].data)
    with pytest.raises(BufferError, match="5 of 11 packets, those before it, were released"):
        batch.clear()
    check(batch, packets[5:], inet.names[:1] * 6)
    assert batch[0] is kept[5]
    assert batch.free == 3
    for packet in kept[:5]:
        with pytest.raises(ValueError, match="was released"):
            _ = packet.data
    with pytest.raises(BufferError, match="0 of 2"):
        batch.release(2)
    with pytest.raises(BufferError, match="0 of 6"):
        batch.close()
    check(batch, packets[5:], inet.names[:1] * 6)
    export.release()
    batch.release(2)
    check(batch, packets[7:], inet.names[:1] * 4)
    batch.close()


def test_a_view_that_the_consumer_released(inet: Flow, batch: PacketBatch) -> None:
    inet.send(*numbered(3, 50))
    drain(inet.receiver, batch)
    batch[1].data.release()
    batch.release(3)
    assert batch.free == 4


def test_a_closed_batch(inet: Flow, batch: PacketBatch) -> None:
    inet.send(*numbered(3, 50))
    drain(inet.receiver, batch)
    packet = batch[1]
    with batch:
        view = packet.data
    assert_dead(packet, view)
    with pytest.raises(ValueError, match="was closed"):
        _ = batch.gro


def test_what_nobody_keeps_is_not_kept(inet: Flow, batch: PacketBatch) -> None:
    """Beyond the next use of its slot, by a shorter train or a single packet."""
    inet.send(*numbered(20, 50))
    drain(inet.receiver, batch)
    views = [weakref.ref(view) for view in batch.payloads()]
    batch.clear()
    for _ in range(4):
        inet.single(b"other")
    drain(inet.receiver, batch)
    _ = batch.payloads()
    gc.collect()
    assert [view() for view in views] == [None] * 20


def test_trains_of_other_lengths_in_one_slot(engine: ReceiveEngine, inet: Flow) -> None:
    batch = PacketBatch(1, engine=engine, gro=True)
    kept: list[tuple[Packet, memoryview]] = []
    for count in (5, 30, 1, 60, 2, 30, 7):
        packets = inet.send(*numbered(count, 40, last=40 - count % 3, start=count))
        assert recv_mmsg_nowait(inet.receiver, batch) == count
        check(batch, packets, inet.names[:1] * count)
        for packet, view in kept:
            assert_dead(packet, view)
        kept = [(packet, packet.data) for packet in list(batch)[::3]]
        batch.clear()


PROGRAM = """
import sys
from anyio_mmsg import PacketBatch
from tests.gro.flow import Flow, drain, numbered

with Flow() as flow:
    batch = PacketBatch(2, engine=sys.argv[1], gro=True)
    flow.send(*numbered(5, 100, last=60))
    flow.single(b"z" * 70)
    assert drain(flow.receiver, batch) == 6
    before = bytes(batch.buffer)
    window = batch.buffer
    batch.release(2)
    assert bytes(window[:200]) == b"\\xdd" * 200
    assert window[200:] == before[200:], "what is held, or was never used, is overwritten"
    batch.release(3)
    assert bytes(window[:460]) == b"\\xdd" * 460
    assert window[460:] == before[460:]
    batch.clear()
    assert bytes(window[65535 : 65535 + 70]) == b"\\xdd" * 70
    assert bytes(window[65535 + 70 :]) == bytes(65535 - 70)
    assert bytes(window[460:65535]) == bytes(65535 - 460)
    print("ok")
"""


def test_development_mode_overwrites_the_bytes_used(engine: ReceiveEngine) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("ok\n", "")


@pytest.mark.skipif(not compiled, reason="plain Python keeps no spare objects")
def test_spares_are_bounded() -> None:
    """A slot keeps objects for as many packets as Linux puts into a train, whatever came."""
    slots = Slots(bytearray(2 * 3000), 2, 3000, gro=True)

    def views() -> int:
        return sum(type(thing) is memoryview for thing in gc.get_objects())

    gc.collect()
    before = views()
    slots.commit([3000, 3000], [None, None], None, [1, 1])
    assert len(slots.hand_out(0)) == 6000
    slots.take_back(None)
    gc.collect()
    assert before < views() <= before + 2 * 130
    slots.commit([3000], [None], None, [1])
    assert [bytes(view) for view in slots.payloads(0)] == [b"\0"] * 3000
    assert [slots.payloads(at, at + 1)[0] for at in (2999, 7, 0, 2998)] == [b"\0"] * 4
