"""Random schedules of fills, releases, reads, sends, interrupts and closes, over calls that fail.

``python -m tests.trust.storm [--seed S] [--rounds N]``; a failure prints how to repeat it. Each
round is a batch's life. Needs gcc, and a C library whose calls can be stood in for.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

import anyio_mmsg
from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendResult,
    recv_mmsg_nowait,
    send_mmsg_nowait,
)
from anyio_mmsg._packets import compiled
from anyio_mmsg._system.platform import Refused

from ..interrupts import BeforeOpcode, Interrupt
from .storm_lives import async_life, life_of_trains
from .world import SLOT_SIZE, Sockets, World, body, sockets

HERE = Path(__file__).parent
LENGTH, NAME, CONTROL = 1, 2, 4  # the lies, as in shim.c


class Storm(World):
    """A world whose kernel may lie about lengths and senders, never about bytes."""

    def check(self, keep: bool = False) -> None:
        batch = self.batch
        packets, payloads, addresses = list(batch), batch.payloads(), batch.addresses()
        sizes = batch.sizes()
        first, last = self.slots.head, self.slots.tail
        assert last - first == len(batch) == len(packets) == len(sizes)
        for number, packet, data, address, size in zip(  # noqa: B905
            range(first, last), packets, payloads, addresses, sizes
        ):
            expected = body(number, number % 3)[:SLOT_SIZE]
            assert bytes(data)[: len(expected)] == expected, f"{bytes(data)!r} is not {number}"
            assert packet.data == data
            assert size == packet.size == len(data) <= SLOT_SIZE
            assert size == len(expected) or (packet.truncated and size == SLOT_SIZE)
            assert packet.address == address
            assert address in (None, self.sockets.names[number % 3])
            for attribute in ("timestamp", "destination", "ecn", "hop_limit", "interface"):
                with contextlib.suppress(ValueError, AttributeError):  # cut, or not asked for
                    getattr(packet, attribute)
            if keep:
                self.kept += [(number, packet), (number, data)]
        self.check_kept()

    def check_kept(self) -> None:
        for number, thing in self.kept:
            try:
                data = bytes(thing if isinstance(thing, memoryview) else thing.data)
            except ValueError:
                continue
            assert number >= self.slots.head, f"packet {number} lives on after its release"
            assert data.startswith(body(number, number % 3)[:SLOT_SIZE])
        self.kept = self.kept[-40:]


def check_sent(sockets: Sockets, rng: random.Random, shim: Any, seed: int) -> None:
    """Send some packets; the result has to say which ones arrived."""
    sockets.empty()
    to = sockets.receiver.getsockname()
    datas = [b"sent %d" % number * rng.randint(1, 3) for number in range(rng.randint(1, 12))]
    result = SendResult()
    packets = [(data, to) for data in datas]
    engine: SendEngine = rng.choice(["sendto", "sendmmsg"] if compiled else ["sendto"])
    with point(rng):
        try:
            send_mmsg_nowait(
                sockets.senders[0], packets, gso=rng.random() < 0.3, engine=engine, result=result
            )
        except (OSError, anyio.WouldBlock):
            pass
        except Interrupt:
            pass
    shim.shim_plan(0, 0, 0)
    failed = {index for index, _ in result.failures}
    got = []
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(sockets.receiver.recv(100))
    wanted = [datas[index] for index in range(result.handled) if index not in failed]
    assert got == wanted, f"{result} of {datas}; {got} arrived"
    assert result.sent == len(got)
    shim.shim_plan(seed, 0, 0)


def raises() -> None:
    raise Interrupt


def point(rng: random.Random) -> Any:
    if rng.random() < 0.4:
        return BeforeOpcode(rng.randrange(300), raises)
    return contextlib.nullcontext()


def one_life(seed: int, found: Sockets, shim: Any) -> int:
    """Let a batch live; return how many packets came."""
    rng = random.Random(seed)
    Refused.recvmmsg = Refused.sendmmsg = False
    engine: ReceiveEngine = rng.choice(["recvfrom_into", "auto"])
    shim.shim_plan(0, 0, 0)
    world = Storm(found, engine, rng.choice([1, 2, 5, 16]))
    ancillary = rng.random() < 0.3
    if ancillary:
        world.batch = PacketBatch(world.batch.capacity, SLOT_SIZE, engine, ancillary=True)
        world.slots = world.batch._slots
    lies = rng.choice([0, LENGTH, NAME, CONTROL, LENGTH | NAME | CONTROL])

    def receive() -> None:
        with contextlib.suppress(anyio.WouldBlock, anyio_mmsg.BatchFullError, OSError):
            recv_mmsg_nowait(found.receiver, world.batch, rng.choice([1, 2, 64]))

    count = 0

    def release() -> None:
        world.batch.release(count)

    def clear() -> None:
        world.batch.clear()

    steps: list[Callable[[], object]] = [
        receive,
        receive,
        receive,
        release,
        clear,
        lambda: [packet.address for packet in world.batch],
        lambda: (world.batch.payloads(), world.batch.addresses(), world.batch.sizes()),
    ]
    for turn in range(rng.randint(5, 40)):
        shim.shim_plan(0, 0, 0)
        if world.sent - world.slots.tail < 20:
            world.send(rng.randint(0, 5))
        shim.shim_plan(seed * 1000 + turn, rng.choice([0, 200, 700]), lies)
        step, held = rng.choice(steps), len(world.batch)
        count = rng.randint(0, held)
        try:
            with point(rng):
                step()
        except Interrupt:
            if step in (release, clear) and len(world.batch) == held:
                step()  # it was not done, and has to be done again
        if rng.random() < 0.5:
            world.check(keep=rng.random() < 0.3)
    shim.shim_plan(0, 0, 0)
    if rng.random() < 0.3:  # what is held ends with the batch; the rest is still in the socket
        world.batch.close()
        for number in range(world.slots.tail, world.sent):
            assert found.receiver.recv(100) == body(number, number % 3)
    dry = 0
    while not world.batch.closed and world.slots.tail < world.sent:
        with contextlib.suppress(anyio.WouldBlock, anyio_mmsg.BatchFullError, OSError):
            recv_mmsg_nowait(found.receiver, world.batch)
        dry = 0 if len(world.batch) else dry + 1
        assert dry < 3, "packets were lost"  # an error that came after packets is raised first
        world.check()
        world.batch.clear()
    if not world.batch.closed:
        world.batch.close()
    world.check_kept()
    if not Refused.sendmmsg:
        shim.shim_plan(seed, 300, 0)
        check_sent(found, rng, shim, seed)
    shim.shim_plan(0, 0, 0)
    return world.sent


LIVES = [one_life, one_life, life_of_trains, one_life, async_life]


def run(seed: int, rounds: int) -> None:
    shim: Any = ctypes.CDLL(os.environ["ANYIO_MMSG_SHIM"])
    shim.shim_plan.argtypes = [ctypes.c_uint64, ctypes.c_uint, ctypes.c_int]
    shim.shim_faults.restype = ctypes.c_long
    came = 0
    with sockets() as found:
        for number in range(seed, seed + rounds):
            try:
                life = LIVES[number % len(LIVES)]
                came += life(number, found, shim)
            except BaseException:
                again = "python -m tests.trust.storm --rounds 1 --seed"
                print(f"\nrepeat with: {again} {number}", file=sys.stderr)
                raise
    print(f"{rounds} batches, {came} packets, {shim.shim_faults()} faults: all accounted for")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    if "ANYIO_MMSG_SHIM" in os.environ:
        run(options.seed, options.rounds)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder) / "shim.so"
        flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
        subprocess.run(["gcc", *flags, str(HERE / "shim.c"), "-o", str(shim), "-ldl"], check=True)
        environment = {
            **os.environ,
            # Before a sanitizer's library, which would take the lies for the kernel's work.
            "LD_PRELOAD": f"{shim} {os.environ.get('LD_PRELOAD', '')}".strip(),
            "ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:verify_asan_link_order=0",
            "ANYIO_MMSG_SHIM": str(shim),
        }
        return subprocess.run(
            [sys.executable, "-m", "tests.trust.storm", *sys.argv[1:]],
            env=environment,
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
