"""`ScriptedReceiver`, interrupted at every bytecode, and stopped by another thread at each."""

from __future__ import annotations

import errno
import gc
import threading

import anyio
import pytest

from anyio_mmsg import PacketBatchPool
from anyio_mmsg._receive import recvfrom_into
from anyio_mmsg._stream import receiver as receiver_module
from anyio_mmsg.testing import Datagram, ScriptedReceiver, _batches, _receiver

from ..helpers import read_and_close
from ..interrupts import BeforeOpcode, every_bytecode, fail, unreported

pytestmark = [pytest.mark.thorough, pytest.mark.anyio]
MODULES = [_receiver, _batches, receiver_module, recvfrom_into]


@pytest.mark.parametrize("gro", [False, True], ids=["packets", "trains"])
async def test_every_packet_comes_once(gro: bool) -> None:
    with unreported():
        await interrupt_everywhere(gro)


async def interrupt_everywhere(gro: bool) -> None:
    async def take(one: ScriptedReceiver, got: list[bytes]) -> None:
        read_and_close(await one.receive(), got)

    interrupted = 0
    # Only where CPython may: a scope that is not left cancels all that follows.
    for point in every_bytecode(fail, False, MODULES, take.__code__, stride=17):
        lender = PacketBatchPool(2, 2, gro=True) if gro else PacketBatchPool(2, 2, 16)
        train = Datagram(b"345", segment_size=1) if gro else b"3"
        one = ScriptedReceiver([[b"0", b"1", b"2"], [train, b"6"], [b"7"]], lender)
        got: list[bytes] = []
        with anyio.fail_after(60):
            for _ in range(8):
                try:
                    with point:
                        await take(one, got)
                except anyio.EndOfStream:
                    break
                except Exception:
                    interrupted += 1
                    gc.collect(0)
            await one.aclose()
        gc.collect(0)
        seen = one.statistics()
        assert got == sorted(set(got)), point.where
        assert len(got) + seen.dropped + seen.unread == (8 if gro else 6), (point.where, got, seen)
        assert lender.statistics().free == 2, point.where
    assert interrupted > 10


@pytest.mark.parametrize("what", ["event", "function"])
async def test_a_stop_in_another_thread_wakes_it(what: str) -> None:
    """Whenever it comes."""

    def stop_it() -> None:
        thread = threading.Thread(target=lambda: one.stop())
        thread.start()
        thread.join()

    for point in every_bytecode(stop_it, within=[_receiver, receiver_module], stride=29):
        lost = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        wait = anyio.sleep_forever if what == "function" else anyio.Event()
        one = ScriptedReceiver([[b"0"], lost, [b"1"], wait, [b"never"]])
        got: list[bytes] = []

        async def stop_at_last(point: BeforeOpcode = point, one: ScriptedReceiver = one) -> None:
            await anyio.wait_all_tasks_blocked()
            if not point.reached:
                one.stop()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stop_at_last)
                with point:
                    async for batch in one:
                        read_and_close(batch, got)
        assert got == [b"0", b"1"][: len(got)], point.where
        await one.aclose()
