"""The same protocol and the same events give the same calls as by the event loop's transport."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import anyio
import pytest

from ..helpers import Family, nowhere
from .helpers import Recorder, serving, turns

pytestmark = pytest.mark.anyio
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux reports it at once")


async def test_receives(way: str, family: Family) -> None:
    sock, sender = family.pair()
    sent = [b"first", b"", b"x" * 60_000, b"last"]
    async with serving(way) as start:
        protocol = Recorder()
        await start(sock, protocol)
        for data in sent:
            sender.send(data)
        await protocol.until("received", len(sent))
    address = sender.getsockname()
    assert protocol.calls[0] == ("made",)
    assert protocol.calls[1:5] == [("received", data, address) for data in sent]
    assert {type(call[2]) for call in protocol.calls[1:5]} == {type(address)}


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
async def test_a_sender_without_a_name(way: str) -> None:
    sock, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender:
        sock.setblocking(False)
        async with serving(way) as start:
            protocol = Recorder()
            await start(sock, protocol)
            sender.send(b"x")
            await protocol.until("received")
    assert protocol.calls[1] == ("received", b"x", None)


async def test_replies(way: str, family: Family) -> None:
    sock, client = family.pair()
    async with serving(way) as start:
        protocol = Recorder(
            received=lambda data, address: protocol.transport.sendto(data + b"!", address)
        )
        transport = await start(sock, protocol)
        assert transport is protocol.transport
        for number in range(8):  # a unix socket may queue 10
            client.send(b"%d" % number)
        got: list[bytes] = []
        with anyio.fail_after(60):
            while len(got) < 8:
                try:
                    got.append(client.recv(100))
                except BlockingIOError:
                    await asyncio.sleep(0)
    assert got == [b"%d!" % number for number in range(8)]


async def test_a_connected_socket(way: str, family: Family) -> None:
    peer, sock = family.pair()
    data = bytearray(b"changed later")
    async with serving(way) as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        transport.sendto(data)
        await turns(2)
        data[:] = b"x" * len(data)
        transport.sendto(memoryview(b"a view")[2:])
        await turns(2)
        peer.sendto(b"answer", sock.getsockname())
        await protocol.until("received")
    assert (peer.recv(100), peer.recv(100)) == (b"changed later", b"view")
    assert protocol.calls[1] == ("received", b"answer", peer.getsockname())


@on_linux
@pytest.mark.parametrize("kind", ["inet", "inet6"])
async def test_a_port_that_nobody_has(way: str, kind: str) -> None:
    with Family(kind, None) as family:
        peer, sock = family.pair()
        address = peer.getsockname()
        peer.close()
        async with serving(way) as start:
            protocol = Recorder()
            transport = await start(sock, protocol)
            transport.sendto(b"nobody reads this")
            await protocol.until("error")
            # It passes: serving goes on.
            with socket.socket(sock.family, socket.SOCK_DGRAM) as peer:
                peer.bind(address[:2])
                peer.setblocking(False)
                transport.sendto(b"and now")
                await turns(2)
                assert peer.recv(100) == b"and now"
                peer.sendto(b"an answer", sock.getsockname())
                await protocol.until("received")
    assert protocol.calls[1][:2] == ("error", ConnectionRefusedError)


@on_linux
async def test_what_the_system_refuses_to_send(way: str, family: Family) -> None:
    sock, other = family.open(), family.open()
    address, error = nowhere(family)
    async with serving(way) as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        transport.sendto(b"x", address)
        transport.sendto(b"y", other.getsockname())
        await protocol.until("error")
        await turns(2)
        assert other.recv(100) == b"y"
        if family.name == "inet":
            transport.sendto(b"x" * 65_508, other.getsockname())
            await protocol.until("error", 2)
            assert not transport.is_closing()
    assert protocol.calls[1][2] == error


async def test_wrong_data(way: str, inet: Family) -> None:
    sock, other = inet.open(), inet.open()
    async with serving(way) as start:
        transport = await start(sock, Recorder())
        with pytest.raises((TypeError, AttributeError, ValueError)):
            transport.sendto("text", other.getsockname())


async def test_close(way: str, family: Family) -> None:
    sock, sender = family.pair()
    async with serving(way) as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        assert not transport.is_closing()
        transport.sendto(b"sent before the end", sender.getsockname())
        transport.close()
        assert transport.is_closing()
        assert protocol.names == ["made"]
        sender.send(b"too late")
        await protocol.until("lost")
        await turns(2)  # uvloop closes the socket in its own time
        assert sock.fileno() == -1
        transport.close()
        transport.abort()
        await turns(3)
    assert protocol.calls == [("made",), ("lost", None)]
    assert sender.recv(100) == b"sent before the end"


async def test_abort(way: str, inet: Family) -> None:
    sock, peer = inet.pair()
    async with serving(way) as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        transport.sendto(b"sent before the end", peer.getsockname())
        transport.abort()
        assert transport.is_closing()
        assert protocol.names == ["made"]
        await protocol.until("lost")
    assert protocol.calls == [("made",), ("lost", None)]
    assert peer.recv(100) == b"sent before the end"


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_nothing_is_received_after_the_end(way: str, how: str, inet: Family) -> None:
    sock, sender = inet.pair()
    for number in range(3):
        sender.send(b"%d" % number)
    async with serving(way) as start:
        protocol = Recorder(received=lambda *_: getattr(protocol.transport, how)())
        await start(sock, protocol)
        await protocol.until("lost")
        await turns(2)
    assert protocol.names == ["made", "received", "lost"]
    assert protocol.received == [b"0"]


async def test_what_a_transport_says_of_itself(way: str, family: Family, on_uvloop: bool) -> None:
    peer, sock = family.pair()
    async with serving(way) as start:
        protocol = Recorder()
        transport: Any = await start(sock, protocol)
        # Python 3.11's own is no DatagramTransport, and uvloop's is neither.
        kind = type(transport)
        assert issubclass(kind, asyncio.DatagramTransport) or way == "loop"
        assert issubclass(kind, asyncio.Transport) or (way, on_uvloop) == ("loop", True)
        info = transport.get_extra_info
        assert info("sockname") == sock.getsockname()
        assert info("peername") == peer.getsockname()
        assert info("socket").fileno() == sock.fileno()
        assert info("socket").getsockname() == sock.getsockname()
        assert info("weather", "fine") == "fine"
        assert transport.get_write_buffer_size() == 0
        other = Recorder()
        assert transport.get_protocol() is protocol
        transport.set_protocol(other)
        assert transport.get_protocol() is other
        peer.sendto(b"x", sock.getsockname())
        await other.until("received")
    assert protocol.names == ["made"]
    assert other.names == ["received", "lost"]


@pytest.mark.usefixtures("not_uvloops")
async def test_what_only_streams_have(way: str, inet: Family) -> None:
    async with serving(way) as start:
        transport: Any = await start(inet.open(), Recorder())
        with pytest.raises(NotImplementedError):
            transport.write(b"x")
        with pytest.raises(NotImplementedError):
            transport.can_write_eof()


@pytest.fixture
def pauses(way: str) -> None:
    if way == "loop" and sys.version_info < (3, 11):
        pytest.skip("asyncio's own datagram transport pauses reading from Python 3.11 on")


@pytest.mark.usefixtures("not_uvloops", "pauses")
async def test_reading_is_paused(way: str, inet: Family) -> None:
    """Also in the middle of what has arrived; the rest waits, in order."""
    sock, sender = inet.pair()

    def pause_at_two(data: bytes, address: Any) -> None:
        if data == b"2":
            protocol.transport.pause_reading()

    for number in range(5):
        sender.send(b"%d" % number)
    async with serving(way) as start:
        protocol = Recorder(received=pause_at_two)
        transport: Any = await start(sock, protocol)
        await protocol.until("received", 3)
        sender.send(b"5")
        await turns(3)
        assert protocol.received == [b"0", b"1", b"2"]
        assert not transport.is_reading()
        transport.pause_reading()
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        await protocol.until("received", 6)
        transport.pause_reading()
        sender.send(b"6")
        transport.close()
        assert not transport.is_reading()
        transport.resume_reading()
        await protocol.until("lost")
    assert protocol.received == [b"%d" % number for number in range(6)]


@pytest.mark.usefixtures("not_uvloops", "pauses")
async def test_resumed_at_once(way: str, inet: Family) -> None:
    sock, sender = inet.pair()

    def blink(*_: object) -> None:
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()

    for number in range(5):
        sender.send(b"%d" % number)
    async with serving(way) as start:
        protocol = Recorder(received=blink)
        await start(sock, protocol)
        await protocol.until("received", 5)
    assert protocol.received == [b"%d" % number for number in range(5)]


async def test_a_socket_that_is_not_connected(way: str, inet: Family) -> None:
    async with serving(way) as start:
        transport = await start(inet.open(), Recorder())
        assert transport.get_extra_info("peername") is None


@pytest.mark.parametrize(
    ("high", "low", "limits"),
    [(None, None, (16_384, 65_536)), (100, None, (25, 100)), (None, 100, (100, 400))],
)
async def test_limits(
    way: str, inet: Family, high: int | None, low: int | None, limits: tuple[int, int]
) -> None:
    async with serving(way) as start:
        transport: Any = await start(inet.open(), Recorder())
        transport.set_write_buffer_limits(1, 1)
        transport.set_write_buffer_limits(high, low)
        assert transport.get_write_buffer_limits() == limits
        with pytest.raises(ValueError):
            transport.set_write_buffer_limits(1, 2)
        with pytest.raises(ValueError):
            transport.set_write_buffer_limits(-1)
