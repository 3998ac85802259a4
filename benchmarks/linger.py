"""What lingering saves: CPU time per second of a receiver, with and without.

    python -m benchmarks.linger
    python -m benchmarks.linger --loops trio --rates 10000 --linger 0.005 --seconds 5

A process of its own sends packets at a steady rate; the receiver counts them, and does nothing
else. Printed are the seconds of CPU time that its process took per second, without lingering and
with, their ratio, the packets of a batch, and how many packets the kernel dropped, of a buffer of
the default size. Rounds with and without alternate; each number is a median.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import anyio

from anyio_mmsg import PacketReceiver, ReceiverStatistics, open_udp_socket

LOOPS = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


@dataclass
class Round:
    """One receiver's second, or so."""

    cpu: float
    seen: ReceiverStatistics


def send(port: int, rate: int, size: int, seconds: float, tick: float) -> None:
    """Send at a steady rate, as the process that this module starts."""
    data = bytes(size)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        began, sent = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            while sent < passed * rate:
                sock.send(data)
                sent += 1
            if tick:
                time.sleep(tick)  # else the packets come one by one, and the sender never rests


async def receive(linger: float, rate: int, given: argparse.Namespace) -> Round:
    """Receive what a new sender sends, from its first packet on."""
    async with PacketReceiver(await open_udp_socket("127.0.0.1"), linger=linger) as receiver:
        port = receiver.extra(anyio.abc.SocketAttribute.local_port)
        command = [sys.executable, "-m", "benchmarks.linger", "--send", str(port)]
        command += ["--rates", str(rate), "--size", str(given.size), "--tick", str(given.tick)]
        command += ["--seconds", str(given.seconds + 1)]
        with subprocess.Popen(command) as sender:  # noqa: ASYNC220  # nothing else runs yet
            with await receiver.receive():
                began, cpu = time.perf_counter(), time.process_time()
            while (passed := time.perf_counter() - began) < given.seconds:
                with await receiver.receive():
                    pass
            cpu = (time.process_time() - cpu) / passed
            seen = receiver.statistics()
            sender.terminate()
    return Round(cpu, seen)


def compare(loop: str, rate: int, given: argparse.Namespace) -> None:
    """Print one line of the table."""
    backend, options = LOOPS[loop]
    linger = given.linger
    cpu: dict[float, list[float]] = {0.0: [], linger: []}
    drops, fill = dict.fromkeys(cpu, 0), dict.fromkeys(cpu, 0.0)
    for _ in range(given.rounds):
        for each in cpu:
            one = anyio.run(receive, each, rate, given, backend=backend, backend_options=options)
            cpu[each].append(one.cpu)
            drops[each] += one.seen.dropped_by_kernel or 0
            fill[each] = one.seen.packets / one.seen.batches
    without, with_ = (statistics.median(numbers) for numbers in cpu.values())
    print(
        f"{loop:8} {rate:8,} {without:8.3f} {with_:8.3f} {with_ / without:6.2f} "
        f"{fill[0.0]:7.1f} {fill[linger]:7.1f} {drops[0.0]:7,} {drops[linger]:7,}"
    )


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--rates", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--linger", type=float, default=0.005, help="seconds")
    parser.add_argument("--size", type=int, default=1232, help="bytes of a datagram")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tick", type=float, default=0.0, help="seconds between bursts")
    parser.add_argument("--send", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.send is not None:
        send(given.send, given.rates[0], given.size, given.seconds, given.tick)
        return
    print(f"linger {given.linger * 1000:g} ms, {given.size} bytes, {os.cpu_count()} cores")
    print("loop        rate  CPU s/s     with  ratio   batch    with   drops    with")
    for loop in given.loops:
        for rate in given.rates:
            compare(loop, rate, given)


if __name__ == "__main__":
    main()
