"""C is a loaded gun: canaries, collection at bad moments, forks, growth."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine, recv_mmsg_nowait

from ..helpers import Family, by_pythons_allocator, contents, drain

CHILD = "ANYIO_MMSG_UNDER_DEBUG_ALLOCATOR"


@by_pythons_allocator
def test_under_the_debug_allocator() -> None:
    """Run this file and the engines' under PYTHONMALLOC=debug, which has canaries of its own."""
    if CHILD in os.environ:
        pytest.skip("this is that run")
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(here / "test_memory.py"), str(here / "test_engines.py")],
        env={**os.environ, CHILD: "1", "PYTHONMALLOC": "debug", "PYTHONFAULTHANDLER": "1"},
        cwd=here.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_canaries_around_every_slot(engine: ReceiveEngine, inet: Family) -> None:
    """Datagrams longer than a slot, into every second slot; the others, held, must not change."""
    receiver, sender = inet.pair()
    batch = PacketBatch(9, 5, engine)
    for _ in range(9):
        sender.send(b"\xca" * 5)
    drain(receiver, batch, 9)
    before = bytes(batch.buffer)
    for _ in range(9):  # each slot in turn: its neighbours are full of canaries
        batch.release()
        sender.send(b"x" * 3000)
        drain(receiver, batch, 1)
        slot = (batch._slots.tail - 1) % 9
        after = bytes(batch.buffer)
        assert after[slot * 5 : slot * 5 + 5] == b"xxxxx"
        assert after[: slot * 5] == b"x" * (slot * 5)
        assert after[slot * 5 + 5 :] == before[slot * 5 + 5 :]


@pytest.mark.parametrize("capacity", [1, 2, 1024, 1025, 20_000])
def test_sizes_of_batches(engine: ReceiveEngine, inet: Family, capacity: int) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(capacity, 3, engine)
    count = min(capacity, 100)
    for _ in range(3):
        for number in range(count):
            sender.send(b"%03d" % number)
        assert recv_mmsg_nowait(receiver, batch, 10**9) == count
        assert contents(batch) == [b"%03d" % number for number in range(count)]
        batch.clear()


def test_large_slots(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(2, 65_507, engine)
    sent = [os.urandom(65_507), os.urandom(65_507)]
    for data in sent:
        sender.send(data)
    drain(receiver, batch, 2)
    assert contents(batch) == sent
    assert not any(packet.truncated for packet in batch)


def test_the_ring_does_not_move(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(2, 8, engine)
    sender.send(b"x")
    drain(receiver, batch, 1)
    with pytest.raises(BufferError):
        batch._slots.memory.extend(b"more")
    sender.send(b"y")
    drain(receiver, batch, 1)
    assert contents(batch) == [b"x", b"y"]


def test_collection_at_every_allocation(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for round_ in range(20):
            batch = PacketBatch(4, engine=engine)
            for number in range(6):
                sender.send(b"%d/%d" % (round_, number))
            drain(receiver, batch, 4)
            views = batch.payloads()
            batch.release(2)
            drain(receiver, batch, 2)
            assert contents(batch) == [b"%d/%d" % (round_, n) for n in range(2, 6)]
            assert views[3] == b"%d/3" % round_
    finally:
        gc.set_threshold(*threshold)


def test_a_batch_dropped_while_views_live(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    views, packets = [], []
    batch = PacketBatch(2, engine=engine)
    gone = weakref.ref(batch)
    for number in range(50):
        batch = PacketBatch(2, engine=engine)
        gone = weakref.ref(batch)
        sender.send(b"view %d" % number)
        sender.send(b"packet %d" % number)
        drain(receiver, batch, 2)
        views.append(batch[0].data)
        packets.append(batch[1])
    del batch
    del packets[-1]
    assert gone() is None  # a Packet keeps its batch, a view the memory alone
    gc.collect()
    scribble = [bytearray(b"\xff" * 2 * 1232) for _ in range(200)]  # where the rings were, if so
    assert views == [b"view %d" % number for number in range(50)]
    assert [packet.data for packet in packets] == [b"packet %d" % n for n in range(49)]
    assert {packet.address for packet in packets} == {sender.getsockname()}
    del scribble


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("slot_size", "gro"), [(1232, False), (65_535, False), (65_535, True)])
def test_fork_after_a_receive(
    engine: ReceiveEngine, inet: Family, slot_size: int, gro: bool
) -> None:
    """Parent and child have a copy of the batch each, and go on with the shared socket."""
    receiver, sender = inet.pair()
    batch = PacketBatch(4, slot_size, engine, gro)
    sender.send(b"before")
    drain(receiver, batch, 1)
    view = batch[0].data
    child = os.fork()
    if child == 0:  # no pytest in here
        try:
            sender.send(b"from the child")
            drain(receiver, batch, 1)
            ok = contents(batch) == [b"before", b"from the child"]
            batch.clear()
            for _ in range(4):  # each slot is written to again
                sender.send(b"overwritten")
            drain(receiver, batch, 4)
            os._exit(0 if ok else 1)
        except BaseException:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    sender.send(b"from the parent")
    drain(receiver, batch, 1)
    assert view == b"before"
    assert contents(batch) == [b"before", b"from the parent"]


def resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


@by_pythons_allocator
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to ask for the RSS")
def test_thousands_of_batches_leave_nothing(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()

    def use_some(count: int) -> None:
        for number in range(count):
            batch = PacketBatch(engine=engine)
            sender.send(b"%d" % number)
            drain(receiver, batch, 1)
            assert batch[0].data == b"%d" % number
            assert batch[0].address == sender.getsockname()
            if number % 2:
                batch.clear()

    use_some(300)
    gc.collect()
    before = resident_kib()
    use_some(2000)  # 150 MiB and more of rings
    gc.collect()
    assert resident_kib() - before < 8 * 1024


@by_pythons_allocator
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to ask for the RSS")
def test_packets_leave_nothing(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(64, engine=engine)

    def use_some(count: int) -> None:
        for _ in range(count):
            for _ in range(32):
                sender.send(b"x" * 100)
            drain(receiver, batch, 32)
            for packet in batch:
                assert (packet.size, packet.address) == (100, sender.getsockname())
            batch.clear()

    use_some(50)
    gc.collect()
    before = resident_kib()
    use_some(500)
    gc.collect()
    assert resident_kib() - before < 2 * 1024
