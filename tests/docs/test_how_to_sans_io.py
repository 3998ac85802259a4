"""docs/how-to/sans-io.md: what drives a protocol that does no I/O."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketBatch, recv_mmsg

from ..helpers import Family
from .blocks import as_module, python_blocks, runs

(DRIVER,) = python_blocks("docs/how-to/sans-io.md")

ROUNDS = 3


class Repeater:
    """Answers with what it gets, at once and again each time that its timer is due."""

    def __init__(self) -> None:
        self.out: list[tuple[bytes, Any]] = []
        self.again: list[tuple[float, int, bytes, Any]] = []

    def receive(self, data: bytes, address: Any, now: float) -> None:
        assert type(data) is bytes
        self.out += [(data, address)]
        self.again += [(now + 0.001, 1, data, address)]

    def datagrams(self, now: float) -> list[tuple[bytes, Any]]:
        out, self.out = self.out, []
        return out

    def next_timer(self) -> float | None:
        return min(self.again)[0] if self.again else None

    def handle_timers(self, now: float) -> None:
        due, self.again = self.again, []
        for at, count, data, address in due:
            if at > now:
                self.again += [(at, count, data, address)]
                continue
            self.out += [(data, address)]
            if count < ROUNDS:
                self.again += [(now + 0.001, count + 1, data, address)]


@pytest.mark.anyio
@runs(DRIVER)
async def test_an_endpoint_is_driven(inet: Family) -> None:
    page = as_module(DRIVER)
    server, client = inet.pair()
    batch = PacketBatch()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(page["Driver"](server, Repeater()).run)
            for payload in b"a", b"b":
                client.send(payload)
            while len(batch) < 2 * (1 + ROUNDS):
                await recv_mmsg(client, batch)
            nursery.cancel_scope.cancel()
    got = sorted(map(bytes, batch.payloads()))
    assert got == [b"a"] * (1 + ROUNDS) + [b"b"] * (1 + ROUNDS)


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="GRO needs Linux")
@runs(DRIVER)
async def test_a_stop_by_cancellation() -> None:
    page = as_module(DRIVER)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(page["serve"], Repeater(), "127.0.0.1", 0)
            await anyio.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
