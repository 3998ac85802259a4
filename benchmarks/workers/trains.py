"""The process of one that takes trains: ``python -m benchmarks.workers.trains KEY``.

========================  ===================================================================
buffer BYTES              {"granted": what SO_RCVBUF reports then}
drain COUNT TRAIN TIMES   sends itself COUNT packets in trains of TRAIN, the clock stopped, then
                          takes them; and again: {"ns": [of each time], "lost": packets}
========================  ===================================================================
"""

from __future__ import annotations

import gc
import sys
from time import perf_counter_ns

from benchmarks import udp
from benchmarks.candidates.trains import SPECS, TrainSpec, fill, open_pair

from .protocol import answer, main


async def serve(spec: TrainSpec) -> None:
    """Open sockets and obey commands until the input ends."""
    receiver, sender, take = open_pair(spec)
    with receiver, sender:
        gc.collect()
        gc.freeze()  # as in workers/receive.py
        answer({"port": receiver.getsockname()[1]})
        while words := sys.stdin.readline().split():
            match words:
                case ["buffer", size]:
                    answer({"granted": udp.set_buffer(receiver, int(size))})
                case ["drain", count, train, times]:
                    nanoseconds, lost = [], 0
                    gc.collect()
                    for _ in range(int(times)):
                        fill(sender, int(count), int(train))
                        start = perf_counter_ns()
                        taken = take()
                        nanoseconds.append(perf_counter_ns() - start)
                        lost += int(count) - taken
                    answer({"ns": nanoseconds, "lost": lost})
                case _:
                    raise SystemExit(f"unknown command: {words}")


if __name__ == "__main__":
    main(serve, SPECS)
