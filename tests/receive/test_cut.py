"""Datagrams that are longer than their slots, on sockets that say so in other ways.

A ping socket does not know MSG_TRUNC as an argument, so a length can't show that a packet was cut.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine, recv_mmsg_nowait
from anyio_mmsg._system.control import SOL_UDP, UDP_GRO

from ..helpers import ENGINES, Family, contents
from ..send.test_network import MISSING, change, missing, own_network

UDP_SEGMENT = 103  # linux/udp.h


# Ping sockets


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_ping_socket(host: str) -> None:
    """In a network of its own, since who may have such sockets is a setting of it."""
    command = [*own_network(), sys.executable, "-W", "error", "-m", __name__, json.dumps(host)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if done.returncode == MISSING:
        pytest.skip(done.stdout.strip())
    assert (done.stdout, done.stderr, done.returncode) == ("played\n", "", 0)


def ping(host: str) -> None:
    change("ip link set lo up")
    ipv6 = ":" in host
    try:
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")
        sock = socket.socket(
            socket.AF_INET6 if ipv6 else socket.AF_INET,
            socket.SOCK_DGRAM,
            socket.IPPROTO_ICMPV6 if ipv6 else socket.IPPROTO_ICMP,
        )
    except OSError as error:
        missing(f"ping sockets are forbidden here: {error}")
    sock.setblocking(False)
    request, answer = (128, 129) if ipv6 else (8, 0)  # RFC 4443, RFC 792
    header = struct.pack("!BBHHH", request, 0, 0, 0, 1)
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.setblocking(False)
    udp.bind(("127.0.0.1", 0))
    with sock, udp:
        for engine in ENGINES:
            extra: Any
            for extra in ({}, {"ancillary": True}):
                batch = PacketBatch(slot_size=64, engine=engine, **extra)
                sizes = [0, 40, 56, 57, 200]
                for size in sizes:
                    sock.sendto(header + bytes(size), (host, 0))
                assert recv_mmsg_nowait(sock, batch) == len(sizes)
                # The same batch takes packets of other sockets too, whose length is known.
                udp.sendto(bytes(99), udp.getsockname())
                udp.sendto(bytes(64), udp.getsockname())
                assert recv_mmsg_nowait(udp, batch) == 2
                sock.sendto(header + bytes(57), (host, 0))
                assert recv_mmsg_nowait(sock, batch) == 1
                cut = [False, False, False, True, True, True, False, True]
                assert [packet.truncated for packet in batch] == batch.truncated() == cut
                lengths = [8, 48, 64, None, None, 99, 64, None]
                assert [packet.wire_size for packet in batch] == batch.wire_sizes() == lengths
                assert batch.sizes() == [8, 48, 64, 64, 64, 64, 64, 64]
                assert {batch[n].data[0] for n in (0, 1, 2, 3, 4, 7)} == {answer}
    print("played")


# Trains that nobody expects


@pytest.mark.skipif(sys.platform != "linux", reason="GRO is Linux's")
def test_gro_that_was_switched_on_behind_our_back(engine: ReceiveEngine, inet: Family) -> None:
    """A batch that was used with the socket is refused once a packet was cut."""
    receiver, sender = inet.pair()
    batch = PacketBatch(engine=engine)
    sender.send(b"before")
    assert recv_mmsg_nowait(receiver, batch) == 1
    try:
        receiver.setsockopt(SOL_UDP, UDP_GRO, 1)
        train = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", 1000))]
        sender.sendmsg([bytes(3000)], train)
    except OSError as error:
        pytest.skip(f"this kernel has no GRO: {error}")
    assert recv_mmsg_nowait(receiver, batch) == 1
    assert batch[1].truncated
    for _ in range(2):
        sender.send(b"after")
        with pytest.raises(ValueError, match="the socket has UDP_GRO on"):
            recv_mmsg_nowait(receiver, batch)
    with PacketBatch(engine=engine, gro=True) as other:
        assert recv_mmsg_nowait(receiver, other) == 2
        assert contents(other) == [b"after"] * 2


def test_packets_that_are_cut_are_received_on(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    batch = PacketBatch(slot_size=10, engine=engine)
    for _ in range(3):
        sender.send(bytes(11))
        sender.send(bytes(10))
        assert recv_mmsg_nowait(receiver, batch) == 2
    assert [packet.truncated for packet in batch] == [True, False] * 3
    known: Any = 11 if sys.platform == "linux" else None
    assert [packet.wire_size for packet in batch] == [known, 10] * 3


if __name__ == "__main__":
    ping(json.loads(sys.argv[1]))
