"""What `serve_protocol` promises beyond what the event loops' own transports do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import sys
import weakref
from functools import partial
from typing import Any, cast

import anyio
import pytest

from anyio_mmsg import (
    ReceiveEngine,
    SendEngine,
    SendResult,
    open_udp_socket,
    send_mmsg_nowait,
    serve_protocol,
)
from anyio_mmsg._protocol import outbox
from anyio_mmsg._receive.outlook import outlook_for

from ..helpers import Family, without_trio
from .helpers import Recorder, serving, turns

pytestmark = pytest.mark.anyio
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="this is of Linux")


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many datagrams went out by each send."""
    counts: list[int] = []
    real: Any = send_mmsg_nowait

    def send(sock: socket.socket, packets: Any, **options: Any) -> SendResult:
        counts.append(len(packets))
        result: SendResult = real(sock, packets, **options)
        return result

    monkeypatch.setattr(outbox, "send_mmsg_nowait", send)
    return counts


def read_all(sock: socket.socket) -> list[bytes]:
    got = []
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(sock.recv(65_536))
    return got


# Batches


@pytest.mark.parametrize("kind", ["inet", "inet6"])
async def test_one_read_and_one_send_for_a_batch(
    kind: str, engine: ReceiveEngine, sending: SendEngine, sends: list[int]
) -> None:
    with Family(kind, None) as family:
        sock, client = family.pair()
        for number in range(20):
            client.send(b"%d" % number)
        async with serving("ours", engine=engine, send_engine=sending) as start:
            protocol = Recorder(received=lambda *got: protocol.transport.sendto(*got))
            await start(sock, protocol)
            await protocol.until("received", 20)
            assert outlook_for(sock).receive_calls == 1
        assert sends == [20]
        assert read_all(client) == [b"%d" % number for number in range(20)]


async def test_what_is_sent_in_one_turn_goes_out_together(inet: Family, sends: list[int]) -> None:
    """From a task, a callback and another transport's callback, in order."""
    sock, other, peer = inet.open(), inet.open(), inet.open()
    address = peer.getsockname()
    async with serving("ours") as start:
        transport = await start(sock, Recorder())
        relay = Recorder(received=lambda data, _: transport.sendto(data, address))
        await start(other, relay)
        transport.sendto(b"0", address)
        transport.sendto(b"1", address)
        assert read_all(peer) == []
        await turns(2)
        assert read_all(peer) == [b"0", b"1"]
        for data in (b"2", b"3", b"4"):
            asyncio.get_running_loop().call_soon(transport.sendto, data, address)
        await turns(3)
        assert read_all(peer) == [b"2", b"3", b"4"]
        for data in (b"5", b"6"):
            peer.sendto(data, other.getsockname())
        await relay.until("received", 2)
        await turns(2)
        assert read_all(peer) == [b"5", b"6"]
    assert sends == [2, 3, 2]


async def test_what_connection_made_sends(inet: Family, sends: list[int]) -> None:
    peer, sock = inet.pair()

    def greet() -> None:
        for number in range(3):
            protocol.transport.sendto(b"%d" % number)

    async with serving("ours") as start:
        protocol = Recorder(made=greet)
        await start(sock, protocol)
        await turns(1)
        assert read_all(peer) == [b"0", b"1", b"2"]
    assert sends == [3]


async def test_a_limit_for_one_read(inet: Family, engine: ReceiveEngine) -> None:
    """The loop runs everything else in between."""
    sock, sender = inet.pair()
    seen: list[int] = []

    def look(*_: object) -> None:
        loop.call_soon(lambda: seen.append(len(protocol.received)))

    loop = asyncio.get_running_loop()
    for number in range(9):
        sender.send(b"%d" % number)
    async with serving("ours", limit=4, engine=engine) as start:
        protocol = Recorder(received=look)
        await start(sock, protocol)
        await protocol.until("received", 9)
        await turns(2)
    assert seen == [4] * 4 + [8] * 4 + [9]


async def test_a_flood_does_not_keep_the_loop(inet: Family) -> None:
    """Two that answer each other for ever; another task goes on."""
    one, other = inet.open(), inet.open()
    async with serving("ours") as start:
        protocols = []
        for sock in (one, other):
            protocol = Recorder()
            protocol.then["received"] = partial(
                lambda own, *got: own.transport.sendto(*got), protocol
            )
            await start(sock, protocol)
            protocols.append(protocol)
        for number in range(64):
            protocols[0].transport.sendto(b"%d" % number, other.getsockname())
        await turns(100)
    assert min(len(protocol.received) for protocol in protocols) > 64


@on_linux
async def test_trains(inet: Family) -> None:
    """Datagrams that the kernel has coalesced come one by one; runs go out in one piece."""
    sock = await open_udp_socket("127.0.0.1", gro=True)
    client = await open_udp_socket("127.0.0.1")
    sent = [bytes([65 + number]) * 100 for number in range(10)]
    async with serving("ours", gso=True) as start:
        protocol, sender = Recorder(), Recorder()
        await start(sock, protocol)
        transport = await start(client, sender)
        for data in sent:
            transport.sendto(data, sock.getsockname())
        await protocol.until("received", 10)
    assert protocol.received == sent
    assert {call[2] for call in protocol.calls[1:-1]} == {("127.0.0.1", protocol.calls[1][2][1])}


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
async def test_long_datagrams(engine: ReceiveEngine) -> None:
    sock, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    data = bytes(range(256)) * 400
    with peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(data))
        async with serving("ours", engine=engine) as start:
            protocol = Recorder()
            transport = await start(sock, protocol)
            peer.send(data)
            await protocol.until("received")
            transport.sendto(b"to a peer without a name")
            await turns(2)
            assert peer.recv(100) == b"to a peer without a name"
    assert protocol.received == [data]


# Sending what the batch calls refuse


async def test_a_host_by_its_name(inet: Family, sending: SendEngine) -> None:
    sock, peer = inet.open(), inet.open()
    host, port = peer.getsockname()
    async with serving("ours", send_engine=sending) as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        transport.sendto(b"0", (host, port))
        transport.sendto(b"1", ("localhost", port))
        transport.sendto(b"too long" * 10_000, (host, port))
        transport.sendto(b"2", (host, port))
        await protocol.until("error")
        await turns(2)  # what was too long went over the high-water mark, and out at once
        assert read_all(peer) == [b"0", b"1", b"2"]
    assert protocol.calls[1:] == [("error", OSError, errno.EMSGSIZE), ("lost", None)]


async def test_empty_datagrams(inet: Family, sending: SendEngine) -> None:
    peer, sock = inet.pair()
    async with serving("ours", send_engine=sending) as start:
        transport: Any = await start(sock, Recorder())
        transport.sendto(b"")
        transport.sendto(memoryview(b""))
        assert transport.get_write_buffer_size() == 16
        await turns(2)
        transport.sendto(b"")  # alone
        await turns(2)
        assert read_all(peer) == [b"", b"", b""]


async def test_a_connected_socket_has_one_peer(inet: Family) -> None:
    peer, sock = inet.pair()
    async with serving("ours") as start:
        transport = await start(sock, Recorder())
        transport.sendto(b"0", peer.getsockname())
        with pytest.raises(ValueError, match=r"addr is \('127.0.0.1', 9\); .* connected to"):
            transport.sendto(b"1", ("127.0.0.1", 9))
        await turns(2)
        assert read_all(peer) == [b"0"]


@on_linux
async def test_nowhere_to_go(inet: Family) -> None:
    async with serving("ours") as start:
        protocol = Recorder()
        transport = await start(inet.open(), protocol)
        transport.sendto(b"no address")
        transport.sendto(b"no address")
        await protocol.until("error", 2)
        transport.sendto(b"no address")
        await protocol.until("error", 3)
    assert {call[2] for call in protocol.calls[1:4]} == {errno.EDESTADDRREQ}


@pytest.mark.parametrize("data", ["text", 7, None, [b"x"]])
async def test_wrong_data(inet: Family, data: Any) -> None:
    async with serving("ours") as start:
        transport = await start(inet.open(), Recorder())
        with pytest.raises(TypeError, match=f"data is a {type(data).__name__}, not bytes"):
            transport.sendto(data, ("127.0.0.1", 9))


async def test_late_datagrams_are_ignored(inet: Family, caplog: pytest.LogCaptureFixture) -> None:
    peer, sock = inet.pair()
    async with serving("ours") as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        transport.close()
        transport.sendto(b"late")
        await protocol.until("lost")
        for _ in range(4):
            transport.sendto(b"late")
        assert not caplog.records
        transport.sendto(b"late")
        await turns(2)
    assert [record.name for record in caplog.records] == ["asyncio"]
    assert read_all(peer) == []


# The end


async def test_it_returns_when_the_transport_is_closed(inet: Family) -> None:
    sock, peer = inet.pair()
    protocol = Recorder()
    task = asyncio.create_task(serve_protocol(sock, protocol))
    await protocol.until("made")
    assert repr(protocol.transport).startswith("<BatchTransport open fd=")
    protocol.transport.sendto(b"x", peer.getsockname())
    protocol.transport.close()
    assert "closing" in repr(protocol.transport)
    with anyio.fail_after(60):
        assert await task is None  # type: ignore[func-returns-value]
    assert "closed" in repr(protocol.transport)
    assert peer.recv(10) == b"x"
    assert protocol.names == ["made", "lost"]
    gone = weakref.ref(protocol.transport)
    del protocol, task
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_an_end_before_the_start_is_over(inet: Family, how: str) -> None:
    sock, _ = inet.pair()
    protocol = Recorder(made=lambda: getattr(protocol.transport, how)())
    with anyio.fail_after(60):
        await serve_protocol(sock, protocol)
    assert protocol.names == ["made", "lost"]
    assert sock.fileno() == -1


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("step", range(8))
async def test_a_cancellation_loses_nothing_that_was_read(
    inet: Family, step: int, native: bool
) -> None:
    """At each turn of the loop: what the protocol did not get is still in the kernel."""
    sock, sender = inet.pair()
    with sock.dup() as same:
        protocol = Recorder(received=lambda data, _: protocol.transport.sendto(data, back))
        back = sender.getsockname()
        task = asyncio.create_task(serve_protocol(sock, protocol, limit=2))
        async with anyio.create_task_group() as tasks:
            for number in range(step):
                sender.send(b"%d" % number)
                sender.send(b"%d" % number)
                await turns(1)
            if native:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                tasks.start_soon(waited, task)
                await turns(1)
                tasks.cancel_scope.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        same.setblocking(False)
        rest = read_all(same)
    sent = [b"%d" % number for number in range(step) for _ in "ab"]
    assert protocol.received + rest == sent
    assert read_all(sender) == protocol.received  # and what it has sent went out
    if protocol.calls:  # the task was begun
        assert protocol.calls[-1] == ("lost", None)
        assert sock.fileno() == -1


async def waited(task: asyncio.Task[None]) -> None:
    await task


async def test_a_cancelled_start(inet: Family) -> None:
    sock, _ = inet.pair()
    protocol = Recorder()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await serve_protocol(sock, protocol)
    assert scope.cancelled_caught
    assert protocol.names == ["made", "lost"]
    assert sock.fileno() == -1


async def test_a_wrong_address_ends_it(inet: Family, sending: SendEngine) -> None:
    """As it ends asyncio's own transport; here the nursery gets the error too."""
    sock, peer = inet.open(), inet.open()
    protocol = Recorder()
    task = asyncio.create_task(serve_protocol(sock, protocol, send_engine=sending))
    await protocol.until("made")
    protocol.transport.sendto(b"0", peer.getsockname())
    protocol.transport.sendto(b"1", "not an address")
    protocol.transport.sendto(b"2", peer.getsockname())
    with anyio.fail_after(60), pytest.raises(TypeError) as caught:
        await task
    assert protocol.calls == [("made",), ("lost", caught.value)]
    assert read_all(peer) == [b"0"]
    assert sock.fileno() == -1


@pytest.mark.parametrize("count", [1, 2])
async def test_a_socket_that_something_else_has_closed(inet: Family, count: int) -> None:
    """The next send meets it. The port is free at once: nothing keeps the socket open."""
    sock, peer = inet.open(), inet.open()
    address = sock.getsockname()
    protocol = Recorder()
    task = asyncio.create_task(serve_protocol(sock, protocol))
    await protocol.until("made")
    sock.close()
    if sys.platform == "linux":  # elsewhere the loop has a second descriptor of it
        inet.unbound().bind(address)
    for _ in range(count):
        protocol.transport.sendto(b"x", peer.getsockname())
    with anyio.fail_after(60), pytest.raises(anyio.ClosedResourceError) as caught:
        await task
    assert protocol.calls == [("made",), ("lost", caught.value)]
    assert sock.fileno() == -1


def test_a_loop_that_ended_without_it(anyio_backend: Any, inet: Family) -> None:
    """Its socket is closed, and nothing is called."""
    sock, _ = inet.pair()
    protocols: list[Recorder] = []

    async def main() -> None:
        protocols.append(Recorder())
        coroutines.append(serve_protocol(sock, protocols[0]))
        with contextlib.suppress(StopIteration):
            coroutines[0].send(None)

    coroutines: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    coroutines[0].close()
    assert protocols[0].names == ["made"]
    assert sock.fileno() == -1


# What is refused


async def test_refused(inet: Family) -> None:
    sock = inet.open()
    protocol = Recorder()
    with pytest.raises(TypeError, match="not what makes one"):
        await serve_protocol(sock, cast(Any, Recorder))
    with pytest.raises(TypeError, match="not what makes one"):
        await serve_protocol(sock, cast(Any, lambda: protocol))
    with pytest.raises(TypeError, match="not what makes one"):
        await serve_protocol(sock, cast(Any, asyncio.Protocol()))
    with pytest.raises(TypeError, match=r"has to be a socket\.socket"):
        await serve_protocol(cast(Any, 7), protocol)
    with pytest.raises(ValueError, match="limit is 0"):
        await serve_protocol(sock, protocol, limit=0)
    with pytest.raises(ValueError, match="engine is 'fast'"):
        await serve_protocol(sock, protocol, engine="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="engine is 'fast'"):
        await serve_protocol(sock, protocol, send_engine="fast")  # type: ignore[arg-type]
    sock.setblocking(True)
    with pytest.raises(ValueError, match="blocking"):
        await serve_protocol(sock, protocol)
    sock.close()
    with pytest.raises(anyio.ClosedResourceError):
        await serve_protocol(sock, protocol)
    with socket.socket() as stream, pytest.raises(ValueError, match="not a datagram socket"):
        await serve_protocol(stream, protocol)
    assert protocol.calls == []


async def test_a_socket_that_another_transport_has(inet: Family) -> None:
    sock, protocol = inet.open(), Recorder()
    async with serving("loop") as start:
        await start(sock, Recorder())
        with pytest.raises(RuntimeError):
            await serve_protocol(sock, protocol)
    assert protocol.calls == []


async def test_one_protocol_for_a_socket(inet: Family) -> None:
    sock, sender = inet.pair()
    async with serving("ours") as start:
        protocol = Recorder()
        await start(sock, protocol)
        with pytest.raises(anyio.BusyResourceError):
            await serve_protocol(sock, Recorder())
        sender.send(b"x")
        await protocol.until("received")


async def test_a_loop_that_does_not_watch_sockets(
    inet: Family, monkeypatch: pytest.MonkeyPatch, on_uvloop: bool
) -> None:
    if on_uvloop:
        pytest.skip("uvloop's loop can't be changed, and watches sockets")

    def add_reader(*_: object) -> None:
        raise NotImplementedError  # as the proactor's loop does on Windows

    sock, protocol = inet.open(), Recorder()
    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", add_reader)
    with pytest.raises(RuntimeError, match="SelectorEventLoop"):
        await serve_protocol(sock, protocol)
    assert protocol.calls == []
    assert sock.fileno() >= 0


@without_trio
def test_trio(inet: Family) -> None:
    protocol = Recorder()
    with pytest.raises(RuntimeError, match=r"needs asyncio or uvloop.* PacketReceiver"):
        anyio.run(serve_protocol, inet.open(), protocol, backend="trio")
    assert protocol.calls == []
