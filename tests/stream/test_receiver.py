"""A receiver as a stream: batches, ends, errors, lingering, and statistics to the packet."""

from __future__ import annotations

import dataclasses
import errno
import gc
import pickle
import socket
import sys
from itertools import chain, repeat
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.abc import SocketAttribute

from anyio_mmsg import (
    PacketBatchPool,
    PacketReceiver,
    ReceiveEngine,
    configure_udp_socket,
    open_udp_socket,
)
from anyio_mmsg._system import memory
from anyio_mmsg._system.memory import SocketMemory

from ..helpers import Family, ScriptedSocket, contents, loses_batches, trickle

pytestmark = pytest.mark.anyio
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports its drops")


async def test_a_stream_of_batches(engine: ReceiveEngine, family: Family) -> None:
    sock, sender = family.pair()
    sent = [b"%d" % number for number in range(9)]
    got: list[bytes] = []
    async with PacketReceiver(sock, PacketBatchPool(2, 4, 100, engine)) as receiver:
        for data in sent:
            sender.send(data)
        with anyio.fail_after(60):
            async for batch in receiver:
                with batch:
                    got += contents(batch)
                    assert batch.addresses() == [sender.getsockname()] * len(batch)
                if len(got) == len(sent):
                    break
        assert got == sent
        seen = receiver.statistics()
    assert (seen.packets, seen.bytes, seen.batches, seen.full_batches) == (9, 9, 3, 2)
    assert (seen.largest_batch, seen.truncated, seen.dropped) == (4, 0, 0)
    assert seen.receive_calls == 3
    assert seen.empty_calls == 0
    assert sock.fileno() == -1


async def test_batches_belong_to_consumers(inet: Family) -> None:
    """While they have all, nothing is read; what comes waits in the kernel."""
    sock, sender = inet.pair()
    async with PacketReceiver(sock, PacketBatchPool(2, capacity=1)) as receiver:
        for number in range(3):
            sender.send(b"%d" % number)
        with anyio.fail_after(60):
            first, second = await receiver.receive(), await receiver.receive()
        with anyio.move_on_after(0.02) as scope:
            await receiver.receive()
        assert scope.cancelled_caught
        assert contents(first) + contents(second) == [b"0", b"1"]
        first.close()
        with anyio.fail_after(60):
            third = await receiver.receive()
        assert contents(third) == [b"2"]
        second.close()
        third.close()
        assert receiver.pool.statistics().free == 2


async def test_the_capacity_of_the_pool_is_the_limit(engine: ReceiveEngine, inet: Family) -> None:
    sock, sender = inet.pair()
    async with PacketReceiver(sock, PacketBatchPool(1, 100, 16, engine)) as receiver:
        for _ in range(100):
            sender.send(b"x")
        with anyio.fail_after(60):
            with await receiver.receive() as batch:
                assert len(batch) == 100
    with pytest.raises(ValueError, match="limit"):
        PacketReceiver(inet.open(), limit=0)


@pytest.mark.skipif(sys.platform != "linux", reason="control data is Linux's")
@pytest.mark.parametrize("asked", [False, True])
async def test_its_own_pool_fits_what_the_socket_was_asked_for(asked: bool, inet: Family) -> None:
    sock, sender = inet.pair()
    configure_udp_socket(sock, timestamps=asked)
    async with PacketReceiver(sock) as receiver:
        sender.send(b"x")
        with anyio.fail_after(60):
            with await receiver.receive() as batch:
                assert batch.ancillary is asked
                if asked:
                    assert batch[0].timestamp


async def test_attributes(family: Family) -> None:
    sock, sender = family.pair()
    async with PacketReceiver(sock) as receiver:
        assert receiver.extra(SocketAttribute.raw_socket) is sock
        assert receiver.extra(SocketAttribute.family) == sock.family
        name = sock.getsockname()
        local = name[:2] if isinstance(name, tuple) else name
        assert receiver.extra(SocketAttribute.local_address) == local
        assert receiver.extra(SocketAttribute.remote_address, None) is None
        if family.name == "unix":
            assert receiver.extra(SocketAttribute.local_port, None) is None
        else:
            assert receiver.extra(SocketAttribute.local_port) == name[1]
        sock.connect(sender.getsockname())
        assert receiver.extra(SocketAttribute.remote_address) is not None


async def test_closing_wakes_a_waiting_reader(inet: Family) -> None:
    receiver = PacketReceiver(inet.open())

    async def read() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await receiver.receive()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await wait_all_tasks_blocked()
            await receiver.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await receiver.receive()
    await receiver.aclose()
    assert receiver.pool.statistics().free == 8
    assert receiver.statistics().packets == 0


async def test_closing_wakes_a_reader_that_waits_for_a_batch(inet: Family) -> None:
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock, PacketBatchPool(1))
    sender.send(b"x")

    async def read() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await receiver.receive()

    with anyio.fail_after(60):
        with await receiver.receive():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await wait_all_tasks_blocked()
                await receiver.aclose()


async def test_two_readers(inet: Family) -> None:
    async with PacketReceiver(inet.open()) as receiver, anyio.create_task_group() as tasks:
        tasks.start_soon(receiver.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await receiver.receive()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("linger", [0.0, 0.0005, 0.02])
@pytest.mark.parametrize("after", range(10))
async def test_cancelled_anywhere_no_packet_is_lost(
    after: int, linger: float, engine: ReceiveEngine, inet: Family
) -> None:
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock, PacketBatchPool(2, 3, 16, engine), linger=linger)
    got: list[bytes] = []
    sent = 0

    async def read() -> None:
        while True:
            with await receiver.receive() as batch:
                got.extend(contents(batch))

    with anyio.fail_after(60):
        async with receiver:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                sent = await trickle(sender, after)
                tasks.cancel_scope.cancel()
            while len(got) < sent:
                with await receiver.receive() as batch:
                    got += contents(batch)
    assert got == [b"%d" % number for number in range(sent)]
    seen = receiver.statistics()
    assert (seen.packets, seen.dropped) == (sent, 0)
    assert receiver.pool.statistics().free == 2


@pytest.mark.parametrize("linger", [0.0, 0.02])
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
async def test_a_cancellation_goes_before_what_is_there(
    first: bool, linger: float, engine: ReceiveEngine, inet: Family
) -> None:
    sock, sender = inet.pair()
    pool = PacketBatchPool(2, 3, 16, engine)
    async with PacketReceiver(sock, pool, linger=linger) as receiver:
        with anyio.fail_after(60):
            if not first:
                sender.send(b"x")
                (await receiver.receive()).close()
            sender.send(b"y")
            with anyio.CancelScope() as scope:
                scope.cancel()
                await receiver.receive()
            assert scope.cancelled_caught
            with await receiver.receive() as batch:
                assert contents(batch) == [b"y"]


@pytest.mark.parametrize("linger", [0.0, 0.02])
async def test_packets_at_every_wait_do_not_hide_a_cancellation(
    linger: float, engine: ReceiveEngine, inet: Family
) -> None:
    sock, sender = inet.pair()
    pool = PacketBatchPool(2, 3, 16, engine)
    async with PacketReceiver(sock, pool, linger=linger) as receiver:
        batches = 0
        with anyio.fail_after(60), anyio.CancelScope() as scope:
            sender.send(b"x")
            async for batch in receiver:
                with batch:
                    sender.send(b"x")
                batches += 1
                assert batches < 9
                if batches == 3:
                    scope.cancel()
        assert batches == 3


async def test_what_is_held_at_the_end_counts_as_dropped(inet: Family) -> None:
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock, linger=60)
    sender.send(b"x")
    with anyio.move_on_after(0.02):
        await receiver.receive()
    await receiver.aclose()
    seen = receiver.statistics()
    assert (seen.packets, seen.bytes, seen.dropped) == (1, 1, 1)
    assert receiver.pool.statistics().free == 8


# Errors


async def test_transient_errors_are_counted_and_told() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    unreachable = OSError(errno.EHOSTUNREACH, "unreachable")
    told: list[OSError] = []
    sock = ScriptedSocket(refused, b"0", refused, unreachable, b"1")
    pool = PacketBatchPool(2, engine="recvfrom_into")
    async with PacketReceiver(sock, pool, on_error=told.append) as receiver:
        with anyio.fail_after(60):
            for number in range(2):
                with await receiver.receive() as batch:
                    assert contents(batch) == [b"%d" % number]
        seen = receiver.statistics()
    assert told == [refused, refused, unreachable]
    assert seen.transient_errors == {errno.ECONNREFUSED: 2, errno.EHOSTUNREACH: 1}
    assert pickle.loads(pickle.dumps(seen)) == seen  # for a parent process
    assert dataclasses.asdict(seen)["transient_errors"] == seen.transient_errors


@loses_batches
async def test_an_error_that_was_told_keeps_no_batch() -> None:
    told: list[OSError] = []
    sock = ScriptedSocket(ConnectionRefusedError(errno.ECONNREFUSED, "refused"), b"0")
    pool = PacketBatchPool(1, engine="recvfrom_into")
    async with PacketReceiver(sock, pool, on_error=told.append) as receiver:
        with anyio.fail_after(60):
            await receiver.receive()  # and it is lost at once
        gc.collect()
        assert (len(told), pool.free) == (1, 1)
        assert receiver.statistics().dropped == 1


@pytest.mark.parametrize("stopped", [False, True], ids=["", "stopped"])
async def test_what_on_error_raises_goes_through_receive(stopped: bool) -> None:
    """The error counts, and the next packet still comes."""

    def fail(error: OSError) -> None:
        raise RuntimeError("of the program") from error

    sock = ScriptedSocket(ConnectionRefusedError(errno.ECONNREFUSED, "refused"), b"0")
    pool = PacketBatchPool(2, engine="recvfrom_into")
    async with PacketReceiver(sock, pool, on_error=fail) as receiver:
        if stopped:
            receiver.stop()
        with anyio.fail_after(60):
            with pytest.raises(RuntimeError, match="of the program"):
                await receiver.receive()
            with await receiver.receive() as batch:
                assert contents(batch) == [b"0"]
        assert receiver.statistics().transient_errors == {errno.ECONNREFUSED: 1}


async def test_transient_errors_are_raised_for_those_who_want_them() -> None:
    sock = ScriptedSocket(ConnectionRefusedError(errno.ECONNREFUSED, "refused"), b"0")
    pool = PacketBatchPool(2, engine="recvfrom_into")
    async with PacketReceiver(sock, pool, errors="raise") as receiver:
        with anyio.fail_after(60):
            with pytest.raises(ConnectionRefusedError):
                await receiver.receive()
            with await receiver.receive() as batch:
                assert contents(batch) == [b"0"]
        assert receiver.statistics().transient_errors == {}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback may not report it")
async def test_a_real_refusal(engine: ReceiveEngine, inet: Family) -> None:
    sock, peer = inet.open(), inet.open()
    address = peer.getsockname()
    sock.connect(address)
    peer.close()
    sock.send(b"is anyone there?")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(address)
        peer.sendto(b"now I am", sock.getsockname())
        async with PacketReceiver(sock, PacketBatchPool(2, engine=engine)) as receiver:
            with anyio.fail_after(60):
                with await receiver.receive() as batch:
                    assert contents(batch) == [b"now I am"]
            assert receiver.statistics().transient_errors == {errno.ECONNREFUSED: 1}


# Statistics


async def test_truncated_packets(engine: ReceiveEngine, inet: Family) -> None:
    if sys.platform != "linux" and engine == "recvmmsg":
        pytest.skip("recvmmsg(2) is a system call of Linux")
    sock, sender = inet.pair()
    async with PacketReceiver(sock, PacketBatchPool(2, 4, 4, engine)) as receiver:
        for data in (b"1234", b"12345", b"", b"123456"):
            sender.send(data)
        with anyio.fail_after(60):
            with await receiver.receive():
                pass
        seen = receiver.statistics()
    assert (seen.packets, seen.bytes, seen.truncated) == (4, 12, 2)


@on_linux
async def test_kernel_drops_are_counted_to_the_packet(engine: ReceiveEngine) -> None:
    sent, got = 400, 0
    sock = await open_udp_socket("127.0.0.1", receive_buffer_size=4096)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(sock.getsockname())
        sender.send(b"before the receiver")
        for _ in range(50):
            sender.send(bytes(1000))  # some are dropped before anybody counts
        async with PacketReceiver(sock, PacketBatchPool(2, engine=engine)) as receiver:
            with anyio.fail_after(60):
                with await receiver.receive() as batch:
                    assert contents(batch)[0] == b"before the receiver"
                    early = len(batch)
            assert receiver.statistics().dropped_by_kernel == 0
            for _ in range(4):
                for _ in range(sent // 4):
                    sender.send(bytes(1000))
                waiting = receiver.statistics()
                assert waiting.buffer_used is not None
                assert waiting.buffer_size is not None
                assert waiting.buffer_used > 0
                with anyio.fail_after(60):
                    with await receiver.receive() as batch:
                        got += len(batch)
            seen = receiver.statistics()
            assert seen.buffer_used == 0
    assert seen.dropped_by_kernel is not None
    assert seen.dropped_by_kernel > 0
    assert seen.packets == early + got
    assert got + seen.dropped_by_kernel == sent
    assert receiver.statistics() == seen  # also after the end


@on_linux
async def test_the_kernels_counter_wraps(monkeypatch: pytest.MonkeyPatch, inet: Family) -> None:
    drops = chain([2**32 - 3, 2**32 - 1, 2], repeat(2))
    monkeypatch.setattr(memory, "socket_memory", lambda sock: SocketMemory(0, 0, next(drops)))
    async with PacketReceiver(inet.open()) as receiver:
        assert [receiver.statistics().dropped_by_kernel for _ in range(2)] == [2, 5]


async def test_where_the_kernel_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, inet: Family
) -> None:
    monkeypatch.setattr(memory, "ON_LINUX", False)
    async with PacketReceiver(inet.open()) as receiver:
        seen = receiver.statistics()
    assert (seen.dropped_by_kernel, seen.buffer_used, seen.buffer_size) == (None, None, None)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"limit": 0}, ValueError, "limit is 0; give the number of packets"),
        ({"limit": "9"}, TypeError, "limit is a str"),
        ({"linger": -0.1}, ValueError, "linger is -0.1; give seconds"),
        ({"linger": "1"}, TypeError, "linger is a str; give seconds"),
        ({"linger": True}, TypeError, "linger is a bool"),
        ({"on_error": 5}, TypeError, "on_error is a int, and has to be a function of one error"),
        ({"pool": 5}, TypeError, "pool is a int, and has to be a PacketBatchPool"),
        ({"linger": float("nan")}, ValueError, "linger is nan"),
        ({"errors": "ignore"}, ValueError, 'errors is \'ignore\'; give "count" or "raise"'),
    ],
)
async def test_bad_arguments(
    arguments: dict[str, Any], error: type[Exception], sentence: str, inet: Family
) -> None:
    with pytest.raises(error, match=sentence):
        PacketReceiver(inet.open(), **arguments)


async def test_bad_sockets(inet: Family) -> None:
    sock = inet.open()
    sock.setblocking(True)
    with pytest.raises(ValueError, match="blocking"):
        PacketReceiver(sock)
    sock.close()
    with pytest.raises(anyio.ClosedResourceError):
        PacketReceiver(sock)
    with pytest.raises(TypeError, match=r"has to be a socket\.socket"):
        PacketReceiver(3)  # type: ignore[arg-type]
