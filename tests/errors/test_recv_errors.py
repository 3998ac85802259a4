"""`recv_errors_nowait`: what is queued, oldest first, each once, whoever else reads."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import anyio
import pytest

from anyio_mmsg import (
    IcmpError,
    PacketBatch,
    ReceiveEngine,
    open_udp_socket,
    recv_errors_nowait,
    recv_mmsg_nowait,
)
from anyio_mmsg._receive.outlook import outlook_for

from ..helpers import contents
from .conftest import Version, provoke
from .test_queue import SO_TIMESTAMPING, SOFTWARE, TX_SOFTWARE


def data_of(errors: list[IcmpError]) -> list[bytes]:
    return [error.data for error in errors]


def test_oldest_first_up_to_the_limit(version: Version) -> None:
    sock, address = version.open(), version.unheard()
    assert recv_errors_nowait(sock) == []
    provoke(sock, address, *(b"%d" % n for n in range(70)))
    assert data_of(recv_errors_nowait(sock, 2)) == [b"0", b"1"]
    assert data_of(recv_errors_nowait(sock)) == [b"%d" % n for n in range(2, 66)]
    assert data_of(recv_errors_nowait(sock, 4)) == [b"66", b"67", b"68", b"69"]
    assert recv_errors_nowait(sock) == []


def test_none_comes_twice(engine: ReceiveEngine, version: Version) -> None:
    sock, address = version.open(), version.unheard()
    batch = PacketBatch(engine=engine)
    provoke(sock, address, b"0", b"1", b"2", b"3")
    assert data_of(recv_errors_nowait(sock, 1)) == [b"0"]
    with pytest.raises(IcmpError) as raised:
        recv_mmsg_nowait(sock, batch)
    assert raised.value.data == b"1"
    assert data_of(recv_errors_nowait(sock)) == [b"2", b"3"]
    with pytest.raises(anyio.WouldBlock):
        recv_mmsg_nowait(sock, batch)
    sock.sendto(b"data", sock.getsockname())  # nor is a send struck
    assert recv_mmsg_nowait(sock, batch) == 1
    assert contents(batch) == [b"data"]


def test_an_error_that_waits_for_the_next_receive(version: Version) -> None:
    """After packets it is kept for the next one; asked for, it comes now, and once."""
    sock, address = version.open(), version.unheard()
    provoke(sock, address, b"x")
    (error,) = recv_errors_nowait(sock)
    outlook = outlook_for(sock)
    outlook.defer_error(sock, error)
    provoke(sock, address, b"y", b"z")
    assert data_of(recv_errors_nowait(sock, 1)) == [b"x"]
    refused = OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    outlook.defer_error(sock, refused)  # as a loop of recvfrom_into met it
    assert data_of(recv_errors_nowait(sock)) == [b"y", b"z"]
    with pytest.raises(anyio.WouldBlock):
        recv_mmsg_nowait(sock, PacketBatch())

    # What the queue knows nothing of stays where it was.
    for other in (refused, OSError(errno.ENOMEM, "no memory")):
        outlook.defer_error(sock, other)
        if other is not refused:
            provoke(sock, address, b"later")
        assert data_of(recv_errors_nowait(sock)) == ([] if other is refused else [b"later"])
        with pytest.raises(OSError, match=str(other.strerror)):
            recv_mmsg_nowait(sock, PacketBatch())


def test_sockets_without_the_option(version: Version) -> None:
    sock = version.open(errors=False)
    sock.connect(version.unheard())
    sock.send(b"x")
    assert recv_errors_nowait(sock) == []
    with pytest.raises(ConnectionRefusedError) as raised:
        recv_mmsg_nowait(sock, PacketBatch())
    assert not isinstance(raised.value, IcmpError)


def test_a_queue_of_the_programs(version: Version) -> None:
    sock = version.open(errors=False)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | SOFTWARE)
    sock.sendto(b"stamped", sock.getsockname())
    assert recv_errors_nowait(sock) == []
    assert sock.recvmsg(999, 999, 0x2000)[1]


def test_a_flood_is_bounded(version: Version) -> None:
    """The kernel keeps as many as the receive buffer holds; the rest is lost."""
    sock, address = version.open(), version.unheard()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    for _ in range(500):
        provoke(sock, address, bytes(200))
    found = recv_errors_nowait(sock, 1000)
    assert 0 < len(found) < 500
    assert recv_errors_nowait(sock) == []


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((0,), ValueError, "limit is 0; give the number of errors, at least 1"),
        (("1",), TypeError, "limit is a str"),
        ((True,), TypeError, "limit is True"),
    ],
)
def test_limits(version: Version, arguments: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        recv_errors_nowait(version.open(), *arguments)


def test_other_sockets(version: Version) -> None:
    sock = version.open()
    sock.setblocking(True)
    with pytest.raises(ValueError, match="blocking"):
        recv_errors_nowait(sock)
    sock.close()
    with pytest.raises(anyio.ClosedResourceError):
        recv_errors_nowait(sock)


@pytest.mark.anyio
async def test_a_socket_that_is_opened_with_it(version: Version) -> None:
    dual: Any = {"v6only": False} if version.name == "dual" else {}
    local = "::" if version.name == "dual" else version.host
    with await open_udp_socket(local, icmp_errors=True, **dual) as sock:
        provoke(sock, version.unheard(), b"x")
        assert data_of(recv_errors_nowait(sock)) == [b"x"]
