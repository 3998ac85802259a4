"""All that the packets and engines do, in small steps, for processes that count what is left.

Run by tests that look for leaks and for failures of allocations: ``python -m
tests.trust.exercise leaks`` and ``... memory``; both print what they found, and fail then.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import operator
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import anyio

from anyio_mmsg import (
    BatchFullError,
    PacketBatch,
    PacketBatchPool,
    ReceiveEngine,
    recv_datagrams_nowait,
    recv_mmsg_nowait,
)
from anyio_mmsg._packets import compiled
from anyio_mmsg._packets.sums import nothing
from anyio_mmsg._system.options import ask_for
from anyio_mmsg._system.platform import ON_LINUX

ENGINES: list[ReceiveEngine] = ["recvfrom_into", "recvmmsg"] if compiled else ["recvfrom_into"]


class Bench:
    """Sockets, and a batch with packets held; each step leaves it as it was."""

    def __init__(self, engine: ReceiveEngine, stack: contextlib.ExitStack, **options: Any) -> None:
        self.engine: ReceiveEngine = engine
        self.options = options
        self.receiver, self.sender = (stack.enter_context(open_one()) for _ in range(2))
        self.name = self.sender.getsockname()
        self.batch = self.new(8)
        self.pool = PacketBatchPool(2, 4, engine=engine)
        self.fill(4)

    def new(self, capacity: int) -> PacketBatch:
        return PacketBatch(capacity, engine=self.engine, **self.options)

    def fill(self, count: int, batch: PacketBatch | None = None) -> None:
        for number in range(count):
            self.sender.sendto(b"packet %d" % number, self.receiver.getsockname())
        while count:
            count -= recv_mmsg_nowait(self.receiver, self.batch if batch is None else batch, count)


def open_one() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def receive_and_release(bench: Bench) -> None:
    bench.fill(3)
    bench.batch.release(3)


def new_batch(bench: Bench) -> None:
    batch = bench.new(3)
    bench.fill(2, batch)
    assert [packet.address for packet in batch] == [bench.name] * 2


def new_batch_closed(bench: Bench) -> None:
    with bench.new(3) as batch:
        bench.fill(1, batch)


def read(bench: Bench) -> None:
    for packet in bench.batch:
        repr((packet.data, packet.address, packet.size, packet.truncated, packet.wire_size))
        repr(packet)


def columns(bench: Bench) -> None:
    batch = bench.batch
    batch.payloads(), batch.addresses(), batch.sizes(), len(batch), batch.free, batch.buffer
    batch[-1], batch[1:3], repr(batch), batch._slots.wire_sizes(), batch._slots.copies()


def keep_and_release(bench: Bench) -> None:
    bench.batch.release(len(bench.batch))
    bench.fill(4)
    packets, views = list(bench.batch), bench.batch.payloads()
    bench.batch.release(2)
    for dead in (packets[0], packets[1]):
        for name in ("data", "address", "size", "truncated", "wire_size"):
            with contextlib.suppress(ValueError):
                getattr(dead, name)
        repr(dead)
    del packets
    bench.fill(2)
    del views


def in_use(bench: Bench) -> None:
    export = memoryview(bench.batch[1].data)
    with contextlib.ExitStack() as stack:
        stack.callback(export.release)
        held = pickle.PickleBuffer(bench.batch[1].data)
        stack.callback(held.release)
        with contextlib.suppress(BufferError):
            bench.batch.clear()
    bench.batch.clear()
    bench.fill(4)


def nothing_there(bench: Bench) -> None:
    with contextlib.suppress(anyio.WouldBlock):
        recv_mmsg_nowait(bench.receiver, bench.batch)


def full(bench: Bench) -> None:
    batch = bench.new(1)
    bench.fill(1, batch)
    with contextlib.suppress(BatchFullError):
        recv_mmsg_nowait(bench.receiver, batch)


def an_error(bench: Bench) -> None:
    with open_one() as other:
        with open_one() as away:
            other.connect(away.getsockname())
        other.send(b"is anyone there?")
        with contextlib.suppress(ConnectionRefusedError, anyio.WouldBlock):
            recv_mmsg_nowait(other, bench.batch)


def closed_socket(bench: Bench) -> None:
    other = open_one()
    other.close()
    with contextlib.suppress(anyio.ClosedResourceError):
        recv_mmsg_nowait(other, bench.batch)


def wrong_arguments(bench: Bench) -> None:
    slots: Any = bench.batch._slots
    if not compiled:
        return  # where what is private checks nothing
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (bench.batch.release, (100,)),
        (bench.batch.release, ("x",)),
        (slots.take_back, (-1,)),
        (slots.take_back, ("x",)),
        (slots.take_back, (2**70,)),
        (slots.hand_out, (5, 4)),
        (slots.hand_out, ("x",)),
        (slots.commit, ("xy",)),
        (slots.commit, ([-1],)),
        (slots.commit, ([1] * 99,)),
        (type(slots), (bytearray(3), 1, 2)),
        (type(slots), (b"xy", 1, 2)),
        (PacketBatch, (0,)),
    ]
    for call, arguments in calls:
        with contextlib.suppress(Exception):
            call(*arguments)


def other_sources(bench: Bench) -> None:
    """Sockets whose families have different engines, in turns."""
    with contextlib.suppress(AttributeError, OSError):
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with one, other:
            one.setblocking(False)
            other.send(b"x")
            recv_mmsg_nowait(one, bench.batch)
    with (
        contextlib.suppress(AttributeError, OSError, anyio.WouldBlock),
        socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0) as netlink,
    ):
        netlink.setblocking(False)
        recv_mmsg_nowait(netlink, bench.batch)
    bench.batch.clear()
    bench.batch = bench.new(8)
    bench.fill(4)


def as_bytes(bench: Bench) -> None:
    assert [address for _, address in bench.batch.datagrams()] == [bench.name] * 4


def as_arrays(bench: Bench) -> None:
    batch = bench.batch
    columns = batch.columns()
    assert batch.columns().data is columns.data
    assert len(columns.sizes.tolist()) == len(columns.ports.tolist()) == len(columns)
    batch.release(1)
    bench.fill(5)  # around the end
    whole = batch.columns()
    held = pickle.PickleBuffer(whole.data)
    with contextlib.suppress(BufferError):
        batch.clear()
    held.release()
    batch.clear()
    bench.fill(4)


def own_memory(bench: Bench) -> None:
    memory = bytearray(2 * 1232)
    with PacketBatch(2, engine=bench.engine, memory=memory) as batch:
        bench.fill(2, batch)
        batch.columns()
    for wrong in (bytes(10), memoryview(memory)[::2], 3, bytearray(1)):
        with contextlib.suppress(TypeError, ValueError):
            PacketBatch(2, memory=wrong)  # type: ignore[arg-type]


def datagrams(bench: Bench) -> None:
    for number in range(3):
        bench.sender.sendto(b"packet %d" % number, bench.receiver.getsockname())
    assert [address for _, address in recv_datagrams_nowait(bench.receiver)] == [bench.name] * 3
    with contextlib.suppress(anyio.WouldBlock):
        recv_datagrams_nowait(bench.receiver)


def control_data(bench: Bench) -> None:
    batch = PacketBatch(4, engine=bench.engine, ancillary=True)
    with open_one() as sock:
        if ON_LINUX:
            ask_for(sock, timestamps=True, destinations=True, ecn=True, hop_limits=True)
        for _ in range(2):
            bench.sender.sendto(b"x", sock.getsockname())
        while len(batch) < 2:
            recv_mmsg_nowait(sock, batch)
    names = "timestamp", "hardware_timestamp", "destination", "interface", "ecn", "hop_limit"
    for packet in batch:
        for name in names:
            getattr(packet, name)
        assert not ON_LINUX or packet.destination == "127.0.0.1"
    batch.timestamps(), batch.columns()


def loans(bench: Bench) -> None:
    pool = bench.pool
    with pool.acquire_nowait() as batch:
        bench.fill(2, batch)
        packets, octets, *_ = batch._slots.tally(nothing(), 0)
        assert (packets, octets) == (2, 16)
    with contextlib.suppress(ValueError):
        batch.close()
    # One is lost that nobody had: without memory CPython can't warn, and crashes.
    one, other = pool._acquire_nowait(), pool.acquire_nowait()
    with contextlib.suppress(anyio.WouldBlock):
        pool.acquire_nowait()
    bench.fill(1, one)
    del one
    other.close()
    assert pool.free == 2


STEPS: list[Callable[[Bench], None]] = [
    receive_and_release,
    new_batch,
    new_batch_closed,
    read,
    columns,
    keep_and_release,
    in_use,
    nothing_there,
    full,
    an_error,
    closed_socket,
    wrong_arguments,
    other_sources,
    as_bytes,
    as_arrays,
    own_memory,
    datagrams,
    control_data,
    loans,
]


_leaked: list[object] = []


def leaks_on_purpose(bench: Bench) -> None:
    _leaked.append(bench.batch.payloads())


if "ANYIO_MMSG_LEAK" in os.environ:  # to see that a leak is found
    STEPS = [leaks_on_purpose]


@contextlib.contextmanager
def benches() -> Iterator[list[Bench]]:
    with contextlib.ExitStack() as stack:
        yield [Bench(engine, stack) for engine in ENGINES]


# Leaks


def counts() -> tuple[int, int, int]:
    """References, blocks and objects that there are."""
    gc.collect()
    total = getattr(sys, "gettotalrefcount", lambda: 0)()
    return total, sys.getallocatedblocks(), len(gc.get_objects())


def leaks(rounds: int = 300) -> list[str]:
    """Do each step many times; what grows with each round leaks."""
    found = []
    with benches() as all_of_them:
        for bench in all_of_them:
            for step in STEPS:
                for _ in range(20):
                    step(bench)
                step(bench)
                before = counts()
                grown = (0, 0, 0)
                for _ in range(5):  # what grows once was a cache
                    for _ in range(rounds):
                        step(bench)
                    after = counts()
                    references, blocks, objects = map(operator.sub, after, before)
                    grown = references, blocks, objects
                    before = after
                    if max(grown) < rounds // 4:
                        break
                else:
                    found.append(f"{bench.engine} {step.__name__}: {grown} in {rounds} rounds")
    return found


# Allocations that fail


def out_of_memory(most: int = 400) -> list[str]:
    """Have each allocation of each step fail in turn, alone and with some that follow.

    Not with all that follow: where no exception's place can be kept, CPython 3.11 loops for ever.
    """
    testcapi: Any = importlib.import_module("_testcapi")

    found = []
    for engine in ENGINES:
        for step in STEPS:
            if step is in_use:  # whose export may be left behind by a failure of its own
                continue
            print(engine, step.__name__, file=sys.stderr, flush=True)
            for number in (1, 4):
                quiet = 0
                for start in range(most):
                    if quiet == 12:  # the step makes no more than that
                        break
                    with contextlib.ExitStack() as stack:
                        bench = Bench(engine, stack)
                        packets = list(bench.batch)
                        failed: Exception | None = None
                        testcapi.set_nomemory(start, start + number)
                        try:
                            step(bench)
                        except Exception as error:
                            failed = error
                        finally:
                            testcapi.remove_mem_hooks()
                        # Without memory CPython's own frames may end so; functions are named.
                        of_python = isinstance(failed, SystemError) and "method" not in str(failed)
                        if failed and not isinstance(failed, MemoryError) and not of_python:
                            found.append(f"{engine} {step.__name__} {start}: {failed!r}")
                        quiet = 0 if failed else quiet + 1
                        failed = None  # and the frames that it has, which may hold exports
                        check(bench)
                        del packets
    return found


def is_dead(view: memoryview) -> bool:
    try:
        view.tobytes()
    except ValueError:
        return True
    return False


def check(bench: Bench) -> None:
    """Whatever failed, what is held can be read, and the batch goes on."""
    batch = bench.batch
    alive = False
    for packet in batch:
        if not compiled and not alive and is_dead(packet.data):
            continue  # in Python a release that failed is to be done again: the oldest may be dead
        alive = True
        assert bytes(packet.data).startswith(b"packet ") or packet.size == 1
        assert packet.size == len(packet.data)
        assert packet.address in (bench.name, None)
    batch.clear()
    with contextlib.suppress(anyio.WouldBlock):
        while True:
            recv_mmsg_nowait(bench.receiver, batch)
            batch.clear()
    # What `recvfrom_into` had read when memory failed is committed by the next receive, which may
    # find no more and say so.
    assert not len(batch) or bench.engine == "recvfrom_into"
    batch.clear()
    bench.fill(3)
    assert [bytes(packet.data) for packet in batch] == [b"packet 0", b"packet 1", b"packet 2"]
    assert batch.addresses() == [bench.name] * 3
    batch.clear()
    if bench.pool.free < 2:  # an exception's frames, perhaps
        gc.collect()
    with bench.pool.acquire_nowait(), bench.pool.acquire_nowait():
        assert bench.pool.free == 0
    assert bench.pool.free == 2


if __name__ == "__main__":
    faulthandler.enable()
    result = {"leaks": leaks, "memory": out_of_memory}[sys.argv[1]]()
    print(*result, sep="\n")
    sys.exit(bool(result))
