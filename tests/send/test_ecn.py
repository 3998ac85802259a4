"""`ecn`: the ECN codepoint of the packets of one call."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine, SendEngine, SendResult, send_mmsg_nowait
from anyio_mmsg._system.control import IP_TOS, IPV6_TCLASS, SOL_IP, SOL_IPV6
from anyio_mmsg._system.options import ask_for

from ..helpers import drain
from .helpers import Send, both
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

AF11, EF = 10 << 2, 46 << 2  # DSCPs, in the upper six bits (RFC 2597, 3246)


def bytes_seen(sock: socket.socket) -> list[tuple[bytes, int]]:
    """What has arrived on a socket that asks for it, with its TOS or traffic class."""
    got: list[tuple[bytes, int]] = []
    while True:
        try:
            data, control, _, _ = sock.recvmsg(70_000, 200)
        except BlockingIOError:
            return got
        ((_, kind, value),) = control
        assert kind in (IP_TOS, IPV6_TCLASS)
        got.append((data, value[0]))


def marked(sock: socket.socket, kind: str) -> dict[bool, int]:
    """Give a socket DSCPs, and a codepoint; return the DSCPs by whether the peer's is IPv6."""
    if kind != "inet6":
        sock.setsockopt(SOL_IP, IP_TOS, AF11 | 2)
    if kind != "inet":
        sock.setsockopt(SOL_IPV6, IPV6_TCLASS, EF | 2)
    return {False: AF11, True: EF}


@each_kind
@segmented
@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("ecn", range(4))
def test_packets_have_it(
    kind: str, connected: bool, gso: bool, ecn: int, sending: SendEngine
) -> None:
    """The DSCP stays the socket's. On a dual-stack socket there are two of them."""
    for place in PLACES[kind][-2:]:
        with wildcard(kind) as sock, client(place) as receiver:
            ask_for(receiver, ecn=True)
            dscp = marked(sock, kind)[":" in place]
            to = seen_from(receiver, sock)
            if connected:
                sock.connect(to)
            packets = [(b"%d" % number, None if connected else to) for number in range(3)]
            result = send_mmsg_nowait(sock, packets, ecn=ecn, gso=gso, engine=sending)
            assert result == SendResult(3, [])
            expected = [(b"%d" % number, dscp | ecn) for number in range(3)]
            assert bytes_seen(receiver) == expected
            # For those packets alone.
            send_mmsg_nowait(sock, packets, gso=gso, engine=sending)
            assert {value for _, value in bytes_seen(receiver)} == {dscp | 2}


@each_kind
@both
async def test_waiting(kind: str, send: Send, sending: SendEngine, anyio_backend: Any) -> None:
    place = PLACES[kind][-1]
    with wildcard(kind) as sock, client(place) as receiver:
        ask_for(receiver, ecn=True)
        to = seen_from(receiver, sock)
        assert await send(sock, [b"x"] * 3, to, ecn=1, engine=sending) == SendResult(3, [])
        assert bytes_seen(receiver) == [(b"x", 1)] * 3


@each_kind
@segmented
def test_to_both_versions_by_one_call(kind: str, gso: bool, sending: SendEngine) -> None:
    with wildcard(kind) as sock:
        dscps = marked(sock, kind)
        receivers = [client(place) for place in PLACES[kind]]
        opened = [receiver.__enter__() for receiver in receivers]
        try:
            for receiver in opened:
                ask_for(receiver, ecn=True)
            packets = [(b"x", seen_from(receiver, sock)) for receiver in opened] * 3
            result = send_mmsg_nowait(sock, packets, ecn=3, gso=gso, engine=sending)
            assert result == SendResult(len(packets), [])
            for receiver, place in zip(opened, PLACES[kind], strict=True):
                assert bytes_seen(receiver) == [(b"x", dscps[":" in place] | 3)] * 3
        finally:
            for closing in receivers:
                closing.__exit__(None, None, None)


@each_kind
@each_answer
@segmented
def test_with_a_source(
    kind: str, answer: Any, gso: bool, sending: SendEngine, engine: ReceiveEngine
) -> None:
    """Both at once, for answers; the longest control data that there is."""
    place = PLACES[kind][-1]
    with wildcard(kind, destinations=True, ecn=True) as server, client(place) as asking:
        ask_for(asking, ecn=True)
        batch = PacketBatch(engine=engine, ancillary=True)
        ask(server, asking, batch, [place] * 5)
        assert [packet.ecn for packet in batch] == [0] * 5
        result = answer(server, batch, reply_from_destination=True, ecn=1, gso=gso, engine=sending)
        assert result == SendResult(5, [])
        assert bytes_seen(asking) == [(b"%d" % number, 1) for number in range(5)]
        answer(server, batch, source=place, ecn=2, gso=gso, engine=sending)
        assert bytes_seen(asking) == [(b"%d" % number, 2) for number in range(5)]
        answer(server, batch, source=place, ecn=2, gso=gso, engine=sending)
        assert sources(asking) == [(b"%d" % number, place) for number in range(5)]


def test_what_a_batch_reads_of_it(sending: SendEngine, engine: ReceiveEngine) -> None:
    with wildcard("inet", ecn=True) as receiver, client("127.0.0.1") as sender:
        batch = PacketBatch(engine=engine, ancillary=True)
        to = ("127.0.0.1", receiver.getsockname()[1])
        for ecn in range(4):
            send_mmsg_nowait(sender, [(b"x", to)], ecn=ecn, engine=sending)
        drain(receiver, batch, 4)
        assert batch.ecns() == [0, 1, 2, 3]


class Three:
    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("ecn", "error", "text"),
    [
        (True, TypeError, "ecn is True, a bool; give an ECN codepoint, 0 to 3"),
        (False, TypeError, "ecn is False, a bool"),
        (4, ValueError, "ecn is 4; give an ECN codepoint, 0 to 3"),
        (-1, ValueError, "ecn is -1"),
        (10**30, ValueError, "ecn is 10"),
        (1.0, TypeError, "ecn is a float, not an int"),
        ("1", TypeError, "ecn is a str"),
    ],
    ids=str,
)
def test_bad_ones(ecn: Any, error: type[Exception], text: str, sending: SendEngine) -> None:
    with wildcard("inet") as sock, client("127.0.0.1") as receiver:
        with pytest.raises(error, match=f"^{text}"):
            send_mmsg_nowait(sock, [(b"x", receiver.getsockname())], ecn=ecn, engine=sending)
        assert sources(receiver) == []


def test_whatever_is_an_index(sending: SendEngine) -> None:
    with wildcard("inet") as sock, client("127.0.0.1") as receiver:
        ask_for(receiver, ecn=True)
        three: Any = Three()
        send_mmsg_nowait(sock, [(b"x", receiver.getsockname())], ecn=three, engine=sending)
        assert bytes_seen(receiver) == [(b"x", 3)]
