"""The options of one packet: where it comes from, by which interface, its ECN, its hop limit."""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendOptions,
    SendResult,
    send_mmsg,
    send_mmsg_nowait,
)
from anyio_mmsg._send import ancillary
from anyio_mmsg._system.control import (
    IP_TOS,
    IP_TTL,
    IPV6_HOPLIMIT,
    IPV6_TCLASS,
    SOL_IP,
    SOL_IPV6,
)
from anyio_mmsg._system.options import ask_for

from ..helpers import Family, drain, have_ipv6
from .helpers import received
from .test_network import MISSING, own_network
from .wildcard import (
    PLACES,
    ask,
    client,
    each_answer,
    each_kind,
    linux,
    seen_from,
    segmented,
    sources,
    wildcard,
)

pytestmark = linux

AF11 = 10 << 2  # a DSCP, in the upper six bits (RFC 2597)


def seen(sock: socket.socket) -> list[tuple[bytes, str, int, int]]:
    """What has arrived: data, the host that it came from, its ECN, and its hop limit."""
    got: list[tuple[bytes, str, int, int]] = []
    while True:
        try:
            data, control, _, address = sock.recvmsg(70_000, 200)
        except BlockingIOError:
            return got
        values = {
            (level, kind): struct.unpack_from("=i" if len(value) > 3 else "=B", value)[0]
            for level, kind, value in control
        }
        ecn = values.get((SOL_IP, IP_TOS), values.get((SOL_IPV6, IPV6_TCLASS)))
        hops = values.get((SOL_IP, IP_TTL), values.get((SOL_IPV6, IPV6_HOPLIMIT)))
        assert ecn is not None
        assert hops is not None
        got.append((data, address[0], ecn & 3, hops))


@each_kind
@segmented
def test_each_packet_has_its_own(kind: str, gso: bool, sending: SendEngine) -> None:
    """On a dual-stack socket those of its destination's version; all else is the socket's."""
    for place in PLACES[kind]:
        with wildcard(kind) as sock, client(place) as receiver:
            ask_for(receiver, ecn=True, hop_limits=True)
            to = seen_from(receiver, sock)
            default = seen_from_sender(sock, receiver, to)
            mine = "::1" if ":" in place else "127.0.0.3"
            packets: list[Any] = [
                (b"0", to),
                (b"1", to, SendOptions(ecn=1, hop_limit=9)),
                (b"2", to, None),
                [b"3", to, SendOptions(source=mine)],
                (b"4", to, SendOptions(mine, 1, 3, 200)),
                (b"5", to, SendOptions()),
                (b"6", to, SendOptions(interface=1, hop_limit=1)),
                (bytearray(b"7"), to, SendOptions(mine, 1, 3, 200)),
            ]
            result = send_mmsg_nowait(sock, packets, gso=gso, engine=sending)
            assert result == SendResult(8)
            host, hops = default
            assert seen(receiver) == [
                (b"0", host, 0, hops),
                (b"1", host, 1, 9),
                (b"2", host, 0, hops),
                (b"3", mine, 0, hops),
                (b"4", mine, 3, 200),
                (b"5", host, 0, hops),
                (b"6", host, 0, 1),
                (b"7", mine, 3, 200),
            ]


def seen_from_sender(sock: socket.socket, receiver: socket.socket, to: Any) -> tuple[str, int]:
    """The host and the hop limit of a packet without options."""
    sock.sendto(b"plain", to)
    ((_, host, _, hops),) = seen(receiver)
    return host, hops


@each_kind
@pytest.mark.anyio
async def test_those_of_the_call_are_the_defaults(kind: str, sending: SendEngine) -> None:
    for place in PLACES[kind]:
        with wildcard(kind) as sock, client(place) as receiver:
            ask_for(receiver, ecn=True, hop_limits=True)
            to = seen_from(receiver, sock)
            _, hops = seen_from_sender(sock, receiver, to)
            call, own = ("::1", "::1") if ":" in place else ("127.0.0.3", "127.0.0.4")
            packets: list[Any] = [
                (b"0", to),
                (b"1", to, SendOptions(hop_limit=9)),
                (b"2", to, SendOptions(source=own, ecn=0)),
                (b"3", to, SendOptions(interface=1)),
            ]
            result = await send_mmsg(sock, packets, source=call, ecn=2, engine=sending)
            assert result == SendResult(4)
            assert seen(receiver) == [
                (b"0", call, 2, hops),
                (b"1", call, 2, 9),
                (b"2", own, 0, hops),
                (b"3", call, 2, hops),
            ]


def test_the_dscp_is_kept(sending: SendEngine) -> None:
    with wildcard("inet") as sock, client("127.0.0.1") as receiver:
        ask_for(receiver, ecn=True)
        sock.setsockopt(SOL_IP, IP_TOS, AF11)
        packets: Any = [(b"x", receiver.getsockname(), SendOptions(ecn=1))]
        send_mmsg_nowait(sock, packets, engine=sending)
        _, ((_, _, value),), _, _ = receiver.recvmsg(9, 99)
        assert value[0] == AF11 | 1


@each_kind
def test_a_connected_socket(kind: str, sending: SendEngine) -> None:
    for place in PLACES[kind]:
        with wildcard(kind) as sock, client(place) as receiver:
            ask_for(receiver, ecn=True, hop_limits=True)
            sock.connect(seen_from(receiver, sock))
            packets: Any = [(b"x", None, SendOptions(ecn=1, hop_limit=7))]
            assert send_mmsg_nowait(sock, packets, engine=sending) == SendResult(1)
            ((_, _, ecn, hops),) = seen(receiver)
            assert (ecn, hops) == (1, 7)


@each_kind
@segmented
def test_replies(kind: str, gso: bool, sending: SendEngine, engine: ReceiveEngine) -> None:
    """The source of its own wins over that of the packet which is answered."""
    for place in PLACES[kind]:
        with wildcard(kind, destinations=True) as server, client(place) as asking:
            ask_for(asking, ecn=True, hop_limits=True)
            batch = PacketBatch(4, 16, engine, ancillary=True)
            ask(server, asking, batch, [place] * 2)
            other = "::1" if ":" in place else "127.0.0.9"
            for replies in (False, True):
                packets: Any = [
                    (b"0", batch[0], SendOptions(other)),
                    (b"1", batch[1], SendOptions(batch[1].destination, batch[1].interface)),
                    (b"2", batch[1], SendOptions(hop_limit=5)),
                ]
                result = send_mmsg_nowait(
                    server, packets, gso=gso, engine=sending, reply_from_destination=replies
                )
                assert result == SendResult(3)
                got = seen(asking)
                assert [host for _, host, _, _ in got][:2] == [other, place]
                if replies:
                    assert got[2] == (b"2", place, 0, 5)


@pytest.mark.parametrize("shape", ["triples", "mixed"])
def test_a_packet_that_is_answered_without_its_destination(
    shape: str, sending: SendEngine, engine: ReceiveEngine, inet: Family
) -> None:
    """With a source of its own it needs none; without, it is refused."""
    server, asking = inet.open(), inet.open()
    batch = PacketBatch(4, 16, engine, ancillary=True)
    asking.sendto(b"?", server.getsockname())
    drain(server, batch, 1)
    own = SendOptions(server.getsockname()[0])
    packets: list[Any] = [(b"!", batch[0], own)]
    how: dict[str, Any] = {"reply_from_destination": True, "engine": sending}
    assert send_mmsg_nowait(server, packets, **how) == SendResult(1)
    packets.append((b"!", batch[0], SendOptions(ecn=1)) if shape == "triples" else batch[0])
    with pytest.raises(ValueError, match="packet 1: this packet came without its destination"):
        send_mmsg_nowait(server, packets, **how)
    assert received(asking) == [b"!"]


WRONG: list[tuple[Any, type[Exception], str]] = [
    (SendOptions(ecn=4), ValueError, "ecn is 4"),
    (SendOptions(ecn=-1), ValueError, "ecn is -1"),
    (SendOptions(ecn=True), TypeError, "ecn is True"),
    (SendOptions(ecn="1"), TypeError, "ecn is a str"),  # type: ignore[arg-type]
    (SendOptions(hop_limit=256), ValueError, "hop_limit is 256"),
    (SendOptions(hop_limit=-1), ValueError, "hop_limit is -1"),
    (SendOptions(hop_limit=1.0), TypeError, "hop_limit is a float"),  # type: ignore[arg-type]
    (SendOptions(interface=0), ValueError, "interface is 0"),
    (SendOptions(interface=2**31), ValueError, "interface is 2147483648"),
    (SendOptions(interface="lo"), TypeError, "interface is a str"),  # type: ignore[arg-type]
    (SendOptions("localhost"), ValueError, "not a numeric address"),
    (SendOptions("127.0.0.1%lo"), ValueError, "no"),
    (SendOptions(b"127.0.0.1"), TypeError, "source is b'127"),  # type: ignore[arg-type]
    ({"ecn": 1}, TypeError, "give SendOptions or None"),
    (0, TypeError, "give SendOptions or None"),
]


@pytest.mark.parametrize("before", [False, True], ids=["alone", "after others"])
@pytest.mark.parametrize(("options", "error", "text"), WRONG, ids=str)
@each_kind
def test_impossible_values(
    kind: str, options: Any, error: type[Exception], text: str, before: bool, sending: SendEngine
) -> None:
    """The message has the index, and nothing is sent."""
    with wildcard(kind) as sock, client(PLACES[kind][0]) as receiver:
        to = seen_from(receiver, sock)
        packets: list[Any] = [(b"x", to), (b"x", to, SendOptions(ecn=1))] if before else []
        packets.append((b"x", to, options))
        with pytest.raises(error, match=f"^packet {len(packets) - 1}: .*{text}"):
            send_mmsg_nowait(sock, packets, engine=sending)
        assert received(receiver) == []


@each_kind
def test_impossible_families(kind: str, sending: SendEngine) -> None:
    """Of the source, and of a hop limit that only IPv6 has."""
    with wildcard(kind) as sock, client(PLACES[kind][0]) as receiver:
        to = seen_from(receiver, sock)
        by_ipv4 = kind != "inet6"
        wrong = ["ff02::1", "224.0.0.1", "::1" if by_ipv4 else "127.0.0.1"]
        for source in wrong:
            packets: Any = [(b"", to), (b"x", to, SendOptions(source))]
            with pytest.raises(ValueError, match=r"^packet 1: source is "):
                send_mmsg_nowait(sock, packets, engine=sending)
        assert received(receiver) == []
        zero: Any = [(b"x", to, SendOptions(hop_limit=0))]
        if by_ipv4:
            with pytest.raises(ValueError, match=r"^packet 0: hop_limit is 0; give 1 to 255"):
                send_mmsg_nowait(sock, zero, engine=sending)
        else:
            assert send_mmsg_nowait(sock, zero, engine=sending) == SendResult(1)


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
def test_a_scope_and_another_interface(sending: SendEngine) -> None:
    with wildcard("inet6") as sock, client("::1") as receiver:
        packets: Any = [(b"x", receiver.getsockname(), SendOptions("fe80::1%lo", 7))]
        with pytest.raises(ValueError, match="the scope of source 'fe80::1%lo' is another one"):
            send_mmsg_nowait(sock, packets, engine=sending)


@each_kind
def test_what_the_system_refuses_is_that_packets_failure(kind: str, sending: SendEngine) -> None:
    with wildcard(kind) as sock, client(PLACES[kind][0]) as receiver:
        to = seen_from(receiver, sock)
        foreign = "2001:db8::1" if kind == "inet6" else "192.0.2.1"
        packets: Any = [
            (b"0", to, SendOptions(foreign)),
            (b"1", to),
            (b"2", to, SendOptions(interface=2**31 - 1)),
            (b"3", to, SendOptions(ecn=1)),
        ]
        result = send_mmsg_nowait(sock, packets, engine=sending)
        assert [failure.index for failure in result.failures] == [0, 2]
        assert result.failures[1].error.errno in (errno.ENODEV, errno.ENETUNREACH, errno.EINVAL)
        assert received(receiver) == [b"1", b"3"]


def test_a_unix_socket_has_none(sending: SendEngine, tmp_path: Any) -> None:
    with Family("unix", tmp_path) as family:
        receiver, sender = family.pair()
        assert send_mmsg_nowait(sender, [(b"x", None, SendOptions())], engine=sending).sent == 1
        with pytest.raises(ValueError, match=r"^packet 1: SendOptions is for sockets of AF_INET"):
            send_mmsg_nowait(sender, [(b"", None), (b"x", None, SendOptions(ecn=1))])
        assert received(receiver) == [b"x"]


def test_other_platforms(
    sending: SendEngine, inet: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ancillary, "ON_LINUX", False)
    sender = inet.open()
    packets: Any = [(b"", ("127.0.0.1", 9), SendOptions(ecn=1))]
    with pytest.raises(ValueError, match=r"^packet 0: SendOptions needs Linux"):
        send_mmsg_nowait(sender, packets, engine=sending)
    assert send_mmsg_nowait(sender, [(b"", ("127.0.0.1", 9), None)], engine=sending).sent == 1


class Runs(socket.socket):
    """A socket that notes the messages of `sendmsg`: how many packets each is."""

    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.setblocking(False)
        self.lengths: list[int] = []

    def sendmsg(self, buffers: Any, *args: Any) -> int:
        self.lengths.append(len(buffers))
        return super().sendmsg(buffers, *args)


def test_equal_options_share_a_run_in_plain_python(inet: Family) -> None:
    """The compiled twin is in scripted_sendmmsg.py."""
    receiver = inet.open()
    to = receiver.getsockname()
    shape = [1, 1, 1, 2, 2, 0, 0, 0]
    packets: Any = [(b"%d" % n, to, SendOptions(ecn=ecn)) for n, ecn in enumerate(shape)]
    packets[-1] = packets[-1][:2]  # which is what ECN 0 is not: it says nothing
    with Runs() as sock:
        result = send_mmsg_nowait(sock, packets, gso=True, engine="sendto")
        assert result == SendResult(8)
        assert sock.lengths == [3, 2, 2, 1]
    assert received(receiver) == [b"%d" % n for n in range(8)]


@each_answer
def test_packets_and_batches_have_none(
    answer: Any, sending: SendEngine, engine: ReceiveEngine
) -> None:
    with wildcard("inet", destinations=True) as server, client("127.0.0.1") as asking:
        batch = PacketBatch(4, 16, engine, ancillary=True)
        ask(server, asking, batch, ["127.0.0.2"] * 2)
        assert answer(server, batch, engine=sending).sent == 2
        assert len(sources(asking)) == 2


@pytest.mark.parametrize("gso", ["", "gso"], ids=["single", "gso"])
def test_in_a_network(gso: str, sending: SendEngine) -> None:
    """By which of two cards, over each version of IP."""
    command = [*own_network(), sys.executable, "-W", "error", "-m"]
    command += ["tests.send.options_network", sending, gso]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    if done.returncode == MISSING:
        pytest.skip(done.stdout.strip())
    assert (done.stdout, done.stderr, done.returncode) == ("played\n", "", 0)
