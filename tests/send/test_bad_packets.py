"""What can't be sent is refused before anything is sent."""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    recv_mmsg_nowait,
    send_mmsg_nowait,
)
from anyio_mmsg._send import engine as engines

from ..helpers import Family, have_ipv6
from .helpers import arrived, failures, fill

INET = ("127.0.0.1", 9)
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "a str": ("text", TypeError, "data is a str, not bytes-like; encode it"),
    "a number": (5, TypeError, "data is a int"),
    "holes": (memoryview(b"abcdef")[::2], ValueError, "not contiguous"),
    "too long": (bytes(65_508), ValueError, "65508 bytes; a datagram carries 65507"),
}
BAD_ADDRESSES: dict[str, tuple[Any, type[Exception], str]] = {
    "a name": (("localhost", 9), ValueError, "'localhost'.*getaddrinfo"),
    "a short form": (("127.1", 9), ValueError, "numeric"),
    "of IPv6": (("::1", 9), ValueError, "IPv6"),
    "a NUL": (("127.0.0.1\0", 9), ValueError, "numeric"),
    "a surrogate": (("\ud800", 9), ValueError, "numeric"),
    "bytes": ((b"127.0.0.1", 9), TypeError, "as str"),
    "port too high": (("127.0.0.1", 65_536), ValueError, "port is 65536; give 0 to 65535"),
    "port negative": (("127.0.0.1", -1), ValueError, "port is -1"),
    "port a str": (("127.0.0.1", "9"), TypeError, "port is '9'"),
    "port a float": (("127.0.0.1", 4.5), TypeError, "port is 4.5"),
    "a list": (["127.0.0.1", 9], TypeError, r"give \(host, port\)"),
    "one thing": (("127.0.0.1",), TypeError, r"give \(host, port\)"),
    "four things": (("127.0.0.1", 9, 0, 0), TypeError, r"give \(host, port\)"),
    "a host alone": ("127.0.0.1", TypeError, r"give \(host, port\)"),
    "unhashable": (("127.0.0.1", [9]), TypeError, "port is"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", [0, 2])
def test_bad_data(sending: SendEngine, bad: str, place: int, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    data, error, text = BAD[bad]
    packets: list[Any] = [(b"", receiver.getsockname())] * 3
    packets[place] = (data, receiver.getsockname())
    with pytest.raises(error, match=f"^packet {place}: .*{text}"):
        send_mmsg_nowait(sender, packets, engine=sending)
    assert arrived(receiver) == []


@pytest.mark.parametrize("bad", BAD_ADDRESSES)
@pytest.mark.parametrize("place", [0, 2])
def test_bad_addresses(sending: SendEngine, bad: str, place: int, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    address, error, text = BAD_ADDRESSES[bad]
    packets: list[Any] = [(b"", receiver.getsockname())] * 3
    packets[place] = (b"", address)
    with pytest.raises(error, match=f"^packet {place}: .*{text}"):
        send_mmsg_nowait(sender, packets, engine=sending)
    assert arrived(receiver) == []


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        (("127.0.0.1", 9), ValueError, "IPv4.*'::ffff:127.0.0.1'"),
        (("fe80::1%nowhere", 9), ValueError, "no interface 'nowhere'"),
        (("fe80::1%", 9), ValueError, "no interface ''"),
        (("fe80::1%9999999999", 9), ValueError, "scope_id"),
        (("fe80::1%" + "9" * 5000, 9), ValueError, "no interface"),
        (("fe80::1%1", 9, 0, 2), ValueError, "two scopes"),
        (("::1%nonsense", 9, 0, 1), ValueError, "no interface"),
        (("::1%1", 9, 0, ""), TypeError, "scope_id is ''"),
        (("::1", 9, 0, None), TypeError, "scope_id is None"),
        (("::1", 9, 2**20), ValueError, "flowinfo is 1048576"),
        (("::1", 9, 0, 2**32), ValueError, "scope_id"),
        (("::1", 9, 0, 0, 0), TypeError, "scope_id"),
        (("::1",), TypeError, "AF_INET6"),
    ],
)
def test_bad_ipv6_addresses(address: Any, error: type[Exception], text: str) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        with pytest.raises(error, match=f"^packet 0: .*{text}"):
            send_mmsg_nowait(sock, [(b"", address)])


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        (("127.0.0.1", 9), TypeError, "give a path"),
        ("x" * 109, ValueError, "108"),
        (b"\0" + b"x" * 108, ValueError, "108"),
        ("\ud800", ValueError, "not a path"),
        (Path("/tmp"), TypeError, "give a path"),
    ],
)
def test_bad_unix_addresses(address: Any, error: type[Exception], text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        with pytest.raises(error, match=f"^packet 0: .*{text}"):
            send_mmsg_nowait(sock, [(b"", address)])


@pytest.mark.parametrize(
    ("packets", "text"),
    [
        (5, "packets is 5; give .data, address. pairs"),
        ([b"x", ("127.0.0.1", 9)], "packet 0: b'x' is not a pair"),
        ((b"x", ("127.0.0.1", 9)), "packet 0: b'x' is not a pair"),
        ([(b"", INET), (b"", INET, None, 0)], "packet 1: .* is not a pair"),
        ([(b"", INET), (b"",)], "packet 1: .* is not a pair"),
        ([(b"", INET), None], "packet 1: None is not a pair"),
        (b"bytes", "packet 0: 98 is not a pair"),
        ({"127.0.0.1": 9}, "packet 0: '127.0.0.1' is not a pair"),
    ],
)
def test_no_packets(sending: SendEngine, packets: Any, text: str, inet: Family) -> None:
    sender = inet.open()
    with pytest.raises(TypeError, match=text):
        send_mmsg_nowait(sender, packets, engine=sending)


def test_a_single_packet_is_no_list_of_them(inet: Family) -> None:
    server, client = inet.open(), inet.open()
    batch = PacketBatch()
    fill(batch, server, (client, b"1"))
    with pytest.raises(TypeError, match=r"packets is <Packet of 1 bytes.*give"):
        send_mmsg_nowait(server, batch[0])  # type: ignore[arg-type]


def test_released_packets(sending: SendEngine, engine: ReceiveEngine, inet: Family) -> None:
    server, client = inet.open(), inet.open()
    batch = PacketBatch(engine=engine)
    fill(batch, server, (client, b"1"), (client, b"2"))
    one, two = batch
    view = one.data
    batch.release()
    cases: list[list[Any]] = [[two, one], [(b"", two), (b"", one)], [(two.data, two), (view, two)]]
    for packets in cases:
        with pytest.raises(ValueError, match=r"^packet 1: .*released"):
            send_mmsg_nowait(server, packets, engine=sending)
    batch.close()
    with pytest.raises(ValueError, match="batch was closed"):
        send_mmsg_nowait(server, batch, engine=sending)
    assert arrived(client) == []


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
def test_packets_of_another_family(
    sending: SendEngine, engine: ReceiveEngine, inet: Family
) -> None:
    with Family("inet6", None) as family:
        other = family.open()
        server, client = inet.open(), inet.open()
        batch = PacketBatch(engine=engine)
        fill(batch, server, (client, b"1"), (client, b"2"))
        for packets in (batch, list(batch), [(b"", packet) for packet in batch]):
            with pytest.raises(ValueError, match=r"^packet 0: .*(family|IPv4)"):
                send_mmsg_nowait(other, packets, engine=sending)


def test_engines_by_name(inet: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = inet.open()
    with pytest.raises(ValueError, match=r"'epoll'; give one of .*sendmmsg"):
        send_mmsg_nowait(sender, [], engine="epoll")  # type: ignore[arg-type]
    monkeypatch.setattr(engines, "Sendmmsg", None)
    with pytest.raises(ValueError, match=r"needs (Linux|the compiled module)|^engine=.sendmmsg. "):
        send_mmsg_nowait(sender, [], engine="sendmmsg")
    receiver, sender = inet.pair()
    assert send_mmsg_nowait(sender, [(b"auto", None)]).sent == 1
    assert arrived(receiver)[0][0] == b"auto"


def test_a_family_without_addresses() -> None:
    """Such as netlink's."""
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        pytest.skip("netlink is a part of Linux")
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((0, 0))
        for _ in range(2):
            kernel: Any = (0, 0)
            with pytest.raises(ValueError, match=r"^packet 0: .*connect the socket and give None"):
                send_mmsg_nowait(sock, [(b"", kernel)])


def test_what_comes_from_such_a_family_is_not_sent_back(
    sending: SendEngine, engine: ReceiveEngine
) -> None:
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        pytest.skip("netlink is a part of Linux")
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((0, 0))
        sock.setblocking(False)
        nlmsg_noop, request_and_ack = 1, 5
        sock.sendto(struct.pack("=IHHII", 16, nlmsg_noop, request_and_ack, 1, 0), (0, 0))
        batch = PacketBatch(engine=engine)
        assert recv_mmsg_nowait(sock, batch) == 1
        for packets in (batch, list(batch), [(b"", batch[0])], [(b"", batch[0].address)]):
            with pytest.raises(ValueError, match=r"^packet 0: .*family is"):
                send_mmsg_nowait(sock, packets, engine=sending)


def test_raw_sockets_have_their_own_limit(sending: SendEngine) -> None:
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)  # for experiments (RFC 3692)
    except PermissionError:
        pytest.skip("raw sockets are not permitted here")
    with raw:
        raw.setblocking(False)
        packets = [(bytes(65_515), ("127.0.0.1", 0)), (bytes(65_516), ("127.0.0.1", 0))]
        result = send_mmsg_nowait(raw, packets, engine=sending)
        assert failures(result) == [(1, errno.EMSGSIZE)]
