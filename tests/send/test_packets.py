"""Packets go back as they are, and replies to who sent them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import socket
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendResult,
    send_mmsg_nowait,
)

from ..helpers import Family, contents, drain
from .helpers import arrived, fill, fill_from_peer


def test_a_batch_goes_back(sending: SendEngine, engine: ReceiveEngine, family: Family) -> None:
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
            assert arrived(client) == [(data, server.getsockname()) for data in expected]
        assert contents(batch) == [data for _, data in held]
        done = rng.randint(0, len(batch))
        batch.release(done)
        del held[:done]


def test_packets_go_back(sending: SendEngine, engine: ReceiveEngine, family: Family) -> None:
    """Chosen ones, of several batches, decoded or not."""
    server, client, other = (family.open() for _ in range(3))
    first, second = PacketBatch(4, 8, engine), PacketBatch(4, 16, engine)
    fill(first, server, (client, b"a"), (other, b"b"), (client, b""), (client, b"long enough"))
    fill(second, server, (client, b"c"), (other, b"d"))
    chosen = [first[2], first[0], second[0], second[1], first[3]]
    assert chosen[0].address == client.getsockname()
    assert send_mmsg_nowait(server, chosen, engine=sending) == SendResult(5, [])
    home = server.getsockname()
    assert arrived(client) == [(b"", home), (b"a", home), (b"c", home), (b"long eno", home)]
    assert arrived(other) == [(b"d", home)]


def test_a_packet_for_an_address(
    sending: SendEngine, engine: ReceiveEngine, family: Family
) -> None:
    server, client, other = (family.open() for _ in range(3))
    batch = PacketBatch(engine=engine)
    fill(batch, server, (client, b"1"), (other, b"2"))
    one, two = batch
    packets: list[Any] = [(b"reply", one), (two.data, one), (one.data, other.getsockname())]
    assert send_mmsg_nowait(server, packets, engine=sending) == SendResult(3, [])
    assert [data for data, _ in arrived(client)] == [b"reply", b"2"]
    assert [data for data, _ in arrived(other)] == [b"1"]


def test_packets_among_pairs(sending: SendEngine, engine: ReceiveEngine, inet: Family) -> None:
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
        assert [data for data, _ in arrived(client)] == [b"1", b"2"]
        assert [data for data, _ in arrived(other)] == [b"a"]
    batch.release()
    with pytest.raises(ValueError, match=r"^packet 1: .*released"):
        send_mmsg_nowait(server, [(b"", two), one], engine=sending)


def test_scattered_packets(sending: SendEngine, engine: ReceiveEngine, inet: Family) -> None:
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
            assert [data for data, _ in arrived(client)] == own + own


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_a_peer_with_a_path_as_long_as_can_be(
    sending: SendEngine, engine: ReceiveEngine, tmp_path: Path
) -> None:
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
        path: Any = batch[0].address
        if len(os.fsencode(path)) > 108:
            pytest.skip("this Python's recvfrom reads beyond such a path (seen on 3.13.0)")
        result = send_mmsg_nowait(server, batch, engine=sending)
        assert result.handled == 2
        assert [data for data, _ in arrived(client)] == [b"usual"]


def test_a_cut_packet_goes_back_cut(
    sending: SendEngine, engine: ReceiveEngine, inet: Family
) -> None:
    server, client = inet.open(), inet.open()
    batch = PacketBatch(3, 4, engine)
    fill(batch, server, (client, b"123456789"), (client, b"12"))
    assert send_mmsg_nowait(server, batch, engine=sending).sent == 2
    assert [data for data, _ in arrived(client)] == [b"1234", b"12"]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_a_sender_without_a_name_has_no_reply(sending: SendEngine, engine: ReceiveEngine) -> None:
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


@pytest.mark.parametrize("form", ["batch", "packets", "pairs"])
def test_a_view_that_was_released(
    form: str,
    sending: SendEngine,
    engine: ReceiveEngine,
    narrow: tuple[socket.socket, socket.socket],
) -> None:
    """Nothing is sent, whether there is room or not, and it says which packet it is."""
    server, client = narrow
    batch = PacketBatch(8, 16, engine)
    fill_from_peer(batch, server, client, *(b"%d" % number for number in range(6)))
    forms: dict[str, Any] = {
        "batch": batch,
        "packets": list(batch),
        "pairs": [(packet.data, packet) for packet in batch],
    }
    batch[4].data.release()
    with pytest.raises(ValueError, match=r"^packet 4: .*released"):
        send_mmsg_nowait(server, forms[form], engine=sending)
    assert arrived(client) == []
