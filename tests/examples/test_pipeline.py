"""pipeline.py, run as a user would: fed, stopped, its books checked."""

from __future__ import annotations

import signal

import anyio
import pytest

from anyio_mmsg import PacketBatch, PacketBatchPool, feed
from anyio_mmsg.testing import ScriptedReceiver

from .helpers import (
    BUFFER,
    LINUX,
    each_backend,
    load,
    numbers,
    running,
    send_all,
    terminal_output,
    wait_for_all,
    without_rich,
    without_signals,
    without_terminals,
)

pytestmark = without_signals
# Sent at once to workers that are slow, more than the kernel's usual buffer takes: so how many of
# them are received is chance. That each is accounted for is not.
FLOOD = 2000


BOOKS = "received # = consumed # + dropped # + queued #"
PIPELINE_LINE = r"received # .*, dropped by kernel # "


@pytest.mark.anyio
async def test_pipeline_workers_count_what_they_consume() -> None:
    example = load("pipeline")
    send_stream, stream = anyio.create_memory_object_stream[PacketBatch](1)
    script = [[example.STAMP.pack(0), b"short"], [b""] * 5, [b"x"] * 8]
    async with ScriptedReceiver(script, PacketBatchPool(4, 8)) as receiver:
        pipeline = example.Pipeline(receiver, stream, sent=15)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(feed, receiver, send_stream)
                for _ in range(2):
                    nursery.start_soon(example.work, stream.clone(), 0, pipeline)
        stream.close()
        assert (pipeline.consumed, pipeline.in_work) == (15, 0)
        assert pipeline.age > 0
        line = pipeline.look().line()
    assert numbers(line, r"^received # .* consumed # .* dropped # .* dropped by kernel #") == (
        (15, 15, 0, 0)
    )
    assert receiver.pool.statistics().free == 4


@each_backend
@pytest.mark.parametrize("overload", ["block", "drop_newest", "drop_oldest"])
def test_pipeline_accounts_for_each_packet(overload: str, backend: str) -> None:
    # Four packets a millisecond, in batches of 8; room for 7 batches.
    options = ["--workers", "2", "--work", "500", "--batch", "8", "--queue", "3"]
    options += ["--overload", overload, "--backend", backend, "--interval", "0.02"]
    with running("pipeline.py", *options, "--grace", "60") as program:
        send_all(program.address(), [b"x" * 100] * FLOOD)
        seen = wait_for_all(program, FLOOD, PIPELINE_LINE) if LINUX else ()
        lines = program.stop()
    received, consumed, dropped, queued = numbers(lines[-2], BOOKS)
    assert received == consumed + dropped
    assert queued == 0  # there was time to work it off
    assert (dropped == 0) == (overload == "block")
    if LINUX:
        kernel, left = numbers(lines[-1], "dropped by kernel #, left there # bytes")
        assert seen == (received, kernel)
        assert received + kernel == FLOOD
        assert left == 0


@each_backend
@pytest.mark.parametrize("overload", ["block", "drop_newest", "drop_oldest"])
def test_pipeline_that_is_cut_short_tells_what_was_queued(overload: str, backend: str) -> None:
    options = ["--workers", "2", "--work", "1e8", "--batch", "4", "--queue", "3"]
    options += ["--overload", overload, "--backend", backend, "--interval", "0.02"]
    with running("pipeline.py", *options, "--grace", "0") as program:
        send_all(program.address(), [b"x"] * 100)
        # 2 batches at work, 3 in the stream, with "block" one that `feed` holds. They need not be
        # full; what has no room then is left in the kernel.
        while numbers(program.line(), PIPELINE_LINE)[0] < 6:
            pass
        lines = program.stop()
    received, consumed, dropped, queued = numbers(lines[-2], BOOKS)
    assert consumed == 0
    assert 5 <= queued <= 4 * 6
    assert received == dropped + queued
    left, unread = numbers(lines[-3], "^left: # packets not worked off, # not even received$")
    assert left == queued
    if LINUX:
        (kernel,) = numbers(lines[-1], "dropped by kernel #,")
        assert received + unread + kernel == 100


@each_backend
def test_pipeline_works_off_what_waits_when_it_is_stopped(backend: str) -> None:
    options = ["--backend", backend, "--buffer", BUFFER, "--grace", "60"]
    with running("pipeline.py", *options) as program:
        address = program.address()
        with program.held():
            send_all(address, [b"x"] * 500)
            program.process.send_signal(signal.SIGTERM)
        lines = program.end()
    assert numbers(lines[-2], BOOKS) == (500, 500, 0, 0)
    assert not any(line.startswith("left") for line in lines)


@each_backend
def test_pipeline_ends_at_once_at_a_second_signal(backend: str) -> None:
    """Both signals are pending when it looks, and the time of grace is longer than the test's."""
    options = ["--work", "1e9", "--grace", "1e9", "--backend", backend, "--interval", "0.02"]
    with running("pipeline.py", *options) as program:
        address = program.address()
        send_all(address, [b"x"] * 100)
        while numbers(program.line(), PIPELINE_LINE)[0] < 100:
            pass
        with program.held():
            program.process.send_signal(signal.SIGTERM)
            program.process.send_signal(signal.SIGINT)
        lines = program.end()
    assert numbers(lines[-2], BOOKS) == (100, 0, 0, 100)
    assert lines[-3] == "left: 100 packets not worked off, 0 not even received"


@each_backend
def test_pipeline_feeds_itself(backend: str) -> None:
    options = ["--demo", "5000", "--interval", "0.05", "--backend", backend]
    with running("pipeline.py", *options) as program:
        program.line_with("age at work")
        program.process.send_signal(signal.SIGTERM)
        lines = program.end()
    (sent,) = numbers(lines[-3], "^sent #$")
    received, consumed, _, _ = numbers(lines[-2], BOOKS)
    assert received == consumed
    assert 0 < received <= sent


@without_terminals
@without_rich
def test_pipeline_on_a_terminal() -> None:
    output = terminal_output("pipeline.py", "--interval", "0.05")
    assert "batches in the stream" in output
    assert output.count("\r\n") > 10
    assert "received 100 = consumed 100 + dropped 0 + queued 0" in output
