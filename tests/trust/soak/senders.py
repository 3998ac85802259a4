"""A process that sends: ``python -m tests.trust.soak.senders BACKEND DESCRIPTOR PLANT``.

It has any number of jobs, each of which is a task. The socket that a job sends by stays the same
in all rounds.
"""

from __future__ import annotations

import os
import random
import socket
import sys
from dataclasses import asdict
from typing import Any

import anyio
import anyio.lowlevel

from anyio_mmsg import PacketBatch, recv_mmsg, send_mmsg
from anyio_mmsg._system.memory import socket_memory

from .channel import BACKENDS, Channel
from .flat import sample
from .ledger import Book, Flow, Ledger

BURSTS = [1, 2, 7, 64, 64, 200, 1000]
WINDOW = 64
"""Packets that may be under way when each is answered: a train may have as many."""

PATIENCE = 10.0
"""Seconds after which what was not answered is lost. None should be: the buffers have room."""

PLANTS = ("lost", "duplicated", "corrupted")
"""Faults that a sender can make, so that somebody finds them."""


class Job:
    """One sender, from round to round.

    Args:
        number: Its number, which says what its packets are like.
        family: Of its socket.
        plant: A fault to make, or "".
    """

    def __init__(self, number: int, family: int, plant: str) -> None:
        self.number = number
        self.plant = plant
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.sock.setblocking(False)
        self.next = 0  # the number of the next packet
        self.halted = False

    async def work(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Send until it is halted; return what happened."""
        flow = Flow(self.number, asked["slot_size"])
        target: Any = tuple(asked["target"])
        if asked["connect"]:
            self.sock.connect(target)
            target = None
        rng = random.Random(f"{asked['seed']} {self.number}")
        if asked["answered"]:
            return await self._ask(flow, target, asked, rng)
        return await self._flood(flow, target, rng)

    def _some(self, flow: Flow, count: int) -> list[bytes]:
        numbers = range(self.next, self.next + count)
        self.next += count
        packets = [flow.packet(number) for number in numbers]
        for at, number in enumerate(numbers):
            if number % 100 == 50 and self.plant == "duplicated":
                packets[at] = flow.packet(number - 1)
            if number % 100 == 50 and self.plant == "corrupted" and packets[at]:
                packets[at] = packets[at][:-1] + bytes([packets[at][-1] ^ 1])
        return packets

    async def _flood(self, flow: Flow, target: Any, rng: random.Random) -> dict[str, Any]:
        sent = failed = 0
        while not self.halted:
            packets = [(data, target) for data in self._some(flow, rng.choice(BURSTS))]
            result = await send_mmsg(self.sock, packets)
            failed += len(result.failures)
            sent += result.sent + (self.plant == "lost")
            if rng.random() < 0.05:
                await anyio.sleep(rng.random() * 0.01)
        return {"sent": sent, "failed": failed}

    async def _ask(
        self, flow: Flow, target: Any, asked: dict[str, Any], rng: random.Random
    ) -> dict[str, Any]:
        """Keep some packets under way, and check what comes back."""
        batch = PacketBatch(WINDOW, 1500)
        source: Any = tuple(asked["target"])
        if self.sock.family == socket.AF_INET6:
            source = (*source, 0, 0)
        book = Book({source: Ledger(flow, self.next, 1500)})
        drops = self._drops()
        sent = failed = waiting = 0
        while waiting or not self.halted:
            count = 0 if self.halted else rng.randint(0, WINDOW - waiting)
            if count:
                packets = [(data, target) for data in self._some(flow, count)]
                result = await send_mmsg(self.sock, packets, gso=asked["gso"])
                failed += len(result.failures)
                sent += result.sent + (self.plant == "lost")
                waiting += count
            if not waiting:
                await anyio.lowlevel.checkpoint()
                continue
            with anyio.move_on_after(PATIENCE) as scope:
                await recv_mmsg(self.sock, batch)
            if scope.cancelled_caught:  # they are lost; the leg finds out where
                waiting = 0
            waiting = max(0, waiting - book.consume(batch))
            batch.clear()
        return {
            "sent": sent,
            "echoed": book.consumed - book.strangers,
            "echo_drops": self._drops() - drops,
            "failed": failed,
        }

    def _drops(self) -> int:
        memory = socket_memory(self.sock)
        return 0 if memory is None else memory.drops


async def main(channel: Channel, plant: str) -> None:
    """Do what the leg asks for, until it closes its end."""
    jobs: dict[int, Job] = {}

    async def work(job: Job, asked: dict[str, Any]) -> None:
        done = await job.work(asked)
        channel.say(job=job.number, **done)

    async with anyio.create_task_group() as tasks:
        async for asked in channel.messages():
            number = asked["job"]
            if asked["do"] == "sample":
                channel.say(job=number, **asdict(sample()))
            elif asked["do"] == "halt":
                jobs[number].halted = True
            else:
                if number not in jobs:
                    jobs[number] = Job(number, asked["family"], plant)
                job = jobs[number]
                job.halted = False
                channel.say(job=number, name=job.sock.getsockname(), first=job.next)
                tasks.start_soon(work, job, asked)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    os.nice(5)  # so that the receivers are what is busy all the time
    backend, options = BACKENDS[sys.argv[1]]
    end = Channel(socket.socket(fileno=int(sys.argv[2])))
    anyio.run(main, end, sys.argv[3], backend=backend, backend_options=options)
