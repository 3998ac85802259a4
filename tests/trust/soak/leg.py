"""One event loop and one engine: a process that soaks for a while, and writes what it found.

It is started by ``python -m tests.trust.soak``, which has all the options.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio

from anyio_mmsg import compiled

from .channel import BACKENDS
from .flat import LEAST_ROUNDS, History, Sample, sample
from .ledger import FaultError, Totals
from .lines import lines
from .senders import PLANTS as SENDERS_PLANTS
from .world import Process, Round, processes

PLANTS = ("", *SENDERS_PLANTS, "descriptor", "memory")
"""Faults that can be made, to see that they are found."""

PROGRESS = 60.0  # seconds between two lines


@dataclass
class Result:
    """What a leg found; the report is made of these."""

    backend: str
    compiled: bool
    engine: str
    seconds: float = 0.0
    rounds: int = 0
    lines: dict[str, Totals] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)  # medians, as `flat.thirds`
    last: dict[str, float] = field(default_factory=dict)
    fault: str = ""

    @property
    def total(self) -> Totals:
        """All lines together."""
        total = Totals()
        for line in self.lines.values():
            total.add(line)
        return total


def has_ipv6() -> bool:
    """Whether ::1 can be bound here."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


class Leg:
    """See the module.

    Args:
        options: The command line.
        result: To be filled in.
        who: The processes that send.
    """

    def __init__(
        self, options: argparse.Namespace, result: Result, who: Sequence[Process]
    ) -> None:
        self._options = options
        self._result = result
        self._processes = who
        names = ["the receiving process", *(f"sender {number}" for number in range(len(who)))]
        self._histories = {name: History() for name in names}
        self._kept: list[object] = []  # by the faults that are planted

    async def run(self) -> None:
        """Soak, then judge."""
        async with anyio.create_task_group() as tasks:
            for process in self._processes:
                tasks.start_soon(process.listen)
            await self._soak()
            tasks.cancel_scope.cancel()
        for name, history in self._histories.items():
            history.judge(name, slack=1 if self._options.seconds >= 60 else 10)

    async def _soak(self) -> None:
        options, result = self._options, self._result
        began = said = time.monotonic()
        seconds = min(5.0, max(0.05, options.seconds / 40))  # of a round
        every = lines(has_ipv6())
        result.lines = {name: Totals() for name in every}
        ports: dict[str, int] = {}
        while result.seconds < options.seconds or result.rounds < LEAST_ROUNDS:
            seed = f"{options.seed} {result.rounds}"
            round_ = Round(self._processes, seconds, options.engine, seed, ports)

            async def one(name: str, round_: Round = round_) -> None:
                result.lines[name].add(await every[name](round_))

            async with anyio.create_task_group() as tasks:
                for name in every:
                    tasks.start_soon(one, name)
            self._plant()
            now = sample()
            for history, each in zip(
                self._histories.values(), [now, *await self._samples()], strict=True
            ):
                history.add(each)
            result.rounds += 1
            result.seconds = time.monotonic() - began
            if time.monotonic() - said >= PROGRESS:
                said = time.monotonic()
                self._say(now)
        first, *_ = self._histories.values()
        result.first, result.last = first.thirds()

    async def _samples(self) -> list[Sample]:
        found = []
        for process in self._processes:
            answer = await process.ask(-1, do="sample")
            del answer["job"]
            found.append(Sample(**answer))
        return found

    def _say(self, now: Sample) -> None:
        result, total = self._result, self._result.total
        print(
            f"{result.backend}: {result.seconds / 60:.1f} min, {result.rounds} rounds, "
            f"{total.received:,} packets received ({total.received / result.seconds:,.0f}/s), "
            f"{total.dropped_by_kernel:,} dropped by the kernel, {now.rss / 2**20:.1f} MiB, "
            f"{now.blocks:,} blocks, {now.descriptors} descriptors",
            flush=True,
        )

    def _plant(self) -> None:
        plant = self._options.plant
        if plant == "descriptor":
            self._kept.append(os.dup(0))
        elif plant == "memory":
            self._kept.append([[] for _ in range(5000)])


def main() -> int:
    """Do what the command line says; return 1 for a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--senders", type=int, required=True)
    parser.add_argument("--plant", choices=PLANTS, required=True)
    parser.add_argument("--result", type=Path, required=True)
    options = parser.parse_args()
    faulthandler.enable()
    result = Result(options.backend, compiled, options.engine)
    backend, backend_options = BACKENDS[options.backend]
    plant = options.plant if options.plant in SENDERS_PLANTS else ""
    try:
        with processes(options.senders, options.backend, plant) as who:
            leg = Leg(options, result, who)
            anyio.run(leg.run, backend=backend, backend_options=backend_options)
    except BaseException as error:
        fault = first_fault(error)
        result.fault = f"{type(fault).__name__}: {fault}"
        if not isinstance(fault, FaultError):
            raise
    finally:
        options.result.write_text(json.dumps(asdict(result)))
    return 1 if result.fault else 0


def first_fault(error: BaseException) -> BaseException:
    """Return what went wrong: of a group, the first fault in it."""
    found = [error]
    for each in found:
        found += getattr(each, "exceptions", ())
    return next((each for each in found if isinstance(each, FaultError)), found[-1])


if __name__ == "__main__":
    sys.exit(main())
