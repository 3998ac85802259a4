"""A signal handler that raises, at every bytecode of a receiver: every packet accounted for."""

from __future__ import annotations

import asyncio
import gc
from contextlib import ExitStack
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_mmsg import PacketBatchPool, PacketReceiver, ReceiveEngine
from anyio_mmsg._receive import functions, outlook
from anyio_mmsg._stream import (
    linger,
    loans,
    pool,
    port,
    readiness,
    receiver,
    registration,
    statistics,
)
from anyio_mmsg._system import memory

from ..helpers import Family, read_and_close
from ..interrupts import every_bytecode, fail, unreported

pytestmark = [pytest.mark.thorough, pytest.mark.anyio]
MODULES = [functions, outlook, linger, loans, pool, port, readiness, receiver, registration]
MODULES += [statistics, memory]


@pytest.mark.parametrize("what", ["receive", "linger", "drain", "aclose"])
async def test_every_packet_is_accounted_for(
    what: str, engine: ReceiveEngine, inet: Family, anyio_backend_name: str
) -> None:
    with unreported(), ExitStack() as stack:
        if anyio_backend_name == "asyncio":
            # What is raised in a callback of the loop goes to its handler, which fails the test.
            loop: Any = asyncio.get_running_loop()
            stack.callback(loop.set_exception_handler, loop.get_exception_handler())
            loop.set_exception_handler(lambda loop, context: None)
        await interrupt_everywhere(what, engine, inet)


async def interrupt_everywhere(what: str, engine: ReceiveEngine, inet: Family) -> None:
    interrupted = 0
    # An event loop's scope that an interrupt kept from being left cancels all that follows. But
    # none comes between the end of its block and its exit: CPython asks for none there.
    for point in every_bytecode(fail, what != "linger", MODULES, stride=5):
        sock, sender = inet.pair()
        lender = PacketBatchPool(2, 3, 16, engine)
        one = PacketReceiver(sock, lender, linger=0.001 if what == "linger" else 0)
        for number in range(7):
            sender.send(b"%d" % number)
        if what == "linger":
            assert one._linger is not None
            one._linger._pace.saw_batch([1], 1)
        got: list[bytes] = []
        if what == "drain":
            one.stop()
        try:
            with point:
                if what == "aclose":
                    await one.aclose()
                else:
                    for _ in range(3):
                        read_and_close(await one.receive(), got)
        except Exception:
            interrupted += 1
        gc.collect(0)
        with anyio.fail_after(60):
            if what != "aclose":
                one.stop()
                async for batch in one:
                    read_and_close(batch, got)
                    del batch
            await one.aclose()
        gc.collect(0)
        seen: Any = one.statistics()
        assert len(got) + seen.dropped + seen.unread == 7, (point.where, got, seen)
        assert seen.packets + seen.unread == 7, (point.where, seen)
        assert lender.statistics().free == 2, point.where
        sender.close()
        await checkpoint()
    assert interrupted > 10
