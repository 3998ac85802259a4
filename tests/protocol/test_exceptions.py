"""Exceptions of a protocol: where they go, and what goes on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, NoReturn

import anyio
import pytest

from anyio_mmsg import serve_protocol

from ..helpers import Family, nowhere
from .helpers import Recorder, serving, turns

pytestmark = pytest.mark.anyio


class Fault(Exception):  # noqa: N818
    pass


def fail(*_: object) -> NoReturn:
    raise Fault


@pytest.fixture
def reports(anyio_backend: Any) -> Callable[[], list[BaseException]]:
    """Catch what the loop's exception handler gets from now on."""

    def catch() -> list[BaseException]:
        caught: list[BaseException] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: caught.append(context["exception"]))
        return caught

    return catch


@pytest.mark.usefixtures("not_uvloops")
@pytest.mark.parametrize("error", [Fault, asyncio.CancelledError, GeneratorExit])
async def test_datagram_received(
    way: str, inet: Family, reports: Any, error: type[BaseException]
) -> None:
    """Also a CancelledError, such as the result of a future raises: nobody has cancelled us."""

    def fail_at_first(data: bytes, address: Any) -> None:
        if data == b"0":
            raise error

    sock, sender = inet.pair()
    caught = reports()
    for number in range(3):
        sender.send(b"%d" % number)
    async with serving(way) as start:
        protocol = Recorder(received=fail_at_first)
        await start(sock, protocol)
        await protocol.until("received", 3)
    assert protocol.received == [b"0", b"1", b"2"]
    assert [type(one) for one in caught] == [error]
    assert protocol.calls[-1] == ("lost", None)


@pytest.mark.usefixtures("not_uvloops")
async def test_connection_made_and_lost(way: str, inet: Family, reports: Any) -> None:
    sock, sender = inet.pair()
    caught = reports()
    async with serving(way) as start:
        protocol = Recorder(made=fail, lost=fail)
        await start(sock, protocol)
        sender.send(b"x")
        await protocol.until("received")
    await turns(2)
    assert [type(error) for error in caught] == [Fault, Fault]
    assert sock.fileno() == -1


async def test_error_received(inet: Family, reports: Any) -> None:
    """Asyncio's own transport has `sendto` raise it, which here has returned already."""
    sock, other = inet.open(), inet.open()
    caught = reports()
    async with serving("ours") as start:
        protocol = Recorder(error=fail)
        transport = await start(sock, protocol)
        transport.sendto(b"x", nowhere(inet)[0])
        transport.sendto(b"x", nowhere(inet)[0])
        transport.sendto(b"y", other.getsockname())
        await protocol.until("error", 2)
        assert other.recv(100) == b"y"
    assert [type(error) for error in caught] == [Fault, Fault]


async def test_what_is_reported(inet: Family) -> None:
    sock, sender = inet.pair()
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    async with serving("ours") as start:
        protocol = Recorder(received=fail)
        transport = await start(sock, protocol)
        sender.send(b"x")
        await protocol.until("received")
        await turns(1)
    (context,) = contexts
    assert context["message"] == "protocol.datagram_received() failed"
    assert context["transport"] is transport
    assert context["protocol"] is protocol


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_goes_through_the_loop(
    anyio_backend: Any, inet: Family, error: type[BaseException]
) -> None:
    """If the loop then goes on, so does the batch."""

    def interrupt(data: bytes, address: Any) -> None:
        if data == b"1":
            raise error

    sock, sender = inet.pair()
    for number in range(4):
        sender.send(b"%d" % number)
    protocol: Recorder | None = None
    task: asyncio.Task[None] | None = None

    async def begin() -> None:
        nonlocal protocol, task
        protocol = Recorder(received=interrupt)
        task = asyncio.create_task(serve_protocol(sock, protocol))
        await protocol.until("received", 4)

    async def go_on() -> None:
        assert protocol is not None
        assert task is not None
        await protocol.until("received", 4)
        task.cancel()
        await asyncio.wait([task])

    if "use_uvloop" in anyio_backend[1]:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    try:
        first = loop.create_task(begin())
        with pytest.raises(error):
            loop.run_until_complete(first)
        assert protocol is not None
        assert protocol.received[:2] == [b"0", b"1"]  # uvloop makes another turn
        loop.run_until_complete(go_on())
        loop.run_until_complete(first)
    finally:
        loop.close()
    assert protocol.received == [b"0", b"1", b"2", b"3"]
    assert protocol.calls[-1] == ("lost", None)


async def test_an_exception_of_pause_writing(reports: Any) -> None:
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no unix sockets on this platform")
    sock, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    caught = reports()
    with peer:
        async with serving("ours") as start:
            protocol = Recorder(pause=fail, resume=fail)
            transport: Any = await start(sock, protocol)
            transport.set_write_buffer_limits(10)
            while not caught:
                transport.sendto(b"12345678")
            with anyio.fail_after(60):
                while len(caught) < 2:
                    await asyncio.to_thread(peer.recv, 100)
    assert [type(error) for error in caught] == [Fault, Fault]
