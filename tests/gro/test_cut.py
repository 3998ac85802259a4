"""Control data that was cut: what was told is used, what wasn't is not guessed."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine, compiled, recv_mmsg_nowait
from anyio_mmsg._packets import Slots
from anyio_mmsg._packets.packet import Control
from anyio_mmsg._packets.slots import LOST
from anyio_mmsg._system.control import (
    SOL_IP,
    SOL_IPV6,
    SOL_UDP,
    UDP_GRO,
    Ancillary,
    segment_of,
)

from ..helpers import Said, have_ipv6
from .flow import Flow, check, drain, numbered

# Options of linux/in6.h; of a header's options, one that nobody knows and that is skipped then.
IPV6_RECVDSTOPTS, IPV6_DSTOPTS, UNKNOWN = 58, 59, 0x1E

ALL = {"timestamps": True, "destinations": True, "ecn": True, "hop_limits": True}


def ask_for_too_much(flow: Flow) -> None:
    """Have packets bring more control data than there is room for: a header of 520 bytes.

    With it, packets of a train come one by one.
    """
    options = bytes([UNKNOWN, 254]) + bytes(254)
    header = bytes([0, 64]) + 2 * options + bytes([1, 4]) + bytes(4)  # RFC 8200 section 4.6
    flow.receiver.setsockopt(SOL_IPV6, IPV6_RECVDSTOPTS, 1)
    for sender in flow.senders:
        try:
            sender.setsockopt(SOL_IPV6, IPV6_DSTOPTS, header)
        except PermissionError:
            pytest.skip("only with CAP_NET_RAW packets can have such a header")


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
@pytest.mark.parametrize("gro", [False, True])
def test_what_the_kernel_cut(gro: bool, engine: ReceiveEngine) -> None:
    """Packets are kept; their control data is said to be cut."""
    with Flow("::1", gro=gro, **ALL) as flow:
        ask_for_too_much(flow)
        batch = PacketBatch(16, engine=engine, gro=gro, ancillary=True)
        packets = flow.single(b"x" * 100) + flow.single(b"one")
        if gro:
            packets += flow.send(*numbered(9, 50, last=1))
        assert drain(flow.receiver, batch) == len(packets)
        check(batch, packets, flow.names[:1] * len(packets))
        for packet in batch:
            for name in ("timestamp", "destination", "interface", "ecn", "hop_limit"):
                with pytest.raises(ValueError, match="the control data of this packet was cut"):
                    getattr(packet, name)
        with pytest.raises(ValueError, match="was cut"):
            batch.timestamps()
        with pytest.raises(anyio.WouldBlock):
            recv_mmsg_nowait(flow.receiver, batch)


@pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
def test_nobody_asked_for_what_was_cut(engine: ReceiveEngine) -> None:
    with Flow("::1", **ALL) as flow:
        ask_for_too_much(flow)
        batch = PacketBatch(16, engine=engine, gro=True)
        packets = flow.send(*numbered(9, 50, last=1)) + flow.single(b"one")
        assert drain(flow.receiver, batch) == 10
        check(batch, packets, flow.names[:1] * 10)
        with pytest.raises(ValueError, match="ancillary=True"):
            _ = batch[0].timestamp


GRO: Ancillary = (SOL_UDP, UDP_GRO, (100).to_bytes(4, sys.byteorder))


@pytest.mark.parametrize(
    ("messages", "cut", "segment"),
    [
        ([], False, 0),
        ([], True, None),
        ([GRO], True, 100),
        ([(SOL_IP, 8, b"")], True, 0),
        ([(SOL_IPV6, 50, b"")], True, 0),
        ([(SOL_IP, 8, b""), GRO], False, 100),
        ([(socket.SOL_SOCKET, 64, b"\0" * 16)], True, None),
        ([(SOL_UDP, UDP_GRO, b"\1\0")], True, None),
        ([(SOL_UDP, UDP_GRO, b"\1\0")], False, 0),
        ([(SOL_UDP, UDP_GRO, (-1).to_bytes(4, sys.byteorder, signed=True))], False, 0),
        ([(SOL_UDP, UDP_GRO, (1 << 20).to_bytes(4, sys.byteorder))], False, 0),
        ([(SOL_UDP, UDP_GRO, (65535).to_bytes(4, sys.byteorder))], False, 65535),
    ],
)
def test_the_segment_size(messages: list[Ancillary], cut: bool, segment: int | None) -> None:
    assert segment_of(messages, cut) == segment


class MessageSocket(socket.socket):
    """A socket whose messages are scripted: bytes, control messages, flags."""

    def __init__(self, *script: tuple[bytes, list[Ancillary], int]) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.setblocking(False)
        self.script = deque(script)

    def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0) -> Any:
        if not self.script:
            raise BlockingIOError
        data, messages, seen = self.script.popleft()
        (buffer,) = buffers
        buffer[: len(data)] = data
        return len(data), messages, seen, ("192.0.2.1", 4242)


def test_a_segment_size_that_was_lost() -> None:
    cut: tuple[bytes, list[Ancillary], int] = (b"x" * 250, [], int(socket.MSG_CTRUNC))
    train = (b"y" * 250, [GRO], 0)
    with closing(MessageSocket(cut, train, cut, (b"z", [], 0), cut)) as sock:
        batch = PacketBatch(8, engine="recvfrom_into", gro=True)
        for _ in range(2):
            assert recv_mmsg_nowait(sock, batch, 3 if not batch else 8) in (3, 1)
            with pytest.raises(OSError, match="the segment size of coalesced packets") as raised:
                recv_mmsg_nowait(sock, batch)
            assert raised.value.errno == errno.EMSGSIZE
        with pytest.raises(anyio.WouldBlock):
            recv_mmsg_nowait(sock, batch)
    assert batch.payloads() == [b"y" * 100, b"y" * 100, b"y" * 50, b"z"]
    batch.release(4)
    assert batch.free == 8


def test_nothing_but_a_segment_size_that_was_lost() -> None:
    with closing(MessageSocket((b"x" * 250, [], int(socket.MSG_CTRUNC)))) as sock:
        batch = PacketBatch(8, engine="recvfrom_into", gro=True)
        with pytest.raises(OSError, match="segment size"):
            recv_mmsg_nowait(sock, batch)
        assert (len(batch), batch.free) == (0, 8)
        with pytest.raises(anyio.WouldBlock):
            recv_mmsg_nowait(sock, batch)


def test_slots_of_lost_trains_are_freed_with_those_around_them() -> None:
    batch = PacketBatch(6, engine="recvfrom_into", gro=True)
    slots: Any = batch._slots
    segments = [LOST, 40, LOST, LOST, 0, LOST]
    slots.commit([10, 100, 10, 100, 100, 10], range(6), None, segments)
    assert (len(batch), batch.free) == (4, 1)
    assert batch.sizes() == [40, 40, 20, 100]
    assert batch.truncated() == [packet.truncated for packet in batch]
    assert batch.wire_sizes() == [packet.wire_size for packet in batch]
    assert batch.addresses() == [1, 1, 1, 4]
    batch.release(3)
    assert batch.free == 4
    batch.release()
    assert batch.free == 6


PROGRAM = """
import anyio
from anyio_mmsg import PacketBatch, recv_mmsg_nowait
from tests.gro.flow import Flow, numbered

with Flow() as flow:
    batch = PacketBatch(8, engine="recvmmsg", gro=True, ancillary=True)
    first = flow.send(*numbered(5, 100))
    flow.send(*numbered(7, 100))
    last = flow.send(*numbered(3, 50))
    assert recv_mmsg_nowait(flow.receiver, batch) == 8
    try:
        recv_mmsg_nowait(flow.receiver, batch)
    except OSError as error:
        print(error)
    assert batch.payloads() == first + last
    assert batch.addresses() == flow.names[:1] * 8
    try:
        recv_mmsg_nowait(flow.receiver, batch)
    except anyio.WouldBlock:
        print("ok")
"""


@pytest.mark.skipif(not compiled, reason="of recvmmsg, which needs the compiled module")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_segment_size_that_recvmmsg_lost(tmp_path: Path) -> None:
    shim = tmp_path / "cut.so"
    source = Path(__file__).with_name("cut.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={
            **os.environ,
            # Before a sanitizer's library, which would take the lies for the kernel's work.
            "LD_PRELOAD": f"{shim} {os.environ.get('LD_PRELOAD', '')}".strip(),
            "ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:verify_asan_link_order=0",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert "the segment size of coalesced packets was cut off" in done.stdout
    assert done.stdout.endswith("ok\n")


def test_a_lost_train_is_asked_for_no_timestamp() -> None:
    slots = Slots(bytearray(9), 3, 3, ancillary=True, gro=True)
    stamps = [0, ValueError("cut"), 2]
    controls = [(Said(), Control(), stamp) for stamp in stamps]
    slots.commit([3, 3, 3], [None] * 3, controls, [0, LOST, 0])
    assert slots.timestamps() == [0, 2]
