"""What is sent arrives: by both senders, for every family."""

from __future__ import annotations

import array
import os
import random
import socket
from typing import Any

import pytest
from anyio import WouldBlock

from anyio_mmsg import (
    Destination,
    Packet,
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendResult,
    recv_mmsg_nowait,
    send_mmsg_nowait,
)
from anyio_mmsg._send.known import MAX_PAYLOAD

from ..helpers import Family, contents, have_ipv6, link_local
from .helpers import arrived, received


def test_pairs(sending: SendEngine, family: Family) -> None:
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
        assert [arrived(receiver) for receiver in receivers] == expected


def test_nothing(sending: SendEngine, family: Family) -> None:
    sender = family.open()
    nothings: list[Any] = [[], iter(()), PacketBatch(), {}]
    for packets in nothings:
        assert send_mmsg_nowait(sender, packets, engine=sending) == SendResult(0, [])


def test_items_wider_than_a_byte(sending: SendEngine, inet: Family) -> None:
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
    got = [data for data, _ in arrived(receiver)]
    assert got == [words.tobytes(), words[1:3].tobytes(), bytes(range(6)), b"end"]


def test_to_the_peer_of_a_connected_socket(sending: SendEngine, family: Family) -> None:
    receiver, sender = family.pair()
    other = family.open()
    packets: list[tuple[bytes, Any]] = [(b"1", None), (b"", None), (b"3", None)]
    if family.name != "unix":
        packets.insert(1, (b"aside", other.getsockname()))
    assert send_mmsg_nowait(sender, packets, engine=sending).failures == []
    assert [data for data, _ in arrived(receiver)] == [b"1", b"", b"3"]
    assert arrived(other) == [(data, sender.getsockname()) for data, to in packets if to]


def test_largest_payloads(sending: SendEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    most = MAX_PAYLOAD[socket.AF_INET]
    sent = [os.urandom(most), os.urandom(most - 1), b"x"]
    assert send_mmsg_nowait(sender, [(data, None) for data in sent], engine=sending).sent == 3
    assert [data for data, _ in arrived(receiver)] == sent


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
def test_largest_payload_over_ipv6(sending: SendEngine) -> None:
    with Family("inet6", None) as family:
        receiver, sender = family.pair()
        sent = os.urandom(MAX_PAYLOAD[socket.AF_INET6])
        assert send_mmsg_nowait(sender, [(sent, None)], engine=sending).failures == []
        assert arrived(receiver) == [(sent, sender.getsockname())]


def test_ipv6_addresses_of_each_length(sending: SendEngine) -> None:
    if not have_ipv6():
        pytest.skip("::1 can't be bound here")
    with Family("inet6", None) as family:
        sender, receiver = family.open(), family.open()
        host, port, *_ = receiver.getsockname()
        packets = [(b"2", (host, port)), (b"3", (host, port, 0)), (b"4", (host, port, 0, 0))]
        assert send_mmsg_nowait(sender, packets, engine=sending).failures == []
        assert [data for data, _ in arrived(receiver)] == [b"2", b"3", b"4"]


def test_link_local_addresses(sending: SendEngine) -> None:
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
        forms: list[Destination] = [
            (host, port, 0, index),
            (f"{host}%{index}", port),
            (f"{host}%{interface}", port),
            (f"{host}%{index}", port, 0, index),
        ]
        packets = [(b"%d" % number, address) for number, address in enumerate(forms)]
        assert send_mmsg_nowait(sender, packets, engine=sending) == SendResult(4, [])
        assert [data for data, _ in arrived(receiver)] == [b"0", b"1", b"2", b"3"]


def test_more_than_one_call_can_take(sending: SendEngine, inet: Family) -> None:
    receiver, sender, other = (inet.open() for _ in range(3))
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sent = [b"%d" % number * 3 for number in range(1500)]
    packets = [(data, receiver.getsockname()) for data in sent]
    packets.insert(1100, (b"aside", other.getsockname()))
    assert send_mmsg_nowait(sender, packets, engine=sending) == SendResult(1501, [])
    got = [data for data, _ in arrived(receiver)]
    assert got == sent[: len(got)]
    assert len(got) > 1100, "the receiver's buffer is too small for this test"
    assert arrived(other) == [(b"aside", sender.getsockname())]


def test_packets_are_refused_or_taken_as_a_whole(inet: Family) -> None:
    """An iterable that fails while it is read has sent nothing."""
    receiver, sender = inet.pair()

    def failing() -> Any:
        yield b"1", None
        raise LookupError("of the caller")

    with pytest.raises(LookupError, match="of the caller"):
        send_mmsg_nowait(sender, failing())
    assert arrived(receiver) == []


def test_received_by_ours(sending: SendEngine, engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.open(), family.open()
    packets = [(b"%d" % number, receiver.getsockname()) for number in range(8)]
    assert send_mmsg_nowait(sender, packets, engine=sending).sent == 8
    batch = PacketBatch(engine=engine)
    assert recv_mmsg_nowait(receiver, batch) == 8
    assert contents(batch) == [data for data, _ in packets]
    assert {packet.address for packet in batch} == {sender.getsockname()}
    assert all(isinstance(packet, Packet) for packet in batch)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_a_full_buffer(sending: SendEngine) -> None:
    """Unix sockets hold what was not read, so their buffers can be filled at will."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        for sock in (here, there):
            sock.setblocking(False)
        packets = [(b"%d" % number * 300, None) for number in range(2000)]
        got: list[bytes] = []
        start = 0
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
                got += there_is
        got += received(there)
        assert got == [data for data, _ in packets]
