"""Two cards in one network: test_options.py runs it in a network of its own.

A packet leaves by the card, with the hop limit and from the source that its options name,
over IPv4, IPv6, and from a dual-stack socket.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any, cast

from anyio_mmsg import SendEngine, SendOptions, send_mmsg_nowait

from .source_network import change, until_local
from .wildcard import wildcard

PORT = 4242
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 3, 0x0800, 0x86DD
Seen = tuple[bytes, str, int]
"""What went over a cable: the payload, the source, and the hop limit."""


def tap(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.setblocking(False)
    sock.bind((name, 0))
    return sock


def taken(sock: socket.socket) -> list[Seen]:
    """What a tap has seen of our packets."""
    got: list[Seen] = []
    while True:
        try:
            frame = sock.recv(70_000)
        except BlockingIOError:
            return got
        (kind,) = struct.unpack_from("!H", frame, 12)
        if kind == ETH_P_IP and frame[23] == socket.IPPROTO_UDP:
            at, hops, host = 34, frame[22], socket.inet_ntop(socket.AF_INET, frame[26:30])
        elif kind == ETH_P_IPV6 and frame[20] == socket.IPPROTO_UDP:
            at, hops, host = 54, frame[21], socket.inet_ntop(socket.AF_INET6, frame[22:38])
        else:
            continue
        if struct.unpack_from("!H", frame, at + 2) == (PORT,):
            length = struct.unpack_from("!H", frame, at + 4)[0]
            got.append((frame[at + 8 : at + length], host, hops))


def main(sending: SendEngine, gso: str) -> None:
    cards = {"one": "two", "three": "four"}
    for number, (name, peer) in enumerate(cards.items(), 1):
        for command in (
            f"ip link add {name} type veth peer name {peer}",
            f"ip link set {name} addrgenmode none",
            f"ip link set {peer} addrgenmode none",
            f"ip link set {name} up",
            f"ip link set {peer} up",
            f"ip addr add 10.9.0.{number}/24 dev {name}",
            f"ip addr add fd09::{number}/64 dev {name} nodad",
            f"ip addr add fe80::{number}/64 dev {name} nodad",
            f"ip neigh add 10.9.0.99 lladdr 02:00:00:00:00:99 dev {name}",
            f"ip neigh add fd09::99 lladdr 02:00:00:00:00:99 dev {name}",
            f"ip neigh add fe80::99 lladdr 02:00:00:00:00:99 dev {name}",
        ):
            change(command)
    change("ip link set lo up")
    until_local("fd09::1", "fd09::2", "fe80::1", "fe80::2")
    taps = {name: tap(peer) for name, peer in cards.items()}
    how: dict[str, Any] = {"engine": sending, "gso": bool(gso)}

    def check(kind: str, to: str, expected: dict[str, list[Seen]], *given: SendOptions) -> None:
        with wildcard(kind) as sock:
            packets = [(b"%d" % n, (to, PORT), options) for n, options in enumerate(given)]
            result = send_mmsg_nowait(sock, packets, **how)
            assert result.sent == len(given), result
        got = {name: taken(sock) for name, sock in taps.items()}
        assert got == expected, (kind, to, got)

    one, three = (socket.if_nametoindex(name) for name in cards)
    for kind, to, own in (
        ("inet", "10.9.0.99", ("10.9.0.1", "10.9.0.2")),
        ("dual", "::ffff:10.9.0.99", ("10.9.0.1", "10.9.0.2")),
        ("inet6", "fd09::99", ("fd09::1", "fd09::2")),
        ("dual", "fd09::99", ("fd09::1", "fd09::2")),
    ):
        form = "::ffff:{}" if to.startswith("::ffff:") else "{}"
        # By a card, from that card's address; then from the other one's, as one may wish.
        check(
            kind,
            to,
            {
                "one": [(b"0", own[0], 9), (b"3", own[1], 9)],
                "three": [(b"1", own[1], 9), (b"2", own[1], 9)],
            },
            SendOptions(interface=one, hop_limit=9),
            SendOptions(interface=three, hop_limit=9),
            SendOptions(form.format(own[1]), three, hop_limit=9),
            SendOptions(form.format(own[1]), one, hop_limit=9),
        )
    # Link-local addresses: the interface is a part of them, in the destination or the options.
    for source in ("fe80::2", "fe80::2%three"):
        for scope in (0, three):
            with wildcard("inet6") as sock:
                own_options = SendOptions(source, three, hop_limit=8)
                packets = [(b"x", ("fe80::99", PORT, 0, scope), own_options)]
                assert send_mmsg_nowait(sock, packets, **how).sent == 1
            assert taken(taps["three"]) == [(b"x", "fe80::2", 8)]
            assert taken(taps["one"]) == []
    for sock in taps.values():
        sock.close()
    print("played")


if __name__ == "__main__":
    main(*cast(Any, sys.argv[1:]))
