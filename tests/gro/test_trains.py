"""What comes in trains is handed out as the packets that were sent."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack

import anyio
import pytest

from anyio_mmsg import BatchFullError, PacketBatch, ReceiveEngine, recv_mmsg_nowait

from .flow import UDP_SEGMENT, Flow, check, drain, numbered


@pytest.fixture
def batch(engine: ReceiveEngine) -> PacketBatch:
    return PacketBatch(8, engine=engine, gro=True)


def send_exactly_as_one(flow: Flow, packets: list[bytes], batch: PacketBatch) -> None:
    flow.send(*packets)
    assert drain(flow.receiver, batch) == len(packets)
    assert batch.free == batch.capacity - 1, "it did not come as one message"


@pytest.mark.parametrize("count", [2, 52, 64, 128])
@pytest.mark.parametrize("last", [None, 1])
def test_trains_of_all_lengths(
    count: int, last: int | None, flow: Flow, batch: PacketBatch
) -> None:
    packets = numbered(count, 400, last)
    send_exactly_as_one(flow, packets, batch)
    check(batch, packets, flow.names[:1] * count)


@pytest.mark.parametrize("size", [1, 2, 1232])
def test_exact_multiples(size: int, flow: Flow, batch: PacketBatch) -> None:
    packets = numbered(40, size)
    send_exactly_as_one(flow, packets, batch)
    check(batch, packets, flow.names[:1] * 40)


def test_the_longest_trains(flow: Flow, batch: PacketBatch) -> None:
    packets = numbered(52, 1232, last=1)
    flow.send(*packets)
    packets += flow.send(*numbered(45, 1452, last=1000))
    drain(flow.receiver, batch)
    check(batch, packets, flow.names[:1] * 97)


def test_a_train_of_one(flow: Flow, batch: PacketBatch) -> None:
    """It is no train: the kernel does not say a segment size."""
    packets = flow.send(b"alone")
    drain(flow.receiver, batch)
    check(batch, packets, flow.names[:1])


def test_empty_datagrams_stand_alone(flow: Flow, batch: PacketBatch) -> None:
    packets = flow.single(b"")
    packets += flow.send(*numbered(5, 10))
    packets += flow.single(b"")
    packets += flow.single(b"")
    packets += flow.send(*numbered(3, 10, last=1))
    assert drain(flow.receiver, batch) == len(packets)
    check(batch, packets, flow.names[:1] * len(packets))


def test_a_gso_send_of_nothing(flow: Flow, batch: PacketBatch) -> None:
    flow.sender.sendmsg([b""], [(17, UDP_SEGMENT, struct.pack("=H", 100))])
    drain(flow.receiver, batch)
    check(batch, [b""], flow.names[:1])


def test_two_senders_alternate(flow: Flow, batch: PacketBatch) -> None:
    packets, addresses = [], []
    for turn in range(6):
        train = flow.send(*numbered(3 + turn, 50, start=100 * turn), sender=turn % 2)
        packets += train
        addresses += [flow.names[turn % 2]] * len(train)
    drain(flow.receiver, batch)
    check(batch, packets, addresses)


def test_trains_and_singles_in_one_call(flow: Flow, batch: PacketBatch) -> None:
    packets = flow.single(b"first", sender=1)
    packets += flow.send(*numbered(10, 100, last=99))
    packets += flow.single(b"middle", sender=1)
    packets += flow.single(b"x" * 9000, sender=1)
    packets += flow.send(*numbered(2, 1000, start=10))
    addresses = [flow.names[n] for n in (1, *[0] * 10, 1, 1, *[0] * 2)]
    assert recv_mmsg_nowait(flow.receiver, batch) == 15
    check(batch, packets, addresses)
    assert batch.free == 3


def test_the_longest_datagram(flow: Flow, batch: PacketBatch) -> None:
    packets = flow.single(b"y" * 65_507) + flow.single(b"z")
    drain(flow.receiver, batch)
    check(batch, packets, flow.names[:1] * 2)


def test_a_stale_segment_size(flow: Flow, batch: PacketBatch) -> None:
    """A slot that held a train takes a packet without a control message, again and again."""
    for turn in range(3 * batch.capacity):
        packets = flow.send(*numbered(7, 10, start=turn)) if turn % 3 else flow.single(b"x" * 100)
        drain(flow.receiver, batch)
        check(batch, packets, flow.names[:1] * len(packets))
        batch.clear()
    for turn in range(2):
        packets = []
        for slot in range(batch.capacity):
            one = slot % 2 == turn
            packets += flow.single(b"x" * 100) if one else flow.send(*numbered(7, 10, last=1))
        drain(flow.receiver, batch)
        check(batch, packets, flow.names[:1] * len(packets))
        batch.clear()


def test_around_the_end(flow: Flow, batch: PacketBatch) -> None:
    packets: list[bytes] = []
    for turn in range(8):
        packets += flow.send(*numbered(5, 30, last=turn + 1, start=turn))
    drain(flow.receiver, batch)
    batch.release(28)  # five trains and three packets of the sixth
    del packets[:28]
    assert batch.free == 5
    for turn in range(5):
        packets += flow.send(*numbered(3 + turn, 40, start=50 + turn), sender=1)
    assert drain(flow.receiver, batch) == 25
    assert batch.free == 0
    check(batch, packets, flow.names[:1] * 12 + flow.names[1:] * 25)
    while packets:
        batch.release(3 if len(packets) > 3 else len(packets))
        del packets[:3]
        assert batch.payloads() == packets
    assert batch.free == 8


def test_a_capacity_of_1(flow: Flow, engine: ReceiveEngine) -> None:
    batch = PacketBatch(1, engine=engine, gro=True)
    for turn in range(3):
        packets = flow.send(*numbered(9, 20, last=7, start=turn), sender=turn % 2)
        assert recv_mmsg_nowait(flow.receiver, batch) == 9
        check(batch, packets, [flow.names[turn % 2]] * 9)
        with pytest.raises(BatchFullError):
            recv_mmsg_nowait(flow.receiver, batch)
        batch.release(8)
        assert (batch.free, batch.payloads()) == (0, packets[8:])
        batch.release()
        assert (batch.free, len(batch)) == (1, 0)


def test_a_limit_counts_messages(flow: Flow, batch: PacketBatch) -> None:
    first = flow.send(*numbered(30, 10))
    second = flow.single(b"alone")
    third = flow.send(*numbered(20, 10, start=50))
    assert recv_mmsg_nowait(flow.receiver, batch, 1) == 30
    assert recv_mmsg_nowait(flow.receiver, batch, 2) == 21
    check(batch, first + second + third, flow.names[:1] * 51)
    with pytest.raises(anyio.WouldBlock):
        recv_mmsg_nowait(flow.receiver, batch, 1)


def test_index_and_slices_count_packets(flow: Flow, batch: PacketBatch) -> None:
    packets = flow.single(b"one") + flow.send(*numbered(10, 20, last=3)) + flow.single(b"two")
    drain(flow.receiver, batch)
    for index in range(-12, 12):
        assert bytes(batch[index].data) == packets[index]
        assert batch[index] is batch[index]
    assert [bytes(packet.data) for packet in batch[3:9:2]] == packets[3:9:2]
    for index in (12, -13):
        with pytest.raises(IndexError):
            batch[index]
    assert batch[5] is list(batch)[5]
    assert batch.payloads()[5] is batch[5].data


def test_a_socket_without_gro_fills_the_same_batch(engine: ReceiveEngine) -> None:
    """Or one of another family: slots that have held trains hold single packets."""
    batch = PacketBatch(8, engine=engine, gro=True)
    with Flow() as flow, ExitStack() as stack:
        packets = flow.send(*numbered(9, 100))
        drain(flow.receiver, batch)
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for sock in (left, right):
            stack.enter_context(sock)
            sock.setblocking(False)
        left.send(b"of another family")
        assert recv_mmsg_nowait(right, batch) == 1
        packets += [b"of another family"]
        packets += flow.send(*numbered(4, 7), sender=1)
        assert recv_mmsg_nowait(flow.receiver, batch) == 4
        check(batch, packets, flow.names[:1] * 9 + [None] + flow.names[1:] * 4)
