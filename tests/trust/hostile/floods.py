"""Floods that never stop: how late other tasks of the same event loop are meanwhile.

``python -m tests.trust.hostile.floods LOOP CONSUMER SECONDS`` measures one, and prints a line of
JSON; the compiled module is switched off as usual.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from anyio import ClosedResourceError
from anyio.lowlevel import checkpoint

from anyio_mmsg import (
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    feed,
    recv_mmsg,
    recv_mmsg_exact,
)

from ..soak.channel import BACKENDS, PYTHON

INTERVAL = 0.002
"""Seconds that the other task sleeps at a time. uvloop's clock ticks in milliseconds."""

BUFFER = 4 << 20
SENDERS = 2

_FLOOD = """if True:
    import os, socket, sys
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", int(sys.argv[1])))
        while os.getppid() == int(sys.argv[2]):
            for _ in range(1000):
                try:
                    sock.send(bytes(100))
                except ConnectionRefusedError:
                    pass
"""


@contextmanager
def flood(sock: socket.socket) -> Iterator[None]:
    """Have other processes send to a socket as fast as they can."""
    command = [sys.executable, "-S", "-c", _FLOOD, str(sock.getsockname()[1]), str(os.getpid())]
    found = [subprocess.Popen(command) for _ in range(SENDERS)]
    try:
        yield
    finally:
        for process in found:
            process.kill()
            process.wait()


def open_receiver() -> socket.socket:
    """Open a socket with a large buffer, as floods like it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


class Consumer:
    """Who receives.

    Args:
        sock: The socket that is flooded.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def _read(self, batch: PacketBatch) -> None:
        for packet in batch:
            packet.data  # noqa: B018 what a consumer does at least
            packet.address  # noqa: B018

    async def nobody(self) -> None:
        """Receive nothing: what the machine does by itself."""
        await anyio.sleep_forever()

    async def recv_mmsg(self) -> None:
        """A loop around `recv_mmsg`."""
        batch = PacketBatch()
        while True:
            await recv_mmsg(self.sock, batch)
            self._read(batch)
            batch.clear()

    async def recv_mmsg_exact(self) -> None:
        """A large number of packets at a time."""
        batch = PacketBatch(10_000, 128)
        while True:
            await recv_mmsg_exact(self.sock, batch)
            batch.clear()

    async def receiver(self) -> None:
        """``async for batch in receiver``."""
        async for batch in PacketReceiver(self.sock):
            with batch:
                self._read(batch)

    async def _feed(self, overload: Any) -> None:
        receiver = PacketReceiver(self.sock, PacketBatchPool(8))
        send, receive = anyio.create_memory_object_stream[PacketBatch](4)

        async def work() -> None:
            async for batch in receive.clone():
                with batch:
                    self._read(batch)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            oldest = receive if overload == "drop_oldest" else None
            await feed(receiver, send, overload, oldest)

    async def feed_block(self) -> None:
        """`feed`, which waits for the consumer."""
        await self._feed("block")

    async def feed_drop_newest(self) -> None:
        """`feed`, which drops."""
        await self._feed("drop_newest")

    async def feed_drop_oldest(self) -> None:
        """`feed`, which drops."""
        await self._feed("drop_oldest")


Consume = Callable[[Consumer], Coroutine[Any, Any, None]]

CONSUMERS: dict[str, Consume] = {
    "nobody receives": Consumer.nobody,
    "`recv_mmsg`": Consumer.recv_mmsg,
    "`recv_mmsg_exact`, 10,000": Consumer.recv_mmsg_exact,
    "`async for batch in receiver`": Consumer.receiver,
    "`feed`, block": Consumer.feed_block,
    "`feed`, drop_newest": Consumer.feed_drop_newest,
    "`feed`, drop_oldest": Consumer.feed_drop_oldest,
}


def summary(numbers: list[float]) -> list[float]:
    """Return the median, the 99th percentile and the most."""
    numbers.sort()
    return [statistics.median(numbers), numbers[len(numbers) * 99 // 100], numbers[-1]]


async def lateness(consume: Consume, seconds: float) -> Any:
    """Measure what a task feels of a flood that another one receives.

    Returns:
        How many milliseconds late a task wakes that sleeps for an instant, see
        `summary`: that depends on what else the machine does. For how many milliseconds of CPU
        time a task that only lets others run has to wait for its turn, which does not.
    """
    late, held = [], []
    with open_receiver() as sock, flood(sock):
        consumer = Consumer(sock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, consumer)
            await anyio.sleep(0.3)
            began = time.perf_counter()
            while time.perf_counter() < began + seconds:
                slept = time.perf_counter()
                await anyio.sleep(INTERVAL)
                late.append((time.perf_counter() - slept - INTERVAL) * 1000)
            began = time.perf_counter()
            while time.perf_counter() < began + seconds:
                turn = time.thread_time()
                await checkpoint()
                held.append((time.thread_time() - turn) * 1000)
            tasks.cancel_scope.cancel()
    return [summary(late), summary(held)]


async def ends(how: str) -> float:
    """Measure how many milliseconds a receiver takes to end under a flood."""
    took = 0.0
    with open_receiver() as sock, flood(sock):
        receiver = PacketReceiver(sock)
        ended = anyio.Event()

        async def consume() -> None:
            with contextlib.suppress(ClosedResourceError):
                async for batch in receiver:
                    batch.close()
            ended.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            await anyio.sleep(0.3)
            began = time.perf_counter()
            if how == "stop":
                receiver.stop()
            else:
                await receiver.aclose()
            await ended.wait()
            took = time.perf_counter() - began
    return took * 1000


def measure(loop: str, what: str, seconds: float, compiled: bool) -> Any:
    """Measure in a process of its own."""
    environment = {**os.environ, "ANYIO_MMSG_COMPILED": str(int(compiled))}
    command = [*PYTHON, "-m", "tests.trust.hostile.floods", loop, what, str(seconds)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


async def main(what: str, seconds: float) -> Any:
    """Measure what the command line says."""
    if what in ("stop", "aclose"):
        return [await ends(what) for _ in range(5)]
    return await lateness(CONSUMERS[what], seconds)


if __name__ == "__main__":
    with contextlib.suppress(PermissionError):  # where it is permitted: before others' work
        os.nice(-10)
    backend, options = BACKENDS[sys.argv[1]]
    args = sys.argv[2], float(sys.argv[3])
    print(json.dumps(anyio.run(main, *args, backend=backend, backend_options=options)))
