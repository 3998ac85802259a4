"""Senders who mean harm: what can be counted. For times see `python -m tests.trust.hostile`."""

from __future__ import annotations

import errno
import gc
import itertools
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    ReceiveEngine,
    SendEngine,
    feed,
    recv_mmsg,
    send_mmsg,
)
from anyio_mmsg._system.addresses import ADDRESS_CACHE_SIZE, ADDRESSES, sockaddrs_of
from anyio_mmsg._system.control import CACHE_SIZE, CONTROLS
from anyio_mmsg._system.options import ask_for

from ..helpers import Family, ScriptedSocket, contents, drain, have_ipv6

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.0/8 is one machine on Linux")


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


# Forged sources and control data


def forge(receiver: socket.socket, numbers: Iterator[int], count: int) -> None:
    """Send that many packets, each from another address, which is what it says."""
    while count:
        number = next(numbers)
        host = f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((host, 1024 + number * 7919 % 60_000))
            except OSError:  # not for a host, or somebody has the port
                continue
            sock.sendto(repr(sock.getsockname()).encode(), receiver.getsockname())
        count -= 1


@LINUX
def test_forged_sources_are_told_apart_and_forgotten(
    receiver: socket.socket, engine: ReceiveEngine
) -> None:
    """Each packet comes from a sender that nobody has seen before; memory has a bound."""
    batch = PacketBatch(100, 60, engine)
    numbers = itertools.count(1)

    def read_new_ones(count: int) -> int:
        for _ in range(count // 100):
            forge(receiver, numbers, 100)
            drain(receiver, batch, 100)
            for packet in batch:
                assert bytes(packet.data) == repr(packet.address).encode()
            assert batch.addresses() == [packet.address for packet in batch]
            batch.clear()
        gc.collect()
        return sys.getallocatedblocks()

    before = read_new_ones(3 * ADDRESS_CACHE_SIZE)
    after = read_new_ones(3 * ADDRESS_CACHE_SIZE)
    # A sender takes up 2 blocks or more. Those that are remembered were nearly all so before.
    assert after - before < ADDRESS_CACHE_SIZE
    assert len(ADDRESSES) <= ADDRESS_CACHE_SIZE


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
def test_any_source_of_ipv6(engine: ReceiveEngine) -> None:
    with ExitStack() as stack:
        receiver, *senders = (
            stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            for _ in range(30)
        )
        for sock in (receiver, *senders):
            sock.bind(("::1", 0))
            sock.setblocking(False)
        batch = PacketBatch(50, 60, engine)
        for sender in senders:
            sender.sendto(b"x", receiver.getsockname())
        drain(receiver, batch, len(senders))
        assert batch.addresses() == [sender.getsockname() for sender in senders]


async def answers(receiver: socket.socket, count: int) -> None:
    """Send to addresses of which none was seen before."""
    packets = [(b"", (f"127.1.{n >> 8}.{n & 255}", 9)) for n in range(count)]
    result = await send_mmsg(receiver, packets)
    assert result.handled == count


@LINUX
@pytest.mark.anyio
async def test_answers_to_forged_sources_are_forgotten(receiver: socket.socket) -> None:
    await answers(receiver, ADDRESS_CACHE_SIZE + 100)
    assert len(sockaddrs_of(socket.AF_INET)) <= ADDRESS_CACHE_SIZE


@LINUX
def test_forged_control_data(receiver: socket.socket, engine: ReceiveEngine) -> None:
    """Senders choose TTL and TOS, and the destination where there are many."""
    ask_for(receiver, timestamps=True, destinations=True, ecn=True, hop_limits=True)
    batch = PacketBatch(100, 20, engine, ancillary=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for start in range(0, CACHE_SIZE + 500, 100):
            headers = [(1 + n % 255, n // 255 * 5 % 256) for n in range(start, start + 100)]
            for hops, tos in headers:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
                sender.sendto(b"", receiver.getsockname())
            drain(receiver, batch, 100)
            found = [(packet.hop_limit, packet.ecn) for packet in batch]
            assert found == [(hops, tos & 3) for hops, tos in headers]
            batch.clear()
    assert len(CONTROLS) <= CACHE_SIZE


# Sizes


def test_the_largest_into_the_smallest_slots(
    receiver: socket.socket, engine: ReceiveEngine
) -> None:
    batch = PacketBatch(3, 1, engine)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(100):
            data = bytes([number]) + bytes(65_506)
            for _ in range(2):
                sender.sendto(data, receiver.getsockname())
            drain(receiver, batch, 2)
            found = [(p.data, p.size, p.truncated, p.wire_size) for p in batch]
            assert found == [(data[:1], 1, True, len(data))] * 2
            assert batch.buffer.nbytes == 3
            batch.clear()


@pytest.mark.anyio
async def test_a_flood_of_nothing(receiver: socket.socket, engine: ReceiveEngine) -> None:
    """Empty datagrams are data: each counts."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(300):
            sender.sendto(b"", receiver.getsockname())
        name = "127.0.0.1", sender.getsockname()[1]
    stream = PacketReceiver(receiver, PacketBatchPool(2, 7, 1, engine))
    stream.stop()
    with anyio.fail_after(60):
        async for batch in stream:
            with batch:
                assert batch.sizes() == [0] * len(batch)
                assert batch.addresses() == [name] * len(batch)
        await stream.aclose()
    seen = stream.statistics()
    assert (seen.packets, seen.bytes, seen.truncated, seen.unread) == (300, 0, 0, 0)


# Errors that ICMP leaves, again and again


class Peer:
    """A peer that comes and goes: to send there while it is gone brings an error."""

    def __init__(self, inet: Family) -> None:
        self.sock, gone = inet.open(), inet.open()
        self._name = gone.getsockname()
        gone.close()
        self.sock.connect(self._name)

    def refuse(self) -> None:
        """Leave an error; the one before it must have been met."""
        self.sock.send(b"")

    def send(self, *packets: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(self._name)
            for packet in packets:
                sock.sendto(packet, self.sock.getsockname())


STORMS = 50


@pytest.mark.anyio
async def test_errors_between_packets_of_a_receiver(inet: Family, engine: ReceiveEngine) -> None:
    peer = Peer(inet)
    errors: list[int | None] = []
    receiver = PacketReceiver(
        peer.sock, PacketBatchPool(2, engine=engine), on_error=lambda e: errors.append(e.errno)
    )
    with anyio.fail_after(60):
        for number in range(STORMS):
            peer.send(b"%d" % number, b"more")
            peer.refuse()
            found: list[bytes] = []
            while len(found) < 2:
                with await receiver.receive() as batch:
                    found += contents(batch)
            assert found == [b"%d" % number, b"more"]
        receiver.stop()
        async for _ in receiver:
            pytest.fail("there is no more")
        await receiver.aclose()
    assert errors == [errno.ECONNREFUSED] * STORMS
    assert receiver.statistics().transient_errors == {errno.ECONNREFUSED: STORMS}
    assert receiver.statistics().packets == 2 * STORMS


@pytest.mark.anyio
async def test_errors_between_packets_of_recv_mmsg(inet: Family, engine: ReceiveEngine) -> None:
    peer = Peer(inet)
    batch = PacketBatch(4, engine=engine)
    errors = 0
    with anyio.fail_after(60):
        for number in range(STORMS):
            peer.send(b"%d" % number)
            peer.refuse()
            while not batch:
                try:
                    await recv_mmsg(peer.sock, batch)
                except ConnectionRefusedError:
                    errors += 1
            assert contents(batch) == [b"%d" % number]
            batch.clear()
    assert errors == STORMS


@pytest.mark.anyio
async def test_errors_between_packets_of_send_mmsg(inet: Family, sending: SendEngine) -> None:
    """An error that another packet left is the failure of the next one; all are handled.

    sendmmsg(2) forgets one that it meets after packets, so the packet is sent at the next try.
    """
    peer = Peer(inet)
    with anyio.fail_after(60):
        result = await send_mmsg(peer.sock, [(b"x", None)] * 200, engine=sending)
    assert result.handled == 200
    assert result.sent + len(result.failures) == 200
    assert {error.errno for _, error in result.failures} <= {errno.ECONNREFUSED}
    assert len(result.failures) <= 100
    assert result.failures or sending == "sendmmsg"


@pytest.mark.anyio
async def test_errors_for_ever_let_others_run() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    class Storm(ScriptedSocket):
        def recvfrom_into(
            self, buffer: Any, nbytes: int = 0, flags: int = 0
        ) -> tuple[int, tuple[str, int]]:
            self.reads += 1
            raise refused

    with closing(Storm()) as sock, anyio.fail_after(60):
        receiver = PacketReceiver(sock, PacketBatchPool(2, engine="recvfrom_into"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receiver.receive)
            for _ in range(100):
                await checkpoint()
            assert sock.reads <= 200
            tasks.cancel_scope.cancel()
        await receiver.aclose()
    # An error that the loop's callback read for a task that was cancelled is the next call's.
    counted = receiver.statistics().transient_errors[errno.ECONNREFUSED]
    assert counted in (sock.reads, sock.reads - 1)


# Floods: other tasks get their turns

LIMIT = 8
Consume = Callable[[socket.socket, ReceiveEngine, list[int]], Coroutine[Any, Any, None]]


async def _by_recv_mmsg(sock: socket.socket, engine: ReceiveEngine, seen: list[int]) -> None:
    batch = PacketBatch(LIMIT, engine=engine)
    while True:
        seen[0] += await recv_mmsg(sock, batch)
        batch.clear()


async def _by_a_receiver(sock: socket.socket, engine: ReceiveEngine, seen: list[int]) -> None:
    async for batch in PacketReceiver(sock, PacketBatchPool(3, LIMIT, engine=engine)):
        with batch:
            seen[0] += len(batch)


def _by_feed(overload: Any) -> Consume:
    async def consume(sock: socket.socket, engine: ReceiveEngine, seen: list[int]) -> None:
        receiver = PacketReceiver(sock, PacketBatchPool(3, LIMIT, engine=engine))
        send, receive = anyio.create_memory_object_stream[PacketBatch](1)

        def count(batch: PacketBatch) -> None:
            seen[0] += len(batch)

        async def work() -> None:
            async for batch in receive:
                with batch:
                    count(batch)

        with receive:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work)
                oldest = receive if overload == "drop_oldest" else None
                await feed(receiver, send, overload, oldest, on_drop=count)

    return consume


@pytest.mark.anyio
@pytest.mark.parametrize(
    "consume",
    [
        pytest.param(_by_recv_mmsg, id="recv_mmsg"),
        pytest.param(_by_a_receiver, id="receiver"),
        pytest.param(_by_feed("block"), id="block"),
        pytest.param(_by_feed("drop_newest"), id="drop_newest"),
        pytest.param(_by_feed("drop_oldest"), id="drop_oldest"),
    ],
)
async def test_turns_during_a_flood(inet: Family, engine: ReceiveEngine, consume: Consume) -> None:
    """Between two turns of another task a few batches are read, however much there is."""
    receiver, sender = inet.pair()
    for _ in range(300):
        sender.send(b"x")
    seen, turns = [0], [0]
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, receiver, engine, seen)
            while seen[0] < 300:
                await checkpoint()
                turns.append(seen[0])
            tasks.cancel_scope.cancel()
    # Trio shuffles whose turn it is, so others may have two in between; and a consumer may then
    # take what was read before that, of which there are at most the pool's.
    assert max(after - before for before, after in pairwise(turns)) <= 5 * LIMIT
