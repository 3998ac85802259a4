"""A signal handler that raises, at every bytecode: the result says exactly what was sent."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendResult,
    multi_target_send,
    recv_mmsg_nowait,
    send_mmsg,
    send_mmsg_nowait,
)

from ..helpers import Family, nowhere
from ..interrupts import PACKAGE, Interrupt, every_bytecode
from .helpers import fill, fill_buffer, received
from .wildcard import ask, client, linux, sources, wildcard

pytestmark = pytest.mark.thorough

# Of several sizes, so that there are runs of several lengths.
DATAS = [b"%d" % number * (1 + number // 4) for number in range(7)]

how_sent = pytest.mark.parametrize("gso", [False, True], ids=["plain", "gso"])


def check(result: SendResult, got: list[bytes], datas: list[bytes]) -> None:
    """The packets up to `handled`, without those that failed, and no other, have arrived."""
    failed = {index for index, _ in result.failures}
    assert sorted(failed) == [index for index, _ in result.failures]
    assert got == [datas[i] for i in range(result.handled) if i not in failed]
    assert result.sent == len(got)


@how_sent
def test_pairs(gso: bool, sending: SendEngine, inet: Family) -> None:
    """With failures in between."""
    sender, receiver = inet.open(), inet.open()
    bad, _ = nowhere(inet)
    packets = [
        (data, bad if number in (0, 3, 6) else receiver.getsockname())
        for number, data in enumerate(DATAS)
    ]
    result = SendResult(5)
    steps = 0
    for point in every_bytecode(stride=3):
        with point, contextlib.suppress(Interrupt):
            send_mmsg_nowait(sender, packets, gso=gso, engine=sending, result=result)
        if result.sent == 5:  # it had not begun
            assert received(receiver) == []
            continue
        check(result, received(receiver), DATAS)
        steps += 1
        assert result.handled <= len(DATAS)
    assert steps > (0 if sending == "auto" else 6)  # compiled, the usual send is one step
    assert result.handled == len(DATAS)


@how_sent
@pytest.mark.parametrize("form", ["batch", "packets", "replies", "mixed"])
def test_packets_of_a_batch(
    form: str, gso: bool, sending: SendEngine, engine: ReceiveEngine, inet: Family
) -> None:
    """Nothing stays pinned: the batch can be used afterwards."""
    server, client = inet.open(), inet.open()
    batch = PacketBatch(5, 16, engine)
    datas = [b"1", b"2", b"three"]
    result = SendResult()
    for point in every_bytecode(stride=3):
        fill(batch, server, *((client, data) for data in datas))
        forms: dict[str, Any] = {
            "batch": batch,
            "packets": list(batch),
            "replies": [(packet.data, packet) for packet in batch],
            "mixed": [batch[0], (b"2", batch[1]), batch[2]],
        }
        packets, result = forms.pop(form), SendResult()
        with point, contextlib.suppress(Interrupt):
            send_mmsg_nowait(server, packets, gso=gso, engine=sending, result=result)
        check(result, received(client), datas)
        del packets
        forms.clear()
        assert batch.payloads() == datas
        try:
            batch.clear()
        except BufferError:  # a traceback may be in a cycle
            gc.collect()
            batch.clear()
    assert result.sent == 3


@linux
@how_sent
@pytest.mark.parametrize("form", ["batch", "pairs"])
@pytest.mark.parametrize(
    "given",
    [{"reply_from_destination": True, "ecn": 1}, {"source": "127.0.0.2", "ecn": 1}],
    ids=["reply", "source"],
)
def test_packets_with_control_data(
    given: dict[str, Any], form: str, gso: bool, sending: SendEngine, engine: ReceiveEngine
) -> None:
    """The same, and each that arrives comes from where it was to come from."""
    datas = [b"0", b"1", b"2"]
    result = SendResult()
    with wildcard("inet", destinations=True) as server, client("127.0.0.1") as asking:
        batch = PacketBatch(5, 16, engine, ancillary=True)
        for point in every_bytecode(stride=3):
            ask(server, asking, batch, ["127.0.0.2"] * 3)
            pairs = [(packet.data, packet) for packet in batch]
            packets: Any = batch if form == "batch" else pairs
            result = SendResult()
            with point, contextlib.suppress(Interrupt):
                send_mmsg_nowait(server, packets, **given, gso=gso, engine=sending, result=result)
            got = sources(asking)
            check(result, [data for data, _ in got], datas)
            assert {place for _, place in got} <= {"127.0.0.2"}
            del packets, pairs
            try:
                batch.clear()
            except BufferError:  # as above
                gc.collect()
                batch.clear()
    assert result.sent == 3


@how_sent
def test_no_room(
    gso: bool, sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """Some are sent, and then there is no room."""
    sender, receiver = narrow
    packets = [(b"%d" % number, None) for number in range(500)]
    datas = [data for data, _ in packets]
    result = SendResult()
    for point in every_bytecode(stride=3):
        result = SendResult()
        with point, contextlib.suppress(Interrupt):
            send_mmsg_nowait(sender, packets, gso=gso, engine=sending, result=result)
        check(result, received(receiver), datas)
        assert result.handled < 500
    assert result.handled > 10


# An interrupt between the making of a coroutine and its first step.
never_awaited = pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited")

Send = Callable[..., Any]


async def send_pairs(sock: socket.socket, to: Any, **how: Any) -> SendResult:
    return await send_mmsg(sock, [(data, to) for data in DATAS], gso=True, **how)


async def send_fan(sock: socket.socket, to: Any, **how: Any) -> SendResult:
    return await multi_target_send(sock, b"same", [to] * 5, **how)


@never_awaited
@pytest.mark.anyio
@pytest.mark.parametrize("send", [send_pairs, send_fan])
async def test_functions_that_wait(send: Send, sending: SendEngine, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    datas = DATAS if send is send_pairs else [b"same"] * 5
    result = SendResult()
    with anyio.fail_after(60):
        for point in every_bytecode(stride=3):
            result = SendResult()
            with point, contextlib.suppress(Interrupt):
                await send(sender, receiver.getsockname(), engine=sending, result=result)
            check(result, received(receiver), datas)
    assert result.sent == len(datas)


@never_awaited
@pytest.mark.anyio
async def test_a_wait_for_room(
    sending: SendEngine, narrow: tuple[socket.socket, socket.socket]
) -> None:
    """Whatever it leaves behind, the next call can wait, and is woken."""
    sender, receiver = narrow
    datas = [b"1", b"2"]
    got: list[bytes] = []

    async def make_room(filled: int) -> None:
        await anyio.wait_all_tasks_blocked()
        got.extend(received(receiver)[filled:])

    with anyio.fail_after(120):
        for point in every_bytecode(stride=3):
            got.clear()
            result = SendResult()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(make_room, fill_buffer(sender))
                with point, contextlib.suppress(Interrupt):
                    packets = [(data, None) for data in datas]
                    await send_mmsg(sender, packets, engine=sending, result=result)
            check(result, got + received(receiver), datas)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(make_room, fill_buffer(sender))
            await send_mmsg(sender, [(b"x", None)], engine=sending)
    assert received(receiver) == [b"x"]


def test_what_an_interrupted_receive_read_is_sent_after_the_next(
    sending: SendEngine, engine: ReceiveEngine, inet: Family
) -> None:
    """A batch that an interrupted receive has filled goes back."""
    server, client = inet.open(), inet.open()
    for point in every_bytecode(stride=3):
        batch = PacketBatch(4, 16, engine)
        for data in (b"1", b"2"):
            client.sendto(data, server.getsockname())
        with point, contextlib.suppress(Interrupt):
            recv_mmsg_nowait(server, batch)
        with contextlib.suppress(anyio.WouldBlock):
            recv_mmsg_nowait(server, batch)
        result = send_mmsg_nowait(server, batch, engine=sending)
        assert result.sent == len(batch)
        assert received(client) == batch.payloads()
        assert batch.payloads() == [b"1", b"2"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this platform")
@how_sent
@pytest.mark.parametrize("form", ["pairs", "batch"])
def test_a_timer_that_raises(
    form: str, gso: bool, sending: SendEngine, engine: ReceiveEngine, inet: Family
) -> None:
    """Wherever a signal really strikes, in the interpreter or in a system call."""
    server, client = inet.open(), inet.open()
    bad, _ = nowhere(inet)
    batch = PacketBatch(64, 16, engine)
    datas = [b"%d" % number for number in range(20)]
    fill(batch, server, *((client, data) for data in datas))
    to = client.getsockname()
    pairs = [(data, bad if number == 7 else to) for number, data in enumerate(datas)]
    strikes = 0
    calling = False
    here = sys._getframe()  # what a call that is one step in C leaves on top

    def strike(number: int, frame: Any) -> None:
        nonlocal strikes, calling
        if frame is not here and not frame.f_code.co_filename.startswith(PACKAGE):
            return  # perhaps a finalizer, whose errors are ignored
        if calling:
            calling = False
            strikes += 1
            raise Interrupt

    old = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.00007)
    try:
        while strikes < 1500:
            result = SendResult()
            with contextlib.suppress(Interrupt):
                calling = True
                send_mmsg_nowait(
                    server,
                    pairs if form == "pairs" else batch,
                    gso=gso,
                    engine=sending,
                    result=result,
                )
                calling = False
            check(result, received(client), datas)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    batch.close()
