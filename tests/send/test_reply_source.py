"""Answers come from where the question was sent to: `reply_from_destination`."""

from __future__ import annotations

import socket
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
    recv_mmsg_nowait,
    send_mmsg,
    send_mmsg_nowait,
)
from anyio_mmsg._packets.packet import Control

from ..helpers import drain, have_ipv6, stub_engine
from .helpers import failures
from .test_network import MISSING, own_network
from .wildcard import (
    NOT_OURS,
    PLACES,
    Answer,
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


@each_kind
@each_answer
@segmented
def test_answers_come_from_where_they_were_asked(
    kind: str, answer: Answer, gso: bool, sending: SendEngine, engine: ReceiveEngine
) -> None:
    """Runs are cut where the source changes, and sent as usual."""
    with wildcard(kind, destinations=True) as server:
        for version in (".", ":"):
            places = [place for place in PLACES[kind] if version in place]
            if not places:
                continue
            with client(places[0]) as asking:
                asked = [places[number % len(places)] for number in (0, 1, 1, 1, 0, 0, 1, 0)]
                batch = PacketBatch(16, engine=engine, ancillary=True)
                ask(server, asking, batch, asked)
                result = answer(
                    server, batch, reply_from_destination=True, gso=gso, engine=sending
                )
                assert result == SendResult(8, [])
                expected = [(b"%d" % number, place) for number, place in enumerate(asked)]
                assert sources(asking) == expected


@segmented
def test_a_batch_of_trains(gso: bool, sending: SendEngine, engine: ReceiveEngine) -> None:
    with wildcard("inet", destinations=True, gro=True) as server, client("127.0.0.1") as asking:
        batch = PacketBatch(8, engine=engine, gro=True, ancillary=True)
        port = server.getsockname()[1]
        pairs = [(b"%02d" % number, ("127.0.0.2", port)) for number in range(20)]
        assert send_mmsg_nowait(asking, pairs, gso=True).sent == 20
        while len(batch) < 20:
            recv_mmsg_nowait(server, batch)
        result = send_mmsg_nowait(
            server, batch, gso=gso, reply_from_destination=True, engine=sending
        )
        assert result == SendResult(20, [])
        assert sources(asking) == [(b"%02d" % number, "127.0.0.2") for number in range(20)]


def test_plain_addresses_get_the_choice_of_the_kernel(
    sending: SendEngine, engine: ReceiveEngine
) -> None:
    with wildcard("inet", destinations=True) as server, client("127.0.0.1") as asking:
        batch = PacketBatch(engine=engine, ancillary=True)
        ask(server, asking, batch, ["127.0.0.2", "127.0.0.2"])
        one, two = batch
        pairs = [(b"a", one), (b"b", one.address), (b"c", two)]
        result = send_mmsg_nowait(server, pairs, reply_from_destination=True, engine=sending)
        assert result == SendResult(3, [])
        assert sources(asking) == [(b"a", "127.0.0.2"), (b"b", "127.0.0.1"), (b"c", "127.0.0.2")]


@pytest.mark.parametrize("release", [False, True])
def test_an_answer_outlives_the_question(
    release: bool, sending: SendEngine, engine: ReceiveEngine
) -> None:
    """A pair's `Packet` is asked before anything is sent; after its release it can't be."""
    with wildcard("inet", destinations=True) as server, client("127.0.0.1") as asking:
        batch = PacketBatch(engine=engine, ancillary=True)
        ask(server, asking, batch, ["127.0.0.2"])
        packet = batch[0]
        if release:
            batch.clear()
            with pytest.raises(ValueError, match=r"^packet 0: .*released"):
                send_mmsg_nowait(
                    server, [(b"x", packet)], reply_from_destination=True, engine=sending
                )
            assert sources(asking) == []
        else:
            send_mmsg_nowait(server, [(b"x", packet)], reply_from_destination=True, engine=sending)
            batch.clear()
            assert sources(asking) == [(b"x", "127.0.0.2")]


@each_answer
def test_a_packet_without_its_destination(
    answer: Answer, sending: SendEngine, engine: ReceiveEngine
) -> None:
    with wildcard("inet", destinations=True) as server, client("127.0.0.1") as asking:
        batch = PacketBatch(engine=engine, ancillary=True)
        ask(server, asking, batch, ["127.0.0.2"] * 2)
        server.setsockopt(socket.IPPROTO_IP, 8, 0)  # IP_PKTINFO
        ask(server, asking, batch, ["127.0.0.2"])
        with pytest.raises(ValueError, match=r"^packet 2: .*without its destination.*open_udp"):
            answer(server, batch, reply_from_destination=True, engine=sending)
        assert sources(asking) == []
        assert len(batch) == 3
        batch.clear()  # nothing is pinned


@each_answer
def test_a_batch_without_control_data(
    answer: Answer, sending: SendEngine, engine: ReceiveEngine
) -> None:
    with wildcard("inet", destinations=True) as server, client("127.0.0.1") as asking:
        batch = PacketBatch(engine=engine)
        ask(server, asking, batch, ["127.0.0.2"])
        with pytest.raises(ValueError, match=r"^packet 0: .*ancillary=True"):
            answer(server, batch, reply_from_destination=True, engine=sending)
        assert sources(asking) == []


def test_an_empty_batch_and_a_closed_one(sending: SendEngine, engine: ReceiveEngine) -> None:
    with wildcard("inet") as server:
        batch = PacketBatch(engine=engine, ancillary=True)
        nothing: Any
        for nothing in (batch, []):
            result = send_mmsg_nowait(server, nothing, reply_from_destination=True, engine=sending)
            assert result == SendResult(0, [])
        batch.close()
        with pytest.raises(ValueError, match="batch was closed"):
            send_mmsg_nowait(server, batch, reply_from_destination=True, engine=sending)


@pytest.mark.parametrize(
    "packets", [[(b"",)], [5], [(b"", ("127.0.0.1", 9), 5)], [(5, ("127.0.0.1", 9))]], ids=str
)
def test_what_is_no_packet_is_refused_as_ever(packets: Any, sending: SendEngine) -> None:
    with wildcard("inet") as server, pytest.raises(TypeError, match=r"^packet 0: "):
        send_mmsg_nowait(server, packets, reply_from_destination=True, engine=sending)


def test_together_with_a_source() -> None:
    with wildcard("inet") as server, pytest.raises(ValueError, match="can't go together"):
        send_mmsg_nowait(server, [], reply_from_destination=True, source="127.0.0.1")


def invented(sender: Any, *controls: Control) -> PacketBatch:
    """A batch whose packets say these things."""
    batch = PacketBatch(ancillary=True)
    stub = stub_engine(batch)
    for number, control in enumerate(controls):
        stub.put(b"%d" % number, sender, control=control)
    return batch


@each_answer
@segmented
def test_a_source_that_is_not_ours_is_its_packets_failure(
    answer: Answer, gso: bool, sending: SendEngine
) -> None:
    with wildcard("inet") as server, client("127.0.0.1") as asking:
        ours, theirs = Control(local="127.0.0.2"), Control(local="192.0.2.1")
        batch = invented(asking.getsockname(), ours, theirs, theirs, ours)
        result = answer(server, batch, reply_from_destination=True, gso=gso, engine=sending)
        assert [index for index, _ in failures(result)] == [1, 2]
        assert result.errors.keys() <= NOT_OURS
        assert result.sent == 2
        assert sources(asking) == [(b"0", "127.0.0.2"), (b"3", "127.0.0.2")]


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
@pytest.mark.parametrize("local", ["ff02::1", "ff1e::7:7", "::ffff:224.0.0.1"])
def test_a_group_of_ipv6_is_no_source(local: str, sending: SendEngine) -> None:
    place = "127.0.0.1" if "." in local else "::1"
    with wildcard("dual") as server, client(place) as asking:
        batch = invented(seen_from(asking, server), Control(local=local))
        result = send_mmsg_nowait(
            server, batch, reply_from_destination=True, ecn=1, engine=sending
        )
        assert result == SendResult(1, [])
        assert sources(asking) == [(b"0", place)]


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
def test_a_destination_of_another_family(sending: SendEngine) -> None:
    with wildcard("inet") as server, client("127.0.0.1") as asking:
        batch = invented(asking.getsockname(), Control(local="::1"))
        with pytest.raises(
            ValueError, match=r"^packet 0: it was sent to ::1, which is of another"
        ):
            send_mmsg_nowait(server, batch, reply_from_destination=True, engine=sending)


@each_kind
@segmented
def test_options_of_an_answer_are_kept(
    kind: str, gso: bool, sending: SendEngine, engine: ReceiveEngine
) -> None:
    """A session sends from where it was asked after the packet is gone."""
    with wildcard(kind, destinations=True) as server:
        for place in PLACES[kind]:
            with client(place) as asking:
                batch = PacketBatch(engine=engine, ancillary=True)
                ask(server, asking, batch, [place])
                (packet,) = batch
                options, address = SendOptions.reply_to(packet), packet.address
                assert options == SendOptions(place)  # not mapped, on dual-stack sockets too
                batch.close()
                pairs: Any = [(b"0", address, options), (b"1", address, options)]
                result = send_mmsg_nowait(server, pairs, gso=gso, engine=sending)
                assert result == SendResult(2, [])
                assert sources(asking) == [(b"0", place), (b"1", place)]


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        (Control("10.0.0.255", 3, local="10.0.0.1"), SendOptions("10.0.0.1")),
        (Control("::ffff:239.1.1.1", 3, local="::ffff:10.0.0.1"), SendOptions("::ffff:10.0.0.1")),
        (Control("ff02::1", 3, local="ff02::1"), SendOptions()),
        (Control("::ffff:239.1.1.1", 3, local="::ffff:239.1.1.1"), SendOptions()),
        (Control("239.1.1.1", 3, local="239.1.1.1"), SendOptions()),
        (Control("fe80::1", 3, local="fe80::1"), SendOptions("fe80::1", 3)),
        (Control("fe80::1", local="fe80::1"), SendOptions("fe80::1")),
        (Control("fd00::1", 3, local="fd00::1"), SendOptions("fd00::1")),
    ],
    ids=str,
)
def test_options_of_an_answer_to_a_group(control: Control, expected: SendOptions) -> None:
    (packet,) = invented(("::1", 5, 0, 0) if ":" in str(control.local) else ("::1", 5), control)
    assert SendOptions.reply_to(packet) == expected


def test_options_of_an_answer_to_what_can_not_be_answered() -> None:
    sender = ("127.0.0.1", 5)
    unknown: Any = sender
    with pytest.raises(TypeError, match="give the Packet that is answered"):
        SendOptions.reply_to(unknown)
    (packet,) = batch = invented(sender, Control(interface=1))
    with pytest.raises(ValueError, match=r"without its destination.*destinations=True"):
        SendOptions.reply_to(packet)
    batch.close()
    with pytest.raises(ValueError, match="released"):
        SendOptions.reply_to(packet)
    plain = PacketBatch()
    stub_engine(plain).put(b"", sender)
    with pytest.raises(ValueError, match="ancillary=True"):
        SendOptions.reply_to(plain[0])


async def test_waiting(anyio_backend: Any, sending: SendEngine, engine: ReceiveEngine) -> None:
    with wildcard("inet", destinations=True) as server, client("127.0.0.1") as asking:
        batch = PacketBatch(engine=engine, ancillary=True)
        ask(server, asking, batch, ["127.0.0.2", "127.0.0.1"])
        result = await send_mmsg(server, batch, reply_from_destination=True, engine=sending)
        assert result == SendResult(2, [])
        assert sources(asking) == [(b"0", "127.0.0.2"), (b"1", "127.0.0.1")]


@pytest.mark.parametrize("gso", ["", "gso"])
def test_in_a_network(gso: str, sending: SendEngine, engine: ReceiveEngine) -> None:
    """Several addresses of IPv6, link-local ones, groups, broadcasts."""
    command = [*own_network(), sys.executable, "-W", "error", "-m"]
    command += ["tests.send.source_network", sending, engine, gso]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    if done.returncode == MISSING:
        pytest.skip(done.stdout.strip())
    assert (done.stdout, done.stderr, done.returncode) == ("played\n", "", 0)


def test_many_packets(sending: SendEngine, engine: ReceiveEngine) -> None:
    """More than a call takes, around the ring's end."""
    with wildcard("inet", destinations=True) as server, client("127.0.0.1") as asking:
        for sock in (server, asking):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        batch = PacketBatch(300, 16, engine, ancillary=True)
        ask(server, asking, batch, ["127.0.0.1"] * 100)
        batch.release(100)
        asked = ["127.0.0.1" if number % 3 else "127.0.0.2" for number in range(300)]
        for start in range(0, 300, 50):
            some = asked[start : start + 50]
            for number, place in enumerate(some, start):
                asking.sendto(b"%d" % number, (place, server.getsockname()[1]))
            drain(server, batch, len(some))
        result = send_mmsg_nowait(server, batch, reply_from_destination=True, engine=sending)
        got = sources(asking)
        while result.handled < 300:
            more = send_mmsg_nowait(
                server, list(batch)[result.handled :], reply_from_destination=True, engine=sending
            )
            result = SendResult(result.sent + more.sent)
            got += sources(asking)
        assert got == [(b"%d" % number, place) for number, place in enumerate(asked)]
