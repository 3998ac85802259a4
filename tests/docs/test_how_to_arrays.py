"""docs/how-to/arrays.md: its functions, over packets of a socket."""

from __future__ import annotations

import queue
import threading
from typing import Any

import anyio
import numpy as np
import pytest

from anyio_mmsg import (
    PacketBatch,
    open_udp_socket,
    recv_mmsg,
    recv_mmsg_exact,
    recv_mmsg_nowait,
)

from ..helpers import Family
from .blocks import as_child, as_module, client, free_port, python_blocks, runs

PROGRAM, SUMMARY, PACKED, ARROW, CAPTURE, WORKER, SHARED = python_blocks("docs/how-to/arrays.md")

pytestmark = pytest.mark.anyio


@pytest.fixture
def filled(inet: Family) -> PacketBatch:
    """Three packets of two senders."""
    receiver, sender = inet.pair()
    other = inet.open()
    sender.send(b"one")
    other.sendto(b"three", receiver.getsockname())
    sender.send(b"x" * 2000)
    batch = PacketBatch(8)
    assert recv_mmsg_nowait(receiver, batch) == 3
    return batch


@runs(PROGRAM)
def test_the_program() -> None:
    port = free_port()
    sample = np.dtype([("number", "<u4"), ("volts", "<f4", 8)])
    packet = np.array((7, np.full(8, 1.5)), sample).tobytes()
    with as_child(PROGRAM.replace(9999, port)) as child, client(port, child, packet):
        assert child.stdout is not None
        assert child.stdout.readline() == "[7] 1.5\n"


@runs(SUMMARY)
async def test_summary(inet: Family) -> None:
    page = as_module(SUMMARY, np=np)
    receiver = await open_udp_socket("127.0.0.1", 0, timestamps=True)
    with receiver:
        senders = [inet.open(), inet.open()]
        for number, sender in enumerate([*senders, senders[0]]):
            sender.sendto(b"x" * (number + 1), receiver.getsockname())
        batch = PacketBatch(4, ancillary=True)
        assert recv_mmsg_nowait(receiver, batch) == 3
        octets, names, of_each, times = page["summary"](batch.columns())
        assert octets == 6
        found = {(bytes(name[12:16]), int.from_bytes(bytes(name[16:]), "big")) for name in names}
        local = bytes([127, 0, 0, 1])
        assert found == {(local, sender.getsockname()[1]) for sender in senders}
        assert sorted(of_each) == [2, 4]
        assert times.astype("i8").tolist() == batch.timestamps()


@runs(PACKED)
def test_packed(filled: PacketBatch) -> None:
    payload, ends = as_module(PACKED, np=np)["packed"](filled.columns())
    assert payload.tobytes() == b"onethree" + b"x" * 1232
    assert ends.tolist() == [0, 3, 8, 1240]


@runs(PACKED, ARROW)
def test_arrow_and_polars(filled: PacketBatch) -> None:
    for library in ("pyarrow", "polars"):
        pytest.importorskip(library)
    page = as_module(PACKED, ARROW, np=np)
    table = page["table"](filled.columns())
    ports = [address[1] for address in filled.addresses()]
    expected = [bytes(packet.data) for packet in filled]
    largest = page["largest"](filled.columns())
    filled.clear()  # nothing keeps it, and all of it was copied
    assert table["data"].to_pylist() == expected
    assert table["port"].to_pylist() == ports
    assert table["size"].to_pylist() == [3, 5, 1232]
    assert table["host"].to_pylist() == [bytes(10) + b"\xff\xff\x7f\0\0\1"] * 3
    assert dict(largest.iter_rows()) == {ports[0]: 1232, ports[1]: 5}


@runs(CAPTURE)
async def test_capture(inet: Family) -> None:
    receiver, sender = inet.pair()
    for number in range(3):
        sender.send(bytes([number]) * 4)
    page = as_module(CAPTURE, np=np, PacketBatch=PacketBatch, recv_mmsg_exact=recv_mmsg_exact)
    with anyio.fail_after(60):
        frames = await page["capture"](receiver, 3, 4)
    assert frames.tolist() == [[number] * 4 for number in range(3)]


@runs(WORKER, SHARED)
async def test_a_worker(inet: Family) -> None:
    """In a thread, for which it is the same: it has the memory by its name, and two queues."""
    receiver, sender = inet.pair()
    names = {"anyio": anyio, "PacketBatch": PacketBatch, "recv_mmsg": recv_mmsg}
    page = as_module(WORKER, SHARED, np=np, **names)
    shared, batch = page["shared_batch"](8, 4)
    counts: Any = queue.Queue()
    sums: Any = queue.Queue()
    worker = threading.Thread(target=page["add_up"], args=(shared.name, 8, 4, counts, sums))
    worker.start()
    try:
        with anyio.fail_after(60):
            for turn in range(3):
                sender.send(bytes([turn]) * 4)
                assert await page["feed_worker"](receiver, batch, counts, sums) == 4 * turn
    finally:
        counts.put(None)
        worker.join()
        batch.close()
        shared.close()
        shared.unlink()
