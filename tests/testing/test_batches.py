"""Batches that hold given packets: what goes in, what shows, what is refused."""

from __future__ import annotations

import dataclasses
import pickle
import random
import socket
import sys
import typing
from typing import Any

import anyio
import pytest

from anyio_mmsg import (
    Packet,
    PacketBatch,
    PacketBatchPool,
    ReceiveEngine,
    SendEngine,
    recv_mmsg,
    recv_mmsg_exact,
    recv_mmsg_nowait,
    send_mmsg,
    send_mmsg_nowait,
)
from anyio_mmsg.testing import Datagram, fill_batch, make_batch

from ..helpers import Family, contents, have_ipv6

SENDER = ("192.0.2.1", 50000)


# What goes in


def test_every_form_of_a_packet() -> None:
    with make_batch([b"recorded"]) as other:
        batch = make_batch(
            [
                b"bytes",
                bytearray(b"bytearray"),
                memoryview(b"..view..")[2:6],
                (b"pair", ("198.51.100.7", 53)),
                Datagram(b"datagram", ("2001:db8::1", 9)),
                other[0],
                b"",
            ]
        )
    assert contents(batch) == [
        b"bytes", b"bytearray", b"view", b"pair", b"datagram", b"recorded", b"",
    ]  # fmt: skip
    assert batch.addresses() == [
        SENDER, SENDER, SENDER, ("198.51.100.7", 53), ("2001:db8::1", 9, 0, 0), SENDER, SENDER,
    ]  # fmt: skip
    assert type(batch) is PacketBatch
    assert {type(packet) for packet in batch} == {Packet}


def test_payloads_are_copied() -> None:
    data = bytearray(b"before")
    datagram = Datagram(data)
    data[:] = b"after."
    assert contents(make_batch([datagram])) == [b"before"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (("192.0.2.9", 0), ("192.0.2.9", 0)),
        (("2001:DB8:0::1", 5), ("2001:db8::1", 5, 0, 0)),
        (("::ffff:192.0.2.9", 5), ("::ffff:192.0.2.9", 5, 0, 0)),
        (("fe80::1", 5, 7, 3), ("fe80::1", 5, 7, 3)),
        (None, None),
    ],
)
def test_senders_are_shown_as_received_ones(given: Any, shown: Any) -> None:
    assert Datagram(b"x", given).address == shown
    assert make_batch([(b"x", given)])[0].address == shown


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
@pytest.mark.parametrize("address", ["/run/a.socket", b"\0abstract\0", None])
def test_senders_of_unix_sockets(address: Any) -> None:
    assert make_batch([(b"x" * 100_000, address)], slot_size=5)[0].address == address


@pytest.mark.parametrize(("count", "capacity"), [(0, 64), (3, 64), (64, 64), (65, 65)])
def test_the_capacity_by_default(count: int, capacity: int) -> None:
    batch = make_batch([b"x"] * count)
    assert (batch.capacity, len(batch), batch.free) == (capacity, count, capacity - count)
    assert make_batch([b"x"], capacity=1).free == 0


def test_a_longer_datagram_is_cut() -> None:
    batch = make_batch([b"12345678", b"1234", b"12345"], slot_size=4)
    assert contents(batch) == [b"1234"] * 3
    assert [packet.truncated for packet in batch] == [True, False, True]
    assert [packet.wire_size for packet in batch] == [8, 4, 5]
    assert batch.sizes() == [4, 4, 4]


def test_trains() -> None:
    train = Datagram(b"a" * 250, SENDER, segment_size=100)
    batch = make_batch([train, b"alone", Datagram(b"b" * 10, segment_size=10)], gro=True)
    assert batch.sizes() == [100, 100, 50, 5, 10]
    assert (len(batch), batch.capacity, batch.free) == (5, 64, 61)
    batch.release(2)
    assert batch.free == 61
    batch.release()
    assert batch.free == 62
    assert contents(batch) == [b"alone", b"b" * 10]
    assert batch.slot_size == 65_535


CONTROL: dict[str, Any] = {
    "timestamp": 1_600_000_000_123_456_789,
    "destination": "192.0.2.53",
    "interface": 7,
    "ecn": 2,
    "hop_limit": 61,
}


@pytest.mark.parametrize("gro", [False, True])
@pytest.mark.parametrize(
    ("sender", "destination"),
    [
        (SENDER, "192.0.2.53"),
        (SENDER, "239.1.2.3"),
        (("2001:db8::1", 9), "2001:db8::53"),
        (("::ffff:192.0.2.1", 9), "::ffff:192.0.2.53"),
        (None, "2001:db8::53"),
    ],
)
def test_control_data(sender: Any, destination: str, gro: bool) -> None:
    all_of_it = Datagram(b"x", sender, **{**CONTROL, "destination": destination})
    batch = make_batch([all_of_it, (b"nothing", sender)], ancillary=True, gro=gro)
    for name, value in {**CONTROL, "destination": destination}.items():
        column = name + "s" if name != "ecn" else "ecns"
        assert [getattr(packet, name) for packet in batch] == [value, None]
        assert getattr(batch, column)() == [value, None]


@pytest.mark.parametrize("name", ["timestamp", "ecn", "hop_limit", "destination"])
@pytest.mark.parametrize("least", [False, True])
def test_one_thing_of_control_data(name: str, least: bool) -> None:
    value: Any = 0 if least and name != "destination" else CONTROL[name]
    alone: dict[str, Any] = {name: value}
    (packet,) = make_batch([Datagram(b"x", **alone)], ancillary=True)
    seen = {one: getattr(packet, one) for one in CONTROL}
    expected = dict.fromkeys(CONTROL) | alone
    if name == "destination":
        expected["interface"] = 1  # the kernel says both
    assert seen == expected


def test_without_room_for_control_data_it_raises_as_ever() -> None:
    batch = make_batch([b"x"])
    with pytest.raises(ValueError, match="make it with PacketBatch"):
        batch[0].ecn  # noqa: B018
    with pytest.raises(ValueError, match="make it with PacketBatch"):
        batch.timestamps()


def test_recorded_traffic_comes_again() -> None:
    recorded = make_batch(
        [Datagram(b"x", **CONTROL), b"123456789", (b"", ("2001:db8::1", 9))],
        ancillary=True,
        slot_size=4,
    )
    again = make_batch(recorded, ancillary=True, slot_size=4)
    for name in (*CONTROL, "address", "truncated", "wire_size", "size"):
        assert [getattr(p, name) for p in again] == [getattr(p, name) for p in recorded]
    assert contents(again) == contents(recorded)
    assert Datagram.copy_of(make_batch([b"plain"])[0]) == Datagram(b"plain")
    packet = recorded[0]
    recorded.close()
    with pytest.raises(ValueError, match="released"):
        Datagram.copy_of(packet)


# A real batch


def test_it_ends_as_a_batch_does() -> None:
    batch = make_batch([b"one", b"two"])
    one, two = batch
    view = one.data
    with pytest.raises(TypeError):
        view[0] = 1
    batch.release()
    with pytest.raises(ValueError, match="this packet was released"):
        one.data  # noqa: B018
    with pytest.raises(ValueError, match="released memoryview"):
        bytes(view)
    export = pickle.PickleBuffer(two.data)
    with pytest.raises(BufferError, match="still in use"):
        batch.close()
    export.release()
    with batch:
        pass
    assert batch.closed
    with pytest.raises(ValueError, match="this batch was closed"):
        fill_batch(batch, [b"x"])


def test_filling_appends_and_goes_around_the_ring() -> None:
    batch, expected, made = make_batch(capacity=5, slot_size=8), [], 0
    dice = random.Random(5)
    for _ in range(300):
        more = [b"%d" % number for number in range(made, made + dice.randint(0, batch.free))]
        assert fill_batch(batch, more) == len(more)
        made += len(more)
        expected += more
        assert contents(batch) == expected
        gone = dice.randint(0, len(batch))
        batch.release(gone)
        del expected[:gone]


def test_filling_a_batch_of_a_pool() -> None:
    pool = PacketBatchPool(1, 4)
    for _ in range(2):
        with pool.acquire_nowait() as batch:
            assert fill_batch(batch, [b"a", b"b"]) == 2
            assert contents(batch) == [b"a", b"b"]
        assert pool.statistics().free == 1


def test_filling_counts_packets_of_trains() -> None:
    batch = PacketBatch(2, gro=True)
    assert fill_batch(batch, [Datagram(b"x" * 25, segment_size=10), b"y"]) == 4
    assert batch.free == 0


def test_scripted_and_real_packets_in_one_batch(engine: ReceiveEngine, family: Family) -> None:
    receiver, sender = family.pair()
    batch = PacketBatch(8, engine=engine)
    for number in range(4):
        assert fill_batch(batch, [(b"scripted", ("192.0.2.9", number))]) == 1
        sender.send(b"real")
        assert recv_mmsg_nowait(receiver, batch) == 1
        # The engine that the batch was made for reads from sockets.
        assert type(batch._slots.filler.engine).__name__.lower() == engine.replace("_", "")
    assert contents(batch) == [b"scripted", b"real"] * 4
    addresses = batch.addresses()
    assert addresses[::2] == [("192.0.2.9", number) for number in range(4)]
    assert addresses[1::2] == [sender.getsockname()] * 4
    assert [packet.address for packet in batch] == addresses


@pytest.mark.anyio
async def test_a_batch_that_is_being_filled_is_refused(inet: Family) -> None:
    sock, batch = inet.open(), PacketBatch()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recv_mmsg_exact, sock, batch)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            fill_batch(batch, [b"x"])
        tasks.cancel_scope.cancel()
    assert len(batch) == 0


@pytest.mark.parametrize("ancillary", [False, True])
def test_a_batch_that_is_being_filled_is_refused_to_signal_handlers(ancillary: bool) -> None:
    """They may run between any two steps of a receive, as this does."""
    batch = PacketBatch(4, engine="recvfrom_into", ancillary=ancillary)

    class Interrupted(socket.socket):
        def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
            with pytest.raises(anyio.BusyResourceError):
                fill_batch(batch, [b"scripted"])
            return super().recvfrom_into(buffer, nbytes, flags)

        def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0) -> Any:
            with pytest.raises(anyio.BusyResourceError):
                fill_batch(batch, [b"scripted"])
            return super().recvmsg_into(buffers, ancbufsize, flags)

    with Interrupted(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        sock.sendto(b"received", sock.getsockname())
        assert recv_mmsg_nowait(sock, batch) == 1
        assert fill_batch(batch, [b"scripted"]) == 1
        assert contents(batch) == [b"received", b"scripted"]
        assert batch.addresses() == [sock.getsockname(), ("192.0.2.1", 50000)]


@pytest.mark.anyio
async def test_sending_it_answers_its_senders(sending: SendEngine, family: Family) -> None:
    one, other, server = family.open(), family.open(), family.open()
    names = [sock.getsockname() for sock in (one, other, one)]
    batch = make_batch(zip([b"1", b"2", b"3"], names))  # noqa: B905
    with anyio.fail_after(60):
        result = await send_mmsg(server, batch, engine=sending)
        result.raise_for_failures()
        assert result.sent == 3
        got = PacketBatch()
        assert await recv_mmsg(one, got) == 2
        assert await recv_mmsg(other, got) == 1
    assert contents(got) == [b"1", b"3", b"2"]
    assert got.addresses() == [server.getsockname()] * 3
    batch.release()
    assert send_mmsg_nowait(server, batch, engine=sending).sent == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reply_from_destination needs Linux")
@pytest.mark.parametrize("kind", ["inet", "mapped"])
@pytest.mark.parametrize("host", ["127.0.0.7", "239.1.2.3", "255.255.255.255"])
def test_answers_come_from_the_destination(host: str, kind: str, sending: SendEngine) -> None:
    """From another address of the kernel's choice, if it is a group's."""
    if kind == "mapped" and not have_ipv6():
        pytest.skip("::1 can't be bound here")
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    family = socket.AF_INET if kind == "inet" else socket.AF_INET6
    with client, socket.socket(family, socket.SOCK_DGRAM) as server:
        client.bind(("127.0.0.1", 0))
        client.settimeout(60)
        server.setblocking(False)
        if kind == "mapped":
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("", 0))
        start = "" if kind == "inet" else "::ffff:"
        sender = (start + client.getsockname()[0], client.getsockname()[1])
        question = Datagram(b"x", sender, destination=start + host)
        batch = make_batch([question], ancillary=True)
        result = send_mmsg_nowait(server, batch, reply_from_destination=True, engine=sending)
        result.raise_for_failures()
        source = client.recvfrom(9)[1][0]
        assert source == (host if host == "127.0.0.7" else "127.0.0.1")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_answers_read_from_the_other_end_of_a_pair(sending: SendEngine) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.setblocking(False)
    with ours, theirs, make_batch([(b"question", None)]) as batch:
        answers = [(b"answer", packet) for packet in batch]
        send_mmsg_nowait(theirs, answers, engine=sending).raise_for_failures()
        assert ours.recv(99) == b"answer"


# What is refused


def refused(*arguments: Any, **keywords: Any) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        Datagram(*arguments, **keywords)
    return f"{type(caught.value).__name__}: {caught.value}"


def test_what_is_no_datagram() -> None:
    assert refused("text") == "TypeError: the data is a str, not bytes-like; encode it"
    assert refused(3).startswith("TypeError: the data is a int, not bytes-like")
    assert "not contiguous" in refused(memoryview(b"1234")[::2])
    assert "carries 65507 at most" in refused(bytes(65_508))
    assert Datagram(bytes(65_507)).data == bytes(65_507)
    assert "carries 65527 at most" in refused(bytes(65_528), ("::1", 1))
    assert refused(b"x", 3).startswith("TypeError: address is 3; give (host, port), a path")
    assert "host is 'localhost', which is not a numeric address" in refused(b"x", ("localhost", 1))
    assert "give (host, port)" in refused(b"x", ("192.0.2.1",))
    assert "give (host, port)" in refused(b"x", ())
    assert "port is 65536; give 0 to 65535" in refused(b"x", ("192.0.2.1", 65536))
    assert refused(b"x", ecn=4) == "ValueError: ecn is 4; give 0 to 3"
    assert refused(b"x", ecn=-1) == "ValueError: ecn is -1; give 0 to 3"
    assert refused(b"x", ecn=True) == "TypeError: ecn is True, a bool; give 0 to 3"
    assert refused(b"x", ecn="1").startswith("TypeError: ecn is a str, not an int")
    assert refused(b"x", hop_limit=256) == "ValueError: hop_limit is 256; give 0 to 255"
    assert refused(b"x", timestamp=1.5).startswith("TypeError: timestamp is a float")
    assert "timestamp is -1" in refused(b"x", timestamp=-1)
    assert "timestamp is 9223372036854775808" in refused(b"x", timestamp=2**63)
    assert "segment_size is 0; give 1 to 65535" in refused(b"x", segment_size=0)
    assert "interface is 0" in refused(b"x", destination="192.0.2.2", interface=0)
    assert "the kernel says both or none" in refused(b"x", interface=3)
    assert refused(b"x", destination=b"").startswith("TypeError: destination is b''")
    assert "not a numeric address" in refused(b"x", destination="localhost")
    assert "not a numeric address" in refused(b"x", destination="192.0.2.2\0")
    assert "of another family than the sender" in refused(b"x", destination="::1")
    assert "of another family" in refused(b"x", ("::1", 1), destination="192.0.2.2")
    assert "of another family" in refused(b"x", ("::1", 1), destination="::ffff:192.0.2.2")
    no_packet: Any = b"x"
    with pytest.raises(TypeError, match="packet is a bytes, and has to be a Packet"):
        Datagram.copy_of(no_packet)
    if hasattr(socket, "AF_UNIX"):
        assert "packets of unix sockets come without" in refused(b"x", "/a/path", ecn=1)


@pytest.mark.parametrize("make", [make_batch, lambda packets: fill_batch(PacketBatch(), packets)])
def test_what_holds_no_packets(make: Any) -> None:
    for wrong in (b"payload", "text", bytearray(b"x"), Datagram(b"x"), make_batch([b"x"])[0]):
        with pytest.raises(TypeError, match="one payload; give a list of packets"):
            make(wrong)
    with pytest.raises(TypeError, match="packets is 3; give bytes, "):
        make(3)
    with pytest.raises(TypeError, match="packet 1: the data is a int, not bytes-like"):
        make([b"x", 3])
    with pytest.raises(TypeError, match=r"packet 0: \(b'x', 1, 2\) is not a pair; give"):
        make([(b"x", 1, 2)])
    with pytest.raises(ValueError, match="packet 2: port is 70000"):
        make([b"x", b"y", (b"x", ("192.0.2.1", 70_000))])


def test_what_a_batch_has_no_room_for() -> None:
    batch = PacketBatch(2)
    with pytest.raises(ValueError, match=r"packet 1: ecn is given.*with ancillary=True"):
        fill_batch(batch, [b"x", Datagram(b"x", ecn=0)])
    with pytest.raises(ValueError, match=r"packet 1: timestamp is given.*with ancillary=True"):
        make_batch([b"x", Datagram(b"x", timestamp=0, segment_size=1)], gro=True)
    with pytest.raises(ValueError, match=r"packet 0: segment_size is given.*with gro=True"):
        fill_batch(batch, [Datagram(b"x", segment_size=1)])
    with pytest.raises(ValueError, match="3 packets, or trains, for a batch with 2 free slots"):
        fill_batch(batch, [b"x"] * 3)
    assert (len(batch), batch.free) == (0, 2)  # all or none
    with pytest.raises(ValueError, match="capacity is 0"):
        make_batch(capacity=0)
    with pytest.raises(ValueError, match="slot_size is 3; leave it out with gro=True"):
        make_batch(slot_size=3, gro=True)
    with pytest.raises(TypeError, match="batch is a list, and has to be a PacketBatch"):
        fill_batch([], [b"x"])  # type: ignore[arg-type]


def test_a_datagram_is_a_value() -> None:
    one, other = Datagram(bytearray(b"x"), ("::1", 5)), Datagram(b"x", ("::1", 5, 0, 0))
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    assert dataclasses.replace(one, ecn=1).ecn == 1
    assert repr(one).startswith("Datagram(data=b'x', address=('::1', 5, 0, 0)")
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.data = b"y"  # type: ignore[misc]
    assert Datagram.__module__ == "anyio_mmsg.testing"
    assert typing.get_type_hints(Datagram)["ecn"] == int | None
