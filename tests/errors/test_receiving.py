"""Errors that are queued, and whoever waits for packets: raised, each once, and nothing spins."""

from __future__ import annotations

import errno
import socket
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    PacketBatch,
    PacketReceiver,
    ReceiveEngine,
    recv_datagrams,
    recv_datagrams_nowait,
    recv_mmsg,
    recv_mmsg_exact,
    recv_mmsg_nowait,
    send_mmsg,
)
from anyio_mmsg._system import error_queue
from anyio_mmsg._system.icmp import IcmpError

from ..helpers import contents
from .conftest import Version, provoke
from .test_queue import SO_TIMESTAMPING, SOFTWARE, TX_SOFTWARE

pytestmark = pytest.mark.anyio

foreign = pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])


def opened(version: Version, foreign: bool) -> socket.socket:
    """Return a socket on which we, or somebody else, have asked for errors."""
    sock = version.open(errors=not foreign)
    if foreign:
        if version.name == "inet6":
            sock.setsockopt(socket.IPPROTO_IPV6, error_queue.IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, error_queue.IP_RECVERR, 1)
    return sock


@foreign
@pytest.mark.parametrize("receive", [recv_mmsg, recv_mmsg_exact])
async def test_one_each_call(
    foreign: bool, receive: Any, engine: ReceiveEngine, version: Version, anyio_backend: Any
) -> None:
    sock, address = opened(version, foreign), version.unheard()
    batch = PacketBatch(engine=engine)
    with anyio.fail_after(60):
        for _ in range(2):
            provoke(sock, address, b"0", b"1", b"2")
            for n in range(3):
                with pytest.raises(IcmpError) as raised:
                    await receive(sock, batch)
                assert raised.value.data == b"%d" % n
            sock.sendto(b"data", sock.getsockname())
            assert await receive(sock, batch, 1) == 1
        assert contents(batch) == [b"data", b"data"]
        with pytest.raises(anyio.WouldBlock):
            recv_mmsg_nowait(sock, batch)


@foreign
async def test_one_each_call_for_datagrams(foreign: bool, version: Version) -> None:
    sock, address = opened(version, foreign), version.unheard()
    with anyio.fail_after(60):
        for receive in (recv_datagrams, recv_datagrams_nowait):
            provoke(sock, address, b"0", b"1", b"2")
            provoke(sock, sock.getsockname(), b"data")
            seen: list[bytes] = []
            for _ in range(4):
                try:
                    got: Any = receive(sock)
                    got = got if isinstance(got, list) else await got
                except IcmpError as error:
                    seen.append(error.data)
                else:
                    seen += [data for data, _ in got]
            assert sorted(seen) == [b"0", b"1", b"2", b"data"]
            with pytest.raises(anyio.WouldBlock):
                recv_datagrams_nowait(sock)


async def provoke_later(sock: socket.socket, address: tuple[str, int], data: bytes) -> None:
    await anyio.wait_all_tasks_blocked()
    provoke(sock, address, data)


@foreign
async def test_while_it_waits(foreign: bool, engine: ReceiveEngine, version: Version) -> None:
    sock, address = opened(version, foreign), version.unheard()
    batch = PacketBatch(engine=engine)
    with anyio.fail_after(60):
        for data in (b"0", b"1", b"2"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(provoke_later, sock, address, data)
                with pytest.raises(IcmpError) as raised:
                    await recv_mmsg(sock, batch)
                assert raised.value.data == data


@foreign
def test_without_waiting(foreign: bool, engine: ReceiveEngine, version: Version) -> None:
    sock, address = opened(version, foreign), version.unheard()
    batch = PacketBatch(engine=engine)
    provoke(sock, address, b"0", b"1", b"2")
    provoke(sock, sock.getsockname(), b"data")
    seen: list[bytes] = []
    for _ in range(8):
        try:
            recv_mmsg_nowait(sock, batch)
        except IcmpError as error:
            seen.append(error.data)
        except anyio.WouldBlock:
            pass
    assert seen == [b"0", b"1", b"2"]
    assert contents(batch) == [b"data"]


async def test_packets_come_first_once_the_error_was_raised(
    engine: ReceiveEngine, version: Version
) -> None:
    """The kernel has an error outrank what is queued, once."""
    sock, address = version.open(), version.unheard()
    provoke(sock, address, b"0", b"1")
    with pytest.raises(ConnectionRefusedError):
        sock.sendto(b"data", sock.getsockname())  # which takes the error that is pending
    sock.sendto(b"data", sock.getsockname())
    batch = PacketBatch(engine=engine)
    with anyio.fail_after(60):
        assert await recv_mmsg(sock, batch) == 1
        for data in (b"0", b"1"):
            with pytest.raises(IcmpError) as raised:
                await recv_mmsg(sock, batch)
            assert raised.value.data == data


@foreign
async def test_a_receiver_counts_them(foreign: bool, version: Version) -> None:
    sock, address = opened(version, foreign), version.unheard()
    seen: list[OSError] = []
    with anyio.fail_after(60):
        async with PacketReceiver(sock, on_error=seen.append) as receiver:
            provoke(sock, address, b"0", b"1", b"2")
            provoke(sock, sock.getsockname(), b"data")
            with await receiver.receive() as batch:
                assert contents(batch) == [b"data"]
            provoke(sock, address, b"3")
            provoke(sock, sock.getsockname(), b"data")
            with await receiver.receive() as batch:
                assert contents(batch) == [b"data"]
            provoke(sock, address, b"4")
            receiver.stop()
            with pytest.raises(anyio.EndOfStream):
                await receiver.receive()
            counted = receiver.statistics().transient_errors
    assert [error.data for error in seen if isinstance(error, IcmpError)] == [
        b"%d" % n for n in range(5)
    ]
    assert counted == {errno.ECONNREFUSED: 5}


@pytest.mark.parametrize("through", ["recv_mmsg", "PacketReceiver"])
async def test_a_program_that_reads_its_transmit_timestamps(
    through: str, version: Version
) -> None:
    """Each question is answered, and each answer's timestamp is there for the program."""
    sock, asker = version.open(errors=False), version.open(errors=False)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | SOFTWARE)
    stamps: list[bytes] = []

    async def answer() -> None:
        receiver, batch = PacketReceiver(sock), PacketBatch()
        while len(stamps) < 50:
            if through == "recv_mmsg":
                await recv_mmsg(sock, batch)
            else:
                batch = await receiver.receive()
            await send_mmsg(sock, batch)
            if through == "recv_mmsg":
                batch.clear()
            else:
                batch.close()
            await checkpoint()  # others may be woken by the stamp first
            data, messages, _, _ = sock.recvmsg(999, 999, 0x2000)
            assert messages
            stamps.append(data[-2:])

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            for number in range(50):
                asker.sendto(b"%02d" % number, sock.getsockname())
                batch = PacketBatch()
                await recv_mmsg(asker, batch)
                assert contents(batch) == [b"%02d" % number]
    assert stamps == [b"%02d" % number for number in range(50)]


class Pauses:
    """What a receive function sleeps while the error queue is the program's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float] = []
        self.enough = anyio.Event()
        real = anyio.sleep

        async def sleep(seconds: float) -> None:
            self.seconds.append(seconds)
            if len(self.seconds) == 12:
                self.enough.set()
            await real(seconds)

        monkeypatch.setattr(anyio, "sleep", sleep)


@pytest.mark.parametrize("through", ["recv_mmsg", "recv_datagrams", "PacketReceiver"])
async def test_a_queue_of_the_programs_is_left_alone(
    through: str, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entries end each wait at once: there are pauses, which grow, and packets get through."""
    sock = version.open(errors=False)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | SOFTWARE)
    sock.sendto(b"stamped", sock.getsockname())
    assert sock.recv(99) == b"stamped"
    pauses, batch = Pauses(monkeypatch), PacketBatch()
    got: list[bytes] = []

    async def receive() -> None:
        nonlocal batch
        if through == "recv_datagrams":
            got.extend(data for data, _ in await recv_datagrams(sock))
        elif through == "recv_mmsg":
            await recv_mmsg(sock, batch)
        else:
            batch = await PacketReceiver(sock).receive()
        got.extend(contents(batch))
        batch.close()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await pauses.enough.wait()
            with version.open(errors=False) as sender:
                sender.sendto(b"a packet", sock.getsockname())
    assert got == [b"a packet"]
    first, longest = 0.0005, 0.02
    assert pauses.seconds[:12] == [min(first * 2**n, longest) for n in range(12)]
    # The program still reads its own: one entry, of what it has sent itself.
    data, messages, _, _ = sock.recvmsg(999, 999, 0x2000)
    assert data.endswith(b"stamped")
    assert messages
    with pytest.raises(BlockingIOError):
        sock.recvmsg(999, 999, 0x2000)


async def test_a_receiver_does_not_pause_between_errors(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have room in the socket's buffer that packets need, and each is somebody's answer."""
    sock, address = version.open(), version.unheard()
    datas = [b"%d" % number for number in range(30)]
    provoke(sock, address, *datas)
    pauses = Pauses(monkeypatch)
    reported: list[Any] = []

    def note(error: OSError) -> None:
        reported.append(error)
        if len(reported) == len(datas):
            receiver.stop()

    receiver = PacketReceiver(sock, on_error=note)
    with anyio.fail_after(60), pytest.raises(anyio.EndOfStream):
        await receiver.receive()
    await receiver.aclose()
    assert [error.data for error in reported] == datas
    assert pauses.seconds == []
