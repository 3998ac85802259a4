"""A receiver's process: ``python -m benchmarks.workers.receive KEY``.

Its event loop stands still between commands.

================================================  ==============================================
buffer BYTES                                      {"granted": what SO_RCVBUF reports then}
drain COUNT PAYLOAD LEAST SENDERS USE TIMES       fills its own socket, the clock stopped, then
                                                  receives; and again: {"queued": the fewest that
                                                  fit, "lost": beyond that, "ns": [of each time]}.
                                                  Sizes are PAYLOAD, or go round from LEAST to one
                                                  byte less than PAYLOAD; SENDERS take turns
receive COUNT SECONDS USE                         receives what others send, until COUNT or the
                                                  deadline: {"received", "ns", "dropped" by the
                                                  kernel}
memory                                            {"rss": bytes resident}
slots CAPACITY SLOT_SIZE ENGINE                   {"beyond": bytes that a slot of a batch costs
                                                  beyond its payload}
================================================  ==============================================
"""

from __future__ import annotations

import gc
import socket
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import cast

import anyio

from anyio_mmsg import PacketBatch, ReceiveEngine, recv_mmsg_nowait
from benchmarks import udp
from benchmarks.candidates.receivers import Receiver, ReceiverSpec, Use
from benchmarks.candidates.receiving_peers import SPECS
from benchmarks.spec import UnavailableError

from .protocol import Answer, answer, main

GRACE, GRACE_A_PACKET = 0.5, 100e-6
"""Seconds until a drain is given up, since packets were lost, as the sum of both. The slowest
peer needs about 25 microseconds a packet."""

QUIET = 0.05
"""Seconds without a packet after which a receiver that is past its deadline takes it that no
more come."""


async def clocked(
    receiver: Receiver,
    count: int,
    use: Use,
    seconds: float,
    ready: Callable[[], None] = lambda: None,
) -> Answer:
    """Receive `count` packets, or what comes within `seconds`; both are counted from here.

    What is still coming in after the deadline is received too, so that nothing is left for the
    next command to find.
    """
    receiver.got = 0
    ready()
    start = perf_counter_ns()
    with anyio.move_on_after(seconds):
        await receiver.receive(count, use)
    stop = perf_counter_ns()
    before = -1
    while before < receiver.got < count:
        before = receiver.got
        with anyio.move_on_after(QUIET):
            await receiver.receive(count, use)
    return {"received": receiver.got, "ns": stop - start}


async def drain(
    receiver: Receiver, options: socket.socket, filler: udp.Filler, use: Use, times: int
) -> Answer:
    """Fill and receive some times over."""
    nanoseconds, queued, lost = [], filler.count, 0
    gc.collect()  # once: it would leave nothing of the receiver in the caches
    for _ in range(times):
        fit = filler.fill(options)
        result = await clocked(receiver, fit, use, GRACE + GRACE_A_PACKET * fit)
        nanoseconds.append(result["ns"])
        queued = min(queued, fit)
        lost += fit - result["received"]
        if lost:  # it will have no figure, and each loss takes the time until it is given up
            break
    return {"queued": queued, "lost": lost, "ns": nanoseconds}


def resident() -> int:
    """Return the bytes of this process that are in memory now, or 0 where /proc is not."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    import resource  # not on Windows, which has no /proc either

    return pages * resource.getpagesize()


def slot_bytes(engine: ReceiveEngine, capacity: int, slot_size: int) -> float:
    """Return the bytes by slot that a batch takes at its fullest: data and addresses read."""
    with udp.open_socket() as sock, udp.Filler(sock, capacity, slot_size) as filler:
        udp.set_buffer(sock, capacity * slot_size * 4)
        size, held = 0, 1
        for _ in range(2):  # the first time for what is made once in a process
            filler.fill(sock)
            gc.collect()
            tracemalloc.start()
            batch = PacketBatch(capacity, slot_size, engine)
            held = recv_mmsg_nowait(sock, batch, capacity)
            batch.payloads()
            batch.addresses()
            gc.collect()
            size = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
    return size / held


async def serve(spec: ReceiverSpec) -> None:
    """Put a socket into the receiver's hands, and obey commands."""
    assert spec.open is not None
    sock = udp.open_socket()
    # The library owns `sock`; `options` is the same socket, for its options and counts.
    with sock.dup() as options:
        try:
            receiver = await spec.open(sock)
        except UnavailableError:
            sock.close()
            raise
        gc.collect()
        gc.freeze()  # what was imported is not garbage: collections before the clock are quick
        answer({"port": options.getsockname()[1]})
        try:
            await obey(receiver, options)
        finally:
            await receiver.aclose()


async def obey(receiver: Receiver, options: socket.socket) -> None:
    """Obey commands until the input ends."""
    while words := sys.stdin.readline().split():
        match words:
            case ["buffer", size]:
                answer({"granted": udp.set_buffer(options, int(size))})
            case ["drain", count, payload, least, senders, use, times]:
                sizes = int(count), int(payload), int(least), int(senders)
                with udp.Filler(options, *sizes) as filler:
                    answer(await drain(receiver, options, filler, cast(Use, use), int(times)))
            case ["receive", count, seconds, use]:
                before = udp.drops(options)
                gc.collect()
                result = await clocked(
                    receiver,
                    int(count),
                    cast(Use, use),
                    float(seconds),
                    lambda: answer({"ready": True}),
                )
                answer({**result, "dropped": udp.drops(options) - before})
            case ["memory"]:
                answer({"rss": resident()})
            case ["slots", capacity, slot_size, engine]:
                size = slot_bytes(cast(ReceiveEngine, engine), int(capacity), int(slot_size))
                answer({"beyond": size - int(slot_size)})
            case _:
                raise SystemExit(f"unknown command: {words}")


if __name__ == "__main__":
    main(serve, SPECS)
