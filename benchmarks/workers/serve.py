"""A server's process: ``python -m benchmarks.workers.serve KEY``.

==========================  ================================================================
buffer BYTES                {"granted": what SO_RCVBUF reports then}
serve                       {"ready"}, and serves until the next line; then {"cpu": seconds
                            of the processor that it took, "seconds": of the clock,
                            "dropped": datagrams, by the kernel}
==========================  ================================================================
"""

from __future__ import annotations

import gc
import socket
import sys
import time

import anyio
from anyio import to_thread

from benchmarks import udp
from benchmarks.candidates.servers import Server
from benchmarks.candidates.serving_peers import SPECS, ServerSpec
from benchmarks.spec import UnavailableError

from .protocol import Answer, answer, main


async def clocked(server: Server, options: socket.socket) -> Answer:
    """Serve until a line comes."""
    found: Answer = {}
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(server.serve)
        await anyio.lowlevel.checkpoint()
        dropped = udp.drops(options)
        gc.collect()
        began, cpu = time.perf_counter(), time.process_time()
        answer({"ready": True})
        # A thread reads: it takes no turn of the event loop, and pipes can be waited for nowhere.
        await to_thread.run_sync(sys.stdin.readline)
        found["seconds"] = time.perf_counter() - began
        found["cpu"] = time.process_time() - cpu
        found["dropped"] = udp.drops(options) - dropped
        nursery.cancel_scope.cancel()
    return found


async def serve(spec: ServerSpec) -> None:
    """Put a socket into the server's hands, and obey commands."""
    assert spec.open is not None
    sock = udp.open_socket()
    with sock.dup() as options:
        try:
            server = await spec.open(sock)
        except UnavailableError:
            sock.close()
            raise
        gc.collect()
        gc.freeze()
        answer({"port": options.getsockname()[1]})
        try:
            await obey(server, options)
        finally:
            await server.aclose()


async def obey(server: Server, options: socket.socket) -> None:
    """Obey commands until the input ends."""
    while words := sys.stdin.readline().split():
        match words:
            case ["buffer", size]:
                answer({"granted": udp.set_buffer(options, int(size))})
            case ["serve"]:
                answer(await clocked(server, options))
            case _:
                raise SystemExit(f"unknown command: {words}")


if __name__ == "__main__":
    main(serve, SPECS)
