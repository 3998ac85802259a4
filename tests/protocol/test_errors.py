"""What the error queue holds: each error reaches the protocol once, and nothing spins."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from anyio_mmsg import SendEngine
from anyio_mmsg._receive.outlook import outlook_for
from anyio_mmsg._system.icmp import IcmpError

from ..errors.conftest import Version, provoke
from ..helpers import have_ipv6
from .hand_loop import Loop, served_by
from .helpers import Recorder, serving, turns
from .test_watching import SO_TIMESTAMPING, TX_TIMESTAMPS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has an error queue")


@pytest.fixture(params=["inet", "inet6", "dual"])
def version(request: pytest.FixtureRequest) -> Iterator[Version]:
    if request.param != "inet" and not have_ipv6():
        pytest.skip("::1 can't be bound here")
    with ExitStack() as stack:
        yield Version(request.param, stack)


class Listener(Recorder):
    """Keeps the errors themselves too."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Any] = []

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        super().error_received(exc)


@pytest.mark.anyio
async def test_each_error_is_reported_once(version: Version, sending: SendEngine) -> None:
    """What is queued before the start, and what comes of datagrams that the transport sends."""
    sock, nowhere = version.open(), version.unheard()
    provoke(sock, nowhere, b"0", b"1", b"2")
    async with serving("ours", send_engine=sending) as start:
        protocol = Listener()
        transport = await start(sock, protocol)
        await protocol.until("error", 3)
        transport.sendto(b"3", nowhere)
        await protocol.until("error", 4)
        await turns(5)
        for data in (b"4", b"5"):  # one alone goes another way
            transport.sendto(data, nowhere)
            await turns(1)
        transport.sendto(b"to itself", sock.getsockname()[:2])
        await protocol.until("received")
        await protocol.until("error", 6)
        await turns(5)
    assert [error.data for error in protocol.errors] == [b"%d" % n for n in range(6)]
    for error in protocol.errors:
        assert isinstance(error, IcmpError)
        assert isinstance(error, ConnectionRefusedError)
        assert error.destination[:2] == nowhere
    assert protocol.received == [b"to itself"]


@pytest.mark.anyio
async def test_without_the_option_an_error_is_plain(version: Version) -> None:
    """A connected socket hears of refusals without a queue."""
    sock, nowhere = version.open(errors=False), version.unheard()
    sock.connect(nowhere)
    async with serving("ours") as start:
        protocol = Listener()
        transport = await start(sock, protocol)
        transport.sendto(b"x")
        await protocol.until("error")
    (error,) = protocol.errors
    assert type(error) is ConnectionRefusedError


def test_what_nobody_reads_does_not_spin(version: Version) -> None:
    """The queue is the program's, which reads it late: the loop is left alone meanwhile."""
    sock = version.open(errors=False)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_TIMESTAMPS)
    loop, protocol = Loop(), Recorder()
    transport = served_by(loop, sock, "auto", "auto", protocol)
    with version.open(errors=False) as peer:
        transport.sendto(b"x", peer.getsockname()[:2])
        for _ in range(50):
            loop.turn()
        assert outlook_for(sock).receive_calls <= 5
        (delay, go_on), *_ = loop.later
        assert 0 < delay <= 0.02
        peer.sendto(b"late, but there", sock.getsockname()[:2])
        loop.later.clear()
        go_on()
        loop.turn()
        assert protocol.received == [b"late, but there"]
        for _ in range(50):
            loop.turn()
        assert outlook_for(sock).receive_calls <= 10
        sock.recvmsg(100, 500, socket.MSG_ERRQUEUE)
        loop.later.pop()[1]()
        for _ in range(50):
            loop.turn()
        assert outlook_for(sock).receive_calls <= 10  # it waits, and is not called
        peer.sendto(b"at once", sock.getsockname()[:2])
        loop.turn()
        assert protocol.received == [b"late, but there", b"at once"]
    transport.abort()
    for _ in range(3):
        loop.turn()
    assert protocol.names[-1] == "lost"
    assert sock.fileno() == -1


@pytest.mark.parametrize("how", ["close", "abort", "pause"])
def test_an_end_while_it_rests(version: Version, how: str) -> None:
    sock = version.open(errors=False)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_TIMESTAMPS)
    loop, protocol = Loop(), Recorder()
    transport = served_by(loop, sock, "auto", "auto", protocol)
    transport.sendto(b"x", sock.getsockname()[:2])
    for _ in range(20):
        loop.turn()
    assert loop.later
    if how == "pause":
        transport.pause_reading()
        transport.resume_reading()
        loop.later.pop()[1]()
        transport.close()
    else:
        getattr(transport, how)()
    for _ in range(3):
        loop.turn()
    for _, go_on in loop.later:
        go_on()
    assert protocol.names == ["made", "received", "lost"]
    assert not loop.readers
    assert not loop.writers


@pytest.mark.anyio
async def test_a_queue_of_the_programs_on_a_loop(version: Version) -> None:
    """It is read by the program, some time later; datagrams come all the while."""
    sock = version.open(errors=False)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_TIMESTAMPS)
    async with serving("ours") as start:
        protocol = Recorder()
        transport = await start(sock, protocol)
        for number in range(20):
            transport.sendto(b"%d" % number, sock.getsockname()[:2])
            await protocol.until("received", number + 1)
            if number == 10:
                for _ in range(11):
                    sock.recvmsg(100, 500, socket.MSG_ERRQUEUE)
    assert protocol.received == [b"%d" % number for number in range(20)]
    assert "error" not in protocol.names


@pytest.mark.anyio
async def test_too_long_for_the_system(version: Version) -> None:
    """An error of the send itself; over IPv6 the kernel queues it too, with what would pass."""
    sock, nowhere = version.open(), version.unheard()
    async with serving("ours") as start:
        protocol = Listener()
        transport = await start(sock, protocol)
        transport.sendto(b"x" * 70_000, nowhere)
        await protocol.until("error")
        await turns(5)
    assert {error.errno for error in protocol.errors} == {errno.EMSGSIZE}
    queued = [error.local for error in protocol.errors if isinstance(error, IcmpError)]
    assert queued == ([True] if version.name == "inet6" else [])
    assert len(protocol.errors) == len(queued) + 1


@pytest.mark.anyio
async def test_a_connected_socket_with_the_option(version: Version, sending: SendEngine) -> None:
    """The kernel leaves the error with the socket too, for the next call of any kind: once."""
    sock, nowhere = version.open(), version.unheard()
    sock.connect(nowhere)
    async with serving("ours", send_engine=sending) as start:
        protocol = Listener()
        transport = await start(sock, protocol)
        for number in range(6):
            transport.sendto(b"%d" % number)
            await turns(number % 3)
        await protocol.until("error", 6)
        await turns(5)
    assert sorted(error.data for error in protocol.errors) == [b"%d" % n for n in range(6)]
    assert all(isinstance(error, IcmpError) for error in protocol.errors)
