"""One conformance suite for sending: both ways, every family, against what arrives."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from anyio import WouldBlock
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_mmsg import (
    Packet,
    PacketBatch,
    SendResult,
    UnusableSocketError,
    recv_mmsg_nowait,
    send_mmsg_nowait,
)
from anyio_mmsg import _engine as engines
from anyio_mmsg import _sockaddr as sockaddr
from anyio_mmsg._outgoing import COPY_SIZE, MAX_PAYLOAD, UNLIMITED, outgoing
from anyio_mmsg._sender_linux import LinuxSender, _runs

from .helpers import Family, contents, drain, have_ipv6, link_local, nowhere

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="that is a feature of Linux")


def received(sock: socket.socket) -> list[tuple[bytes, Any]]:
    """What has arrived, with the senders."""
    got = []
    while True:
        try:
            got.append(sock.recvfrom(70_000))
        except BlockingIOError:
            return got


def failures(result: SendResult) -> list[tuple[int, int | None]]:
    return [(index, error.errno) for index, error in result.failures]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each call of sendmmsg was given."""
    numbers: list[int] = []
    real = engines._sendmmsg
    assert real is not None

    def sendmmsg(fd: int, at: int, count: int, flags: int) -> int:
        numbers.append(count)
        return real(fd, at, count, flags)

    monkeypatch.setattr(engines, "_linux_senders", [LinuxSender(sendmmsg)])
    return numbers


# What is sent


def test_pairs(sending: str, family: Family) -> None:
    """Bytes, order and destinations, whatever holds the bytes."""
    sender, *receivers = (family.open() for _ in range(4))
    rng = random.Random(1)
    kinds: list[Any] = [bytes, bytearray, memoryview, lambda data: array.array("B", data)]
    for _ in range(20):
        count = rng.randint(1, 9)  # unix queues take 10
        expected: list[list[tuple[bytes, Any]]] = [[], [], []]
        packets: list[tuple[Any, Any]] = []
        for _ in range(count):
            data, to = rng.randbytes(rng.choice([0, 1, 100, 1232, 3000])), rng.randrange(3)
            expected[to].append((data, sender.getsockname()))
            packets.append((rng.choice(kinds)(data), receivers[to].getsockname()))
        assert send_mmsg_nowait(sender, iter(packets), engine=sending) == SendResult(count, [])
        assert [received(receiver) for receiver in receivers] == expected


def test_nothing(sending: str, family: Family) -> None:
    sender = family.open()
    nothings: list[Any] = [[], iter(()), PacketBatch(), {}]
    for packets in nothings:
        assert send_mmsg_nowait(sender, packets, engine=sending) == SendResult(0, [])


def test_items_wider_than_a_byte(sending: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    words = array.array("I", range(5))
    table = memoryview(bytes(range(6))).cast("B", (2, 3))
    packets: list[Any] = [
        (words, None),
        (memoryview(words)[1:3], None),
        (table, None),
        (b"end", None),
    ]
    assert send_mmsg_nowait(sender, packets, engine=sending).sent == 4
    got = [data for data, _ in received(receiver)]
    assert got == [words.tobytes(), words[1:3].tobytes(), bytes(range(6)), b"end"]


def test_to_the_peer_of_a_connected_socket(sending: str, family: Family) -> None:
    receiver, sender = family.pair()
    other = family.open()
    packets: list[tuple[bytes, Any]] = [(b"1", None), (b"", None), (b"3", None)]
    if family.name != "unix":
        packets.insert(1, (b"aside", other.getsockname()))
    assert send_mmsg_nowait(sender, packets, engine=sending).failures == []
    assert [data for data, _ in received(receiver)] == [b"1", b"", b"3"]
    assert received(other) == [(data, sender.getsockname()) for data, to in packets if to]


def test_largest_payloads(sending: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    most = MAX_PAYLOAD[socket.AF_INET]
    sent = [os.urandom(most), os.urandom(most - 1), b"x"]
    assert send_mmsg_nowait(sender, [(data, None) for data in sent], engine=sending).sent == 3
    assert [data for data, _ in received(receiver)] == sent


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
def test_largest_payload_over_ipv6(sending: str) -> None:
    with Family("inet6", None) as family:
        receiver, sender = family.pair()
        sent = os.urandom(MAX_PAYLOAD[socket.AF_INET6])
        assert send_mmsg_nowait(sender, [(sent, None)], engine=sending).failures == []
        assert received(receiver) == [(sent, sender.getsockname())]


def test_ipv6_addresses_of_each_length(sending: str) -> None:
    if not have_ipv6():
        pytest.skip("::1 can't be bound here")
    with Family("inet6", None) as family:
        sender, receiver = family.open(), family.open()
        host, port, *_ = receiver.getsockname()
        packets = [(b"2", (host, port)), (b"3", (host, port, 0)), (b"4", (host, port, 0, 0))]
        assert send_mmsg_nowait(sender, packets, engine=sending).failures == []
        assert [data for data, _ in received(receiver)] == [b"2", b"3", b"4"]


def test_link_local_addresses(sending: str) -> None:
    """With the scope as number, as `anyio.getaddrinfo` writes it, and by name."""
    found = link_local()
    if found is None:
        pytest.skip("no interface has a link-local IPv6 address")
    host, interface = found
    index = socket.if_nametoindex(interface)
    with Family("inet6", None) as family:
        sender, receiver = family.unbound(), family.unbound()
        receiver.bind((host, 0, 0, index))
        port = receiver.getsockname()[1]
        forms = [
            (host, port, 0, index),
            (f"{host}%{index}", port),
            (f"{host}%{interface}", port),
            (f"{host}%{index}", port, 0, index),
        ]
        packets = [(b"%d" % number, address) for number, address in enumerate(forms)]
        assert send_mmsg_nowait(sender, packets, engine=sending) == SendResult(4, [])
        assert [data for data, _ in received(receiver)] == [b"0", b"1", b"2", b"3"]


def test_copies_have_a_bound() -> None:
    """Payloads are copied some at a time, each once; one that is larger alone."""
    sizes = [COPY_SIZE // 4] * 9 + [0, 1] + [COPY_SIZE + 1] * 2 + [5]
    packets = outgoing(
        250, UNLIMITED, [(bytes([number]) * size, None) for number, size in enumerate(sizes)]
    )
    start, turns = 0, []
    while start < len(sizes):
        memory, count, place = packets.gather(start, start + 1024)
        places = list(place(0))
        assert len(places) == count > 0
        assert len(memory) <= COPY_SIZE or count == 1
        for number, at in enumerate(places, start):
            assert memory[at : at + sizes[number]] == bytes([number]) * sizes[number]
        start += count
        turns.append(count)
    assert turns == [4, 4, 3, 1, 1, 1]


def test_more_than_one_call_can_take(sending: str, inet: Family) -> None:
    receiver, sender, other = (inet.open() for _ in range(3))
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sent = [b"%d" % number * 3 for number in range(1500)]
    packets = [(data, receiver.getsockname()) for data in sent]
    packets.insert(1100, (b"aside", other.getsockname()))
    assert send_mmsg_nowait(sender, packets, engine=sending) == SendResult(1501, [])
    arrived = [data for data, _ in received(receiver)]
    assert arrived == sent[: len(arrived)]
    assert len(arrived) > 1100, "the receiver's buffer is too small for this test"
    assert received(other) == [(b"aside", sender.getsockname())]


# Packets go back as they are


def fill(batch: PacketBatch, receiver: socket.socket, *sent: tuple[socket.socket, bytes]) -> None:
    for sender, data in sent:
        sender.sendto(data, receiver.getsockname())
    drain(receiver, batch, len(sent))


def test_a_batch_goes_back(sending: str, engine: str, family: Family) -> None:
    """Echo, through all positions of the ring, several senders."""
    server, *clients = (family.open() for _ in range(4))
    rng = random.Random(2)
    batch = PacketBatch(5, 64, engine)
    held: list[tuple[int, bytes]] = []
    for number in range(100):
        new = [(rng.randrange(3), b"%d/%d" % (number, n)) for n in range(rng.randint(0, 2))]
        new = new[: batch.free]
        fill(batch, server, *((clients[client], data) for client, data in new))
        held += new
        result = send_mmsg_nowait(server, batch, engine=sending)
        assert result == SendResult(len(held), [])
        for index, client in enumerate(clients):
            expected = [data for who, data in held if who == index]
            assert received(client) == [(data, server.getsockname()) for data in expected]
        assert contents(batch) == [data for _, data in held]
        done = rng.randint(0, len(batch))
        batch.release(done)
        del held[:done]


def test_a_batch_goes_back_without_its_addresses_or_views_being_made(
    inet: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("that is what the engines of Linux do together")
    server, client = inet.open(), inet.open()
    batch = PacketBatch(8)
    fill(batch, server, (client, b"1"), (client, b"2"))

    def refuse(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(sockaddr, "decode_sockaddr", refuse)
    monkeypatch.setattr(sockaddr, "encode_sockaddr", refuse)
    assert send_mmsg_nowait(server, batch).sent == 2
    assert not batch._views
    assert not batch._addresses
    assert send_mmsg_nowait(server, [(b"reply", packet) for packet in batch]).sent == 2
    monkeypatch.undo()
    assert [data for data, _ in received(client)] == [b"1", b"2", b"reply", b"reply"]


def test_a_reply_to_an_address_that_came_encodes_nothing(
    inet: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("other systems give addresses, not sockaddrs")
    server, client = inet.open(), inet.open()
    batch = PacketBatch()
    fill(batch, server, (client, b"question"))
    addresses = batch.addresses()
    monkeypatch.delattr(sockaddr, "encode_sockaddr")
    assert send_mmsg_nowait(server, [(b"answer", addresses[0])]).sent == 1
    assert received(client) == [(b"answer", server.getsockname())]


def test_packets_go_back(sending: str, engine: str, family: Family) -> None:
    """Chosen ones, of several batches, decoded or not."""
    server, client, other = (family.open() for _ in range(3))
    first, second = PacketBatch(4, 8, engine), PacketBatch(4, 16, engine)
    fill(first, server, (client, b"a"), (other, b"b"), (client, b""), (client, b"long enough"))
    fill(second, server, (client, b"c"), (other, b"d"))
    chosen = [first[2], first[0], second[0], second[1], first[3]]
    assert chosen[0].address == client.getsockname()
    assert send_mmsg_nowait(server, chosen, engine=sending) == SendResult(5, [])
    home = server.getsockname()
    assert received(client) == [(b"", home), (b"a", home), (b"c", home), (b"long eno", home)]
    assert received(other) == [(b"d", home)]


def test_a_packet_for_an_address(sending: str, engine: str, family: Family) -> None:
    server, client, other = (family.open() for _ in range(3))
    batch = PacketBatch(engine=engine)
    fill(batch, server, (client, b"1"), (other, b"2"))
    one, two = batch
    packets: list[Any] = [(b"reply", one), (two.data, one), (one.data, other.getsockname())]
    assert send_mmsg_nowait(server, packets, engine=sending) == SendResult(3, [])
    assert [data for data, _ in received(client)] == [b"reply", b"2"]
    assert [data for data, _ in received(other)] == [b"1"]


def test_packets_among_pairs(sending: str, engine: str, inet: Family) -> None:
    server, client, other = (inet.open() for _ in range(3))
    batch = PacketBatch(engine=engine)
    fill(batch, server, (client, b"1"), (client, b"2"))
    one, two = batch
    mixtures: list[Any] = [
        [(b"a", other.getsockname()), one, two],
        [one, (b"a", other.getsockname()), two],
    ]
    for packets in mixtures:
        assert send_mmsg_nowait(server, packets, engine=sending) == SendResult(3, [])
        assert [data for data, _ in received(client)] == [b"1", b"2"]
        assert [data for data, _ in received(other)] == [b"a"]
    batch.release()
    with pytest.raises(ValueError, match=r"^packet 1: .*released"):
        send_mmsg_nowait(server, [(b"", two), one], engine=sending)


def test_scattered_packets(sending: str, engine: str, inet: Family) -> None:
    """In any order, near one another and far apart in the ring."""
    server, *clients = (inet.open() for _ in range(4))
    batch = PacketBatch(64, 8, engine)
    fill(batch, server, *[(clients[number % 3], b"%d" % number) for number in range(60)])
    for chosen in ([3, 4, 5], [5, 3, 4], [0, 59], [59, 0, 30], [10, 8, 13], [7, 7]):
        packets = [batch[number] for number in chosen]
        assert send_mmsg_nowait(server, packets, engine=sending).sent == len(chosen)
        replies: list[Any] = [(b"%d" % number, batch[number]) for number in chosen]
        assert send_mmsg_nowait(server, replies, engine=sending).sent == len(chosen)
        for index, client in enumerate(clients):
            own = [b"%d" % number for number in chosen if number % 3 == index]
            assert [data for data, _ in received(client)] == own + own


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_a_peer_with_a_path_as_long_as_can_be(sending: str, engine: str, tmp_path: Path) -> None:
    """It leaves no room for the NUL at its end; nobody else may suffer from that."""
    folder = tempfile.mkdtemp(dir="/tmp")
    long = f"{folder}/{'x' * (107 - len(folder))}"
    assert len(long) == 108
    with Family("unix", tmp_path) as family, contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        server, client = family.open(), family.open()
        peer = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        libc = ctypes.CDLL(None, use_errno=True)
        raw = struct.pack("=H", socket.AF_UNIX) + long.encode()
        if libc.bind(peer.fileno(), raw, len(raw)):
            pytest.skip(f"the system binds no such path: {os.strerror(ctypes.get_errno())}")
        batch = PacketBatch(engine=engine)
        fill(batch, server, (peer, b"long"), (client, b"usual"))
        result = send_mmsg_nowait(server, batch, engine=sending)
        assert result.handled == 2
        assert [data for data, _ in received(client)] == [b"usual"]


def test_a_cut_packet_goes_back_cut(sending: str, engine: str, inet: Family) -> None:
    server, client = inet.open(), inet.open()
    batch = PacketBatch(3, 4, engine)
    fill(batch, server, (client, b"123456789"), (client, b"12"))
    assert send_mmsg_nowait(server, batch, engine=sending).sent == 2
    assert [data for data, _ in received(client)] == [b"1234", b"12"]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_a_sender_without_a_name_has_no_reply(sending: str, engine: str) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        for sock in (here, there):
            sock.setblocking(False)
        batch = PacketBatch(engine=engine)
        there.send(b"who am I")
        drain(here, batch, 1)
        assert batch.addresses() == [None]
        # It is connected, so the peer is meant.
        assert send_mmsg_nowait(here, batch, engine=sending).sent == 1
        assert there.recv(100) == b"who am I"


# Errors


def test_one_bad_destination_does_not_stop_the_rest(sending: str, family: Family) -> None:
    sender, receiver = family.open(), family.open()
    bad, number = nowhere(family)
    good = receiver.getsockname()
    for places in ([0], [2], [4], [0, 1], [1, 3], [3, 4], [0, 1, 2, 3, 4]):
        packets = [(b"%d" % n, bad if n in places else good) for n in range(5)]
        result = send_mmsg_nowait(sender, packets, engine=sending)
        assert failures(result) == [(place, number) for place in places]
        assert result.sent == 5 - len(places)
        assert result.handled == 5
        assert [int(data) for data, _ in received(receiver)] == sorted({*range(5)} - {*places})


def test_errors_have_their_class_and_no_frames(sending: str, inet: Family) -> None:
    sender = inet.open()
    bad, number = nowhere(inet)
    ((index, error),) = send_mmsg_nowait(sender, [(b"", bad)], engine=sending).failures
    assert (index, error.errno, error.strerror) == (0, number, os.strerror(number))
    assert type(error) is type(OSError(number, ""))
    assert error.__traceback__ is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells that when receiving")
def test_an_error_of_an_earlier_packet_is_that_of_the_next(sending: str, inet: Family) -> None:
    """ICMP's news waits in a connected socket; who sends next is told, and not sent."""
    receiver, sender = inet.pair()
    receiver.close()
    for number in range(4):
        result = send_mmsg_nowait(sender, [(b"%d" % number, None)], engine=sending)
        assert failures(result) == [(0, errno.ECONNREFUSED)] * (number % 2)
    packets = [(b"%d" % number, None) for number in range(4)]
    result = send_mmsg_nowait(sender, packets, engine=sending)
    # sendmmsg keeps no error that it met after a packet: sent again, the next one meets none.
    among = [(1, errno.ECONNREFUSED), (3, errno.ECONNREFUSED)]
    assert failures(result) == (among if sending == "sendto" else [])
    assert result.handled == 4


def test_no_destination(sending: str, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    packets = [(b"1", receiver.getsockname()), (b"2", None), (b"3", receiver.getsockname())]
    result = send_mmsg_nowait(sender, packets, engine=sending)
    ((index, error),) = result.failures
    assert (index, result.sent) == (1, 2)
    assert error.errno in (errno.EDESTADDRREQ, errno.ENOTCONN)
    assert [data for data, _ in received(receiver)] == [b"1", b"3"]


def test_a_reply_to_port_0_is_one_packets_failure(sending: str, inet: Family) -> None:
    """Whoever forges it must not keep the others from their replies."""
    sender, receiver = inet.open(), inet.open()
    packets = [(b"1", ("127.0.0.1", 0)), (b"2", receiver.getsockname())]
    result = send_mmsg_nowait(sender, packets, engine=sending)
    assert [index for index, _ in result.failures] == [0]
    assert [data for data, _ in received(receiver)] == [b"2"]


@pytest.mark.skipif(sys.platform == "win32", reason="a descriptor of Windows is no file's")
def test_a_socket_that_is_none_any_more(sending: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    packets = [(b"1", None)]
    reading, writing = os.pipe()
    kept = os.dup(sender.fileno())
    try:
        os.dup2(writing, sender.fileno())
        with pytest.raises(UnusableSocketError) as raised:
            send_mmsg_nowait(sender, packets, engine=sending)
        assert raised.value.errno == errno.ENOTSOCK
        assert raised.value.result == SendResult(0, [])
        os.dup2(kept, sender.fileno())
    finally:
        for number in (reading, writing, kept):
            os.close(number)
    assert send_mmsg_nowait(sender, packets, engine=sending).sent == 1
    os.close(sender.detach())
    with pytest.raises(UnusableSocketError) as raised:
        send_mmsg_nowait(sender, packets, engine=sending)
    assert raised.value.errno == errno.EBADF
    assert received(receiver)[0][0] == b"1"


# A full buffer


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_a_full_buffer(sending: str) -> None:
    """Unix sockets hold what was not read, so their buffers can be filled at will."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        for sock in (here, there):
            sock.setblocking(False)
        packets = [(b"%d" % number * 300, None) for number in range(2000)]
        arrived, start = [], 0
        while start < len(packets):
            result = send_mmsg_nowait(here, packets[start:], engine=sending)
            assert result.failures == []
            assert 0 < result.sent == result.handled
            start += result.handled
            if start < len(packets):
                with pytest.raises(WouldBlock):
                    send_mmsg_nowait(here, packets[start:], engine=sending)
                there_is = received(there)
                assert len(there_is) == result.handled
                arrived += there_is
        arrived += received(there)
        assert [data for data, _ in arrived] == [data for data, _ in packets]


# What can't be sent is refused before anything was sent

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
def test_bad_data(sending: str, bad: str, place: int, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    data, error, text = BAD[bad]
    packets: list[Any] = [(b"", receiver.getsockname())] * 3
    packets[place] = (data, receiver.getsockname())
    with pytest.raises(error, match=f"^packet {place}: .*{text}"):
        send_mmsg_nowait(sender, packets, engine=sending)
    assert received(receiver) == []


@pytest.mark.parametrize("bad", BAD_ADDRESSES)
@pytest.mark.parametrize("place", [0, 2])
def test_bad_addresses(sending: str, bad: str, place: int, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    address, error, text = BAD_ADDRESSES[bad]
    packets: list[Any] = [(b"", receiver.getsockname())] * 3
    packets[place] = (b"", address)
    with pytest.raises(error, match=f"^packet {place}: .*{text}"):
        send_mmsg_nowait(sender, packets, engine=sending)
    assert received(receiver) == []


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
        ("\ud800", ValueError, "no path"),
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
        ([b"x", ("127.0.0.1", 9)], "packet 0: b'x' is no pair"),
        ((b"x", ("127.0.0.1", 9)), "packet 0: b'x' is no pair"),
        ([(b"", INET), (b"", INET, 0)], "packet 1: .* is no pair"),
        ([(b"", INET), (b"",)], "packet 1: .* is no pair"),
        ([(b"", INET), None], "packet 1: None is no pair"),
        (b"bytes", "packet 0: 98 is no pair"),
        ({"127.0.0.1": 9}, "packet 0: '127.0.0.1' is no pair"),
    ],
)
def test_no_packets(sending: str, packets: Any, text: str, inet: Family) -> None:
    sender = inet.open()
    with pytest.raises(TypeError, match=text):
        send_mmsg_nowait(sender, packets, engine=sending)


def test_a_single_packet_is_no_list_of_them(inet: Family) -> None:
    server, client = inet.open(), inet.open()
    batch = PacketBatch()
    fill(batch, server, (client, b"1"))
    with pytest.raises(TypeError, match=r"packets is <Packet of 1 bytes.*give"):
        send_mmsg_nowait(server, batch[0])  # type: ignore[arg-type]


def test_released_packets(sending: str, engine: str, inet: Family) -> None:
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
    assert received(client) == []


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
def test_packets_of_another_family(sending: str, engine: str, inet: Family) -> None:
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
        send_mmsg_nowait(sender, [], engine="epoll")
    monkeypatch.setattr(engines, "_sendmmsg", None)
    with pytest.raises(ValueError, match="needs Linux"):
        send_mmsg_nowait(sender, [], engine="sendmmsg")
    receiver, sender = inet.pair()
    assert send_mmsg_nowait(sender, [(b"auto", None)]).sent == 1
    assert received(receiver)[0][0] == b"auto"


def test_a_family_without_addresses() -> None:
    """Such as netlink's."""
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        pytest.skip("netlink is a part of Linux")
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((0, 0))
        for _ in range(2):
            with pytest.raises(ValueError, match=r"^packet 0: .*connect the socket and give None"):
                send_mmsg_nowait(sock, [(b"", (0, 0))])


def test_what_comes_from_such_a_family_is_not_sent_back(sending: str, engine: str) -> None:
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


def test_raw_sockets_have_their_own_limit(sending: str) -> None:
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)  # for experiments (RFC 3692)
    except PermissionError:
        pytest.skip("raw sockets are not permitted here")
    with raw:
        raw.setblocking(False)
        packets = [(bytes(65_515), ("127.0.0.1", 0)), (bytes(65_516), ("127.0.0.1", 0))]
        result = send_mmsg_nowait(raw, packets, engine=sending)
        assert failures(result) == [(1, errno.EMSGSIZE)]


# Segmentation offload


@pytest.mark.parametrize(
    "sizes",
    [
        [10] * 7,
        [10] * 6 + [3],
        [10] * 3 + [3] + [10] * 3,
        [0, 0, 5, 5, 0, 5, 5],
        [5, 5, 0],
        [1, 2, 3],
        [3, 2, 1],
        [1232] * 130,
        [1] * 130,
        [40_000, 30_000, 20_000, 20_000, 20_000, 20_000],
        [65_507, 65_507, 1],
        [65_507, 1],
    ],
    ids=str,
)
def test_segmentation_changes_nothing(sending: str, sizes: list[int]) -> None:
    for name in ["inet"] + ["inet6"] * have_ipv6():
        with Family(name, None) as family:
            receiver, sender = family.pair()
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            sent = [os.urandom(size) for size in sizes]
            for to in (None, receiver.getsockname()):
                packets = [(data, to) for data in sent]
                result = send_mmsg_nowait(sender, packets, gso=True, engine=sending)
                assert result == SendResult(len(sent), [])
                assert received(receiver) == [(data, sender.getsockname()) for data in sent]


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
def test_segmentation_of_the_largest(sending: str) -> None:
    """Over IPv6 a payload can be larger than any run."""
    with Family("inet6", None) as family:
        receiver, sender = family.pair()
        sent = [os.urandom(65_527), os.urandom(65_527), b"x"]
        packets = [(data, None) for data in sent]
        assert send_mmsg_nowait(sender, packets, gso=True, engine=sending).sent == 3
        assert [data for data, _ in received(receiver)] == sent


def test_segmentation_to_several_destinations(sending: str, family: Family) -> None:
    sender, *receivers = (family.open() for _ in range(3))
    order = [0, 0, 1, 1, 1, 0, 1, 0, 0]
    sent = [(os.urandom(50), receivers[to].getsockname()) for to in order]
    assert send_mmsg_nowait(sender, sent, gso=True, engine=sending) == SendResult(9, [])
    for receiver in receivers:
        here = [data for data, to in sent if to == receiver.getsockname()]
        assert received(receiver) == [(data, sender.getsockname()) for data in here]


def test_segmentation_of_a_batch(sending: str, engine: str, inet: Family) -> None:
    """From its slots, which do not lie side by side, around the ring's end."""
    server, client = inet.open(), inet.open()
    batch = PacketBatch(8, 100, engine)
    fill(batch, server, *[(client, b"%d" % number) for number in range(8)])
    batch.release(5)
    fill(batch, server, *[(client, b"%d" % number) for number in range(8, 13)])
    assert send_mmsg_nowait(server, batch, gso=True, engine=sending) == SendResult(8, [])
    expected = [b"5", b"6", b"7", b"8", b"9", b"10", b"11", b"12"]
    assert [data for data, _ in received(client)] == expected


@on_linux
def test_one_system_call_sends_a_run(inet: Family, asked: list[int]) -> None:
    """Were it not so, the other tests of segmentation would say nothing."""
    receiver, sender = inet.pair()
    send_mmsg_nowait(sender, [(b"%03d" % number, None) for number in range(64)], gso=True)
    assert asked == [1]
    assert [data for data, _ in received(receiver)] == [b"%03d" % number for number in range(64)]


@on_linux
def test_a_socket_that_refuses_segmentation(inet: Family, asked: list[int]) -> None:
    """One that sends without checksums: the kernel says EINVAL to a run, and each is sent."""
    receiver, sender = inet.pair()
    so_no_check = 11  # asm-generic/socket.h
    sender.setsockopt(socket.SOL_SOCKET, so_no_check, 1)
    packets = [(b"%d" % number, None) for number in range(9)]
    result = send_mmsg_nowait(sender, packets, gso=True)
    assert asked == [1, 9]
    assert result == SendResult(9, [])
    assert [data for data, _ in received(receiver)] == [data for data, _ in packets]


def test_errors_among_runs(sending: str, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    bad, number = nowhere(inet)
    packets = [(b"%d" % n, bad if n in (3, 4, 5) else receiver.getsockname()) for n in range(9)]
    result = send_mmsg_nowait(sender, packets, gso=True, engine=sending)
    assert failures(result) == [(3, number), (4, number), (5, number)]
    assert [data for data, _ in received(receiver)] == [b"0", b"1", b"2", b"6", b"7", b"8"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells that when receiving")
def test_an_old_error_among_runs(sending: str, inet: Family) -> None:
    """It is the first packet's of a run; the others are sent."""
    receiver, sender = inet.pair()
    receiver.close()
    assert send_mmsg_nowait(sender, [(b"x", None)], engine=sending).sent == 1
    packets = [(b"%d" % number, None) for number in range(2)]
    result = send_mmsg_nowait(sender, packets, gso=True, engine=sending)
    assert failures(result) == [(0, errno.ECONNREFUSED)]
    assert result.sent == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, 700, 1232, 40_000, 65_507, 65_527]), st.sampled_from("ab")
        )
    )
)
def test_runs(packets: list[tuple[int, str]]) -> None:
    """All packets, in order; each run is cut by the kernel into just its packets."""
    sizes = [size for size, _ in packets]
    runs = _runs(sizes, [to.encode() for _, to in packets])
    assert sum(runs) == len(packets)
    at = 0
    for run in runs:
        assert 1 <= run <= 64
        assert len({to for _, to in packets[at : at + run]}) == 1
        *before, last = sizes[at : at + run]
        if before:
            assert len({*before}) == 1
            assert 0 < last <= before[0]
            assert sum(before) + last <= 65_507
        at += run


# Memory


def test_payloads_are_not_kept(sending: str, inet: Family) -> None:
    receiver, sender = inet.pair()
    data, other = bytearray(b"x" * 100), bytes(1000)
    count = sys.getrefcount(other)
    packets: list[Any] = [(data, None), (other, None)]
    send_mmsg_nowait(sender, packets, engine=sending)
    del packets
    assert sys.getrefcount(other) == count
    data.extend(b"more")  # a BufferError if somebody had an export
    assert len(received(receiver)) == 2


def test_the_ring_is_let_go(sending: str, engine: str, inet: Family) -> None:
    server, client = inet.open(), inet.open()
    batch = PacketBatch(4, 8, engine)
    fill(batch, server, (client, b"1"))
    memory = batch._ring.memory
    send_mmsg_nowait(server, batch, engine=sending)
    del batch
    memory.extend(b"more")


def test_data_whose_kind_has_another_opinion_of_its_length(sending: str, inet: Family) -> None:
    """Its buffer counts. To trust anything else would send the memory beyond."""

    class Odd(bytes):
        def __len__(self) -> int:
            return 3

        def __index__(self) -> int:
            return 1

    receiver, sender = inet.pair()
    assert send_mmsg_nowait(sender, [(Odd(b"a" * 9000), None)], engine=sending).sent == 1
    assert received(receiver) == [(b"a" * 9000, sender.getsockname())]


def test_forged_destinations_do_not_grow_memory(sending: str, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    cache = sockaddr.sockaddrs_of(socket.AF_INET)
    for start in range(0, 3 * sockaddr.ADDRESS_CACHE_SIZE, 1000):
        packets = [
            (b"", (f"127.1.{(start + n) >> 8}.{(start + n) & 255}", 9)) for n in range(1000)
        ]
        packets.append((b"%d" % start, receiver.getsockname()))
        result = send_mmsg_nowait(sender, packets, engine=sending)
        assert result.handled == 1001
        assert [data for data, _ in received(receiver)] == [b"%d" % start]
        assert len(cache) <= sockaddr.ADDRESS_CACHE_SIZE


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from([0, 1, 7, 500, 500, 1232]), st.sampled_from([0, 1, 1])),
            max_size=40,
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_calls_do_not_disturb_each_other(
    calls: list[list[tuple[int, int]]], segmented: bool
) -> None:
    """What is laid for a call is used again by the next: of any shape, after any other."""
    with Family("inet", None) as family:
        sender, *receivers = (family.open() for _ in range(3))
        rng = random.Random(3)
        for call in calls:
            sent = [(rng.randbytes(size), receivers[to].getsockname()) for size, to in call]
            assert send_mmsg_nowait(sender, sent, gso=segmented).sent == len(sent)
            for receiver in receivers:
                here = [data for data, to in sent if to == receiver.getsockname()]
                assert [data for data, _ in received(receiver)] == here


def test_threads(sending: str) -> None:
    """The arrays are shared, but not at one time."""
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        try:
            with Family("inet", None) as family:
                receiver, sender = family.pair()
                start.wait(10)
                for turn in range(200):
                    packets = [(b"%d/%d/%d" % (number, turn, n), None) for n in range(20)]
                    assert send_mmsg_nowait(sender, packets, engine=sending).sent == 20
                    assert [data for data, _ in received(receiver)] == [d for d, _ in packets]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_after_a_fork(sending: str) -> None:
    """Parent and child have copies of the arrays."""
    program = f"""if True:
        import os, socket
        from anyio_mmsg import send_mmsg_nowait
        def send(data):
            packets = [(data, receiver.getsockname())] * 3
            assert send_mmsg_nowait(sender, packets, engine={sending!r}).sent == 3
        receiver, sender = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
        receiver.bind(("127.0.0.1", 0))
        sender.setblocking(False)
        send(b"before")
        child = os.fork()
        if not child:
            send(b"child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        send(b"parent")
        got = [receiver.recv(100) for _ in range(9)]
        assert got == [b"before"] * 3 + [b"child"] * 3 + [b"parent"] * 3, got
        """
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def test_packets_are_refused_or_taken_as_a_whole(inet: Family) -> None:
    """An iterable that fails while it is read has sent nothing."""
    receiver, sender = inet.pair()

    def failing() -> Any:
        yield b"1", None
        raise LookupError("of the caller")

    with pytest.raises(LookupError, match="of the caller"):
        send_mmsg_nowait(sender, failing())
    assert received(receiver) == []


def test_received_by_ours(sending: str, engine: str, family: Family) -> None:
    receiver, sender = family.open(), family.open()
    packets = [(b"%d" % number, receiver.getsockname()) for number in range(8)]
    assert send_mmsg_nowait(sender, packets, engine=sending).sent == 8
    batch = PacketBatch(engine=engine)
    assert recv_mmsg_nowait(receiver, batch) == 8
    assert contents(batch) == [data for data, _ in packets]
    assert {packet.address for packet in batch} == {sender.getsockname()}
    assert all(isinstance(packet, Packet) for packet in batch)
