"""`ScriptedTransport`: a protocol without a socket is called as one with a socket is."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from anyio_mmsg import PacketBatch
from anyio_mmsg._compat import ExceptionGroup
from anyio_mmsg.testing import Datagram, ScriptedTransport, Step, make_batch

from ..helpers import Family, without_trio
from ..protocol.helpers import Recorder, serving, turns

REFUSED = OSError(errno.EINVAL, "the port is 0")


class Batches(Recorder):
    def datagrams_received(self, datagrams: list[tuple[bytes, Any]]) -> None:
        self._note("batch", datagrams)


def echoing(kind: type[Recorder] = Recorder, **then: Any) -> Recorder:
    protocol = kind(**then)
    protocol.then["received"] = lambda *got: protocol.transport.sendto(*got)
    protocol.then["batch"] = lambda datagrams: protocol.transport.sendto_many(datagrams)
    return protocol


# As by a socket


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kind", [Recorder, Batches])
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_the_calls_are_the_same(inet: Family, kind: type[Recorder], how: str) -> None:
    """Datagrams, answers, what the system refuses, an error of the network, and the end."""
    sock, sender = inet.pair()
    address = sender.getsockname()
    with inet.open() as gone:
        nobody = gone.getsockname()
    for data in (b"0", b"", b"2"):
        sender.send(data)
    async with serving("ours") as start:
        real = echoing(kind)
        transport = await start(sock, real)
        await real.until("batch" if kind is Batches else "received")
        transport.sendto(b"x", (nobody[0], 0))
        transport.sendto(b"y", address)
        await real.until("error")
        await turns(2)
        getattr(transport, how)()
        await real.until("lost")
    sent: list[tuple[bytes, Any]] = []
    while len(sent) < 4:
        sent.append((sender.recv(100), address))

    protocol = echoing(kind)
    scripted = ScriptedTransport(protocol, sockname=transport.get_extra_info("sockname"))
    scripted.receive([(data, address) for data in (b"0", b"", b"2")])
    scripted.refuse(REFUSED)
    scripted.sendto(b"x", (nobody[0], 0))
    scripted.sendto(b"y", address)
    await turns(1)
    getattr(scripted, how)()
    await turns(1)
    assert protocol.calls == real.calls
    assert scripted.sent == sent
    for name in ("sockname", "peername"):
        assert scripted.get_extra_info(name) == transport.get_extra_info(name)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_flow_control_is_the_same() -> None:
    def fill(transport: Any, protocol: Recorder) -> None:
        while "pause" not in protocol.names:
            transport.sendto(b"1234567")

    sock, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    peer.setblocking(False)
    with peer:
        async with serving("ours") as start:
            real = Recorder()
            transport = await start(sock, real)
            transport.set_write_buffer_limits(100, 50)
            fill(transport, real)
            size = transport.get_write_buffer_size()
            while "resume" not in real.names:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        peer.recv(100)
                await asyncio.sleep(0)

    protocol = Recorder()
    scripted = ScriptedTransport(protocol)
    scripted.set_write_buffer_limits(100, 50)
    scripted.block()
    fill(scripted, protocol)
    assert scripted.get_write_buffer_size() == size == 105
    assert scripted.sent == []
    scripted.unblock(3)
    assert protocol.names == ["made", "pause"]
    assert len(scripted.sent) == 3
    scripted.unblock(1)
    assert protocol.names == ["made", "pause", "resume"] == real.names[:3]
    scripted.unblock()
    assert len(scripted.sent) == 7
    assert scripted.get_write_buffer_size() == 0


# Without a loop


def test_no_loop_is_needed() -> None:
    protocol = echoing()
    transport = ScriptedTransport(protocol)
    assert protocol.calls == [("made",)]
    transport.receive([b"one", bytearray(b"two"), (b"three", ("198.51.100.7", 53))])
    assert transport.sent == [
        (b"one", ("192.0.2.1", 50000)),
        (b"two", ("192.0.2.1", 50000)),
        (b"three", ("198.51.100.7", 53)),
    ]
    transport.sent.clear()
    protocol.transport.sendto(b"by itself", ("192.0.2.9", 9))
    transport.sendto_many([(b"a", ("192.0.2.9", 9)), (b"b", ("192.0.2.9", 9))])
    assert [data for data, _ in transport.sent] == [b"by itself", b"a", b"b"]
    assert not transport.closed
    assert repr(transport) == "<ScriptedTransport open, sent 3, 0 to send>"
    protocol.transport.close()
    assert transport.closed
    assert protocol.calls[-1] == ("lost", None)
    transport.receive([b"late"])
    assert protocol.calls[-1] == ("lost", None)
    assert isinstance(transport, asyncio.Transport)
    assert isinstance(transport, asyncio.DatagramTransport)


def test_whatever_make_batch_takes() -> None:
    with make_batch([b"x"]) as batch:
        protocol = Recorder()
        transport = ScriptedTransport(protocol)
        transport.receive(batch)
        transport.receive([Datagram(b"abcde", ("::1", 9), segment_size=2), batch[0]])
        transport.receive([])
    assert protocol.received == [b"x", b"ab", b"cd", b"e", b"x"]
    assert protocol.calls[2][2] == ("::1", 9, 0, 0)


@pytest.mark.parametrize("name", ["close", "abort"])
def test_an_end_in_the_middle(name: str) -> None:
    """It comes after the call in which it was asked for, as with sockets."""
    protocol = Recorder(received=lambda *_: getattr(protocol.transport, name)())
    transport = ScriptedTransport(protocol)
    transport.receive([b"0", b"1"])
    assert protocol.names == ["made", "received", "lost"]
    assert transport.closed


def test_reading_is_paused() -> None:
    protocol = Recorder(received=lambda *_: protocol.transport.pause_reading())
    transport = ScriptedTransport(protocol)
    transport.receive([b"0", b"1"])
    transport.receive([b"2"])
    transport.receive_error(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    assert protocol.received == [b"0"]
    transport.resume_reading()
    assert protocol.received == [b"0", b"1"]
    transport.resume_reading()
    transport.resume_reading()
    assert protocol.names == ["made", *["received"] * 3, "error"] or not transport.is_reading()
    transport.resume_reading()
    assert protocol.received == [b"0", b"1", b"2"]
    assert protocol.names[-1] == "error"


def test_a_connected_one() -> None:
    peer = ("198.51.100.1", 53)
    protocol = echoing()
    transport = ScriptedTransport(protocol, peername=peer, extra={"weather": "fine"})
    transport.receive([b"a", (b"b", peer)])
    transport.sendto(b"c")
    assert transport.sent == [(b"a", peer), (b"b", peer), (b"c", peer)]
    with pytest.raises(ValueError, match="connected to"):
        transport.sendto(b"x", ("192.0.2.9", 9))
    assert transport.get_extra_info("weather") == "fine"
    assert transport.get_extra_info("socket", "none") is None


def test_errors() -> None:
    protocol = Recorder()
    transport = ScriptedTransport(protocol)
    transport.receive_error(ConnectionRefusedError)
    transport.receive_error(OSError(errno.EHOSTUNREACH, "no way"))
    transport.refuse(REFUSED, OSError(errno.EMSGSIZE, "too long"))
    for number in range(3):
        transport.sendto(b"%d" % number, ("192.0.2.9", 9))
    assert [call[1:] for call in protocol.calls[1:]] == [
        (ConnectionRefusedError, None),
        (OSError, errno.EHOSTUNREACH),
        (OSError, errno.EINVAL),
        (OSError, errno.EMSGSIZE),
    ]
    assert transport.sent == [(b"2", ("192.0.2.9", 9))]
    lost = RuntimeError("no socket any more")
    transport.lose(lost)
    assert protocol.calls[-1] == ("lost", lost)
    assert transport.closed


def test_closing_waits_for_room() -> None:
    protocol = Recorder()
    transport = ScriptedTransport(protocol)
    transport.block()
    transport.sendto(b"x", ("192.0.2.9", 9))
    transport.close()
    assert transport.is_closing()
    assert not transport.closed
    transport.unblock()
    assert transport.sent == [(b"x", ("192.0.2.9", 9))]
    assert protocol.names == ["made", "lost"]


def test_abort_drops_what_waits() -> None:
    protocol = Recorder()
    transport = ScriptedTransport(protocol)
    transport.set_write_buffer_limits(0)
    transport.block()
    transport.sendto(b"x", ("192.0.2.9", 9))
    assert protocol.names == ["made", "pause"]
    transport.abort()
    assert transport.sent == []
    assert protocol.names[-1] == "lost"


# What a protocol raises


class Fault(Exception):  # noqa: N818
    pass


def failing(*names: str) -> Recorder:
    def fail(*_: object) -> None:
        raise Fault

    return Recorder(**dict.fromkeys(names, fail))


def test_it_is_raised_when_all_is_done() -> None:
    transport = ScriptedTransport(failing("received", "error", "lost", "pause"))
    with pytest.raises(Fault):
        transport.receive([b"x"])
    with pytest.raises(Fault):
        transport.receive_error(ConnectionRefusedError)
    with pytest.raises(Fault):
        transport.close()
    assert transport.closed
    with pytest.raises(Fault):
        ScriptedTransport(failing("made"))


def test_more_than_one() -> None:
    protocol = failing("received")
    transport = ScriptedTransport(protocol)
    with pytest.raises(ExceptionGroup, match="raised more than once") as caught:
        transport.receive([b"0", b"1"])
    assert [type(error) for error in caught.value.exceptions] == [Fault, Fault]
    assert protocol.received == [b"0", b"1"]
    transport.receive([])  # and is then over


def test_interrupts_go_through() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    transport = ScriptedTransport(Recorder(received=interrupt))
    with pytest.raises(KeyboardInterrupt):
        transport.receive([b"x"])


# Scripts


@pytest.mark.anyio
async def test_a_script() -> None:
    """On each loop: a protocol that needs none runs on Trio too."""
    protocol, ready, called = echoing(), anyio.Event(), []
    transport = ScriptedTransport(protocol)

    async def later() -> None:
        await anyio.lowlevel.checkpoint()
        called.append("async")

    script: list[Step] = [
        [b"0", b"1"],
        ConnectionRefusedError,
        OSError(errno.EHOSTUNREACH, "no way"),
        lambda: called.append("sync"),
        later,
        ready,
        [b"2"],
    ]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transport.play, script)
        await anyio.wait_all_tasks_blocked()
        assert protocol.names == ["made", "received", "received", "error", "error"]
        assert called == ["sync", "async"]
        ready.set()
    assert [data for data, _ in transport.sent] == [b"0", b"1", b"2"]
    assert not transport.closed
    await transport.play([RuntimeError("over")])
    await anyio.lowlevel.checkpoint()
    assert type(protocol.calls[-1][1]) is RuntimeError
    assert transport.closed


@pytest.mark.anyio
async def test_what_a_script_raises() -> None:
    transport = ScriptedTransport(failing("received"))
    with pytest.raises(Fault):
        await transport.play([[b"x"], [b"y"]])
    with pytest.raises(KeyboardInterrupt):
        await transport.play([KeyboardInterrupt])
    with pytest.raises(TypeError, match="step 1"):
        await transport.play([[b"x"], 7])  # type: ignore[list-item]
    await transport.play([])


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_protocol_that_needs_its_loop() -> None:
    """A timer sends and closes: that takes effect in a later turn."""

    class Beacon(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            asyncio.get_running_loop().call_soon(self.ring)

        def ring(self) -> None:
            self.transport.sendto(b"here", ("192.0.2.255", 9))
            assert transport.sent == []
            self.transport.close()
            assert "lost" not in self.names

    protocol = Beacon()
    transport = ScriptedTransport(protocol)
    await protocol.until("lost")
    assert transport.sent == [(b"here", ("192.0.2.255", 9))]
    assert transport.closed


# What is refused


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.receive(b"one"), TypeError, "give a list of packets"),
        (lambda t: t.receive([b"x", 7]), TypeError, "packet 1"),
        (lambda t: t.receive([(b"x", ("no address", 9))]), ValueError, "packet 0"),
        (lambda t: t.receive_error(ValueError()), TypeError, "give an OSError"),
        (lambda t: t.receive_error("refused"), TypeError, "give an OSError"),
        (lambda t: t.unblock(0), ValueError, "count is 0"),
        (lambda t: t.unblock("all"), TypeError, "count"),
        (lambda t: t.sendto("text", None), TypeError, "not bytes"),
    ],
)
def test_refused(
    call: Callable[[ScriptedTransport], None], error: type[Exception], message: str
) -> None:
    transport = ScriptedTransport(Recorder())
    with pytest.raises(error, match=message):
        call(transport)


@pytest.mark.parametrize("protocol", [Recorder, asyncio.Protocol(), 7])
def test_no_protocol(protocol: Any) -> None:
    with pytest.raises(TypeError, match="not what makes one"):
        ScriptedTransport(protocol)


@without_trio
def test_a_batch_on_trio() -> None:
    async def main() -> PacketBatch:
        transport = ScriptedTransport(protocol := echoing(Batches))
        await transport.play([[b"0", b"1"]])
        assert protocol.names == ["made", "batch"]
        return make_batch([data for data, _ in transport.sent])

    with anyio.run(main, backend="trio") as batch:
        assert batch.sizes() == [1, 1]
