"""Views that live on after a release: what is promised of them, and what is not.

numpy itself, since what it does with an export has changed before (numpy/numpy#9562).
"""

from __future__ import annotations

import array
import ctypes
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from anyio_mmsg import Packet, ReceiveEngine

from .world import SLOT_SIZE, World, body, sockets

np = pytest.importorskip("numpy", reason="numpy is not installed (it has no build for this one)")


@pytest.fixture
def world(engine: ReceiveEngine) -> Iterator[World]:
    with sockets() as found:
        world = World(found, engine, 1)
        world.send(2)
        world.receive(1)
        yield world


OLD, NEW = body(0, 0)[:SLOT_SIZE], body(1, 1)[:SLOT_SIZE]

LOOKING: dict[str, Callable[[memoryview], Any]] = {
    "numpy.frombuffer": lambda view: np.frombuffer(view, dtype=np.uint8),
    "numpy.asarray": np.asarray,
    "numpy.ndarray": lambda view: np.ndarray(view.nbytes, np.uint8, buffer=view),
    "a slice": lambda view: view[2:],
    "a cast": lambda view: view.cast("c"),
    "memoryview": memoryview,
    "toreadonly": lambda view: view.toreadonly(),
}


@pytest.mark.parametrize("how", LOOKING)
def test_what_looks_without_an_export_is_not_stopped(world: World, how: str) -> None:
    """As `Packet` says: `release` raises nothing, and the next packet shows."""
    looking = LOOKING[how](world.batch[0].data)
    assert bytes(looking) in (OLD, OLD[2:])
    world.batch.release()
    world.receive(1)
    world.check()
    shown = bytes(looking)
    assert shown not in (OLD, OLD[2:])
    assert shown[:9] in NEW
    world.finish()


@pytest.mark.parametrize("how", LOOKING)
def test_a_copy_lives_on(world: World, how: str) -> None:
    copy = bytes(LOOKING[how](world.batch[0].data))
    world.batch.release()
    world.receive(1)
    assert copy in (OLD, OLD[2:])


@pytest.mark.parametrize("how", LOOKING)
def test_nothing_is_written_through_it(world: World, how: str) -> None:
    looking: Any = LOOKING[how](world.batch[0].data)
    with pytest.raises((ValueError, TypeError)):
        looking[0] = looking[0]


def test_what_exports_stops_a_release(world: World) -> None:
    held = pickle.PickleBuffer(world.batch[0].data)
    with pytest.raises(BufferError, match="0 of 1 packets, those before it, were released"):
        world.batch.release()
    with pytest.raises(BufferError):
        world.batch.close()
    world.check()
    held.release()
    world.batch.release()
    world.finish()


def test_ctypes_is_refused_or_stops_a_release(world: World) -> None:
    with pytest.raises(TypeError):  # the view is read-only
        (ctypes.c_char * 4).from_buffer(world.batch[0].data)
    buffer = (ctypes.c_char * 4).from_buffer_copy(world.batch[0].data)
    world.batch.release()
    assert buffer.raw == OLD[:4]


def test_an_array_outlives_batch_and_packet(world: World) -> None:
    """It keeps the ring's memory alive: what it shows may change, but it is memory."""
    found = np.frombuffer(world.batch[0].data, dtype=np.uint8)
    world.batch.close()
    world.slots = None
    world.batch = None  # type: ignore[assignment]
    overwritten = b"\xdd" * len(OLD)  # in development mode, so that such a mistake shows
    assert found.tobytes() == (overwritten if sys.flags.dev_mode else OLD)


def test_the_buffer_is_a_window(world: World) -> None:
    window = np.frombuffer(world.batch.buffer, dtype=np.uint8).reshape(1, SLOT_SIZE)
    assert window.tobytes()[: len(OLD)] == OLD
    assert not window.flags.writeable
    world.batch.release()
    world.receive(1)
    assert window.tobytes()[: len(NEW)] == NEW


def test_shapes_stay(world: World) -> None:
    """A view that is used again has another length: nobody may have it, or a copy of its shape."""
    for step in range(20):
        view = world.batch[0].data
        kept = [np.asarray(view), memoryview(view), array.array("B", view)]
        sizes = [len(thing) for thing in kept]
        if step % 2:
            del view
        world.batch.release()
        world.send(1)
        world.receive(1)
        world.check()
        assert [len(thing) for thing in kept] == sizes


DEVELOPMENT = """
    import socket, sys
    import numpy
    from anyio_mmsg import PacketBatch, recv_mmsg_nowait
    assert sys.flags.dev_mode
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        batch = PacketBatch(2, 8, engine=sys.argv[1])
        for data in b"first", b"a long second one":
            sock.sendto(data, sock.getsockname())
        assert recv_mmsg_nowait(sock, batch) == 2
        arrays = [numpy.frombuffer(data, numpy.uint8) for data in batch.payloads()]
        batch.release()
        assert arrays[0].tobytes() == bytes([0xDD]) * 5, arrays[0].tobytes()
        assert arrays[1].tobytes() == b"a long s"
        batch.release()
        assert arrays[1].tobytes() == bytes([0xDD]) * 8
        assert bytes(batch.buffer) == bytes([0xDD]) * 5 + bytes(3) + bytes([0xDD]) * 8
"""


def test_development_mode_shows_the_mistake(engine: ReceiveEngine) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(DEVELOPMENT), engine],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_docs_say_so() -> None:
    for word in ("numpy.frombuffer", "slice", "cast", "-X dev", "StreamWriter.write"):
        assert word in _documentation()


def _documentation() -> str:
    from anyio_mmsg._packets import packet

    return f"{Packet.__doc__}{packet.Packet.__doc__}"
