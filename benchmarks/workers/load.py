"""The load's process: ``python -m benchmarks.workers.load``.

It greets with {"segmented": whether bursts are cut up by the kernel}.

=================================  =========================================================
send PORT PAYLOAD COUNT RATE       sends COUNT datagrams, evenly at RATE a second, or as fast
                                   as it can if that is 0: {"sent", "seconds"}
ping PORT PAYLOAD COUNT            sends one, waits for its echo, COUNT times:
                                   {"ns": [the round trips' times], "lost"}
pace PORT PAYLOAD COUNT RATE       sends COUNT datagrams, evenly at RATE a second, and takes
                                   what comes back meanwhile: {"ns": [the round trips'
                                   times], "lost", "seconds"}
flood PORT PAYLOAD WINDOW SECONDS  keeps up to WINDOW datagrams on their way there and back:
                                   {"echoed", "lost", "seconds", "cpu": seconds of it}
=================================  =========================================================
"""

from __future__ import annotations

import gc
import socket
import sys
from time import perf_counter, perf_counter_ns, process_time

from anyio import WouldBlock

from anyio_mmsg import PacketBatch, recv_mmsg_nowait
from benchmarks import udp

from .protocol import Answer, answer

UDP_SEGMENT = 103
"""linux/udp.h (Linux 4.18): a send of many payloads becomes a datagram each, inside the kernel.
One call then costs the sender little more for 32 datagrams than for one, so that it outruns the
receivers. What they see are plain datagrams."""

BURST = 32
"""The most datagrams of one call. The kernel's bounds are 64 segments and 65,507 bytes."""

TICK = 100e-6
"""Seconds between bursts, at rates where a tick brings a datagram or more: a compromise between
even spacing, as RFC 2544 section 21 wants it, and what a Python program can keep up."""

LATE = 1.1
"""How many times the time that COUNT / RATE gives a sending may take, until it is cut off."""

LIMIT = 2.0  # seconds of sending as fast as can be, at the most

ECHO_SECONDS = 0.5
"""Until a round trip is given up."""

STALL = 0.05
"""Seconds without an echo after which those that are missing are taken for lost."""

NUMBER = 4  # bytes

WHOLE = 4096
"""Bytes of a receive buffer that a datagram of 1232 takes, and to spare."""


def _segmented(sock: socket.socket, payload: int) -> bool:
    """Have `sock` cut what it sends into datagrams of `payload` bytes, if the kernel can."""
    if sys.platform != "linux":
        return False
    try:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, payload)
    except OSError:
        return False
    return True


def send(port: int, payload: int, count: int, rate: float) -> Answer:
    """Send evenly; see the module."""
    with udp.open_sender(port) as sock:
        burst = BURST if _segmented(sock, payload) else 1
        data = memoryview(bytes(payload * burst))
        sent = 0
        gc.collect()
        start = perf_counter()
        end = start + LATE * count / rate if rate else start + LIMIT
        while sent < count:
            now = perf_counter()
            if now >= end:
                break
            due = min(count, int((now - start) * rate) + 1) if rate else count
            if due - sent < min(burst, max(1, int(rate * TICK))) and due < count and rate:
                continue  # busy: no sleep is as precise
            number = min(burst, due - sent)
            if number > 0:
                sock.send(data[: number * payload])
                sent += number
        return {"sent": sent, "seconds": perf_counter() - start}


def ping(port: int, payload: int, count: int) -> Answer:
    """Measure round trips; see the module."""
    nanoseconds: list[int] = []
    lost = 0
    data = bytes(payload)
    buffer = bytearray(payload)
    with udp.open_sender() as sock:
        sock.settimeout(ECHO_SECONDS)
        target = (udp.LOOPBACK, port)
        gc.collect()
        for _ in range(count):
            start = perf_counter_ns()
            sock.sendto(data, target)
            try:
                sock.recvfrom_into(buffer)
            except TimeoutError:
                lost += 1
                if lost > count // 100 + 1:
                    break  # something is wrong: no use in waiting for the rest
                continue
            nanoseconds.append(perf_counter_ns() - start)
    return {"ns": nanoseconds, "lost": lost}


def pace(port: int, payload: int, count: int, rate: float) -> Answer:
    """Measure round trips at a rate; see the module.

    The socket's own functions do it, so that the library has no part in this. A datagram begins
    with its number.
    """
    nanoseconds: list[int] = []
    stamps = [0] * count
    tail = bytes(payload - NUMBER)
    buffer = bytearray(payload)
    sent = 0
    with udp.open_sender(port) as sock:
        sock.setblocking(False)
        udp.set_buffer(sock, 4096 * WHOLE)
        send, recv_into, clock = sock.send, sock.recv_into, perf_counter_ns
        apart = 1e9 / rate
        gc.collect()
        start = heard = clock()
        while len(nanoseconds) < count:
            now = clock()
            if sent < count and now >= start + sent * apart:
                stamps[sent] = now
                send(sent.to_bytes(NUMBER, "big") + tail)
                sent += 1
                heard = now
            try:
                recv_into(buffer)
            except BlockingIOError:
                if now - heard > STALL * 1e9:
                    break
                continue
            heard = clock()
            nanoseconds.append(heard - stamps[int.from_bytes(buffer[:NUMBER], "big")])
        return {
            "ns": nanoseconds,
            "lost": sent - len(nanoseconds),
            "seconds": (heard - start) / 1e9,
        }


def flood(port: int, payload: int, window: int, seconds: float) -> Answer:
    """Measure how many come back; see the module."""
    with udp.open_sender(port) as sock:
        sock.setblocking(False)
        udp.set_buffer(sock, window * WHOLE)
        burst = BURST if _segmented(sock, payload) else 1
        data = bytes(payload * burst)
        batch = PacketBatch(window, payload)
        echoed = lost = away = 0
        gc.collect()
        cpu = process_time()
        start = heard = now = perf_counter()
        end = start + seconds
        while now < end:
            if away + burst <= window:
                sock.send(data)
                away += burst
            got = _take(sock, batch)
            now = perf_counter()
            if got:
                heard = now
            elif now - heard > STALL:  # they are not on their way any more
                lost += away
                away, heard = 0, now
            away = max(0, away - got)  # some may come that were taken for lost
            echoed += got
        stop, cpu = now, process_time() - cpu
        while away > 0 and now - heard < STALL:  # so that the next one finds nothing
            got = _take(sock, batch)
            now = perf_counter()
            heard = now if got else heard
            away -= got
        return {"echoed": echoed, "lost": lost + away, "seconds": stop - start, "cpu": cpu}


def _take(sock: socket.socket, batch: PacketBatch) -> int:
    try:
        return recv_mmsg_nowait(sock, batch, batch.capacity)
    except WouldBlock:
        return 0
    finally:
        batch.clear()


def main() -> None:
    """Obey commands until the input ends."""
    with udp.open_sender() as sock:
        answer({"segmented": _segmented(sock, 64)})
    while words := sys.stdin.readline().split():
        match words:
            case ["send", port, payload, count, rate]:
                answer(send(int(port), int(payload), int(count), float(rate)))
            case ["ping", port, payload, count]:
                answer(ping(int(port), int(payload), int(count)))
            case ["pace", port, payload, count, rate]:
                answer(pace(int(port), int(payload), int(count), float(rate)))
            case ["flood", port, payload, window, seconds]:
                answer(flood(int(port), int(payload), int(window), float(seconds)))
            case _:
                raise SystemExit(f"unknown command: {words}")


if __name__ == "__main__":
    main()
