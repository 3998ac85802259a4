"""The compiled sender: what it holds and lets go, failing allocations, threads, wrong use."""

from __future__ import annotations

import array
import errno
import gc
import importlib.util
import os
import socket
import sys
import threading
from typing import Any

import pytest

from anyio_mmsg import PacketBatch, SendFailure, SendResult, send_mmsg_nowait
from anyio_mmsg._send.ancillary import pack
from anyio_mmsg._system.addresses import sockaddrs_of
from anyio_mmsg._system.platform import Sendmmsg, why_no_batch_calls

from ..helpers import Family, nowhere
from .helpers import arrived, fill, received

pytestmark = pytest.mark.skipif(bool(why_no_batch_calls()), reason=why_no_batch_calls())

INET = socket.AF_INET
HERE = ("127.0.0.1", 9)


def sender(packets: Any, *data: Any, family: int = INET, gso: bool = False) -> Any:
    return Sendmmsg(SendFailure, packets, sockaddrs_of(family), family, 65_507, gso, *data)


# References


def test_every_reference_is_given_back(inet: Family) -> None:
    """By a send that is over, one that was never begun, and one that can't be laid out."""
    sock, receiver = inet.open(), inet.open()
    server, client = inet.open(), inet.open()
    batch = PacketBatch(4, 16, "recvmmsg")
    fill(batch, server, (client, b"1"), (client, b"2"))
    data, grown, address = b"data" * 100, bytearray(b"grown"), receiver.getsockname()
    first, second = batch
    raw = sockaddrs_of(INET)[address]
    things: list[Any] = [data, grown, address, raw, first, second, first.data, batch._slots]
    tos = pack(((0, 1, bytes(4)),))  # IP_TOS
    control = (tos, tos, b"", tos)
    things += [batch._slots.filler.engine, SendFailure, tos, control, None]
    del first, second
    lists: list[list[Any]] = [
        [(data, address)] * 3 + [(grown, address)],
        [(data, None), (data, batch[0]), batch[1]],
        list(batch),
        [[data, address], (grown, batch[1])],
    ]
    wrong: list[list[Any]] = [
        [*lists[0], (data, ("name", 9))],
        [*lists[1], (5, address)],
        [*lists[2], (data, address, None, 5)],
        [*lists[2], None],
    ]

    def use() -> None:
        for packets in [*lists, batch._slots]:
            for gso in (False, True):
                one = sender(packets, gso=gso)
                one.send(sock, None, True)
                one.release()
                sender(packets).rest()
        sender([address, None, address], data).send(sock, None, True)
        for gso in (False, True):
            for controls in (control, tos, b""):
                one = sender([(data, address)] * 4, None, controls, gso=gso)
                assert one.controls is controls
                one.send(sock, None, True)
                assert one.controls is None
        for odd in ((tos,), (tos, tos, tos, b"odd"), (tos, tos, tos, 5)):
            with pytest.raises(TypeError):
                sender([(data, address)] * 4, None, odd)
        for packets in wrong:
            with pytest.raises((TypeError, ValueError)):
                sender(packets)
        with pytest.raises(TypeError):
            sender([address], 5)
        received(receiver)
        received(client)

    use()
    gc.collect()
    before = [sys.getrefcount(thing) for thing in things[:-1]]
    for _ in range(100):
        use()
    gc.collect()
    after = [sys.getrefcount(thing) for thing in things[:-1]]
    assert [b - a for a, b in zip(before, after, strict=True)] == [0] * len(before)
    grown.append(0)  # a BufferError if there were an export
    batch.close()


def test_a_send_that_its_own_errors_refer_to_is_collected(inet: Family) -> None:
    sock = inet.open()
    bad, _ = nowhere(inet)
    before = sys.getrefcount(Sendmmsg)
    for _ in range(100):
        one = sender([(b"x", bad)])
        one.send(sock, None, True)
        error = one.failures[0].error
        error.cause = one  # as by a traceback, whose frames have it
        one.release()
        del one, error
    gc.collect()
    assert abs(sys.getrefcount(Sendmmsg) - before) < 5


def test_a_ring_is_pinned_until_the_send_is_over(inet: Family) -> None:
    server, client = inet.open(), inet.open()
    batch = PacketBatch(4, 16, "recvmmsg")
    fill(batch, server, (client, b"1"), (client, b"2"))
    one, two = sender(batch._slots), sender(batch._slots)
    del one
    for end in (batch.release, batch.clear, batch.close):
        with pytest.raises(BufferError, match=r"0 of . packets"):
            end()
    batch.release(0)
    assert two.send(server, None, True) == 0
    batch.clear()
    assert received(client) == [b"1", b"2"]


def test_names_stay_though_the_engine_goes(inet: Family) -> None:
    """The sender keeps the engine that knows where packets go back to."""
    server, client = inet.open(), inet.open()
    batch = PacketBatch(4, 16, "recvmmsg")
    fill(batch, server, (client, b"1"), (client, b"2"))
    one = sender(batch._slots)
    replies = sender([(b"reply", packet) for packet in batch])
    batch._slots.filler = None
    del batch
    gc.collect()
    assert one.send(server, None, True) == 0
    assert replies.send(server, None, True) == 0
    assert received(client) == [b"1", b"2", b"reply", b"reply"]


def test_senders_that_two_engines_know(inet: Family) -> None:
    """Packets that were there when the engine was changed go back too."""
    server, client = inet.open(), inet.open()
    batch = PacketBatch(4, 16, "recvmmsg")
    fill(batch, server, (client, b"1"))
    old = batch._slots.filler.engine
    new = type(old)(batch._slots, {}, frozenset({INET}), False)
    client.sendto(b"2", server.getsockname())
    assert new.fill(batch._slots, server, 1) == 1
    assert send_mmsg_nowait(server, batch).sent == 2
    assert received(client) == [b"1", b"2"]


def test_a_reply_goes_to_who_asked_though_the_slot_is_used_again(inet: Family) -> None:
    server, client, other = inet.open(), inet.open(), inet.open()
    batch = PacketBatch(1, 16, "recvmmsg")
    fill(batch, server, (client, b"question"))
    one = sender([(b"answer", batch[0])])
    batch.clear()
    fill(batch, server, (other, b"another"))
    assert one.send(server, None, True) == 0
    assert (received(client), received(other)) == ([b"answer"], [])


# Failing allocations

_testcapi: Any = None
if Sendmmsg and importlib.util.find_spec("_testcapi"):  # not every CPython was built with it
    _testcapi = importlib.import_module("_testcapi")

needs_failures = pytest.mark.skipif(_testcapi is None, reason="this CPython has no _testcapi")


def with_failures(call: Any, most: int = 200) -> int:
    """Make a call with each of its allocations failing in turn; return how often it failed."""
    failed = 0
    for number in range(most):
        _testcapi.set_nomemory(number, number + 1)
        try:
            call()
        except MemoryError:
            failed += 1
        finally:
            _testcapi.remove_mem_hooks()
    return failed


@needs_failures
@pytest.mark.parametrize("gso", [False, True], ids=["plain", "gso"])
def test_an_allocation_that_fails(gso: bool, inet: Family) -> None:
    """Before the send nothing was sent; after it, the record is exact."""
    sock, receiver = inet.open(), inet.open()
    bad, _ = nowhere(inet)
    to = receiver.getsockname()
    grown = bytearray(b"grown")
    packets: list[Any] = [(b"1", to), (b"2", bad), (grown, to), (b"4", bad), [b"5", to]]

    def call() -> None:
        sender(packets, gso=gso).send(sock, None, True)

    assert with_failures(call) > 5
    received(receiver)
    for number in range(60):
        result, one = SendResult(), None
        _testcapi.set_nomemory(number, number + 1)
        try:
            one = sender(packets, gso=gso)
            one.send(sock, result, True)
        except MemoryError:
            pass
        finally:
            _testcapi.remove_mem_hooks()
        failed = {index for index, _ in result.failures}
        datas = [bytes(data) for data, _ in packets]
        assert received(receiver) == [datas[i] for i in range(result.handled) if i not in failed]
        if one is not None:
            assert one.handled == result.handled
            assert one.send(sock, None, True) == 0
            assert result.handled == len(packets)
            received(receiver)
        del one
        grown.append(0)  # a BufferError if an export were left
        grown.pop()


# Threads


def test_a_batch_that_another_thread_would_release(inet: Family) -> None:
    """What is being sent stays; there is no moment at which it could go."""
    server, client = inet.open(), inet.open()
    batch = PacketBatch(64, 1232, "recvmmsg")
    fill(batch, server, *((client, bytes([number]) * 1232) for number in range(64)))
    over = threading.Event()
    wrong: list[object] = []

    def release() -> None:
        while not over.is_set():
            try:
                batch.clear()
            except BufferError:
                continue
            return

    for _ in range(20):
        over.clear()
        thread = threading.Thread(target=release)
        thread.start()
        for _ in range(10):
            send_mmsg_nowait(server, batch)
            for data, _ in arrived(client):
                if data != data[:1] * 1232:
                    wrong.append(data)
        over.set()
        thread.join(60)
        if not len(batch):
            fill(batch, server, *((client, bytes([number]) * 1232) for number in range(64)))
    assert wrong == []


def test_a_list_that_changes_while_it_is_read(inet: Family) -> None:
    sock = inet.open()

    class Address(tuple[Any, ...]):
        __slots__ = ()

        def __hash__(self) -> int:
            packets.clear()
            return super().__hash__()

    packets: list[Any] = [(b"x", HERE), (b"y", Address(HERE)), (b"z", HERE)]
    with pytest.raises(RuntimeError, match="changed"):
        send_mmsg_nowait(sock, packets)


# What it refuses from whoever calls it wrongly


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (SendFailure, [], {}, INET, 1),
        (SendFailure, set(), {}, INET, 1, False),
        (SendFailure, [], [], INET, 1, False),
        (SendFailure, [], {}, "2", 1, False),
        (SendFailure, [], {}, INET, None, False),
        (SendFailure, [(b"", "key")], {"key": "value"}, INET, 1, False),
        (SendFailure, [(b"", "key")], {"key": bytes(129)}, INET, 1, False),
        (SendFailure, [(b"", "key")], {}, INET, 1, False),
        (SendFailure, [(b"22", None)], {}, INET, 1, False),
        (SendFailure, [(b"", None)], {}, INET, 1, False, 5),
        (SendFailure, [(b"", None)], {}, INET, 1, False, None, "control"),
        (SendFailure, [(b"", None)], {}, INET, 1, False, None, (bytes(8), bytes(8))),
        (SendFailure, [(b"", None)], {}, INET, 1, False, None, ()),
        (SendFailure, [(b"", None)], {}, INET, 1, False, None, ("control",)),
        (SendFailure, [(b"", None)], {}, INET, 1, False, None, bytes(7)),
        (SendFailure, [(b"", None)], {}, INET, 1, False, None, (bytes(96),)),
        (SendFailure, [(b"", None)], {}, INET, 1, False, None, b"", 5),
    ],
)
def test_wrong_arguments(arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        Sendmmsg(*arguments)


def test_wrong_use(inet: Family) -> None:
    sock = inet.open()
    one = sender([(b"x", HERE)])
    for arguments in ((), (sock, None)):
        with pytest.raises(TypeError, match="a socket, a result"):
            one.send(*arguments)
    with pytest.raises(AttributeError):
        one.send(5, None, True)
    one.release()
    one.release()
    with pytest.raises(RuntimeError, match="over"):
        one.send(sock, None, True)
    assert one.rest() == ([], [])
    with pytest.raises(TypeError, match="positional"):
        Sendmmsg(SendFailure, [], {}, INET, 1, gso=True)
    with pytest.raises(AttributeError):
        one.handled = 5


def test_the_rest(inet: Family) -> None:
    words = array.array("I", [1, 2])
    one = sender([(b"x", HERE), (words, None), (b"", HERE)])
    raw = sockaddrs_of(INET)[HERE]
    assert one.rest() == ([b"x", words.tobytes(), b""], [raw, b"", raw])
    assert (one.count, one.handled, one.refused) == (3, 0, False)
    sock = inet.open()
    descriptor = os.dup(sock.fileno())
    sock.close()
    assert one.send(sock, None, True) == errno.EBADF
    os.close(descriptor)
