"""`source`: packets of one call come from an address that the caller names."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendResult,
    multi_target_send,
    send_mmsg,
    send_mmsg_nowait,
)
from anyio_mmsg._send import functions
from anyio_mmsg._system import platform

from ..helpers import drain, have_ipv6
from .helpers import Send, both, failures
from .wildcard import (
    NOT_OURS,
    PLACES,
    client,
    each_kind,
    linux,
    seen_from,
    segmented,
    sources,
    wildcard,
)

ipv6 = pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")


def sent_from(sock: socket.socket, to: Any, **how: Any) -> SendResult:
    return send_mmsg_nowait(sock, [(b"0", to), (bytearray(b"1"), to), (b"2", to)], **how)


@linux
@each_kind
@segmented
def test_packets_come_from_it(kind: str, gso: bool, sending: SendEngine) -> None:
    with wildcard(kind) as sock:
        for place in PLACES[kind]:
            with client(place) as receiver:
                to = seen_from(receiver, sock)
                result = sent_from(sock, to, source=place, gso=gso, engine=sending)
                assert result == SendResult(3, [])
                assert sources(receiver) == [(b"%d" % number, place) for number in range(3)]


@linux
@each_kind
@both
async def test_waiting(kind: str, send: Send, sending: SendEngine, anyio_backend: Any) -> None:
    with wildcard(kind) as sock:
        place = PLACES[kind][-1]
        with client(place) as receiver:
            to = seen_from(receiver, sock)
            result = await send(sock, [b"x"] * 3, to, source=place, engine=sending)
            assert result == SendResult(3, [])
            assert sources(receiver) == [(b"x", place)] * 3


@linux
@each_kind
def test_a_connected_socket(kind: str, sending: SendEngine) -> None:
    for place in PLACES[kind]:
        with wildcard(kind) as sock, client(place) as receiver:
            before = sock.getsockname()[1]
            sock.connect(seen_from(receiver, sock))
            # It has a source already. Another one is for these packets alone.
            result = sent_from(sock, None, source=place, engine=sending)
            assert result == SendResult(3, [])
            assert sources(receiver) == [(b"%d" % number, place) for number in range(3)]
            assert sock.getsockname()[1] == before


@linux
@segmented
def test_a_batch(gso: bool, sending: SendEngine, engine: ReceiveEngine) -> None:
    """Its packets need no control data."""
    with wildcard("inet") as sock, client("127.0.0.1") as receiver:
        batch = PacketBatch(engine=engine)
        for number in range(5):
            receiver.sendto(b"%d" % number, ("127.0.0.1", sock.getsockname()[1]))
        drain(sock, batch, 5)
        for packets in (batch, list(batch), [(packet.data, packet) for packet in batch]):
            result = send_mmsg_nowait(sock, packets, source="127.0.0.3", gso=gso, engine=sending)
            assert result == SendResult(5, [])
            assert sources(receiver) == [(b"%d" % number, "127.0.0.3") for number in range(5)]


@linux
@segmented
@pytest.mark.parametrize("source", ["192.0.2.1", "224.0.0.1"])
def test_one_that_is_not_ours(source: str, gso: bool, sending: SendEngine) -> None:
    with wildcard("inet") as sock, client("127.0.0.1") as receiver:
        result = sent_from(sock, receiver.getsockname(), source=source, gso=gso, engine=sending)
        assert [index for index, _ in failures(result)] == [0, 1, 2]
        assert result.errors.keys() <= NOT_OURS
        assert sources(receiver) == []
        assert sent_from(sock, receiver.getsockname(), engine=sending).sent == 3


@linux
@ipv6
@pytest.mark.parametrize("source", ["2001:db8::1", "ff02::1", "fe80::5%lo"])
def test_one_of_ipv6_that_is_not_ours(source: str, sending: SendEngine) -> None:
    with wildcard("inet6") as sock, client("::1") as receiver:
        result = sent_from(sock, receiver.getsockname()[:2], source=source, engine=sending)
        assert [index for index, _ in failures(result)] == [0, 1, 2]
        assert sources(receiver) == []


@linux
@ipv6
@segmented
def test_one_that_is_not_of_the_peers_version(gso: bool, sending: SendEngine) -> None:
    """On a dual-stack socket it is the failure of those that can't come from it."""
    with wildcard("dual") as sock, client("::1") as six, client("127.0.0.1") as four:
        targets = [seen_from(sock, sock) for sock in (six,)] + [seen_from(four, sock)]
        packets = [(b"%d" % number, targets[number // 2]) for number in range(4)]
        for source, wrong, right in (("127.0.0.2", [0, 1], four), ("::1", [2, 3], six)):
            result = send_mmsg_nowait(sock, packets, source=source, gso=gso, engine=sending)
            assert [index for index, _ in failures(result)] == wrong
            assert len(sources(right)) == result.sent == 2
        assert sources(four) == sources(six) == []


@linux
@ipv6
def test_other_ways_to_write_it(sending: SendEngine) -> None:
    with wildcard("dual") as sock, client("::1") as six, client("127.0.0.1") as four:
        for source in ("::ffff:127.0.0.2", "::ffff:7f00:2", "127.0.0.2"):
            sent_from(sock, seen_from(four, sock), source=source, engine=sending)
            assert {place for _, place in sources(four)} == {"127.0.0.2"}
        for source in ("::1", "0::1", "::1%lo", "::1%1"):
            sent_from(sock, seen_from(six, sock), source=source, engine=sending)
            assert {place for _, place in sources(six)} == {"::1"}


BAD: dict[str, tuple[str, Any, type[Exception], str]] = {
    "a name": ("inet", "localhost", ValueError, "'localhost', which is not a numeric address"),
    "a short form": ("inet", "127.1", ValueError, "numeric"),
    "nothing": ("inet", "", ValueError, "numeric"),
    "a NUL": ("inet", "127.0.0.1\0", ValueError, "numeric"),
    "a surrogate": ("inet6", "\ud800", ValueError, "numeric"),
    "bytes": ("inet", b"127.0.0.1", TypeError, "numeric address of this machine as str"),
    "an address": ("inet", ("127.0.0.1", 9), TypeError, "as str"),
    "of IPv6": ("inet", "::1", ValueError, "not of the socket's family"),
    "mapped": ("inet", "::ffff:127.0.0.1", ValueError, "not of the socket's family"),
    "of IPv4": ("inet6", "127.0.0.1", ValueError, "not of the socket's family"),
    "a scope for IPv4": ("inet", "127.0.0.1%lo", ValueError, "no scope"),
    "the same": ("dual", "127.0.0.1%lo", ValueError, "no scope"),
    "no such interface": ("inet6", "fe80::1%nowhere", ValueError, "no interface 'nowhere'"),
    "no interface": ("inet6", "fe80::1%", ValueError, "no interface ''"),
    "a high scope": ("inet6", "fe80::1%9999999999", ValueError, "scope_id"),
}


@linux
@ipv6
@pytest.mark.parametrize("bad", BAD)
def test_bad_ones(bad: str, sending: SendEngine) -> None:
    kind, source, error, text = BAD[bad]
    with wildcard(kind) as sock, client("::1" if kind == "inet6" else "127.0.0.1") as receiver:
        with pytest.raises(error, match=f"^source is .*{text}"):
            sent_from(sock, seen_from(receiver, sock), source=source, engine=sending)
        assert sources(receiver) == []


OPTIONS: list[dict[str, Any]] = [{"source": "127.0.0.1"}, {"ecn": 1}]
REPLY: dict[str, Any] = {"reply_from_destination": True}


@pytest.mark.parametrize("option", [*OPTIONS, REPLY], ids=str)
@pytest.mark.parametrize("packets", [[], [(b"x", None)]], ids=["none", "one"])
def test_unix_sockets(
    option: dict[str, Any], packets: Any, narrow: Any, sending: SendEngine
) -> None:
    sender, receiver = narrow
    (name,) = option
    with pytest.raises(ValueError, match=rf"^{name}= is for sockets of AF_INET .*AF_UNIX"):
        send_mmsg_nowait(sender, packets, engine=sending, **option)
    with pytest.raises(BlockingIOError):
        receiver.recv(10)


@pytest.mark.parametrize("option", OPTIONS, ids=str)
async def test_unix_sockets_and_waiting(
    option: dict[str, Any], narrow: Any, anyio_backend: Any
) -> None:
    sender, _ = narrow
    calls: list[Callable[..., Any]] = [
        lambda: send_mmsg(sender, [(b"x", None)], **option),
        lambda: multi_target_send(sender, b"x", [None], **option),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="is for sockets of AF_INET"):
            await call()


@pytest.mark.parametrize("option", [*OPTIONS, REPLY], ids=str)
def test_other_platforms(option: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from anyio_mmsg._send import ancillary

    monkeypatch.setattr(ancillary, "ON_LINUX", False)
    (name,) = option
    with wildcard("inet") as sock, pytest.raises(ValueError, match=f"^{name}= needs Linux"):
        send_mmsg_nowait(sock, [], **option)


@linux
@pytest.mark.parametrize("option", [*OPTIONS, REPLY], ids=str)
def test_a_closed_socket(option: dict[str, Any]) -> None:
    with wildcard("inet") as sock:
        sock.close()
        with pytest.raises(OSError):
            send_mmsg_nowait(sock, [], **option)


def test_nothing_is_made_where_nothing_is_asked_for(
    sending: SendEngine, inet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call without these has no control data, nor any object for it."""
    monkeypatch.setattr(functions, "Controls", None)
    receiver, sender = inet.pair()
    packets = [(b"x", None)] * 3
    for gso in (False, True):
        assert send_mmsg_nowait(sender, packets, gso=gso, engine=sending).sent == 3
    assert len(sources(receiver)) == 6


@linux
def test_a_sender_without_control_data_has_none(inet: Any) -> None:
    if platform.Sendmmsg is None:
        pytest.skip("this needs the compiled module")
    from anyio_mmsg._send.engine import sender_of

    sender: Any = sender_of(inet.open(), [(b"x", ("127.0.0.1", 9))], False, "sendmmsg")
    assert sender.controls is None
    sender.release()
