"""docs/how-to: what the network and the kernel do: multicast, timestamps, buffers."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import anyio
import pytest

from anyio_mmsg import (
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    PoolStatistics,
    open_udp_socket,
    recv_mmsg_exact,
)
from anyio_mmsg.testing import make_batch

from ..helpers import Family
from ..send.test_network import own_network
from .blocks import as_module, executed, python_blocks, runs
from .opening import Opening

FEED, SEND_FEED = python_blocks("docs/how-to/multicast.md")
WAITED, JITTER, JITTER_OF_BATCHES, CARD = python_blocks("docs/how-to/timestamps.md")
BUFFERS, ADVICE, LINES = python_blocks("docs/how-to/buffers.md")

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="control data")
pytestmark = pytest.mark.anyio


# Multicast


@needs_linux
@runs(FEED, SEND_FEED)
async def test_a_feed_by_multicast() -> None:
    """On loopback, which is one interface, and brings the second copy too."""
    page = as_module(FEED, SEND_FEED)
    page["open_udp_socket"] = opens = Opening(multicast_interface="lo")
    arbiter, came = page["Arbiter"](), 0
    got: list[bytes] = []
    with anyio.fail_after(60):
        async with await page["open_feed"]("239.77.1.2", 0, ["lo"]) as receiver:
            _, port = await opens.address()
            await page["send_feed"]("239.77.1.2", port, ["lo", "lo"], [b"a", b"b", b""])
            while came < 6:
                with await receiver.receive() as batch:
                    assert set(batch.destinations()) == {"239.77.1.2"}
                    came += len(batch)
                    got += arbiter.first_copies(batch)
    assert got == [b"a", b"b", b""]
    assert arbiter.first == {socket.if_nametoindex("lo"): 3}
    assert arbiter.missing == 0


@runs(FEED)
async def test_what_no_network_brought(inet: Family) -> None:
    page = as_module(FEED)
    arbiter = page["Arbiter"]()
    sock, sender = inet.pair()
    for number in 5, 5, 6, 9, 8, 10:
        sender.send(page["NUMBER"].pack(number) + b"%d" % number)
    sender.send(b"short")
    batch = PacketBatch(ancillary=True)
    await recv_mmsg_exact(sock, batch, 7)
    assert list(arbiter.first_copies(batch)) == [b"5", b"6", b"9", b"10"]
    assert arbiter.missing == 2


@needs_linux
@runs(FEED, SEND_FEED)
def test_two_interfaces(tmp_path: Path) -> None:
    """The page's programs as they stand, in a network that has these two interfaces."""
    receiving, sending = tmp_path / "receive.py", tmp_path / "send.py"
    receiving.write_text(FEED.text)
    call = 'anyio.run(send_feed, "239.1.2.3", 5000, ["eth0", "eth1"], [b"first", b"second"])'
    sending.write_text("\n".join([FEED.text.partition("if __name__")[0], SEND_FEED.text, call]))
    executed.update((FEED.place, SEND_FEED.place))
    script = f"""
        ip link set lo up
        ip link add eth0 type veth peer name eth1
        for i in 0 1; do ip address add 10.9.$i.1/24 dev eth$i; ip link set eth$i up; done
        timeout 60 {sys.executable} -u -W error {receiving} > {tmp_path}/received & pid=$!
        trap "kill $pid" EXIT
        until [ $(grep -c 030201EF /proc/net/igmp) = 2 ]; do kill -0 $pid || exit 1; done
        {sys.executable} -W error {sending} || exit 1
        until [ $(wc -l < {tmp_path}/received) = 2 ]; do kill -0 $pid || exit 1; done
        cat {tmp_path}/received
    """
    command = [*own_network(), "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("b'first'\nb'second'\n", "")


# Timestamps


@needs_linux
@runs(WAITED)
async def test_how_long_packets_waited(capsys: pytest.CaptureFixture[str]) -> None:
    page = as_module(WAITED)
    page["open_udp_socket"] = opens = Opening(b"a", b"b")
    shown = ""
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(page["main"])
            await opens.address()
            while not shown:
                shown = capsys.readouterr().out
                await anyio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert shown.startswith("2 waited up to ")
    assert shown.endswith(" ns\n")


@needs_linux
@runs(WAITED)
async def test_a_packet_waits_from_its_arrival_on() -> None:
    """By what the kernel says, whatever the clock does meanwhile."""
    page, batch = as_module(WAITED), PacketBatch(ancillary=True)
    with await open_udp_socket("127.0.0.1", timestamps=True) as sock:
        sock.connect(sock.getsockname())
        sock.send(b"a")
        await recv_mmsg_exact(sock, batch, 1)
    arrived = batch[0].timestamp
    assert arrived is not None
    page["time"] = types.SimpleNamespace(time_ns=lambda: arrived + 1000)
    assert page["waited"](batch) == [1000]


@needs_linux
@runs(JITTER, JITTER_OF_BATCHES)
async def test_jitter_of_packets() -> None:
    page = as_module(WAITED, JITTER, JITTER_OF_BATCHES)
    jitter, batch = page["Jitter"](), PacketBatch(ancillary=True)
    with await open_udp_socket("127.0.0.1", timestamps=True) as sock:
        sock.connect(sock.getsockname())
        for delay in 0, 16_000_000_000_000, 0:
            sock.send((time.time_ns() - delay).to_bytes(8, "big"))
        sock.send(b"short")
        await recv_mmsg_exact(sock, batch, 4)
    page["add_batch"](jitter, batch)
    # 16,000 seconds and back: a share of 1/16, then the same, less 1/16 of it
    assert jitter.nanoseconds == pytest.approx(1e12 + 1e12 * 15 / 16, rel=0.001)


@needs_linux
@runs(CARD)
async def test_stamps_of_a_card(inet: Family) -> None:
    """No card here has a clock: what comes is the kernel's."""
    sock, sender = inet.pair()
    as_module(CARD)["stamp_by_the_card"](sock)
    sender.send(b"x")
    batch = PacketBatch(ancillary=True)
    await recv_mmsg_exact(sock, batch, 1)
    (packet,) = batch
    assert packet.timestamp is not None
    assert packet.hardware_timestamp is None


@runs(JITTER)
async def test_jitter_is_that_of_the_rfc() -> None:
    jitter = as_module(JITTER)["Jitter"]()
    for sent, arrived in (0, 1000), (10, 1010), (20, 1036), (30, 1030):
        jitter.add(sent, arrived)
    assert jitter.nanoseconds == 1 + (16 - 1) / 16


# Buffers


@runs(BUFFERS)
async def test_what_the_kernel_charges() -> None:
    page = as_module(BUFFERS)
    charged = await page["truesize"](1000)
    if charged is None:
        pytest.skip("this system does not say how much of a buffer is used")
    assert charged > 1000
    assert await page["truesize"](5000) > charged


@runs(BUFFERS)
async def test_the_buffer_to_ask_for() -> None:
    """As the page calculates it: and the kernel's buffer then is what the formula says."""
    page = as_module(BUFFERS)
    assert page["buffer_size"](50_000, 0.02, 2304) == 1_152_000
    assert page["buffer_size"](1000, 0.01, 2304) == 11_520
    page["open_udp_socket"] = Opening()
    async with await page["open_receiver"](0) as receiver:
        assert receiver.pool.capacity == 256


@runs(LINES)
async def test_the_lines_of_a_batch() -> None:
    with make_batch([b"a\nb", b"", b"\xffc"]) as batch:
        assert as_module(BUFFERS, LINES)["lines_of"](batch) == ["a", "b", "", "\ufffdc"]


@runs(ADVICE)
async def test_advice(inet: Family) -> None:
    page = as_module(BUFFERS, ADVICE)
    sock, sender = inet.pair()
    async with PacketReceiver(sock, PacketBatchPool(2, capacity=2)) as receiver:
        sender.send(b"a")
        with await receiver.receive():
            pass
        seen, pool = receiver.statistics(), receiver.pool.statistics()
    advice = page["advice"]
    assert advice(seen, pool) == []

    def heads(**changes: Any) -> list[str]:
        return [
            text.partition(":")[0] for text in advice(dataclasses.replace(seen, **changes), pool)
        ]

    assert heads(dropped_by_kernel=1) == ["the socket's buffer was full"]
    assert heads(buffer_used=51, buffer_size=100) == ["the socket's buffer is half full"]
    assert heads(buffer_used=None, buffer_size=None, dropped_by_kernel=None) == []
    assert heads(full_batches=1) == ["most batches are full"]
    assert heads(truncated=1) == ["packets were cut"]
    assert heads(dropped=1) == ["consumers are too slow"]
    told = advice(seen, PoolStatistics(size=2, free=0, lent=2, leaked=1, waiting=1))
    assert [text.partition(":")[0] for text in told] == [
        "consumers have all batches",
        "a consumer does not close its batches",
    ]
