"""`PacketBatch(memory=...)`: slots in memory of the program's own."""

from __future__ import annotations

import array
import gc
import mmap
import multiprocessing
import subprocess
import sys
from multiprocessing import shared_memory
from typing import Any

import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine

from ..helpers import Family, contents, drain, stub_engine


def test_packets_lie_in_it(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    memory = bytearray(b"." * 34)
    batch = PacketBatch(4, 8, engine, memory=memory)
    assert batch.memory is memory
    for data in (b"first", b"second", b"a long one"):
        sender.send(data)
    drain(receiver, batch, 3)
    assert contents(batch) == [b"first", b"second", b"a long o"]
    batch.close()
    assert memory == b"first...second..a long o" + b"." * 10
    memory.extend(b"x")  # nothing has an export any more


@pytest.mark.parametrize("end", ["closed", "dropped"])
def test_holds_an_export_until_the_end(engine: ReceiveEngine, inet: Family, end: str) -> None:
    receiver, sender = inet.pair()
    memory = bytearray(64)
    batch = PacketBatch(4, 16, engine, memory=memory)
    sender.send(b"x")
    drain(receiver, batch, 1)
    kept = [batch[0], batch[0].data, batch.columns(), batch.datagrams()]
    with pytest.raises(BufferError):
        memory.extend(b"x")
    batch.clear()
    with pytest.raises(BufferError):
        memory.extend(b"x")
    if end == "closed":
        batch.close()
        with pytest.raises(ValueError, match="closed"):
            batch.memory  # noqa: B018
    else:
        del batch
        gc.collect()
    memory.extend(b"x")
    assert kept[3] == [(b"x", sender.getsockname())]


@pytest.mark.parametrize("form", ["u1", ">f8", "structured", "matrix"])
def test_an_array_outlives_the_batch(engine: ReceiveEngine, inet: Family, form: str) -> None:
    np = pytest.importorskip("numpy")
    receiver, sender = inet.pair()
    memory = {
        "u1": np.zeros(64, "u1"),
        ">f8": np.zeros(8, ">f8"),
        "structured": np.zeros(4, [("O", "<u4"), ("b", "V12")]),
        "matrix": np.zeros((4, 16), "u1"),
    }[form]
    batch = PacketBatch(4, 16, engine, memory=memory)
    sender.send(b"\1\0\0\0")
    drain(receiver, batch, 1)
    assert np.shares_memory(np.asarray(batch.columns().data), memory)
    batch.close()
    assert memory.tobytes() == b"\1" + bytes(63)


def reads(name: str) -> None:
    """What a worker does with a ring."""
    shared = shared_memory.SharedMemory(name)
    assert shared.buf is not None
    assert bytes(shared.buf[:14]) == b"for the worker"
    shared.close()


def test_shared_memory(inet: Family) -> None:
    receiver, sender = inet.pair()
    shared = shared_memory.SharedMemory(create=True, size=64)
    try:
        with PacketBatch(2, 32, memory=shared.buf) as batch:
            sender.send(b"for the worker")
            drain(receiver, batch, 1)
        worker = multiprocessing.get_context("spawn").Process(target=reads, args=(shared.name,))
        worker.start()
        worker.join(30)
        assert worker.exitcode == 0
    finally:
        shared.close()  # which nothing keeps from it
        shared.unlink()


def test_other_kinds(tmp_path: Any) -> None:
    anonymous = mmap.mmap(-1, 64)
    for memory in (anonymous, memoryview(bytearray(64)), array.array("d", bytes(64))):
        batch = PacketBatch(4, 16, memory=memory)
        stub_engine(batch).put(b"there")
        assert bytes(memoryview(memory).cast("B")[:5]) == b"there"
        batch.close()
    anonymous.close()


def test_of_trains() -> None:
    memory = bytearray(2 * 65_535)
    with PacketBatch(2, gro=True, memory=memory) as batch:
        assert batch.slot_size == 65_535
        stub_engine(batch).put(b"whole")
    assert memory[:5] == b"whole"


def test_by_default_its_own() -> None:
    assert PacketBatch().memory is None
    assert PacketBatch.memory is None
    with pytest.raises(AttributeError, match="can't be set"):
        PacketBatch().memory = bytearray(9)


class Refuses:
    pass


@pytest.mark.parametrize(
    ("memory", "error", "words"),
    [
        (Refuses(), TypeError, "Refuses, not a buffer"),
        ("text", TypeError, "str, not a buffer"),
        (64, TypeError, "int, not a buffer"),
        (bytes(64), ValueError, "read-only"),
        (memoryview(bytearray(64)).toreadonly(), ValueError, "read-only"),
        (memoryview(bytearray(128))[::2], ValueError, "not C-contiguous"),
        (bytearray(63), ValueError, "has 63 bytes, and the slots need 64"),
        (bytearray(), ValueError, "has 0 bytes"),
    ],
)
def test_what_is_refused(memory: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        PacketBatch(4, 16, memory=memory)
    if isinstance(memory, bytearray):
        memory.extend(b"x")  # no export was left behind


def test_arrays_that_are_refused() -> None:
    np = pytest.importorskip("numpy")
    with pytest.raises(TypeError, match="Python objects"):
        PacketBatch(4, 16, memory=np.zeros(64, "O"))
    with pytest.raises(TypeError, match="Python objects"):
        PacketBatch(4, 16, memory=np.zeros(64, [("a", "u1"), ("b", "O")]))
    with pytest.raises(ValueError, match="not C-contiguous"):
        PacketBatch(4, 16, memory=np.zeros((8, 8), order="F"))
    with pytest.raises(ValueError, match="can't be used"):
        PacketBatch(4, 16, memory=np.zeros(64, "M8[ns]"))
    frozen = np.zeros(64, "u1")
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        PacketBatch(4, 16, memory=frozen)


def test_development_mode_does_not_scribble_in_it() -> None:
    program = """if True:
        from anyio_mmsg import PacketBatch
        from tests.helpers import stub_engine
        memory = bytearray(32)
        with PacketBatch(2, 16, memory=memory) as batch:
            stub_engine(batch).put(b"stays")
            view = batch.columns().data
        assert memory[:5] == b"stays"
        with PacketBatch(2, 16) as batch:
            stub_engine(batch).put(b"goes")
            ring = batch.buffer
            batch.clear()
            assert bytes(ring[:4]) == bytes([0xDD]) * 4
        """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
