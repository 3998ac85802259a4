"""Answers on a machine with several addresses: test_reply_source.py runs it in its own network.

What goes to an address of this machine takes loopback, and comes in with that address all the
same; what goes to a group or a broadcast address comes back as a copy.
"""

from __future__ import annotations

import os
import shlex
import socket
import struct
import subprocess
import sys
from typing import Any, cast

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendOptions,
    SendResult,
    send_mmsg_nowait,
)

from .helpers import failures
from .test_network import MISSING
from .wildcard import ask, sources, wildcard


def change(command: str) -> str:
    # Without a sanitizer's library, which finds faults of the tool.
    variables = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, env=variables)
    if done.returncode:
        print(f"{command}: {done.stderr.strip()}")
        sys.exit(MISSING)
    return done.stdout


def until_local(*hosts: str) -> None:
    """Wait for the kernel to have routes to IPv6 addresses that it was given."""
    for host in hosts:
        while f"local {host} " not in change("ip -6 route show table local"):
            pass


def udp(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(socket.getaddrinfo(host, 0, family, socket.SOCK_DGRAM)[0][4])
    return sock


def main(sending: SendEngine, engine: ReceiveEngine, gso: str) -> None:
    for command in (
        "ip link set lo up",
        "ip link add one type veth peer name two",
        "ip link set one addrgenmode none",
        "ip link set two addrgenmode none",
        "ip link set one up",
        "ip link set two up",
        "ip addr add 10.9.0.1/24 brd 10.9.0.255 dev one",
        "ip addr add 10.9.0.7/24 dev one",
        "ip addr add fd09::1/64 dev one nodad",
        "ip addr add fd09::7/64 dev one nodad",
        "ip addr add fe80::1/64 dev one nodad",
        "ip addr add fe80::7/64 dev one nodad",
    ):
        change(command)
    until_local("fd09::1", "fd09::7", "fe80::1", "fe80::7")
    how: dict[str, Any] = {"engine": sending, "gso": bool(gso)}
    index = socket.if_nametoindex("one")
    group = socket.inet_aton("239.7.7.7") + socket.inet_aton("10.9.0.1")

    def answers(kind: str, asking: socket.socket, places: list[str], **more: Any) -> list[str]:
        with asking, wildcard(kind, destinations=True) as server:
            if kind == "inet":
                server.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            if kind != "inet":
                request = socket.inet_pton(socket.AF_INET6, "ff02::7:7") + struct.pack("@i", index)
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
            batch = PacketBatch(engine=engine, ancillary=True)
            ask(server, asking, batch, places)
            result = send_mmsg_nowait(server, batch, reply_from_destination=True, **how, **more)
            assert result == SendResult(len(places), []), result
            got = sources(asking)
            assert [data for data, _ in got] == [b"%d" % n for n in range(len(places))]
            hosts = [host for _, host in got]
            # The options of an answer do the same later.
            later = [(b"", p.address, SendOptions.reply_to(p)) for p in batch]
            result = send_mmsg_nowait(server, later, **how, **more)
            assert result == SendResult(len(places), []), result
            assert [host for _, host in sources(asking)] == hosts
            return hosts

    several = ["10.9.0.7", "10.9.0.1", "10.9.0.7", "10.9.0.7"]
    assert answers("inet", udp("10.9.0.1"), several) == several
    assert answers("dual", udp("10.9.0.1"), several) == several

    several = ["fd09::7", "fd09::1", "fd09::1", "fd09::7"]
    for kind in ("inet6", "dual"):
        assert answers(kind, udp("fd09::1"), several) == several
        # With ECN the source is there too.
        assert answers(kind, udp("fd09::1"), several, ecn=1) == several

    # Link-local addresses are those of an interface.
    several = ["fe80::7", "fe80::1", "fe80::7"]
    scoped = [f"{place}%one" for place in several]
    assert answers("inet6", udp("fe80::1%one"), scoped) == several
    with wildcard("inet6") as server, udp("fe80::1%one") as asking:
        to = asking.getsockname()
        for source in ("fe80::7%one", f"fe80::7%{index}"):
            send_mmsg_nowait(server, [(b"x", to)], source=source, **how).raise_for_failures()
        assert sources(asking) == [(b"x", "fe80::7")] * 2
        result = send_mmsg_nowait(server, [(b"x", to)], source="fe80::8%one", **how)
        assert [index for index, _ in failures(result)] == [0]

    # Those who ask a group or a broadcast address get an answer from one that can be a source.
    asking = udp("10.9.0.1")
    asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.9.0.1"))
    assert answers("inet", asking, ["239.7.7.7"]) == ["10.9.0.1"]
    asking = udp("fd09::7")
    asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
    assert answers("inet6", asking, ["ff02::7:7"]) == ["fd09::7"]
    asking = udp("10.9.0.7")
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    assert answers("inet", asking, ["10.9.0.255"]) == ["10.9.0.1"]

    # An address that is gone is the failure of the packets that were sent there.
    with wildcard("inet", destinations=True) as server, udp("10.9.0.1") as asking:
        batch = PacketBatch(engine=engine, ancillary=True)
        ask(server, asking, batch, ["10.9.0.1", "10.9.0.7", "10.9.0.1"])
        change("ip addr del 10.9.0.7/24 dev one")
        result = send_mmsg_nowait(server, batch, reply_from_destination=True, **how)
        assert [index for index, _ in failures(result)] == [1]
        assert sources(asking) == [(b"0", "10.9.0.1"), (b"2", "10.9.0.1")]
    print("played")


if __name__ == "__main__":
    main(*cast(Any, sys.argv[1:]))
