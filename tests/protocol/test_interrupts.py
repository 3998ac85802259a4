"""A KeyboardInterrupt that a signal handler raises, wherever CPython may run one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, NoReturn

import pytest

from anyio_mmsg import ReceiveEngine, SendEngine

from ..helpers import Family
from ..interrupts import every_bytecode, unreported
from .hand_loop import Loop, served_by

pytestmark = pytest.mark.thorough


class Collector(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append(data)
        self.transport.sendto(data, addr)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def serving(
    sock: socket.socket, engine: ReceiveEngine, send_engine: SendEngine
) -> tuple[Any, Collector, Loop]:
    loop, protocol = Loop(), Collector()
    transport = served_by(loop, sock, engine, send_engine, protocol)
    return transport, protocol, loop


@unreported()  # the portable engine has a generator, which may be interrupted as it ends
def test_a_read_that_is_interrupted(engine: ReceiveEngine, inet: Family) -> None:
    """What was read comes, once and in order, if the loop goes on; but for the one in hand."""
    sent = [b"0", b"1", b"2"]
    points = 0
    for before in every_bytecode(interrupt, everywhere=False):
        sock, sender = inet.pair()
        transport, protocol, loop = serving(sock, engine, "auto")
        for data in sent:
            sender.send(data)
        with before, contextlib.suppress(KeyboardInterrupt):
            transport._read()
        loop.turn()
        sender.send(b"next")
        transport._read()
        transport._read()
        missing = [data for data in sent if data not in protocol.received]
        assert len(missing) <= 1, before.where
        assert protocol.received == [data for data in [*sent, b"next"] if data not in missing]
        sock.close()
        sender.close()
        assert before.reached or not missing
        points += before.reached
    assert points > 5


@pytest.mark.parametrize("count", [1, 3])
def test_a_send_that_is_interrupted(sending: SendEngine, inet: Family, count: int) -> None:
    """What waits goes out, once and in order, if the loop goes on; one alone may be lost."""
    sent = [b"%d" % number for number in range(count)]
    points = 0
    for before in every_bytecode(interrupt, everywhere=False):
        peer, sock = inet.pair()
        transport, _, _ = serving(sock, "auto", sending)
        for data in sent:
            transport.sendto(data)
        with before, contextlib.suppress(KeyboardInterrupt):
            transport._flush()
        transport.sendto(b"next")
        transport.sendto(b"last")
        transport._flush()
        got = []
        with contextlib.suppress(BlockingIOError):
            while True:
                got.append(peer.recv(100))
        assert transport.get_write_buffer_size() == 0
        if count == 1 and b"0" not in got:
            got.insert(0, b"0")
        assert got == [*sent, b"next", b"last"], before.where
        sock.close()
        peer.close()
        points += before.reached
    assert points > 5
