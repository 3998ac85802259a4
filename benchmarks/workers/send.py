"""A sender's process in the benchmark `send`: ``python -m benchmarks.workers.send KEY``.

==========================================  ================================================
buffer BYTES                                {"granted": what SO_RCVBUF of the sockets that it
                                            opens from now on}
send PAYLOAD DESTINATIONS CALL COUNT TIMES  opens DESTINATIONS sockets, sends COUNT datagrams
                                            of PAYLOAD bytes to them in turn, CALL of them
                                            in each call, and receives them, the clock
                                            stopped; and again: {"ns": [of each time],
                                            "lost": in all}
==========================================  ================================================
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from contextlib import ExitStack

from benchmarks import udp
from benchmarks.candidates.receivers import Address
from benchmarks.candidates.senders import SPECS, Pairs, Sender, SenderSpec
from benchmarks.spec import UnavailableError

from .protocol import Answer, answer, main


async def clocked(
    sender: Sender, own: Address, sizes: tuple[int, int, int, int, int], buffer: int
) -> Answer:
    """Send from the address `own`, as the command says."""
    payload, destinations, call, count, times = sizes
    udp.allow_sockets(destinations)
    with ExitStack() as stack:
        opened = [stack.enter_context(udp.open_socket()) for _ in range(destinations)]
        for sink in opened:
            udp.set_buffer(sink, buffer)
        sinks = {sink.getsockname(): sink for sink in opened}
        # Objects of their own, of which none has the bytes of another.
        addresses = list(sinks)
        pairs = [(os.urandom(payload), addresses[i % destinations]) for i in range(count)]
        calls: list[Pairs] = [pairs[i : i + call] for i in range(0, count, call)]
        nanoseconds, lost = [], 0
        gc.collect()
        sender.prepare(calls, sinks)
        for _ in range(times):
            nanoseconds.append(await sender.clocked())
            lost += count - sum(udp.empty(sink, own) for sink in opened)
    return {"ns": nanoseconds, "lost": lost}


async def serve(spec: SenderSpec) -> None:
    """Put a socket into the sender's hands, and obey commands."""
    assert spec.open is not None
    sock = udp.open_socket()
    port = sock.getsockname()[1]
    with sock.dup() as options:
        try:
            sender = await spec.open(sock)
        except UnavailableError:
            sock.close()
            raise
        gc.collect()
        gc.freeze()
        answer({"port": port})
        try:
            await obey(sender, options)
        finally:
            await sender.aclose()


async def obey(sender: Sender, options: socket.socket) -> None:
    """Obey commands until the input ends."""
    buffer = 0
    while words := sys.stdin.readline().split():
        match words:
            case ["buffer", size]:
                buffer = int(size)
                answer({"granted": udp.set_buffer(options, buffer)})
            case ["send", payload, destinations, call, count, times]:
                sizes = int(payload), int(destinations), int(call), int(count), int(times)
                answer(await clocked(sender, options.getsockname(), sizes, buffer))
            case _:
                raise SystemExit(f"unknown command: {words}")


if __name__ == "__main__":
    main(serve, SPECS)
