"""Who holds what during a send, and afterwards; threads and processes."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    compiled,
    send_mmsg,
    send_mmsg_nowait,
)
from anyio_mmsg._system import addresses as caches

from ..helpers import Family
from .helpers import arrived, fill, received


def test_payloads_are_not_kept(sending: SendEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    data, other = bytearray(b"x" * 100), bytes(1000)
    count = sys.getrefcount(other)
    packets: list[Any] = [(data, None), (other, None)]
    send_mmsg_nowait(sender, packets, engine=sending)
    del packets
    assert sys.getrefcount(other) == count
    data.extend(b"more")  # a BufferError if somebody had an export
    assert len(arrived(receiver)) == 2


def test_the_ring_is_let_go(sending: SendEngine, engine: ReceiveEngine, inet: Family) -> None:
    server, client = inet.open(), inet.open()
    batch = PacketBatch(4, 8, engine)
    fill(batch, server, (client, b"1"))
    memory = batch._slots.memory
    send_mmsg_nowait(server, batch, engine=sending)
    del batch
    memory.extend(b"more")


@pytest.mark.anyio
@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="its queue is short")
async def test_senders_are_kept_while_a_send_waits(
    sending: SendEngine, engine: ReceiveEngine, tmp_path: Path
) -> None:
    """The kernel is given their addresses where the engine has them, in each send anew."""
    with Family("unix", tmp_path) as unix:
        server, client, other = unix.open(), unix.open(), unix.open()
        there, batch = client.getsockname(), PacketBatch(4, 8, engine)
        server.connect(there)  # else it always seems to be writable
        fill(batch, server, (client, b"1"), (client, b"2"))
        packets: list[Any] = [batch[0]]
        send_mmsg_nowait(server, packets)  # by a send that the next one uses again
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"filler", there)
        filler = batch._slots.filler
        packets[:] = [(b"first", there), batch[1]]
        count = sys.getrefcount(filler.engine)
        kept, found = 0, list[bytes]()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(send_mmsg, server, packets, engine=sending))
                await anyio.wait_all_tasks_blocked()
                kept = sys.getrefcount(filler.engine) - count
                del batch, filler, packets[:]
                await anyio.wait_all_tasks_blocked()
                found = received(client)
                while b"2" not in found:
                    await checkpoint()
                    found += received(client)
        assert found[0] == b"1"
        assert found[-2:] == [b"first", b"2"]
        by_c = sending != "sendto" and engine != "recvfrom_into"
        assert kept == (by_c and compiled)


def test_data_whose_kind_has_another_opinion_of_its_length(
    sending: SendEngine, inet: Family
) -> None:
    """Its buffer counts. To trust anything else would send the memory beyond."""

    class Odd(bytes):
        def __len__(self) -> int:
            return 3

        def __index__(self) -> int:
            return 1

    receiver, sender = inet.pair()
    assert send_mmsg_nowait(sender, [(Odd(b"a" * 9000), None)], engine=sending).sent == 1
    assert arrived(receiver) == [(b"a" * 9000, sender.getsockname())]


def test_forged_destinations_do_not_grow_memory(sending: SendEngine, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    cache = caches.sockaddrs_of(socket.AF_INET)
    for start in range(0, 3 * caches.ADDRESS_CACHE_SIZE, 1000):
        packets = [
            (b"", (f"127.1.{(start + n) >> 8}.{(start + n) & 255}", 9)) for n in range(1000)
        ]
        packets.append((b"%d" % start, receiver.getsockname()))
        result = send_mmsg_nowait(sender, packets, engine=sending)
        assert result.handled == 1001
        assert [data for data, _ in arrived(receiver)] == [b"%d" % start]
        assert len(cache) <= caches.ADDRESS_CACHE_SIZE


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from([0, 1, 7, 500, 500, 1232]), st.sampled_from([0, 1, 1])),
            max_size=40,
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_calls_do_not_disturb_each_other(
    calls: list[list[tuple[int, int]]], segmented: bool
) -> None:
    """The memory of a call is used again by the next: of any shape, after any other."""
    with Family("inet", None) as family:
        sender, *receivers = (family.open() for _ in range(3))
        rng = random.Random(3)
        for call in calls:
            sent = [(rng.randbytes(size), receivers[to].getsockname()) for size, to in call]
            assert send_mmsg_nowait(sender, sent, gso=segmented).sent == len(sent)
            for receiver in receivers:
                here = [data for data, to in sent if to == receiver.getsockname()]
                assert [data for data, _ in arrived(receiver)] == here


def test_threads(sending: SendEngine) -> None:
    """The arrays are shared, but not at one time."""
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        try:
            with Family("inet", None) as family:
                receiver, sender = family.pair()
                start.wait(60)
                for turn in range(200):
                    packets = [(b"%d/%d/%d" % (number, turn, n), None) for n in range(20)]
                    assert send_mmsg_nowait(sender, packets, engine=sending).sent == 20
                    assert [data for data, _ in arrived(receiver)] == [d for d, _ in packets]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_after_a_fork(sending: SendEngine) -> None:
    """Parent and child have copies of the arrays."""
    program = f"""if True:
        import os, socket
        from anyio_mmsg import send_mmsg_nowait
        def send(data):
            packets = [(data, receiver.getsockname())] * 3
            assert send_mmsg_nowait(sender, packets, engine={sending!r}).sent == 3
        receiver, sender = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
        receiver.bind(("127.0.0.1", 0))
        sender.setblocking(False)
        send(b"before")
        child = os.fork()
        if not child:
            send(b"child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        send(b"parent")
        got = [receiver.recv(100) for _ in range(9)]
        assert got == [b"before"] * 3 + [b"child"] * 3 + [b"parent"] * 3, got
        """
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
