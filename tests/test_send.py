"""The promises of the send functions: checkpoints, waiting, cancellation, errors on the way."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import WouldBlock, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    PacketBatch,
    SendResult,
    UnusableSocketError,
    _send,
    multi_target_send,
    recv_mmsg,
    recv_mmsg_nowait,
    send_mmsg,
    send_mmsg_nowait,
)
from anyio_mmsg import _outgoing as outgoing
from anyio_mmsg._recv import wait_socket_readable

from .helpers import Family, assert_others_run, contents, counted_waits, have_ipv6, nowhere

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[SendResult]]


async def send_pairs(sock: socket.socket, datas: list[bytes], to: Any, **how: Any) -> SendResult:
    return await send_mmsg(sock, [(data, to) for data in datas], **how)


async def send_fan(sock: socket.socket, datas: list[bytes], to: Any, **how: Any) -> SendResult:
    return await multi_target_send(sock, datas[0], [to] * len(datas), **how)


both = pytest.mark.parametrize("send", [send_pairs, send_fan])


def received(sock: socket.socket) -> list[bytes]:
    got = []
    while True:
        try:
            got.append(sock.recv(70_000))
        except BlockingIOError:
            return got


@pytest.fixture
def narrow() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A sender whose buffer is soon full, and the receiver: unix sockets hold what is unread."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no unix sockets on this platform")
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        for sock in (sender, receiver):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            sock.setblocking(False)
        yield sender, receiver


def fill(sender: socket.socket) -> int:
    """Send until there is no room; return how many packets that took."""
    filled = 0
    while True:
        try:
            filled += send_mmsg_nowait(sender, [(b"filler", None)]).sent
        except WouldBlock:
            return filled


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """The sockets that were waited for."""
    return counted_waits(monkeypatch, _send, "wait_socket_writable")


# Sending


async def test_one_payload_to_many(sending: str, family: Family) -> None:
    sender, *receivers = (family.open() for _ in range(5))
    for data in (b"news", bytearray(b""), memoryview(b"x" * 3000)):
        addresses = [receiver.getsockname() for receiver in receivers]
        result = await multi_target_send(sender, data, iter(addresses), engine=sending)
        assert result == SendResult(4, [])
        assert [received(receiver) for receiver in receivers] == [[bytes(data)]] * 4
    assert await multi_target_send(sender, b"", [], engine=sending) == SendResult(0, [])


async def test_a_payload_that_is_a_number_too(sending: str, inet: Family) -> None:
    """Such as NumPy's: its buffer counts, nothing beyond it is sent."""

    class Number(bytes):
        def __index__(self) -> int:
            return 3

    sender, receiver = inet.open(), inet.open()
    data = Number(b"a" * 5000)
    await multi_target_send(sender, data, [receiver.getsockname()], engine=sending)
    assert received(receiver) == [b"a" * 5000]


async def test_a_packet_to_many_and_back(sending: str, engine: str, family: Family) -> None:
    """A relay: what came goes on to others, and to who sent it."""
    relay, client, *others = (family.open() for _ in range(4))
    batch = PacketBatch(engine=engine)
    client.sendto(b"news", relay.getsockname())
    with anyio.fail_after(5):
        await recv_mmsg(relay, batch)
        (packet,) = batch
        targets = [packet, *(other.getsockname() for other in others)]
        result = await multi_target_send(relay, packet.data, targets, engine=sending)
    assert result == SendResult(3, [])
    assert [received(sock) for sock in (client, *others)] == [[b"news"]] * 3


async def test_one_payload_to_bad_addresses(sending: str, family: Family) -> None:
    sender, receiver = family.open(), family.open()
    bad, number = nowhere(family)
    good = receiver.getsockname()
    result = await multi_target_send(sender, b"x", [good, bad, good, bad], engine=sending)
    assert [(index, error.errno) for index, error in result.failures] == [(1, number), (3, number)]
    assert result.sent == 2
    assert received(receiver) == [b"x", b"x"]


@pytest.mark.parametrize(
    ("data", "addresses", "error", "text"),
    [
        ("text", [], TypeError, "^the data is a str, not bytes-like; encode it"),
        (bytes(65_508), [], ValueError, "^the data has 65508 bytes"),
        (b"", ("127.0.0.1", 9), TypeError, "^packet 0: address is '127.0.0.1'"),
        (b"", "127.0.0.1", TypeError, "^addresses is '127.0.0.1'; give a list"),
        (b"", 9, TypeError, "^addresses is 9; give a list"),
        (b"", [("127.0.0.1", 9), ("name", 9)], ValueError, "^packet 1: host is 'name'"),
    ],
)
async def test_what_a_multi_target_send_refuses(
    data: Any, addresses: Any, error: type[Exception], text: str, inet: Family
) -> None:
    sender = inet.open()
    with pytest.raises(error, match=text):
        await multi_target_send(sender, data, addresses)


# Checkpoints


@both
async def test_always_a_checkpoint(
    send: Send, sending: str, inet: Family, anyio_backend_name: str
) -> None:
    sender, receiver = inet.open(), inet.open()
    to = receiver.getsockname()
    # It looks for cancellation, and then has sent nothing, and read nothing of an iterable...
    result = SendResult(77)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await send(sender, [b"x"], to, engine=sending, result=result)
    assert scope.cancelled_caught
    assert result == SendResult(0, [])
    assert received(receiver) == []
    untouched = iter([(b"x", to)])
    with anyio.CancelScope() as scope:
        scope.cancel()
        await send_mmsg(sender, untouched, engine=sending)
    assert next(untouched) == (b"x", to)

    # ...and it lets others run.
    with anyio.fail_after(5):
        with assert_others_run(anyio_backend_name):
            await send(sender, [b"x"] * 3, to, engine=sending)
        with assert_others_run(anyio_backend_name):
            await send_mmsg(sender, [], engine=sending)
        with assert_others_run(anyio_backend_name):
            await multi_target_send(sender, b"", [], engine=sending)
    assert received(receiver) == [b"x"] * 3


async def test_no_wait_while_there_is_room(
    sending: str, family: Family, waits: list[socket.socket]
) -> None:
    sender, receiver = family.open(), family.open()
    for _ in range(3):
        await send_pairs(sender, [b"x"] * 3, receiver.getsockname(), engine=sending)
    assert waits == []


# A full buffer


@both
async def test_waits_for_room(
    send: Send, sending: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = narrow
    filled = fill(sender)
    sent = [b"x" * 100] * (2 * filled)
    done = SendResult()
    got: list[bytes] = []

    async def send_all() -> None:
        assert await send(sender, sent, None, engine=sending, result=done) is done

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_all)
            await wait_all_tasks_blocked()
            assert done == SendResult(0, [])
            got += received(receiver)
            assert got == [b"filler"] * filled
            while len(got) < filled + len(sent):
                await wait_socket_readable(receiver)
                got += received(receiver)
                assert len(got) <= filled + done.sent
    assert done == SendResult(len(sent), [])
    assert got[filled:] == sent
    assert received(receiver) == []


async def test_waits_for_a_receiver_that_is_full(sending: str, tmp_path: Path) -> None:
    """Of an unconnected unix socket the system says that it is writable, and then has no room."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no unix sockets on this platform")
    got: list[bytes] = []
    with Family("unix", tmp_path) as family:
        sender, receiver = family.open(), family.open()
        packets = [(b"%d" % number, receiver.getsockname()) for number in range(1000)]

        async def read() -> None:
            while len(got) < len(packets):
                got.extend(received(receiver))
                await checkpoint()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                assert await send_mmsg(sender, packets, engine=sending) == SendResult(1000, [])
    assert got == [data for data, _ in packets]


@pytest.mark.parametrize("gso", [False, True], ids=["plain", "gso"])
@pytest.mark.parametrize("after", range(8))
async def test_cancelled_anywhere_nothing_is_sent_twice_or_left_out(
    after: int, gso: bool, sending: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """The receiver reads a little at a time; the call is cancelled, and called for the rest."""
    sender, receiver = narrow
    packets = [(b"%d" % number, None) for number in range(100)]
    got: list[bytes] = []
    steps = 0

    async def send_the_rest() -> None:
        start = 0
        while start < len(packets):
            result = SendResult()
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await send_mmsg(sender, packets[start:], gso=gso, engine=sending, result=result)
            assert result.failures == []
            start += result.handled

    scopes: list[anyio.CancelScope] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_the_rest)
            while len(got) < len(packets):
                steps += 1
                if steps % 5 == 0:
                    got += received(receiver)
                if steps % (after + 4) == 0:
                    scopes[-1].cancel()
                await checkpoint()
    assert got == [data for data, _ in packets]


@pytest.mark.parametrize("what", ["batch", "packets", "pairs"])
async def test_what_is_not_sent_yet_is_held(
    what: str, sending: str, engine: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """While a call waits, nobody can pull the packets away beneath it."""
    sender, receiver = narrow
    batch = PacketBatch(3, 16, engine)
    for number in range(3):
        receiver.send(b"packet %d" % number)
    assert recv_mmsg_nowait(sender, batch) == 3
    filled = fill(sender)
    things = {"batch": batch, "packets": list(batch)}
    todo: Any = things.get(what) or [(packet.data, packet) for packet in batch]
    result = SendResult()
    got: list[bytes] = []

    async def send() -> None:
        await send_mmsg(sender, todo, engine=sending, result=result)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await wait_all_tasks_blocked()
            for end in (batch.clear, batch.release, batch.close):
                with pytest.raises(BufferError, match="send that waits"):
                    end()
            assert contents(batch) == [b"packet 0", b"packet 1", b"packet 2"]
            got += received(receiver)
    assert got + received(receiver) == [b"filler"] * filled + contents(batch)
    assert result == SendResult(3, [])
    batch.close()


async def test_a_bytearray_keeps_its_size_while_it_waits(
    sending: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = narrow
    fill(sender)
    data = bytearray(b"ten bytes!")

    async def send() -> None:
        await send_mmsg(sender, [(data, None)], engine=sending)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await wait_all_tasks_blocked()
            with pytest.raises(BufferError):
                data.clear()
            received(receiver)
    assert received(receiver) == [b"ten bytes!"]
    data.clear()


async def test_after_a_cancellation_all_is_let_go(
    sending: str, engine: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = narrow
    batch = PacketBatch(3, 16, engine)
    receiver.send(b"packet")
    assert recv_mmsg_nowait(sender, batch) == 1
    fill(sender)
    with anyio.move_on_after(0.01) as scope:
        await send_mmsg(sender, batch, engine=sending)
    assert scope.cancelled_caught
    batch.close()


async def test_several_tasks_send_by_one_socket(
    sending: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """They take turns in waiting, and each gets all of its own through, in order."""
    sender, receiver = narrow
    got: list[bytes] = []

    async def send(name: bytes) -> None:
        packets = [(b"%s %d" % (name, number), None) for number in range(100)]
        assert await send_mmsg(sender, packets, engine=sending) == SendResult(100, [])

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for name in (b"a", b"b", b"c"):
                tasks.start_soon(send, name)
            while len(got) < 300:
                got += received(receiver)
                await checkpoint()
    for name in (b"a", b"b", b"c"):
        assert [data for data in got if data[:1] == name] == [
            b"%s %d" % (name, number) for number in range(100)
        ]


async def test_a_task_that_is_cancelled_while_others_have_the_turn(
    sending: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = narrow
    fill(sender)
    results = [SendResult() for _ in range(6)]
    scopes = [anyio.CancelScope() for _ in results]
    got: list[bytes] = []

    async def send(index: int) -> None:
        with scopes[index]:
            packets = [(b"%d %d" % (index, number), None) for number in range(50)]
            await send_mmsg(sender, packets, engine=sending, result=results[index])

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for index in range(len(results)):
                tasks.start_soon(send, index)
            await wait_all_tasks_blocked()
            for index in (4, 1, 0):
                got += received(receiver)[:1]
                scopes[index].cancel()
                await checkpoint()
            while any(results[index].handled < 50 for index in (2, 3, 5)):
                got += received(receiver)
                await checkpoint()
    got += received(receiver)
    for index in (2, 3, 5):
        mine = [data for data in got if data.startswith(b"%d " % index)]
        assert len(mine) <= 50
        assert results[index] == SendResult(50, [])


@pytest.mark.parametrize("gap", [False, True])
async def test_closing_under_many_waiters(
    gap: bool, sending: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """All of them hear of it, whether the close follows at once or later."""
    if not hasattr(anyio, "notify_closing"):
        pytest.skip("anyio.notify_closing came with AnyIO 4.10")
    sender, _ = narrow
    fill(sender)
    raised: list[Exception] = []

    async def send() -> None:
        try:
            await send_mmsg(sender, [(b"x", None)], engine=sending)
        except Exception as error:
            raised.append(error)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(send)
            await wait_all_tasks_blocked()
            anyio.notify_closing(sender)
            if gap:
                await wait_all_tasks_blocked()
            sender.close()
    assert [type(error) for error in raised] == [UnusableSocketError] * 4


def test_a_loop_that_ends_with_a_pending_send(
    sending: str, anyio_backend: Any, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """Another loop can go on with the socket."""
    if anyio_backend[0] == "trio":
        pytest.skip("Trio ends no loop before its tasks")
    sender, receiver = narrow
    filled = fill(sender)

    async def leave_pending() -> None:
        loop = asyncio.get_running_loop()
        pending.append(loop.create_task(send_mmsg(sender, [(b"x", None)], engine=sending)))
        await wait_all_tasks_blocked()

    async def go_on() -> None:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send_pairs, sender, [b"y"], None)
                await wait_all_tasks_blocked()
                received(receiver)
        assert received(receiver) == [b"y"]

    pending: list[asyncio.Task[Any]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_pending())
    loop.close()
    assert filled
    anyio.run(go_on, backend="asyncio")
    pending.pop()._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("meddle", ["clear", "share"])
async def test_whatever_is_done_to_the_result(
    meddle: str, sending: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """It tells what was done, and does not say what to do next."""
    sender, receiver = narrow
    sizes = [1, 700, 30, 0, 2000]
    packets = [(b"%d" % (number % 10) * sizes[number % 5], None) for number in range(2500)]
    result = SendResult()
    got: list[bytes] = []

    async def send() -> None:
        await send_mmsg(sender, packets, engine=sending, result=result)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            while len(got) < len(packets):
                got += received(receiver)
                if meddle == "clear":
                    result.failures.append(result)  # type: ignore[arg-type]
                    result.sent = 0
                elif len(got) > 2000:
                    send_mmsg_nowait(sender, [], result=result)
                await checkpoint()
    assert got == [data for data, _ in packets]


async def test_a_socket_that_something_else_waits_for(
    sending: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = narrow
    filled = fill(sender)
    assert received(receiver) == [b"filler"] * filled
    packets = [(b"x", None)] * (2 * filled)
    result = SendResult()

    async def wait() -> None:
        await _send.wait_socket_writable(sender)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            send_mmsg_nowait(sender, packets)
            tasks.start_soon(wait)
            await wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await send_mmsg(sender, packets, engine=sending, result=result)
            received(receiver)
    assert result == SendResult(0, [])


# Errors on the way


async def test_closing_under_a_waiter(
    sending: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    if not hasattr(anyio, "notify_closing"):
        pytest.skip("anyio.notify_closing came with AnyIO 4.10")
    sender, receiver = narrow
    filled = fill(sender)
    received(receiver)
    packets = [(b"%d" % number, None) for number in range(3 * filled)]
    raised: list[UnusableSocketError] = []

    async def send() -> None:
        try:
            await send_mmsg(sender, packets, engine=sending)
        except UnusableSocketError as error:
            raised.append(error)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            tasks.start_soon(send)  # which waits for its turn
            await wait_all_tasks_blocked()
            anyio.notify_closing(sender)
            sender.close()
    first, second = raised
    got = received(receiver)
    assert first.result == SendResult(len(got), [])
    assert got == [data for data, _ in packets[: len(got)]]
    assert second.result == SendResult(0, [])


@both
async def test_a_closed_socket(send: Send, sending: str, inet: Family) -> None:
    sender = inet.open()
    sender.close()
    for kind in (anyio.ClosedResourceError, OSError, UnusableSocketError):
        with pytest.raises(kind) as raised:
            await send(sender, [b"x"], ("127.0.0.1", 9), engine=sending)
        assert isinstance(raised.value, UnusableSocketError)
        assert raised.value.errno == errno.EBADF
        assert raised.value.result == SendResult(0, [])
    with pytest.raises(UnusableSocketError):
        send_mmsg_nowait(sender, [])


async def test_closing_during_the_checkpoint(sending: str, inet: Family) -> None:
    sender = inet.open()

    async def close_meanwhile() -> None:
        await checkpoint()
        sender.close()

    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(5):
        patch.setattr(_send, "checkpoint", close_meanwhile)
        with pytest.raises(UnusableSocketError) as raised:
            await send_pairs(sender, [b"x"], ("127.0.0.1", 9), engine=sending)
    assert raised.value.result == SendResult(0, [])


@pytest.mark.skipif(os.name == "nt", reason="a descriptor of Windows is no file's")
async def test_a_descriptor_closed_by_number_while_it_waits(
    sending: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """The next call finds out, with what was sent before."""
    sender, _ = narrow
    filled = fill(sender)
    assert filled

    async def close_instead(sock: socket.socket) -> None:
        os.close(sock.fileno())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_send, "wait_socket_writable", close_instead)
        with pytest.raises(UnusableSocketError) as raised:
            await send_pairs(sender, [b"x"], None, engine=sending)
    assert raised.value.errno == errno.EBADF
    sender.detach()


@both
@pytest.mark.parametrize(
    ("thing", "error", "text"),
    [
        (None, TypeError, "has to be a socket.socket"),
        ("blocking", ValueError, "setblocking"),
        ("stream", ValueError, "SOCK_DGRAM"),
    ],
)
async def test_no_socket_to_send_by(
    thing: str | None, error: type[Exception], text: str, send: Send
) -> None:
    kind = socket.SOCK_STREAM if thing == "stream" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as sock, pytest.raises(error, match=text):
        await send(sock if thing else None, [b"x"], ("127.0.0.1", 9))


async def test_an_error_of_the_wait_is_told_as_it_is(
    sending: str, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """Such as ENOSPC, where epoll watches as many descriptors as it may."""
    sender, _ = narrow
    filled = fill(sender)
    assert filled

    async def fail(sock: socket.socket) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    result = SendResult()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_send, "wait_socket_writable", fail)
        with pytest.raises(OSError, match="no space left") as raised:
            await send_mmsg(sender, [(b"x", None)], engine=sending, result=result)
    assert not isinstance(raised.value, UnusableSocketError)
    assert result == SendResult(0, [])


async def test_no_result(inet: Family) -> None:
    sender = inet.open()
    with pytest.raises(TypeError, match="result is a int"):
        await send_mmsg(sender, [], result=5)  # type: ignore[arg-type]


async def test_an_unknown_engine(inet: Family) -> None:
    with pytest.raises(ValueError, match="'io_uring'; give one of"):
        await send_mmsg(inet.open(), [], engine="io_uring")


async def test_a_used_result_starts_anew(sending: str, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    bad, _ = nowhere(inet)
    result = SendResult()
    await send_mmsg(sender, [(b"", bad)], engine=sending, result=result)
    failures = result.failures
    assert result.handled == len(failures) == 1
    packets = [(b"x", receiver.getsockname())]
    assert await send_mmsg(sender, packets, engine=sending, result=result) is result
    assert result == SendResult(1, [])
    assert len(failures) == 1


def test_the_error_of_a_socket() -> None:
    error = UnusableSocketError(errno.EBADF, "gone")
    assert (error.errno, error.strerror, error.result) == (errno.EBADF, "gone", SendResult())
    assert "gone" in str(error)


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
async def test_echo_end_to_end(sending: str, engine: str) -> None:
    """A server in a nursery, a client that counts: nothing lost, nothing mixed up."""
    with Family("inet6", None) as family:
        server, client = family.open(), family.open()
        batch, replies = PacketBatch(8, engine=engine), PacketBatch(32, engine=engine)
        got: list[bytes] = []

        async def serve() -> None:
            while True:
                await recv_mmsg(server, batch)
                await send_mmsg(server, batch, engine=sending)
                batch.clear()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve)
                for turn in range(20):
                    packets = [
                        (b"%d/%d" % (turn, n), server.getsockname()) for n in range(turn + 1)
                    ]
                    assert (await send_mmsg(client, packets, engine=sending)).sent == turn + 1
                    while len(got) < len(packets):
                        await recv_mmsg(client, replies)
                        got += contents(replies)
                        assert set(replies.addresses()) == {server.getsockname()}
                        replies.clear()
                    assert got == [data for data, _ in packets]
                    got.clear()
                tasks.cancel_scope.cancel()


def test_limits_of_families() -> None:
    assert outgoing.MAX_PAYLOAD == {socket.AF_INET: 65_507, socket.AF_INET6: 65_527}
