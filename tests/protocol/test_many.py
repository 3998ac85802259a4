"""`datagrams_received` and `sendto_many`: batches for protocols that know of them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from ..helpers import Family
from .helpers import Recorder, serving, turns

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("way", ["ours", "endpoint"])]


class Batches(Recorder):
    """Gets batches."""

    def datagrams_received(self, datagrams: list[tuple[bytes, Any]]) -> None:
        assert type(datagrams) is list
        assert all(type(data) is bytes for data, _ in datagrams)
        self._note("batch", datagrams)

    @property
    def batches(self) -> list[list[bytes]]:
        return [[data for data, _ in call[1]] for call in self.calls if call[0] == "batch"]


def read_all(sock: socket.socket) -> list[bytes]:
    got = []
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(sock.recv(65_536))
    return got


async def test_a_batch_comes_by_one_call(way: str, family: Family) -> None:
    sock, sender = family.pair()
    sent = [b"first", b"", b"x" * 9_000, b"last"]
    for data in sent:
        sender.send(data)
    async with serving(way) as start:
        protocol = Batches()
        await start(sock, protocol)
        await protocol.until("batch")
        sender.send(b"alone")
        await protocol.until("batch", 2)
    assert protocol.batches == [sent, [b"alone"]]
    assert {address for call in protocol.calls[1:3] for _, address in call[1]} == {
        sender.getsockname()
    }
    assert "received" not in protocol.names


async def test_what_a_batch_causes_goes_out_together(way: str, inet: Family) -> None:
    sock, client = inet.pair()
    for number in range(5):
        client.send(b"%d" % number)
    async with serving(way) as start:
        protocol = Batches(batch=lambda datagrams: protocol.transport.sendto_many(datagrams))
        await start(sock, protocol)
        await protocol.until("batch")
        assert read_all(client) == [b"%d" % number for number in range(5)]


async def test_an_exception(way: str, inet: Family) -> None:
    def fail(datagrams: object) -> None:
        raise ValueError("no batch of mine")

    sock, sender = inet.pair()
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    async with serving(way) as start:
        protocol = Batches(batch=fail)
        await start(sock, protocol)
        for number in range(2):
            sender.send(b"%d" % number)
            await protocol.until("batch", number + 1)
        await turns(2)
    assert [context["message"] for context in contexts] == [
        "protocol.datagrams_received() failed"
    ] * 2
    assert protocol.batches == [[b"0"], [b"1"]]


@pytest.mark.parametrize("how", ["pause_reading", "close", "abort"])
async def test_an_end_in_a_batch(way: str, how: str, inet: Family) -> None:
    sock, sender = inet.pair()
    for number in range(3):
        sender.send(b"%d" % number)
    async with serving(way) as start:
        protocol = Batches(batch=lambda _: getattr(protocol.transport, how)())
        await start(sock, protocol)
        await protocol.until("batch")
        sender.send(b"late")
        await turns(3)
        assert protocol.batches == [[b"0", b"1", b"2"]]
        if how == "pause_reading":
            protocol.transport.resume_reading()
            await protocol.until("batch", 2)
            assert protocol.batches[1:] == [[b"late"]]
    assert protocol.names[-1] == "lost"


async def test_another_protocol_in_the_middle(way: str, inet: Family) -> None:
    """It gets the rest, its own way."""

    def switch(data: bytes, address: Any) -> None:
        if data == b"1":
            protocol.transport.pause_reading()
            protocol.transport.set_protocol(other)
            protocol.transport.resume_reading()

    sock, sender = inet.pair()
    for number in range(4):
        sender.send(b"%d" % number)
    async with serving(way) as start:
        other = Batches()
        protocol = Recorder(received=switch)
        transport = await start(sock, protocol)
        await protocol.until("received", 2)
        await turns(3)
        sender.send(b"4")
        await other.until("batch")
        assert transport.get_protocol() is other
    got = protocol.received + other.received + [data for one in other.batches for data in one]
    assert got == [b"%d" % number for number in range(5)]


async def test_a_mock_has_no_methods_that_it_was_not_given(way: str, inet: Family) -> None:
    sock, sender = inet.pair()
    sender.send(b"x")
    async with serving(way) as start:
        protocol = mock.Mock(spec_set=Recorder)
        seen = asyncio.Event()
        protocol.datagram_received.side_effect = lambda *_: seen.set()
        await start(sock, protocol)
        await asyncio.wait_for(seen.wait(), 10)
    protocol.datagram_received.assert_called_once_with(b"x", sender.getsockname())


# Sending


async def test_in_order_among_single_ones(way: str, family: Family) -> None:
    sock, one, other = family.open(), family.open(), family.open()
    async with serving(way) as start:
        transport = await start(sock, Recorder())
        transport.sendto(b"0", one.getsockname())
        transport.sendto_many([])
        transport.sendto_many((data, one.getsockname()) for data in (b"1", bytearray(b"2")))
        transport.sendto_many(
            [(memoryview(b"a"), other.getsockname()), (b"b", other.getsockname())]
        )
        transport.sendto(b"3", one.getsockname())
        size = sum(len(data) + 8 for data in (b"0", b"1", b"2", b"a", b"b", b"3"))
        assert transport.get_write_buffer_size() == size
        await turns(2)
        assert transport.get_write_buffer_size() == 0
    assert (read_all(one), read_all(other)) == ([b"0", b"1", b"2", b"3"], [b"a", b"b"])


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (b"ab", TypeError, "datagram 1: data is a int"),  # two bytes are a pair
        (b"abc", TypeError, r"datagram 1 is b'abc'; give \(data, addr\)"),
        (7, TypeError, r"datagram 1 is 7; give \(data, addr\)"),
        (("text", None), TypeError, "datagram 1: data is a str, not bytes"),
        ((b"x", ("127.0.0.1", 9)), ValueError, "datagram 1: addr is .* connected to"),
    ],
)
async def test_what_is_wrong_keeps_all_from_being_sent(
    way: str, inet: Family, wrong: Any, error: type[Exception], message: str
) -> None:
    if way == "endpoint" and error is ValueError:
        pytest.skip("asyncio ignores addresses where it was given a connected socket")
    peer, sock = inet.pair()
    async with serving(way) as start:
        transport = await start(sock, Recorder())
        with pytest.raises(error, match=message):
            transport.sendto_many([(b"x", None), wrong, (b"y", None)])
        assert transport.get_write_buffer_size() == 0
        transport.sendto_many([(b"0", None), (b"1", peer.getsockname())])
        await turns(2)
    assert read_all(peer) == [b"0", b"1"]


async def test_late_ones_are_ignored(
    way: str, inet: Family, caplog: pytest.LogCaptureFixture
) -> None:
    peer, sock = inet.pair()
    async with serving(way) as start:
        transport = await start(sock, Recorder())
        transport.close()
        transport.sendto_many([(b"late", None)] * 5)
        assert not caplog.records
        transport.sendto_many([(b"late", None)])
        await turns(2)
    assert [record.name for record in caplog.records] == ["asyncio"]
    assert read_all(peer) == []


@pytest.fixture
def narrow() -> Iterator[tuple[socket.socket, socket.socket]]:
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no unix sockets on this platform")
    with contextlib.ExitStack() as stack:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for sock in pair:
            stack.enter_context(sock)
            sock.setblocking(False)
        yield pair


async def test_above_the_mark(way: str, narrow: tuple[socket.socket, socket.socket]) -> None:
    sock, peer = narrow
    sent = [b"%d" % number for number in range(2000)]
    async with serving(way) as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        transport.set_write_buffer_limits(1000)
        transport.sendto_many((data, None) for data in sent)
        assert protocol.names == ["made", "pause"]
        got: list[bytes] = []
        for _ in range(10_000):
            got += read_all(peer)
            if len(got) == len(sent):
                break
            await asyncio.sleep(0)
        await protocol.until("resume")
    assert got == sent
