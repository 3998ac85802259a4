"""The load on the near side of a veth pair: ``python -m benchmarks.workers.veth_load PORT``.

It is started in its network namespace (`workers.veth`), and greets with {}.

=====================  ======================================================================
send COUNT TRAIN RATE  sends COUNT packets in bursts, evenly at RATE packets a second, or as
                       fast as it can if that is 0; a burst is one train of TRAIN, or as many
                       sends if that is 1: {"sent"}, or {"missing": why not}
=====================  ======================================================================
"""

from __future__ import annotations

import socket
import sys
from time import perf_counter

from benchmarks.candidates.trains import fill
from benchmarks.candidates.veth import TRAIN
from benchmarks.namespaces import FAR
from benchmarks.spec import UnavailableError

from .protocol import Answer, answer


def send(sock: socket.socket, count: int, train: int, rate: float) -> Answer:
    """Send bursts; see the module."""
    start = perf_counter()
    for sent in range(0, count, TRAIN):
        while rate and perf_counter() < start + sent / rate:
            pass  # no sleep is as precise
        try:
            fill(sock, min(TRAIN, count - sent), train)
        except UnavailableError as reason:
            return {"missing": str(reason)}
    return {"sent": count}


def main() -> None:
    """Obey commands until the input ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((FAR, int(sys.argv[1])))
        answer({})
        while words := sys.stdin.readline().split():
            match words:
                case ["send", count, train, rate]:
                    answer(send(sock, int(count), int(train), float(rate)))
                case _:
                    raise SystemExit(f"unknown command: {words}")


if __name__ == "__main__":
    main()
