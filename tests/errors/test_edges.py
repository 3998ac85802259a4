"""Errors at the edges: connected sockets, buffers that are full, queues of two owners."""

from __future__ import annotations

import socket
from typing import Any

import anyio
import pytest

from anyio_mmsg import (
    IcmpError,
    PacketBatch,
    PacketReceiver,
    ReceiveEngine,
    configure_udp_socket,
    open_udp_socket,
    recv_datagrams,
    recv_errors_nowait,
    recv_mmsg,
    recv_mmsg_nowait,
)
from anyio_mmsg._system import error_queue

from ..helpers import contents
from .conftest import Version, provoke
from .test_queue import SO_TIMESTAMPING, SOFTWARE, TX_SOFTWARE

pytestmark = pytest.mark.anyio


async def test_a_connected_socket(engine: ReceiveEngine, version: Version) -> None:
    host, port = version.unheard()
    batch = PacketBatch(engine=engine)
    sock = await open_udp_socket(remote_host=host, remote_port=port, icmp_errors=True)
    with sock, anyio.fail_after(60):
        for data in (b"0", b"1"):
            sock.send(data)
            with pytest.raises(IcmpError) as raised:
                await recv_mmsg(sock, batch)
            assert raised.value.data == data
            assert isinstance(raised.value.destination, tuple)
            assert raised.value.destination[:2] == (host, port)
            with pytest.raises(anyio.WouldBlock):
                recv_mmsg_nowait(sock, batch)


async def test_a_buffer_that_is_full(engine: ReceiveEngine, version: Version) -> None:
    """Then the queue has no room, and the error comes as the kernel leaves it: a plain one."""
    sock, address = version.open(), version.unheard()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for size in (1000, 0):  # until not even an empty one finds room
        for _ in range(20):
            sock.sendto(bytes(size), sock.getsockname())
    provoke(sock, address, b"unheard of")
    batch = PacketBatch(engine=engine)
    with anyio.fail_after(60):
        with pytest.raises(ConnectionRefusedError) as raised:
            await recv_mmsg(sock, batch)
        assert not isinstance(raised.value, IcmpError)
        assert await recv_mmsg(sock, batch) > 0
    assert set(contents(batch)) <= {bytes(1000), b""}
    batch.clear()
    assert recv_errors_nowait(sock) == []
    with pytest.raises(anyio.WouldBlock):
        recv_mmsg_nowait(sock, batch)


async def test_errors_in_a_queue_of_the_programs(engine: ReceiveEngine, version: Version) -> None:
    """They are the program's too: the library says what the kernel does, once."""
    sock, address = version.open(errors=False), version.unheard()
    option = error_queue.IP_RECVERR if version.name != "inet6" else error_queue.IPV6_RECVERR
    level = socket.IPPROTO_IP if version.name != "inet6" else socket.IPPROTO_IPV6
    sock.setsockopt(level, option, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | SOFTWARE)
    sock.sendto(b"x", address)
    batch = PacketBatch(engine=engine)
    with pytest.raises(ConnectionRefusedError) as raised:
        recv_mmsg_nowait(sock, batch)
    assert not isinstance(raised.value, IcmpError)
    for _ in range(3):
        with pytest.raises(anyio.WouldBlock):
            recv_mmsg_nowait(sock, batch)
    assert recv_errors_nowait(sock) == []
    kinds = []
    for _ in range(2):
        _, messages, _, _ = sock.recvmsg(999, 999, 0x2000)
        kinds += [c[4] for level, kind, c in messages if (level, kind) in ((0, 11), (41, 25))]
    assert sorted(kinds) == [3 if version.name == "inet6" else 2, 4]  # ICMP, a timestamp


async def test_timestamps_that_are_asked_for_later(version: Version) -> None:
    """The queue is ours then: it is read, so that nothing spins, and the stamps are dropped."""
    sock = version.open(errors=False)
    configure_udp_socket(sock, icmp_errors=True)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | SOFTWARE)
    seen: list[Any] = []
    with anyio.fail_after(60):
        async with PacketReceiver(sock, on_error=seen.append) as receiver:
            for number in range(3):
                provoke(sock, version.unheard(), b"%d" % number)
                provoke(sock, sock.getsockname(), b"data")
                with await receiver.receive() as batch:
                    assert contents(batch) == [b"data"]
            receiver.stop()
            with pytest.raises(anyio.EndOfStream):
                await receiver.receive()
    assert [error.data for error in seen] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("through", ["recv_mmsg", "recv_datagrams", "PacketReceiver"])
async def test_a_flood_of_errors_hides_no_packets(through: str, version: Version) -> None:
    """Each error that is seen causes the next one; the kernel has it outrank the packets."""
    sock, address = version.open(), version.unheard()
    got: list[bytes] = []
    errors = 0

    def again(error: object = None) -> None:
        nonlocal errors
        errors += 1
        provoke(sock, address, b"again")

    again()
    with version.open(errors=False) as sender, anyio.fail_after(60):
        for number in range(9):
            sender.sendto(b"%d" % number, sock.getsockname())
        receiver, batch = PacketReceiver(sock, on_error=again), PacketBatch()
        for _ in range(99):
            try:
                if through == "recv_mmsg":
                    await recv_mmsg(sock, batch, 1)
                    got += contents(batch)
                    batch.clear()
                elif through == "recv_datagrams":
                    got += [data for data, _ in await recv_datagrams(sock, 1)]
                else:
                    with await receiver.receive() as received:
                        got += contents(received)
            except IcmpError:
                again()
            if len(got) == 9:
                break
    assert got == [b"%d" % number for number in range(9)]
    assert errors > 1
