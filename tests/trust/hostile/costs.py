"""What a packet costs that is made to cost much: ``python -m tests.trust.hostile.costs``.

Each row compares two kinds of packets, in turns, by the CPU time of reading them. The line of JSON
that is printed has the two medians in nanoseconds. The compiled module is switched off as usual.
"""

from __future__ import annotations

import json
import os
import random
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from anyio import WouldBlock

from anyio_mmsg import PacketBatch, recv_mmsg_nowait
from anyio_mmsg._system.options import ask_for
from benchmarks.udp import LARGEST, set_buffer

from ..soak.channel import PYTHON

ROUNDS = 31
PACKETS = 1000  # of a round, but for those that are large
BUFFER = 16 << 20

Fill = Callable[[socket.socket, bool, int], None]
"""Sends a number of packets to a socket: those to compare with, or those that cost."""


def forged_addresses(family: int) -> Iterator[tuple[str, int]]:
    """Give addresses of this machine that can be sent from, some hundred thousand others each.

    All of 127.0.0.0/8 is this machine. IPv6 has one address for it, so only the port differs.
    """
    rng = random.Random(1)
    while True:
        port = rng.randint(1024, 65535)
        if family == socket.AF_INET6:
            yield "::1", port
        else:
            yield f"127.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randint(1, 254)}", port


def send_from(address: tuple[str, int], family: int, data: bytes, to: Any) -> bool:
    """Send a packet from an address; return whether that could be had."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(address)
        except OSError:  # somebody has it
            return False
        sock.sendto(data, to)
        return True


def from_many(family: int) -> Fill:
    """Return a function that fills from one source, or from as many as packets."""
    addresses = forged_addresses(family)
    one: list[socket.socket] = []

    def fill(receiver: socket.socket, forged: bool, count: int) -> None:
        if not one:
            one.append(socket.socket(family, socket.SOCK_DGRAM))
        to = receiver.getsockname()
        while count:
            if forged:
                count -= send_from(next(addresses), family, bytes(100), to)
            else:
                one[0].sendto(bytes(100), to)
                count -= 1

    return fill


def of_size(usual: int, odd: int) -> Fill:
    """Return a function that fills with packets of two sizes."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def fill(receiver: socket.socket, forged: bool, count: int) -> None:
        data, to = bytes(odd if forged else usual), receiver.getsockname()
        for _ in range(count):
            sender.sendto(data, to)

    return fill


def with_control(*, headers: bool) -> Fill:
    """Return a function that fills with packets of any TTL and TOS, or for any destination."""
    rng = random.Random(1)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def fill(receiver: socket.socket, forged: bool, count: int) -> None:
        host, port = "127.0.0.1", receiver.getsockname()[1]
        for _ in range(count):
            if headers:
                hops, tos = (rng.randint(1, 255), rng.randrange(256)) if forged else (64, 0)
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
            elif forged:
                host = f"127.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randint(1, 254)}"
            sender.sendto(bytes(100), (host, port))

    return fill


def read_sender(packet: Any) -> None:
    """Read what every consumer reads."""
    packet.data  # noqa: B018
    packet.address  # noqa: B018


def read_size(packet: Any) -> None:
    """Read that a packet was cut."""
    packet.data  # noqa: B018
    packet.truncated  # noqa: B018


def read_headers(packet: Any) -> None:
    """Read control data that senders choose."""
    packet.data  # noqa: B018
    packet.ecn  # noqa: B018
    packet.hop_limit  # noqa: B018


def read_destination(packet: Any) -> None:
    """Read control data that senders choose."""
    packet.data  # noqa: B018
    packet.destination  # noqa: B018


@dataclass(frozen=True)
class Cost:
    """A row: packets that are compared with others."""

    fill: Fill
    read: Callable[[Any], None]
    family: int = socket.AF_INET
    slot_size: int = 1232
    packets: int = PACKETS
    ancillary: bool = False

    def measure(self) -> list[float]:
        """Return nanoseconds of CPU time a packet: usual ones, and the others."""
        ipv6 = self.family == socket.AF_INET6
        with ExitStack() as stack:
            sock = stack.enter_context(socket.socket(self.family, socket.SOCK_DGRAM))
            set_buffer(sock, BUFFER)
            sock.bind(("::1" if ipv6 else "0.0.0.0" if self.ancillary else "127.0.0.1", 0))
            sock.setblocking(False)
            if self.ancillary:
                ask_for(sock, destinations=True, ecn=True, hop_limits=True)
            batch = stack.enter_context(PacketBatch(64, self.slot_size, ancillary=self.ancillary))
            times: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(ROUNDS):
                for forged, found in times.items():
                    self.fill(sock, forged, self.packets)
                    took, count = self._drain(sock, batch)
                    found.append(took / max(1, count))
            return [statistics.median(found) for found in times.values()]

    def _drain(self, sock: socket.socket, batch: PacketBatch) -> tuple[int, int]:
        count, began, read = 0, time.process_time_ns(), self.read
        try:
            while True:
                count += recv_mmsg_nowait(sock, batch)
                for packet in batch:
                    read(packet)
                batch.clear()
        except WouldBlock:
            return time.process_time_ns() - began, count


def costs() -> dict[str, Cost]:
    """Return the rows."""
    v4, v6 = socket.AF_INET, socket.AF_INET6
    return {
        "a source of its own for each packet, IPv4; `address` read": Cost(
            from_many(v4), read_sender
        ),
        "the same, IPv6": Cost(from_many(v6), read_sender, v6),
        f"{LARGEST:,} bytes into slots of 1 byte, against 1 byte": Cost(
            of_size(1, LARGEST), read_size, slot_size=1, packets=100
        ),
        "empty, against 100 bytes": Cost(of_size(100, 0), read_sender),
        "TTL and TOS differ from packet to packet; `ecn` and `hop_limit` read": Cost(
            with_control(headers=True), read_headers, ancillary=True
        ),
        "a destination of its own for each packet; `destination` read": Cost(
            with_control(headers=False), read_destination, ancillary=True
        ),
    }


def measure(compiled: bool) -> dict[str, list[float]]:
    """Measure all in a process of its own."""
    environment = {**os.environ, "ANYIO_MMSG_COMPILED": str(int(compiled))}
    command = [*PYTHON, "-m", "tests.trust.hostile.costs"]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps({name: cost.measure() for name, cost in costs().items()}))
