"""The promises of the send functions: checkpoints, arguments, results, sockets that are closed."""

from __future__ import annotations

import copy
import errno
import pickle
import socket

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendFailure,
    SendResult,
    UnusableSocketError,
    multi_target_send,
    recv_mmsg,
    send_mmsg,
    send_mmsg_nowait,
)
from anyio_mmsg._send import functions
from anyio_mmsg._send.known import MAX_PAYLOAD

from ..helpers import Family, assert_others_run, contents, have_ipv6, nowhere
from .helpers import Send, both, received, send_pairs

pytestmark = pytest.mark.anyio


@both
async def test_always_a_checkpoint(
    send: Send, sending: SendEngine, inet: Family, anyio_backend_name: str
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
    with anyio.fail_after(60):
        with assert_others_run(anyio_backend_name):
            await send(sender, [b"x"] * 3, to, engine=sending)
        with assert_others_run(anyio_backend_name):
            await send_mmsg(sender, [], engine=sending)
        with assert_others_run(anyio_backend_name):
            await multi_target_send(sender, b"", [], engine=sending)
    assert received(receiver) == [b"x"] * 3


async def test_no_wait_while_there_is_room(
    sending: SendEngine, family: Family, waits: list[socket.socket]
) -> None:
    sender, receiver = family.open(), family.open()
    for _ in range(3):
        await send_pairs(sender, [b"x"] * 3, receiver.getsockname(), engine=sending)
    assert waits == []


@both
async def test_a_closed_socket(send: Send, sending: SendEngine, inet: Family) -> None:
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


async def test_closing_during_the_checkpoint(sending: SendEngine, inet: Family) -> None:
    sender = inet.open()

    async def close_meanwhile() -> None:
        await checkpoint()
        sender.close()

    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(60):
        patch.setattr(functions, "checkpoint", close_meanwhile)
        with pytest.raises(UnusableSocketError) as raised:
            await send_pairs(sender, [b"x"], ("127.0.0.1", 9), engine=sending)
    assert raised.value.result == SendResult(0, [])


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


async def test_no_result(inet: Family) -> None:
    sender = inet.open()
    with pytest.raises(TypeError, match="result is a int"):
        await send_mmsg(sender, [], result=5)  # type: ignore[arg-type]


async def test_an_unknown_engine(inet: Family) -> None:
    with pytest.raises(ValueError, match="'io_uring'; give one of"):
        await send_mmsg(inet.open(), [], engine="io_uring")  # type: ignore[arg-type]


async def test_a_used_result_starts_anew(sending: SendEngine, inet: Family) -> None:
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
async def test_echo_end_to_end(sending: SendEngine, engine: ReceiveEngine) -> None:
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

        with anyio.fail_after(60):
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
    assert MAX_PAYLOAD == {socket.AF_INET: 65_507, socket.AF_INET6: 65_527}


def test_a_result_as_a_value() -> None:
    failure = SendFailure(1, OSError(errno.EACCES, "denied"))
    result = SendResult(2, [failure])
    assert result == SendResult(sent=2, failures=[failure])
    assert result != SendResult(2, [])
    assert result != 2
    assert (result.handled, result.errors) == (3, {errno.EACCES: 1})
    assert repr(SendResult(3, [])) == "SendResult(sent=3, failures=[])"
    assert copy.copy(result) == result
    assert pickle.loads(pickle.dumps(SendResult(4))) == SendResult(4)
    with pytest.raises(TypeError, match="unhashable"):
        hash(result)
    with pytest.raises(AttributeError):
        result.sent = 5  # type: ignore[misc]
