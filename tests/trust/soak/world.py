"""What all lines of a leg share: the processes that send, and the options of the round."""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from anyio_mmsg import ReceiveEngine
from anyio_mmsg._system.memory import socket_memory

from .channel import PYTHON, Channel
from .ledger import Book, FaultError, Flow, Ledger

PATIENCE = 60.0
"""Seconds in which a process has to answer. A machine that is busy elsewhere takes some."""


class Process:
    """A process of `senders`."""

    def __init__(self, backend: str, plant: str) -> None:
        ours, theirs = socket.socketpair()
        command = [*PYTHON, "-m", "tests.trust.soak.senders"]
        self._process = subprocess.Popen(
            [*command, backend, str(theirs.fileno()), plant], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self._channel = Channel(ours)
        self._answers: dict[int, dict[str, Any]] = {}
        self._events: dict[int, anyio.Event] = {}

    async def listen(self) -> None:
        """Take the answers, as a task; raises FaultError if the process ends."""
        async for answer in self._channel.messages():
            self._answers[answer["job"]] = answer
            self._events.pop(answer["job"]).set()
        raise FaultError("a process that sends has ended; it says above why")

    async def ask(self, job: int, **message: Any) -> dict[str, Any]:
        """Send a message and wait for the answer."""
        event = self._events[job] = anyio.Event()
        self._channel.say(job=job, **message)
        with anyio.move_on_after(PATIENCE):
            await event.wait()
            return self._answers.pop(job)
        raise FaultError(f"no answer from a sender for {PATIENCE:.0f} s to {message}")

    def end(self) -> None:
        """End the process."""
        self._channel.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def processes(count: int, backend: str, plant: str) -> Iterator[list[Process]]:
    """Start that many processes."""
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            found.append(Process(backend, plant))
            stack.callback(found[-1].end)
        yield found


@dataclass(frozen=True)
class Sender:
    """A sender of a line.

    Attributes:
        job: Its number.
        family: Of its socket.
        connect: Whether its socket is connected to the receiver.
        gso: Whether it sends trains.
    """

    job: int
    family: int = socket.AF_INET
    connect: bool = False
    gso: bool = False


class Round:
    """One life of each line.

    Args:
        processes: Who sends.
        seconds: How long they send.
        engine: Of batches, to receive by.
        seed: Of what is random.
        ports: Where lines received in the last round.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        seconds: float,
        engine: ReceiveEngine,
        seed: str,
        ports: dict[str, int],
    ) -> None:
        self._processes = processes
        self.seconds = seconds
        self.engine: ReceiveEngine = engine
        self.seed = seed
        self.ports = ports

    def rng(self, line: str) -> random.Random:
        """Return what is random for a line."""
        return random.Random(f"{self.seed} {line}")

    def _process(self, sender: Sender) -> Process:
        return self._processes[sender.job % len(self._processes)]

    async def go(
        self,
        sock: socket.socket,
        senders: Sequence[Sender],
        slot_size: int,
        answered: bool = False,
    ) -> Book:
        """Have senders begin to send to a socket; return the book of what they send."""
        book = Book({})
        for sender in senders:
            v6 = sender.family == socket.AF_INET6
            sizes = 0 if sender.gso or answered else slot_size
            answer = await self._process(sender).ask(
                sender.job,
                do="go",
                family=sender.family,
                connect=sender.connect,
                gso=sender.gso,
                answered=answered,
                target=("::1" if v6 else "127.0.0.1", sock.getsockname()[1]),
                slot_size=sizes,
                seed=self.seed,
            )
            host, port, *_ = answer["name"]
            name: tuple[Any, ...] = host, port
            if sock.family == socket.AF_INET6:
                name = (host if v6 else f"::ffff:{host}", port, 0, 0)
            book.ledgers[name] = Ledger(Flow(sender.job, sizes), answer["first"], slot_size)
        return book

    async def halt(self, senders: Sequence[Sender]) -> dict[str, int]:
        """Have senders stop; return what they have done, added up."""
        done: dict[str, int] = {}

        async def one(sender: Sender) -> None:
            answer = await self._process(sender).ask(sender.job, do="halt")
            if answer["failed"]:
                raise FaultError(f"{answer['failed']} packets could not be sent")
            for name, value in answer.items():
                done[name] = done.get(name, 0) + value

        async with anyio.create_task_group() as tasks:
            for sender in senders:
                tasks.start_soon(one, sender)
        return done


async def until_quiet(sock: socket.socket) -> None:
    """Wait until nothing more arrives at a socket whose senders have stopped.

    On the loopback interface a packet has arrived when its send returns, unless the kernel is so
    busy that it lets a thread of its own deliver it. So look several times.
    """
    last, looks = None, 0
    while looks < 3:
        memory = socket_memory(sock)
        now = None if memory is None else (memory.used, memory.drops)
        looks = looks + 1 if now == last else 0
        last = now
        await anyio.sleep(0.05)
