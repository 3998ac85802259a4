"""What callers change while a send reads their packets, and what they override."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendResult,
    UnusableSocketError,
    multi_target_send,
    send_mmsg,
    send_mmsg_nowait,
)
from anyio_mmsg._packets import Packet, compiled
from anyio_mmsg._send import engine as senders
from anyio_mmsg._send.ancillary import Controls

from ..helpers import Family
from ..interrupts import uninstrument
from .helpers import fill, fill_buffer, fill_from_peer, received
from .wildcard import ask, client, linux, wildcard


class Liar(PacketBatch):
    """Says other things than it holds."""

    def payloads(self) -> list[memoryview]:
        return [memoryview(b"lie")]

    def addresses(self) -> list[Any]:
        return [("192.0.2.1", 9)]

    def sizes(self) -> list[int]:
        return [5000]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Packet]:
        return iter(())

    def __getitem__(self, index: Any) -> Any:
        raise IndexError


@pytest.mark.parametrize("gso", [False, True], ids=["plain", "gso"])
def test_overrides_change_nothing_of_what_is_sent(
    gso: bool, sending: SendEngine, engine: ReceiveEngine, family: Family
) -> None:
    server, asking = family.open(), family.open()
    batch = Liar(4, 16, engine)
    fill(batch, server, (asking, b"one"), (asking, b"two"))
    assert send_mmsg_nowait(server, batch, gso=gso, engine=sending) == SendResult(2)
    assert received(asking) == [b"one", b"two"]


@linux
def test_nor_of_replies(sending: SendEngine, engine: ReceiveEngine) -> None:
    with wildcard("inet", destinations=True) as server, client("127.0.0.1") as asking:
        batch = Liar(4, 16, engine, ancillary=True)
        ask(server, asking, batch, ["127.0.0.2"] * 2)
        result = send_mmsg_nowait(server, batch, reply_from_destination=True, engine=sending)
        assert result == SendResult(2)
        assert {place[0] for _, place in [asking.recvfrom(99) for _ in "12"]} == {"127.0.0.2"}


def test_nor_of_what_is_refused(sending: SendEngine, engine: ReceiveEngine, inet: Family) -> None:
    """The index is that of a packet that is held."""
    server, asking = inet.open(), inet.open()
    batch = Liar(4, 16, engine)
    fill(batch, server, (asking, b"one"), (asking, b"two"))
    batch._slots.payloads(0)[1].release()
    with pytest.raises(ValueError, match=r"packet 1: .*released"):
        send_mmsg_nowait(server, batch, engine=sending)


@linux
def test_a_list_that_gets_shorter_while_it_is_read(
    sending: SendEngine, engine: ReceiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had when it was given is sent, though its packets are looked at twice."""
    with wildcard("inet", destinations=True) as server, client("127.0.0.1") as asking:
        batch = PacketBatch(4, 16, engine, ancillary=True)
        ask(server, asking, batch, ["127.0.0.2"] * 3)
        packets = list(batch)
        each = Controls.each

        def shorten(self: Any, items: Any, form: Any) -> Any:
            del packets[1:]
            return each(self, items, form)

        monkeypatch.setattr(Controls, "each", shorten)
        result = send_mmsg_nowait(server, packets, reply_from_destination=True, engine=sending)
        assert (result.sent, len(packets)) == (3, 1)


def test_addresses_that_get_fewer_while_they_are_encoded(
    sending: SendEngine, inet: Family
) -> None:
    """By code that an address runs; a list of them that is read twice is copied first."""
    sender, receiver = inet.open(), inet.open()
    host, port = receiver.getsockname()

    class Port(int):
        def __index__(self) -> int:
            addresses.clear()
            return int(port)

        def __hash__(self) -> int:
            addresses.clear()
            return 1

    addresses: list[Any] = [(host, port), (host, Port(port)), (host, port)]

    async def main() -> SendResult:
        with anyio.fail_after(60):
            return await multi_target_send(sender, b"x", addresses, engine=sending)

    assert anyio.run(main) == SendResult(3)
    assert received(receiver) == [b"x"] * 3
    assert addresses == []


def ctypes_payloads() -> list[tuple[Any, Callable[[], Any]]]:
    """Payloads in memory of ctypes, and what frees or moves that memory, export or not."""
    made: list[tuple[Any, Callable[[], Any]]] = []
    for number in range(4):
        array: Any = (ctypes.c_char * 5)()
        array.raw = b"right"
        data = [array, memoryview(array), memoryview(array)[:], Gives(array)][number]
        made.append((data, partial(resize, array)))
    return made


class Gives:
    """Gives memory of something else as its own, which classes can from Python 3.12 on."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self.owner)


def resize(array: Any) -> None:
    array.raw = b"wrong"
    ctypes.resize(array, 1 << 20)


@pytest.mark.anyio
@pytest.mark.parametrize("number", range(4), ids=["array", "view", "slice", "class"])
async def test_memory_of_ctypes_is_copied(
    number: int, sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """It is resized though it is exported, so an export does not keep it for a send that waits."""
    if number == 3 and sys.version_info < (3, 12):
        pytest.skip("classes have no __buffer__ before 3.12")
    sender, receiver = narrow
    data, change = ctypes_payloads()[number]
    filled = fill_buffer(sender)

    async def change_it() -> None:
        await anyio.wait_all_tasks_blocked()
        change()
        assert len(received(receiver)) == filled

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(change_it)
            await send_mmsg(sender, [(data, None), (b"end", None)], engine=sending)
    assert received(receiver) == [b"right", b"end"]


@pytest.mark.parametrize("form", ["batch", "packets"])
def test_a_send_of_the_rest_in_a_callback_of_the_release(
    form: str,
    sending: SendEngine,
    engine: ReceiveEngine,
    narrow: tuple[socket.socket, socket.socket],
) -> None:
    """What it waits to send is kept: the release ends there, and says so."""
    sender, receiver = narrow
    batch = PacketBatch(4, 16, engine)
    fill_from_peer(batch, sender, receiver, b"0", b"1", b"2")
    filled = fill_buffer(sender)
    waiting: list[Any] = []

    def begin(_: object) -> None:
        rest: Any = batch if form == "batch" else list(batch)
        given = senders.sender_of(sender, rest, False, sending)
        waiting.append(given)
        given.send(sender, None, True)

    watch = weakref.ref(batch.payloads()[0], begin)
    with contextlib.suppress(BufferError):
        batch.clear()
    if not waiting:
        pytest.skip("plain Python keeps the view until the packet goes")
    del watch
    (given,) = waiting
    if not compiled:  # where nothing runs before all are released
        assert (len(batch), given.count) == (0, 0)
        given.release()
        return
    assert (len(batch), given.handled, given.count) == (2, 0, 2)
    assert len(received(receiver)) == filled
    assert given.send(sender, None, True) == 0
    given.release()
    assert received(receiver) == [b"1", b"2"]
    batch.close()


def test_a_packet_just_released_is_no_destination(
    sending: SendEngine, engine: ReceiveEngine, inet: Family
) -> None:
    server, asking = inet.open(), inet.open()
    batch = PacketBatch(4, 16, engine)
    fill(batch, server, (asking, b"0"), (asking, b"1"))
    packet = batch[0]
    seen: list[str] = []

    def use(_: object) -> None:
        for pair in ((b"x", packet), packet):
            with pytest.raises(ValueError, match="packet 0: this packet was released"):
                send_mmsg_nowait(server, [pair], engine=sending)
            seen.append("refused")

    watch = weakref.ref(packet.data, use)
    batch.release()
    del watch
    if not seen:
        pytest.skip("plain Python keeps the view until the packet goes")
    assert seen == ["refused"] * 2
    assert received(asking) == []


def test_a_run_counts_whole_or_not_at_all(inet: Family) -> None:
    """In plain Python too, also when there is no memory to note more."""
    _testcapi = pytest.importorskip("_testcapi")
    if not hasattr(_testcapi, "set_nomemory"):
        pytest.skip("this interpreter can't have an allocation fail")
    uninstrument()
    sender, receiver = inet.open(), inet.open()
    to = receiver.getsockname()
    packets: Any = [(b"%d%d" % (run, n), to) for run in range(3) for n in range(2 - run // 2)]
    packets += [(b"%03d" % n, to) for n in range(40)]
    datas = [data for data, _ in packets]
    ends = {0, 2, 4, 5, 45}
    failed = 0
    for number in range(300):
        given = senders.sender_of(sender, packets, True, "sendto")
        result = SendResult()
        _testcapi.set_nomemory(number, number + 1)
        try:
            given.send(sender, result, True)
        except MemoryError:
            failed += 1
        finally:
            _testcapi.remove_mem_hooks()
        assert result.handled in ends
        given.send(sender, result, True)
        assert result == SendResult(len(packets))
        got = received(receiver)
        assert set(got) == set(datas)
        given.release()
    assert failed


def test_a_socket_that_is_closed_while_packets_are_read(sending: SendEngine, inet: Family) -> None:
    """Its number may be another socket's by then: nothing goes out by that."""
    sender, receiver, other = inet.open(), inet.open(), inet.open()
    host, port = receiver.getsockname()
    number = sender.fileno()
    taken: list[int] = []

    class Port(int):
        def __hash__(self) -> int:
            if not taken:
                sender.close()
                taken.append(os.dup(other.fileno()))
            return hash(object())

    send_mmsg_nowait(sender, [(b"known", (host, port))], engine=sending)
    send_mmsg_nowait(sender, [(b"known", (host, port))])
    for how in ({"engine": sending}, {}):
        with pytest.raises(UnusableSocketError):
            send_mmsg_nowait(sender, [(b"x", (host, Port(port)))], **how)  # type: ignore[arg-type]
    assert taken == [number]
    os.close(number)
    assert received(receiver) == [b"known"] * 2


def test_a_closed_socket_comes_before_wrong_packets(sending: SendEngine, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    good: Any = [(b"x", receiver.getsockname())]
    result = SendResult(9)
    for _ in range(2):
        send_mmsg_nowait(sender, good)
    sender.close()
    bad: Any = [5]
    for packets in (good, bad):
        with pytest.raises(UnusableSocketError):
            send_mmsg_nowait(sender, packets, result=result)
        assert result == SendResult(0)
