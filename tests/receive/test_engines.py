"""One conformance suite: both engines, every family, against what `socket.recvfrom` gives."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import socket
import sys
import weakref
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine, recv_mmsg_nowait
from anyio_mmsg._receive.recvfrom_into import RecvfromInto
from anyio_mmsg._system.platform import Recvmmsg

from ..helpers import Family, contents, drain, have_ipv6, link_local


def kind_of(engine: ReceiveEngine, inet: Family) -> type:
    """What fills a batch of that engine."""
    receiver, sender = inet.pair()
    batch = PacketBatch(engine=engine)
    sender.send(b"x")
    drain(receiver, batch, 1)
    return type(batch._slots.filler.engine)


def test_the_engine_is_the_one_asked_for(engine: ReceiveEngine, inet: Family) -> None:
    assert kind_of(engine, inet) is {"recvfrom_into": RecvfromInto, "recvmmsg": Recvmmsg}[engine]


def test_auto_is_the_fast_one(inet: Family) -> None:
    assert kind_of("auto", inet) is (Recvmmsg or RecvfromInto)


def test_same_as_recvfrom(engine: ReceiveEngine, family: Family) -> None:
    """Bytes, sizes, addresses and order, several senders interleaved."""
    receiver = family.open()
    senders = [family.open() for _ in range(3)]
    rng = random.Random(1)
    sizes = [0, 1, 100, 1231, 1232]
    batch = PacketBatch(engine=engine)
    expected: list[tuple[bytes, object]] = []
    for _ in range(6):
        datagrams = [rng.randbytes(rng.choice(sizes)) for _ in range(9)]  # unix queues take 10
        for read in (True, False):
            for number, data in enumerate(datagrams):
                senders[number % 3].sendto(data, receiver.getsockname())
            if read:
                expected += [receiver.recvfrom(2000) for _ in datagrams]
        assert recv_mmsg_nowait(receiver, batch) == 9
    assert [(bytes(p.data), p.address) for p in batch] == expected
    assert batch.addresses() == [address for _, address in expected]
    assert batch.sizes() == [len(data) for data, _ in expected]
    assert not any(p.truncated for p in batch)


def test_nothing_there(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    batch = PacketBatch(2, engine=engine)
    with pytest.raises(anyio.WouldBlock):
        recv_mmsg_nowait(receiver, batch)
    sender.send(b"x")
    assert recv_mmsg_nowait(receiver, batch) == 1
    with pytest.raises(anyio.WouldBlock):
        recv_mmsg_nowait(receiver, batch)
    assert contents(batch) == [b"x"]


def test_empty_datagrams(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    sent = [b"", b"a", b"", b"", b"b", b""]
    for data in sent:
        sender.send(data)
    batch = PacketBatch(engine=engine)
    assert recv_mmsg_nowait(receiver, batch) == 6
    assert contents(batch) == sent
    assert batch.sizes() == [0, 1, 0, 0, 1, 0]
    assert [p.wire_size for p in batch] == batch.sizes()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the length as sent")
@pytest.mark.parametrize("slot_size", [1, 7, 1232])
def test_truncation(engine: ReceiveEngine, family: Family, slot_size: int) -> None:
    receiver, sender = family.pair()
    sizes = [slot_size - 1, slot_size, slot_size + 1, 3000, 2]
    sent = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    for data in sent:
        sender.send(data)
    batch = PacketBatch(len(sizes) + 1, slot_size, engine)
    assert recv_mmsg_nowait(receiver, batch) == len(sizes)
    assert contents(batch) == [data[:slot_size] for data in sent]
    assert [p.truncated for p in batch] == [size > slot_size for size in sizes]
    assert [p.wire_size for p in batch] == sizes
    assert [p.size for p in batch] == batch.sizes() == [min(s, slot_size) for s in sizes]
    # Nothing went beyond its slot: the free one is as it was made.
    assert batch.buffer[-slot_size:] == bytes(slot_size)


def test_wrap_around(engine: ReceiveEngine, family: Family) -> None:
    """Receive and release in random amounts, so that fills begin and end everywhere."""
    receiver, sender = family.pair()
    rng = random.Random(2)
    batch = PacketBatch(7, 16, engine)
    held: list[bytes] = []
    for number in range(300):
        if batch.free:
            count = rng.randint(1, batch.free)
            sent = [b"%d/%d" % (number, i) for i in range(count)]
            for data in sent:
                sender.send(data)
            assert recv_mmsg_nowait(receiver, batch) == count
            held += sent
        assert contents(batch) == held
        assert batch.addresses() == [sender.getsockname()] * len(held)
        done = rng.randint(0, len(batch))
        batch.release(done)
        del held[:done]


def test_a_held_slot_is_not_written_to(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    batch = PacketBatch(3, 8, engine)
    for data in (b"aaaaaaaa", b"bbbbbbbb"):
        sender.send(data)
    drain(receiver, batch, 2)
    views = batch.payloads()
    batch.release()
    for data in (b"cccccccc", b"dddddddd"):
        sender.send(data)
    drain(receiver, batch, 2)  # around the end
    assert views[1] == b"bbbbbbbb"
    assert contents(batch) == [b"bbbbbbbb", b"cccccccc", b"dddddddd"]
    assert batch.buffer == b"ddddddddbbbbbbbbcccccccc"


def test_limit(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    for number in range(5):
        sender.send(b"%d" % number)
    batch = PacketBatch(engine=engine)
    assert [recv_mmsg_nowait(receiver, batch, 2) for _ in range(3)] == [2, 2, 1]
    assert contents(batch) == [b"0", b"1", b"2", b"3", b"4"]


def test_more_than_one_call_can_take(engine: ReceiveEngine) -> None:
    """The kernel cuts a recvmmsg to 1024 messages; the limit of ours is the caller's."""
    with Family("inet", None) as family:
        receiver, sender = family.pair()
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        batch = PacketBatch(2600, 4, engine)
        sent = 0
        for sent in range(1, 2501):
            sender.send(b"%04d" % sent)
        got = 0
        while got < sent:
            got += recv_mmsg_nowait(receiver, batch, 2500)
        assert bytes(batch.buffer[: 4 * sent]) == b"".join(b"%04d" % n for n in range(1, sent + 1))


def test_connected_receiver(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    stranger = family.open()
    receiver.connect(sender.getsockname())
    sender.send(b"friend")
    if family.name != "unix":  # there the kernel refuses the stranger itself
        stranger.sendto(b"stranger", receiver.getsockname())
    batch = PacketBatch(engine=engine)
    drain(receiver, batch, 1)
    assert [(bytes(p.data), p.address) for p in batch] == [(b"friend", sender.getsockname())]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_unix_senders_of_every_kind(
    engine: ReceiveEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Family("unix", tmp_path_factory.mktemp("s")) as family:
        receiver = family.open()
        unnamed, named, umlaut = family.unbound(), family.open(), family.unbound()
        umlaut.bind(os.fsencode(tmp_path_factory.mktemp("u")) + "/ü".encode())  # in any locale
        senders = [unnamed, named, umlaut, unnamed]
        if sys.platform == "linux":
            abstract, autobound = family.unbound(), family.unbound()
            abstract.bind(b"\0with\0nul\0")
            autobound.bind("")
            senders += [abstract, autobound, named]
        for sender in senders:
            sender.sendto(b"x", receiver.getsockname())
        expected = [receiver.recvfrom(10)[1] for _ in senders]
        assert None in expected
        for sender in senders:
            sender.sendto(b"x", receiver.getsockname())
        batch = PacketBatch(engine=engine)
        drain(receiver, batch, len(senders))
        assert batch.addresses() == expected


def test_a_batch_may_serve_sockets_of_different_families(
    engine: ReceiveEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A length that the kernel left from a short address must not cut a longer one."""
    if not have_ipv6() or not hasattr(socket, "AF_UNIX"):
        pytest.skip("needs IPv4, IPv6 and unix sockets together")
    with (
        Family("inet", None) as inet,
        Family("inet6", None) as inet6,
        Family("unix", tmp_path_factory.mktemp("s")) as unix,
    ):
        pairs = [inet.pair(), inet6.pair(), unix.pair()]
        unnamed = unix.unbound()
        batch = PacketBatch(3, engine=engine)
        rng = random.Random(3)
        held: list[object] = []
        for _ in range(200):
            if batch.free:
                receiver, sender = rng.choice(pairs)
                count = rng.randint(1, batch.free)
                for _ in range(count):
                    sender.send(b"x")
                drain(receiver, batch, count)
                held += [sender.getsockname()] * count
            if batch.free:
                unnamed.sendto(b"x", pairs[2][0].getsockname())
                drain(pairs[2][0], batch, 1)
                held.append(None)
            if rng.random() < 0.5:
                assert batch.addresses() == held
            done = rng.randint(0, len(batch))
            batch.release(done)
            del held[:done]


@pytest.mark.skipif(link_local() is None, reason="no interface here has a link-local address")
def test_scope_id(engine: ReceiveEngine) -> None:
    found = link_local()
    assert found is not None
    info = socket.getaddrinfo("%".join(found), 0, socket.AF_INET6, socket.SOCK_DGRAM)[0][4]
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setblocking(False)
        receiver.bind(info)
        sender.bind(info)
        sender.sendto(b"x", receiver.getsockname())
        sender.sendto(b"x", receiver.getsockname())
        expected = receiver.recvfrom(10)[1]
        assert expected[3] != 0
        batch = PacketBatch(engine=engine)
        drain(receiver, batch, 1)
        assert batch.addresses() == [expected]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback may not report it")
def test_an_error_outranks_queued_packets_and_loses_none(
    engine: ReceiveEngine, inet: Family
) -> None:
    """A connected socket whose peer was away, then spoke: the ICMP error comes first."""
    receiver, peer = inet.open(), inet.open()
    address = peer.getsockname()
    receiver.connect(address)
    peer.close()
    receiver.send(b"is anyone there?")  # answered by ICMP port unreachable
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(address)
        peer.sendto(b"now I am", receiver.getsockname())
        batch = PacketBatch(engine=engine)
        with pytest.raises(ConnectionRefusedError):
            recv_mmsg_nowait(receiver, batch)
        assert len(batch) == 0
        assert recv_mmsg_nowait(receiver, batch) == 1
        assert contents(batch) == [b"now I am"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback may not report it")
def test_a_raised_error_holds_nothing(engine: ReceiveEngine) -> None:
    """No cycle of error, traceback and frame keeps the socket or the batch alive."""
    gc.disable()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.setblocking(False)
            receiver.bind(("127.0.0.1", 0))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as away:
                away.bind(("127.0.0.1", 0))
                receiver.connect(away.getsockname())
            receiver.send(b"is anyone there?")
            batch = PacketBatch(engine=engine)
            with contextlib.suppress(ConnectionRefusedError):
                recv_mmsg_nowait(receiver, batch)
                pytest.fail("nobody refused")
        gone: list[weakref.ref[Any]] = [weakref.ref(receiver), weakref.ref(batch)]
        del receiver, batch
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


def test_engines_of_two_batches_on_one_socket(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    one, other = PacketBatch(2, engine=engine), PacketBatch(2, engine="recvfrom_into")
    for number in range(4):
        sender.send(b"%d" % number)
    drain(receiver, one, 2)
    drain(receiver, other, 2)
    assert contents(one) + contents(other) == [b"0", b"1", b"2", b"3"]


def test_memory_of_a_dropped_batch_goes_at_once(engine: ReceiveEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(engine=engine)
    sender.send(b"kept")
    drain(receiver, batch, 1)
    view = batch[0].data
    memory, gone = batch._slots.memory, weakref.ref(batch)
    alone = bytearray(8)
    its_view = memoryview(alone)  # as it is without a batch: a name and a view
    gc.disable()
    try:
        del batch
        assert gone() is None
        assert sys.getrefcount(memory) == sys.getrefcount(alone)
    finally:
        gc.enable()
    assert view == b"kept"
    assert len(its_view) == 8
