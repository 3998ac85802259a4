"""`batched_loop_factory`: whatever starts a loop, and all that an endpoint may be asked for."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from anyio_mmsg import ReceiveEngine, SendEngine, batched_loop_factory
from anyio_mmsg._protocol.transport import BatchTransport

from ..helpers import Family, have_ipv6, without_trio
from .conftest import base_of
from .helpers import Recorder, turns

with_ipv6 = pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
with_unix = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform"
)


@pytest.fixture
def factory(anyio_backend: Any) -> Callable[[], asyncio.AbstractEventLoop]:
    return batched_loop_factory(base_of(anyio_backend[1]))


async def exchange() -> str:
    """Ask a server of this loop, as a library would; return the class of its transport."""
    loop = asyncio.get_running_loop()
    server = Recorder(received=lambda *got: server.transport.sendto(*got))
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", 0)
    )
    assert protocol is server
    assert server.names == ["made"]
    client = Recorder()
    other, _ = await loop.create_datagram_endpoint(
        lambda: client, remote_addr=transport.get_extra_info("sockname")
    )
    other.sendto(b"x")
    await client.until("received")
    transport.close()
    other.abort()
    await client.until("lost")
    await server.until("lost")
    return type(transport).__name__


# What starts a loop


def test_a_loop(factory: Any) -> None:
    loop = factory()
    try:
        assert loop.run_until_complete(exchange()) == "BatchTransport"
        assert type(loop).__name__.startswith("Batched")
    finally:
        loop.close()


def test_anyio_run(factory: Any) -> None:
    assert anyio.run(exchange, backend_options={"loop_factory": factory}) == "BatchTransport"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.Runner came with Python 3.11")
def test_a_runner(factory: Any) -> None:
    runner: Any = asyncio.Runner  # type: ignore[attr-defined,unused-ignore]
    with runner(loop_factory=factory) as running:
        assert running.run(exchange()) == "BatchTransport"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.run takes it from 3.12 on")
def test_asyncio_run(factory: Any) -> None:
    run: Any = asyncio.run
    assert run(exchange(), loop_factory=factory) == "BatchTransport"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="policies are deprecated from 3.14 on")
def test_a_policy(factory: Any) -> None:
    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            loop: asyncio.AbstractEventLoop = factory()
            return loop

    asyncio.set_event_loop_policy(Policy())
    try:
        assert asyncio.run(exchange()) == "BatchTransport"
    finally:
        asyncio.set_event_loop_policy(None)


def test_everything_else_is_the_loops_own(factory: Any, anyio_backend: Any) -> None:
    base, made = base_of(anyio_backend[1]), cast(type, factory)
    changed = {"create_datagram_endpoint", "_make_datagram_transport"}
    for name in dir(base):
        if not name.startswith("__") and name not in changed:
            assert inspect.getattr_static(made, name) is inspect.getattr_static(base, name), name


@pytest.mark.skipif(not find_spec("uvloop"), reason="uvloop is not installed")
def test_uvloop_is_imported_by_those_who_want_it() -> None:
    program = """if True:
        import sys, anyio_mmsg
        assert "uvloop" not in sys.modules and "asyncio.endpoint" not in sys.modules
        anyio_mmsg.batched_loop_factory()().close()
        assert "uvloop" not in sys.modules
        """
    subprocess.run([sys.executable, "-c", program], check=True)


# The arguments of `create_datagram_endpoint`


async def opened(**arguments: Any) -> Any:
    """Return the transport of an endpoint, and check that it is ours."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Recorder, **arguments)
    assert isinstance(transport, BatchTransport)
    return transport


@pytest.fixture
def run(factory: Any) -> Any:
    """Run a coroutine function on a loop of ours, and close transports that it returns."""

    async def running(main: Any) -> None:
        with anyio.fail_after(60):
            await main()
            await turns(2)

    return lambda main: anyio.run(running, main, backend_options={"loop_factory": factory})


def test_local_addresses(run: Any) -> None:
    async def main() -> None:
        for host, family in (("127.0.0.1", 0), ("localhost", socket.AF_INET), ("0.0.0.0", 0)):
            transport = await opened(local_addr=(host, 0), family=family)
            sock = transport.get_extra_info("socket")
            assert sock.family == socket.AF_INET
            assert transport.get_extra_info("sockname") == sock.getsockname()
            assert transport.get_extra_info("peername") is None
            transport.close()

    run(main)


@with_ipv6
def test_ipv6(run: Any) -> None:
    async def main() -> None:
        server = await opened(local_addr=("::1", 0))
        client = await opened(remote_addr=server.get_extra_info("sockname")[:2])
        client.sendto(b"x")
        await server.get_protocol().until("received")
        assert server.get_protocol().calls[1] == (
            "received",
            b"x",
            client.get_extra_info("sockname"),
        )
        for transport in (server, client):
            transport.close()

    run(main)


def test_a_remote_address(run: Any, inet: Family) -> None:
    peer = inet.open()
    address = peer.getsockname()

    async def main() -> None:
        for local in (None, ("127.0.0.1", 0)):
            transport = await opened(remote_addr=address, local_addr=local)
            assert transport.get_extra_info("peername") == address
            transport.sendto(b"0")
            transport.sendto(b"1", address)
            transport.sendto_many([(b"2", None), (b"3", address)])
            with pytest.raises(ValueError, match="connected to"):
                transport.sendto(b"x", ("127.0.0.1", 9))
            with pytest.raises(ValueError, match=r"datagram 1: addr is .* connected to"):
                transport.sendto_many([(b"x", None), (b"x", ("127.0.0.1", 9))])
            transport.close()
            await turns(3)
            assert [peer.recv(9) for _ in range(4)] == [b"0", b"1", b"2", b"3"]

    run(main)


def test_broadcasts(run: Any, inet: Family) -> None:
    """The socket is not connected, so that answers of others come; but it has one address."""
    peer, stranger = inet.open(), inet.open()
    address = peer.getsockname()

    async def main() -> None:
        transport = await opened(
            remote_addr=address, local_addr=("127.0.0.1", 0), allow_broadcast=True
        )
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        transport.sendto(b"0")
        transport.sendto_many([(b"1", None), (b"2", address)])
        with pytest.raises(ValueError, match="connected to"):
            transport.sendto(b"x", stranger.getsockname())
        stranger.sendto(b"hello", sock.getsockname())
        await transport.get_protocol().until("received")
        assert [peer.recv(9) for _ in range(3)] == [b"0", b"1", b"2"]
        transport.close()

    run(main)


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="not on this platform")
def test_options_of_the_socket(run: Any) -> None:
    async def main() -> None:
        one = await opened(local_addr=("127.0.0.1", 0), reuse_port=True)
        other = await opened(local_addr=one.get_extra_info("sockname"), reuse_port=True)
        alone = await opened(family=socket.AF_INET, proto=socket.IPPROTO_UDP)
        option = socket.SOL_SOCKET, socket.SO_REUSEPORT
        assert other.get_extra_info("socket").getsockopt(*option)
        assert not alone.get_extra_info("socket").getsockopt(*option)
        for transport in (one, other, alone):
            transport.close()

    run(main)


@with_unix
def test_unix_sockets(run: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left_behind:
        left_behind.bind(path)

    async def main() -> None:
        server = await opened(local_addr=path, family=socket.AF_UNIX)
        client = await opened(remote_addr=path, family=socket.AF_UNIX)
        client.sendto(b"x")
        await server.get_protocol().until("received")
        for transport in (server, client):
            transport.close()
        with pytest.raises(TypeError, match="string is expected"):
            await opened(local_addr=("127.0.0.1", 0), family=socket.AF_UNIX)

    run(main)


def test_a_socket(run: Any, inet: Family) -> None:
    peer = inet.open()

    async def main() -> None:
        sock = inet.open()
        sock.setblocking(True)
        sock.connect(peer.getsockname())
        transport = await opened(sock=sock)
        assert sock.gettimeout() == 0
        transport.sendto(b"x", peer.getsockname())
        with pytest.raises(RuntimeError, match="transport"):
            await opened(sock=sock)
        transport.close()
        await turns(2)
        assert peer.recv(9) == b"x"
        assert sock.fileno() == -1

    run(main)


def test_refused(run: Any, inet: Family) -> None:
    async def main() -> None:
        given: list[tuple[dict[str, Any], Any]] = [
            ({}, ValueError),
            # By an assertion on Python 3.10, which `python -O` leaves out.
            ({"local_addr": "127.0.0.1"}, (TypeError, AssertionError, OSError, ValueError)),
            ({"local_addr": ("127.0.0.1", 0, 0)}, (TypeError, AssertionError)),
            ({"local_addr": ("127.0.0.1", 0), "remote_addr": ("::1", 9)}, ValueError),
            ({"local_addr": ("192.0.2.1", 0)}, OSError),  # of nobody (RFC 5737)
            ({"local_addr": ("127.0.0.1", 65536)}, OverflowError),
            ({"local_addr": ("127.0.0.1", -1)}, OverflowError),
            ({"remote_addr": ("127.0.0.1", 65545)}, OverflowError),
            ({"local_addr": ("127.0.0.1", 0), "sock": inet.open()}, ValueError),
            ({"reuse_port": True, "sock": inet.open()}, ValueError),
        ]
        for arguments, error in given:
            with pytest.raises(error):
                await opened(**arguments)
        with socket.socket() as stream, pytest.raises(ValueError, match="ocket was expected"):
            await opened(sock=stream)

    run(main)


def test_an_address_that_is_refused_is_named(run: Any, inet: Family) -> None:
    """As by `open_udp_socket`, of the same errno, and of the class of that."""
    taken = inet.open().getsockname()[:2]
    nobody = ("192.0.2.1", 0)  # RFC 5737

    async def main() -> None:
        words = f"binding to {taken[0]} port {taken[1]}: "
        for more in ({}, {"remote_addr": taken}):
            with pytest.raises(OSError, match=re.escape(words)) as raised:
                await opened(local_addr=taken, **more)
            assert raised.value.errno == errno.EADDRINUSE
        with pytest.raises(OSError, match=r"binding to 192\.0\.2\.1 port 0: ") as raised:
            await opened(local_addr=nobody)
        assert raised.value.errno == errno.EADDRNOTAVAIL
        with pytest.raises(OSError, match=r"connecting to 255\.255\.255\.255 port 9: "):
            await opened(remote_addr=("255.255.255.255", 9))

    run(main)


def test_errors_of_the_factory_are_left_alone(run: Any) -> None:

    def fail() -> asyncio.DatagramProtocol:
        raise OSError(errno.EADDRINUSE, "a port of mine")

    async def main() -> None:
        with pytest.raises(OSError, match=r"^\[Errno \d+\] a port of mine$"):
            await asyncio.get_running_loop().create_datagram_endpoint(
                fail, local_addr=("127.0.0.1", 0)
            )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # as below
        run(main)


def test_a_protocol_that_can_not_be_made(run: Any) -> None:
    """Its socket is not left open, or Python would warn."""

    def fail() -> asyncio.DatagramProtocol:
        raise LookupError

    async def main() -> None:
        with pytest.raises(LookupError):
            await asyncio.get_running_loop().create_datagram_endpoint(
                fail, local_addr=("127.0.0.1", 0)
            )

    with warnings.catch_warnings():
        # asyncio leaves it to the collector, on each Python.
        warnings.simplefilter("ignore", ResourceWarning)
        run(main)


def test_a_fatal_error(run: Any, inet: Family) -> None:
    contexts: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: contexts.append(context))
        transport = await opened(sock=inet.open())
        transport.sendto(b"x", "not an address")
        await transport.get_protocol().until("lost")
        assert type(transport.get_protocol().calls[-1][1]) is TypeError

    run(main)
    (context,) = contexts
    assert context["message"] == "Fatal error on datagram transport"
    assert isinstance(context["transport"], BatchTransport)


@pytest.mark.parametrize("how", ["close", "abort", "pause_reading"])
def test_an_end_in_connection_made(run: Any, inet: Family, how: str) -> None:
    sock, sender = inet.pair()
    sender.send(b"x")

    async def main() -> None:
        protocol = Recorder(made=lambda: getattr(protocol.transport, how)())
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: protocol, sock=sock)
        await turns(3)
        assert "received" not in protocol.names
        if how == "pause_reading":
            protocol.transport.resume_reading()
            await protocol.until("received")
            protocol.transport.close()
        await protocol.until("lost")

    run(main)


def test_cancelled_meanwhile(run: Any) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await opened(local_addr=("127.0.0.1", 0))
        assert scope.cancelled_caught

    run(main)


# The factory's arguments


def test_ways(inet: Family, engine: ReceiveEngine, sending: SendEngine) -> None:
    sock, sender = inet.pair()
    for number in range(6):
        sender.send(b"%d" % number)
    seen: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder(
            received=lambda *_: loop.call_soon(lambda: seen.append(len(protocol.received)))
        )
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, sock=sock)
        await protocol.until("received", 6)
        await turns(2)
        transport.close()

    made = batched_loop_factory(limit=4, engine=engine, send_engine=sending, gso=True)
    anyio.run(main, backend_options={"loop_factory": made})
    assert seen == [4] * 4 + [6] * 2


def test_wrong_arguments() -> None:
    make: Any = batched_loop_factory
    for base in (asyncio.new_event_loop, "uvloop", asyncio.SelectorEventLoop(), int):
        with pytest.raises(TypeError, match="give a class of event loops"):
            make(base)
        if isinstance(base, asyncio.AbstractEventLoop):
            base.close()
    with pytest.raises(TypeError):
        make(limit="many")
    with pytest.raises(ValueError, match="limit is 0"):
        make(limit=0)
    with pytest.raises(ValueError, match="engine is 'fast'"):
        make(engine="fast")
    with pytest.raises(ValueError, match="engine is 'fast'"):
        make(send_engine="fast")


@without_trio
def test_trio_runs_none(inet: Family) -> None:
    """The factory can be made anywhere; Trio has no use for it."""

    async def main() -> None:
        batched_loop_factory()

    with contextlib.suppress(ImportError):
        anyio.run(main, backend="trio")


# CPython's own tests


@pytest.mark.skipif(not find_spec("test.test_asyncio"), reason="CPython's tests are not installed")
def test_cpythons_own(anyio_backend: Any) -> None:
    name = "uvloop" if "use_uvloop" in anyio_backend[1] else "asyncio"
    run = subprocess.run(
        [sys.executable, "-m", "tests.protocol.cpython", name],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "\nOK" in run.stderr
