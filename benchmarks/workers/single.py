"""A single call's process: ``python -m benchmarks.workers.single KEY``.

=====================  ======================================================================
buffer BYTES           {"granted": what SO_RCVBUF reports then}
call COUNT TIMES       calls COUNT times, with a packet there for each, or room; and again:
                       {"ns": [of each time]}
=====================  ======================================================================
"""

from __future__ import annotations

import gc
import sys

from benchmarks import udp
from benchmarks.candidates.singles import SPECS, SingleSpec, prepare

from .protocol import answer, main


async def serve(spec: SingleSpec) -> None:
    """Open a socket and obey commands until the input ends."""
    call = spec.open
    assert call is not None
    with udp.open_socket() as sock:
        answer({"port": sock.getsockname()[1]})
        while words := sys.stdin.readline().split():
            match words:
                case ["buffer", size]:
                    answer({"granted": udp.set_buffer(sock, int(size))})
                case ["call", count, times]:
                    nanoseconds = []
                    filler = prepare(spec.key, sock, int(count))
                    gc.collect()
                    for _ in range(int(times)):
                        if filler is not None:
                            filler.fill(sock)
                        nanoseconds.append(await call(sock, int(count)))
                        udp.empty(sock)
                    if filler is not None:
                        filler.close()
                    answer({"ns": nanoseconds})
                case _:
                    raise SystemExit(f"unknown command: {words}")


if __name__ == "__main__":
    main(serve, SPECS)
