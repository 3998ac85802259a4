"""What is reported through `logging`: what, how often, and with which remedy."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from importlib.util import find_spec

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    PacketBatchPool,
    PacketReceiver,
    ReceiveEngine,
    configure_udp_socket,
    open_udp_socket,
)
from anyio_mmsg._stream import pool as pool_module

from ..helpers import Family, ScriptedSocket, attempts

pytestmark = pytest.mark.anyio


def reports(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """Return what was logged under that name, all of it warnings; and nothing under others."""
    records = [record for record in caplog.records if record.name.startswith("anyio_mmsg")]
    assert {(record.name, record.levelno) for record in records} <= {(name, logging.WARNING)}
    return [record.getMessage() for record in records]


async def receive(receiver: PacketReceiver, batches: int) -> None:
    for _ in range(batches):
        with await receiver.receive():
            pass


async def test_the_first_cut_packet_is_reported_once_a_receiver(
    engine: ReceiveEngine, family: Family, caplog: pytest.LogCaptureFixture
) -> None:
    sock, sender = family.pair()
    pool = PacketBatchPool(2, capacity=1, slot_size=8, engine=engine)
    async with PacketReceiver(sock, pool) as receiver:
        for size in (8, 1300, 9, 2000):
            sender.send(bytes(size))
        with anyio.fail_after(60):
            await receive(receiver, 1)
            assert reports(caplog, "anyio_mmsg.receiver") == []
            await receive(receiver, 3)
        assert receiver.statistics().truncated == 3
        (report,) = reports(caplog, "anyio_mmsg.receiver")
        assert report.startswith(
            f"the receiver at {sock.getsockname()!r} has cut a packet of 1,300"
        )
        assert "to the 8 bytes of a slot" in report
        assert "PacketBatchPool(slot_size=1300)" in report
        again = PacketReceiver(sock, pool)
        sender.send(bytes(9))
        with anyio.fail_after(60):
            await receive(again, 1)
        assert len(reports(caplog, "anyio_mmsg.receiver")) == 2


async def test_a_cut_packet_behind_others_and_before_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error is the next call's, as always."""
    sock = ScriptedSocket(b"1", b"123456789", ConnectionRefusedError(111, "refused"), b"2")
    pool = PacketBatchPool(2, slot_size=4, engine="recvfrom_into")
    async with PacketReceiver(sock, pool, errors="raise") as receiver:
        with anyio.fail_after(60):
            with await receiver.receive() as batch:
                assert batch.truncated() == [False, True]
            with pytest.raises(ConnectionRefusedError):
                await receiver.receive()
    assert len(reports(caplog, "anyio_mmsg.receiver")) == 1


async def test_a_handler_that_fails_loses_no_packet(
    engine: ReceiveEngine, inet: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an interrupt may have it fail anywhere."""

    class Fails(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("no room for a log")

    sock, sender = inet.pair()
    logger = logging.getLogger("anyio_mmsg.receiver")
    monkeypatch.setattr(logger, "handlers", [Fails()])
    async with PacketReceiver(sock, PacketBatchPool(2, slot_size=4, engine=engine)) as receiver:
        sender.send(b"12345")
        with anyio.fail_after(60):
            with pytest.raises(RuntimeError, match="no room for a log"):
                await receiver.receive()
            with await receiver.receive() as batch:
                assert batch.payloads() == [b"1234"]


async def test_a_receiver_that_waits_for_a_batch_reports_it_once(
    inet: Family, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And keeps its place in the line."""
    monkeypatch.setattr(pool_module, "PATIENCE", 0)
    sock, sender = inet.pair()
    pool = PacketBatchPool(1, capacity=1)
    async with PacketReceiver(sock, pool) as receiver:
        for turn in range(3):
            sender.send(b"first")
            sender.send(b"second")
            with anyio.fail_after(60):
                batch = await receiver.receive()
                async with anyio.create_task_group() as nursery:
                    nursery.start_soon(receive, receiver, 1)
                    await wait_all_tasks_blocked()
                    assert pool.statistics().waiting == 1
                    for _ in attempts():
                        await checkpoint()
                        if reports(caplog, "anyio_mmsg.receiver"):
                            break
                    nursery.start_soon(lend, pool)
                    await wait_all_tasks_blocked()
                    batch.close()
            assert receiver.statistics().batches == 2 * turn + 2
        (report,) = reports(caplog, "anyio_mmsg.receiver")
        assert report.startswith(f"<PacketReceiver, open at {sock.getsockname()!r}: 1 packets in")
        assert "waits for a batch: consumers have all 1 of its pool" in report
        assert "`with batch:`" in report
        assert "PacketBatchPool(size=...)" in report


async def lend(pool: PacketBatchPool) -> None:
    with await pool.acquire():
        pass


async def test_a_short_wait_for_a_batch_is_not_reported(
    inet: Family, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does a cancelled one take a batch."""
    sock, sender = inet.pair()
    pool = PacketBatchPool(1)
    async with PacketReceiver(sock, pool) as receiver:
        for _ in range(3):
            sender.send(b"1")
            with anyio.fail_after(60):
                batch = await receiver.receive()
                with anyio.move_on_after(0):
                    await receiver.receive()
                async with anyio.create_task_group() as nursery:
                    sender.send(b"2")
                    nursery.start_soon(receive, receiver, 1)
                    await wait_all_tasks_blocked()
                    batch.close()
    assert reports(caplog, "anyio_mmsg.receiver") == []
    assert pool.statistics().free == 1


@pytest.mark.skipif(not find_spec("trio"), reason="trio is not installed")
def test_after_a_second(caplog: pytest.LogCaptureFixture) -> None:
    """By a clock of Trio's that jumps while nothing happens."""
    import trio.testing

    async def main() -> None:
        pool = PacketBatchPool(1)
        async with PacketReceiver(await open_udp_socket("127.0.0.1"), pool) as receiver:
            with pool.acquire_nowait(), anyio.move_on_after(0.99):
                await receiver.receive()
            assert reports(caplog, "anyio_mmsg.receiver") == []
            with pool.acquire_nowait(), anyio.move_on_after(1.01):
                await receiver.receive()
            assert len(reports(caplog, "anyio_mmsg.receiver")) == 1

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def run(program: str, *mode: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the usual mode, or another, whatever the mode of the tests."""
    env = {**os.environ, "PYTHONDEVMODE": "", "PYTHONWARNINGS": ""}
    command = [sys.executable, *mode, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("mode", [[], ["-X", "dev"]])
def test_development_mode_says_where_the_batches_are(mode: list[str]) -> None:
    program = """
import anyio
from anyio_mmsg import PacketBatchPool, PacketReceiver, open_udp_socket
from anyio_mmsg._stream import pool

async def main():
    pool.PATIENCE = 0
    sock = await open_udp_socket("127.0.0.1")
    async with PacketReceiver(sock, PacketBatchPool(3)) as receiver:
        kept = []
        for _ in range(2):
            sock.sendto(b"", sock.getsockname())
            kept.append(await receiver.receive())
        kept.append(receiver.pool.acquire_nowait())
        with anyio.move_on_after(0.01):
            await receiver.receive()
        for batch in kept:
            batch.close()

anyio.run(main)
"""
    done = run(program, *mode)
    assert done.stderr.startswith("<PacketReceiver")
    lines = program.splitlines()
    first, second = (
        1 + next(i for i, line in enumerate(lines) if text in line)
        for text in ("receiver.receive()", "acquire_nowait()")
    )
    where = f"They were received at <string>:{first} (2), <string>:{second} (1). This"
    assert (where if mode else "`python -X dev` shows where they were received.") in done.stderr


def test_a_smaller_buffer(
    inet: Family, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "anyio_mmsg._stream.buffers._BUFFERS",
        {"receive": (socket.SO_RCVBUF, socket.SO_RCVLOWAT, "net.core.rmem_max")},
    )
    with pytest.warns(RuntimeWarning, match="the system granted a receive buffer"):
        configure_udp_socket(inet.open(), receive_buffer_size=1 << 29)
    (report,) = reports(caplog, "anyio_mmsg.system")
    assert "instead of 536,870,912, and packets that find no room are lost" in report


@pytest.mark.skipif(sys.platform != "linux", reason="net.core.rmem_max is Linux's")
def test_a_program_that_logs_nothing_is_not_told_twice() -> None:
    program = """
import socket
from anyio_mmsg import configure_udp_socket
from anyio_mmsg._stream import buffers
buffers._BUFFERS = {"receive": (socket.SO_RCVBUF, socket.SO_RCVLOWAT, "net.core.rmem_max")}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setblocking(False)
    configure_udp_socket(sock, receive_buffer_size=1 << 29)
"""
    done = run(program)
    assert done.stderr.count("the system granted a receive buffer") == 1


def test_no_handler_is_installed() -> None:
    program = """
import anyio_mmsg, logging
for name in (None, "anyio_mmsg", "anyio_mmsg.system", "anyio_mmsg.receiver"):
    assert logging.getLogger(name).handlers == [], name
"""
    run(program)
