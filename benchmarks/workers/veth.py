"""A receiver in a network namespace of its own: ``python -m benchmarks.workers.veth KEY``.

It starts its load (`workers.veth_load`) in another namespace. A veth pair is between the two. It
greets with {"port", "load": the load's process id}.

=======================  ====================================================================
buffer BYTES             {"granted": what SO_RCVBUF reports then}
cross WAY COUNT RATE     has the load send COUNT packets in bursts, RATE packets a second, and
                         receives them: {"sent", "received", "messages", "ns": this process's
                         CPU time}, or {"missing": why it can't be done}
burst WAY COUNT          the same, but it looks only when the load has sent all; no "ns"
=======================  ====================================================================
"""

from __future__ import annotations

import gc
import select
import socket
import sys
import time
from collections.abc import Callable

from benchmarks import udp
from benchmarks.candidates.veth import SPECS, TRAIN, WAYS, Counts, VethSpec
from benchmarks.children import Child, python
from benchmarks.namespaces import FAR, VethPair
from benchmarks.spec import UnavailableError

from .protocol import Answer, answer, main

QUIET = 20  # milliseconds without a packet, after the load's last, that end a measurement
WARM = 2 * TRAIN  # packets before the first measurement: the kernel has to ask who FAR is


class Crossing:
    """A receiver and its load: see the module.

    Args:
        receiver: In the far network.
        take: What takes its packets.
        load: Its process, in the near network.
    """

    def __init__(self, receiver: socket.socket, take: Callable[[], Counts], load: Child) -> None:
        assert load.process.stdout is not None
        self._take = take
        self._load = load
        self._answered = load.process.stdout.fileno()
        self._packets = select.poll()
        self._packets.register(receiver, select.POLLIN)
        self._both = select.poll()
        self._both.register(receiver, select.POLLIN)
        self._both.register(self._answered, select.POLLIN)

    def cross(self, count: int, train: int, rate: float) -> Answer:
        """Receive what the load sends meanwhile, and what comes after it."""
        packets = messages = 0
        take, wait = self._take, self._both.poll
        gc.collect()
        self._load.send("send", count, train, rate)
        start = time.process_time_ns()
        while not any(ready == self._answered for ready, _ in wait()):
            got, came = take()
            packets += got
            messages += came
        got, came = self._rest()
        spent = time.process_time_ns() - start
        sent = self._load.hear()
        return {**sent, "received": packets + got, "messages": messages + came, "ns": spent}

    def burst(self, count: int, train: int) -> Answer:
        """Receive what the load has sent when it has."""
        sent = self._load.ask("send", count, train, 0)
        packets, messages = self._rest()
        return {**sent, "received": packets, "messages": messages}

    def _rest(self) -> Counts:
        """Receive until nothing comes any more."""
        packets = messages = 0
        while self._packets.poll(QUIET):
            got, came = self._take()
            packets += got
            messages += came
        return packets, messages


async def serve(spec: VethSpec) -> None:
    """Open sockets and obey commands until the input ends."""
    assert spec.open is not None
    pair = VethPair()
    ways = {way.key: way for way in WAYS}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((FAR, 0))
        receiver.setblocking(False)
        take = spec.open(receiver)
        port = receiver.getsockname()[1]
        with pair.near():
            load = Child(python("veth_load", str(port)), {}, None)
        try:
            load.hear()
            crossing = Crossing(receiver, take, load)
            if not crossing.cross(WARM, 1, 0)["received"]:
                raise UnavailableError("nothing crosses a veth pair here")
            gc.collect()
            gc.freeze()  # as in workers/receive.py
            answer({"port": port, "load": load.process.pid})
            while words := sys.stdin.readline().split():
                match words:
                    case ["buffer", size]:
                        answer({"granted": udp.set_buffer(receiver, int(size))})
                    case ["cross" | "burst", key, count, *rate]:
                        way = ways[key]
                        train = TRAIN if way.gso else 1
                        try:
                            pair.arrange(cut=way.cut, coalesce=way.coalesce)
                        except UnavailableError as reason:
                            answer({"missing": str(reason)})
                            continue
                        if rate:
                            answer(crossing.cross(int(count), train, float(rate[0])))
                        else:
                            answer(crossing.burst(int(count), train))
                    case _:
                        raise SystemExit(f"unknown command: {words}")
        finally:
            load.close()


if __name__ == "__main__":
    main(serve, SPECS)
