"""More lives for storm.py: of a batch of trains, and of one that the async functions use."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from types import CodeType
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    BatchFullError,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    ReceiveEngine,
    SendResult,
    recv_mmsg,
    recv_mmsg_exact,
    recv_mmsg_nowait,
    send_mmsg,
)
from anyio_mmsg._packets.batch import is_busy
from anyio_mmsg._system.platform import Refused

from ..gro.flow import Flow
from ..interrupts import BeforeOpcode, Interrupt
from .world import Sockets

NAME = 2  # as in shim.c: whatever else is told of a train makes its packets others
BACKENDS: list[Any] = [(name, {}) for name in ("asyncio", "trio") if find_spec(name)]


def life_of_trains(seed: int, found: Sockets, shim: Any) -> int:
    """Receive and release trains by calls that fail; return how many packets came."""
    rng = random.Random(seed)
    Refused.recvmmsg = Refused.sendmmsg = False
    shim.shim_plan(0, 0, 0)
    sent: list[tuple[bytes, Any]] = []
    got: list[tuple[bytes, Any]] = []
    with Flow() as flow:
        engine: ReceiveEngine = rng.choice(["recvfrom_into", "auto"])
        ancillary = rng.random() < 0.5
        batch = PacketBatch(rng.choice([1, 2, 5]), engine=engine, gro=True, ancillary=ancillary)

        def receive() -> None:
            with contextlib.suppress(anyio.WouldBlock, BatchFullError, OSError):
                recv_mmsg_nowait(flow.receiver, batch, rng.choice([1, 2, 64]))

        def take() -> None:
            """Read some of what is held, and release it; an interrupt leaves it as it was."""
            count = rng.randint(0, len(batch))
            seen = [(bytes(packet.data), packet.address) for packet in batch][:count]
            before = len(batch)
            try:
                batch.release(count)
            finally:
                got.extend(seen[: before - len(batch)])

        for turn in range(rng.randint(5, 30)):
            shim.shim_plan(0, 0, 0)
            if len(sent) - len(got) < 40:
                count, sender = rng.randint(1, 6), rng.randrange(2)
                packets = [b"packet %06d" % (len(sent) + index) for index in range(count)]
                if rng.random() < 0.5:
                    packets[-1] = packets[-1][:-1]
                flow.send(*packets, sender=sender)
                sent += [(packet, flow.names[sender]) for packet in packets]
            shim.shim_plan(seed * 1000 + turn, rng.choice([0, 200, 700]), rng.choice([0, NAME]))
            with contextlib.suppress(Interrupt):
                if rng.random() < 0.6:
                    with point(rng):
                        receive()
                else:
                    take()
        shim.shim_plan(0, 0, 0)
        for _ in range(1000):
            if len(got) == len(sent):
                break
            receive()
            take()
        batch.clear()
        batch.close()
    assert [data for data, _ in got] == [data for data, _ in sent], "packets were lost"
    for (_, address), (_, name) in zip(got, sent):  # noqa: B905
        assert address in (None, name)
    return len(sent)


def point(rng: random.Random, most: int = 300, under: CodeType | None = None) -> Any:
    if rng.random() < 0.4:
        return BeforeOpcode(rng.randrange(most), everywhere=False, under=under)
    return contextlib.nullcontext()


def async_life(seed: int, found: Sockets, shim: Any) -> int:
    """Let a batch be used by functions that wait, fail, are interrupted and cancelled."""
    rng = random.Random(seed)
    backend, options = rng.choice(BACKENDS)
    Refused.recvmmsg = Refused.sendmmsg = False
    shim.shim_plan(0, 0, 0)
    found.empty()
    life: Callable[..., Any] = rng.choice([batch_in_a_loop, receiver_in_a_loop])
    with warnings.catch_warnings():
        # An interrupt may come between the making of a coroutine and its first step.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited")
        count: int = anyio.run(
            life, rng, found, shim, seed, backend=backend, backend_options=options
        )
    shim.shim_plan(0, 0, 0)
    return count


async def struck(rng: random.Random, call: Callable[[], Any]) -> None:
    """Do a call, which may be cancelled after some steps, or interrupted."""

    async def cancel(scope: anyio.CancelScope) -> None:
        for _ in range(steps):
            await checkpoint()
        scope.cancel()

    steps, strike = rng.randrange(12), point(rng, 100, struck.__code__)
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel, scope)
            with contextlib.suppress(Interrupt, OSError, BatchFullError, ValueError), strike:
                await call()


async def batch_in_a_loop(rng: random.Random, found: Sockets, shim: Any, seed: int) -> int:
    batch = PacketBatch(rng.choice([1, 3, 8]), 48, rng.choice(["recvfrom_into", "auto"]))
    to = found.receiver.getsockname()
    sent, got = 0, 0
    for turn in range(rng.randint(3, 10)):
        shim.shim_plan(seed * 1000 + turn, 0, 0)
        for _ in range(rng.randint(0, 4)):
            found.senders[0].sendto(b"%d" % sent, to)
            sent += 1
        shim.shim_plan(seed * 1000 + turn, rng.choice([0, 200, 700]), 0)
        function = rng.choice([recv_mmsg, recv_mmsg_exact])
        await struck(rng, lambda: function(found.receiver, batch, rng.randint(1, 3)))  # noqa: B023
        shim.shim_plan(0, 0, 0)
        assert not is_busy(batch._slots)
        assert [int(bytes(data)) for data in batch.payloads()] == [*range(got, got + len(batch))]
        count = rng.randint(0, len(batch))
        batch.release(count)
        got += count
    result = SendResult()
    pairs = [(b"back %d" % number, found.names[1]) for number in range(5)]
    shim.shim_plan(seed, rng.choice([0, 300]), 0)
    await struck(rng, lambda: send_mmsg(found.receiver, pairs, result=result))
    shim.shim_plan(0, 0, 0)
    failed = {index for index, _ in result.failures}
    for index in range(result.handled):
        if index not in failed:
            assert found.senders[1].recv(100) == pairs[index][0]
    with contextlib.suppress(BlockingIOError):
        raise AssertionError(f"sent and not counted: {found.senders[1].recv(100)!r}")
    for _ in range(1000):
        if got == sent:
            break
        with contextlib.suppress(anyio.WouldBlock, OSError, BatchFullError):
            recv_mmsg_nowait(found.receiver, batch)
        for data in batch.payloads():
            assert int(bytes(data)) == got
            got += 1
        batch.clear()
    assert got == sent, "packets were lost"
    return sent


async def receiver_in_a_loop(rng: random.Random, found: Sockets, shim: Any, seed: int) -> int:
    """The receiver owns its socket, so it has a copy."""
    pool = PacketBatchPool(2, rng.choice([1, 3, 8]), 48, rng.choice(["recvfrom_into", "auto"]))
    one = PacketReceiver(found.receiver.dup(), pool, linger=rng.choice([0, 0.0005]))
    to = found.receiver.getsockname()
    sent = 0
    numbers: list[int] = []

    async def receive() -> None:
        with await one.receive() as batch:
            seen = [int(bytes(packet.data)) for packet in batch]
        numbers.extend(seen)  # else a batch whose close was interrupted would count twice

    for turn in range(rng.randint(3, 10)):
        shim.shim_plan(seed * 1000 + turn, 0, 0)
        for _ in range(rng.randint(0, 4)):
            found.senders[0].sendto(b"%d" % sent, to)
            sent += 1
        shim.shim_plan(seed * 1000 + turn, rng.choice([0, 200, 700]), 0)
        await struck(rng, receive)
        shim.shim_plan(0, 0, 0)
    one.stop()
    with contextlib.suppress(anyio.EndOfStream):
        while True:
            with contextlib.suppress(OSError):
                await receive()
    await one.aclose()
    seen = one.statistics()
    assert numbers == sorted(set(numbers))
    assert seen.packets + seen.unread == sent, seen
    assert sent - len(numbers) - seen.dropped - seen.unread >= 0
    return sent
