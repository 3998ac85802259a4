"""Batches that are dropped without being closed: when Python warns, and of what."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from anyio_mmsg import PacketBatch, PacketBatchPool, PacketReceiver, feed
from anyio_mmsg.testing import ScriptedReceiver

from ..helpers import Family

pytestmark = pytest.mark.anyio
IN_DEV_MODE = sys.flags.dev_mode


class Warned:
    """What Python has warned of since this was asked last."""

    def __init__(self, log: list[warnings.WarningMessage]) -> None:
        self._log = log

    def after_collecting(self) -> list[str]:
        gc.collect()
        seen = [str(warning.message) for warning in self._log]
        self._log.clear()
        return seen


@pytest.fixture
def warned() -> Iterator[Warned]:
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always", ResourceWarning)
        yield Warned(log)


async def receive(receiver: PacketReceiver) -> PacketBatch:
    return await receiver.receive()


async def iterate(receiver: PacketReceiver) -> PacketBatch:
    async for batch in receiver:
        return batch
    raise AssertionError("it has ended")


async def acquire(receiver: PacketReceiver) -> PacketBatch:
    return await receiver.pool.acquire()


async def acquire_nowait(receiver: PacketReceiver) -> PacketBatch:
    return receiver.pool.acquire_nowait()


@pytest.mark.parametrize("get", [receive, iterate, acquire, acquire_nowait])
async def test_a_batch_that_a_caller_has_dropped(
    get: Callable[[PacketReceiver], Awaitable[PacketBatch]], warned: Warned
) -> None:
    receiver = ScriptedReceiver([[b"1"], [b"2"], [b"3"]], PacketBatchPool(2))
    (await get(receiver)).close()
    with await get(receiver):
        pass
    assert warned.after_collecting() == []
    await get(receiver)
    (message,) = warned.after_collecting()
    place = f"a batch that was received at {__file__}:"
    assert message.startswith(place if IN_DEV_MODE else "a batch of a pool was dropped without")
    assert message.count("Use it in `with batch:`") == 1
    assert ("-X dev" in message) is not IN_DEV_MODE
    assert receiver.pool.statistics().leaked == 1


async def test_a_warning_that_is_an_error_loses_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: unraisable.append(what.exc_type))
    receiver = ScriptedReceiver([[b"1", b"2"]], PacketBatchPool(1))
    await receiver.receive()
    gc.collect()
    assert unraisable == [ResourceWarning]
    assert receiver.statistics().dropped == 2
    assert receiver.pool.statistics().free == 1


async def test_what_nobody_has_got(inet: Family, warned: Warned) -> None:
    """A batch that a receiver is filling, or was given back; and memory of the program's own."""
    sock, sender = inet.pair()
    receiver = PacketReceiver(sock, PacketBatchPool(2))
    with anyio.move_on_after(0):
        await receiver.receive()
    sender.send(b"1")
    with anyio.fail_after(60):
        receiver._take_back(await receiver.receive())
    await receiver.pool._acquire(None)
    PacketBatch()
    del receiver
    assert warned.after_collecting() == []
    sock.close()


async def test_a_consumer_of_feed(warned: Warned) -> None:
    """While `feed` runs, some consumer has got what is lost. Afterwards it may be nobody's."""
    ended = anyio.Event()
    receiver = ScriptedReceiver([[b"1"], [b"2"], [b"3"], ended], PacketBatchPool(8))
    into, batches = anyio.create_memory_object_stream[PacketBatch](9)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(feed, receiver, into)
            await wait_all_tasks_blocked()
            with batches.receive_nowait():
                pass
            assert warned.after_collecting() == []
            batches.receive_nowait()
            (message,) = warned.after_collecting()
            assert message.startswith("a batch from feed was dropped without being closed")
            ended.set()
    assert receiver.statistics().dropped == 1
    batches.close()  # with a batch in it
    del batches, into
    assert warned.after_collecting() == []
    assert receiver.statistics().dropped == 2


PROGRAM = """
import anyio, sys
from anyio_mmsg.testing import ScriptedReceiver

async def main():
    receiver = ScriptedReceiver([[b"1"]] * 3 + [[b"4"]])
    async for batch in receiver:  # the place
        print(*batch.payloads())
        del batch
    return receiver.statistics().dropped

async def alone():
    receiver = ScriptedReceiver([[b"1"]])
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(receiver.receive)

assert anyio.run(main) == 4
anyio.run(alone)
"""


@pytest.mark.parametrize("mode", [[], ["-X", "dev"], ["-W", "default"]])
def test_a_program(mode: list[str], tmp_path: Path) -> None:
    """As for files: silent by default; in development mode each place once."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    env = {**os.environ, "PYTHONDEVMODE": "", "PYTHONWARNINGS": ""}
    done = subprocess.run(
        [sys.executable, *mode, str(path)], capture_output=True, text=True, timeout=60, env=env
    )
    assert done.returncode == 0, done.stderr
    found = [line for line in done.stderr.splitlines() if "ResourceWarning: a batch" in line]
    if not mode:
        assert done.stderr == ""
    elif mode == ["-X", "dev"]:
        number = PROGRAM.splitlines().index("    async for batch in receiver:  # the place") + 1
        place, unknown = found
        assert place.startswith(f"{path}:{number}: ResourceWarning: a batch that was received at")
        assert "a batch of a pool was dropped" in unknown
    else:
        assert found
        assert {line.partition(". ")[2] for line in found} == {
            "Use it in `with batch:`. `python -X dev` shows where it was received"
        }
