"""What loopback does not give: a socket whose reads are scripted, under the reference engine."""

from __future__ import annotations

import errno
import gc
import socket
import weakref
from contextlib import closing

import anyio
import pytest

from anyio_mmsg import PacketBatch, recv_mmsg_nowait
from anyio_mmsg._receive.engine import adopt
from anyio_mmsg._receive.recvfrom_into import WSAEMSGSIZE, RecvfromInto
from anyio_mmsg._system.platform import MSG_DONTWAIT

from ..helpers import Family, ScriptedSocket, contents, drain

WSAENETRESET, WSAECONNRESET = 10052, 10054


@pytest.fixture
def batch() -> PacketBatch:
    return PacketBatch(8, engine="recvfrom_into")


def test_an_error_after_packets_is_raised_by_the_next_receive(batch: PacketBatch) -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    with closing(ScriptedSocket(b"1", b"2", refused, b"3")) as sock:
        assert recv_mmsg_nowait(sock, batch) == 2
        with pytest.raises(ConnectionRefusedError) as raised:
            recv_mmsg_nowait(sock, batch)
        assert raised.value is refused
        assert contents(batch) == [b"1", b"2"]
        assert recv_mmsg_nowait(sock, batch) == 1
        assert contents(batch) == [b"1", b"2", b"3"]


def test_whichever_batch_that_uses_and_no_other_socket(batch: PacketBatch) -> None:
    other_batch = PacketBatch(8)
    with (
        closing(ScriptedSocket(b"1", OSError(errno.EHOSTUNREACH, "no route"))) as sock,
        closing(ScriptedSocket(b"2")) as other,
    ):
        assert recv_mmsg_nowait(sock, batch) == 1
        assert recv_mmsg_nowait(other, batch) == 1
        with pytest.raises(OSError, match="no route"):
            recv_mmsg_nowait(sock, other_batch)
        assert len(other_batch) == 0


def test_an_error_before_packets_is_raised_at_once(batch: PacketBatch) -> None:
    with closing(ScriptedSocket(OSError(errno.ENETDOWN, "down"), b"1")) as sock:
        with pytest.raises(OSError, match="down"):
            recv_mmsg_nowait(sock, batch)
        assert recv_mmsg_nowait(sock, batch) == 1


def test_a_pending_error_does_not_keep_its_socket_alive(batch: PacketBatch) -> None:
    with closing(ScriptedSocket(b"1", ConnectionRefusedError())) as sock:
        recv_mmsg_nowait(sock, batch)
    gone = weakref.ref(sock)
    del sock
    gc.collect()
    assert gone() is None


def test_eintr_is_no_error(batch: PacketBatch) -> None:
    interrupted = InterruptedError(errno.EINTR, "interrupted")
    with closing(ScriptedSocket(interrupted, b"1", interrupted, interrupted, b"2")) as sock:
        assert recv_mmsg_nowait(sock, batch) == 2
    assert contents(batch) == [b"1", b"2"]


def test_wsaemsgsize_is_a_truncated_packet() -> None:
    """Windows fills the buffer and raises; it reports neither length nor sender."""
    batch = PacketBatch(8, 4, "recvfrom_into")
    cut = OSError(WSAEMSGSIZE, "longer than the buffer")
    with closing(ScriptedSocket(b"1", cut, b"2")) as sock:
        assert recv_mmsg_nowait(sock, batch) == 3
    assert [p.truncated for p in batch] == [False, True, False]
    assert [p.wire_size for p in batch] == [1, None, 1]
    assert batch.sizes() == [1, 4, 1]
    assert batch.addresses() == [ScriptedSocket.address, None, ScriptedSocket.address]


def test_wsaemsgsize_as_winerror() -> None:
    batch = PacketBatch(8, 4, "recvfrom_into")
    cut = OSError(errno.EMSGSIZE, "longer than the buffer")
    cut.winerror = WSAEMSGSIZE  # type: ignore[attr-defined, unused-ignore]
    with closing(ScriptedSocket(cut)) as sock:
        assert recv_mmsg_nowait(sock, batch) == 1
    assert batch[0].truncated


@pytest.mark.parametrize("surprise", [KeyboardInterrupt(), MemoryError(), ValueError("what?")])
def test_whatever_is_raised_what_was_read_is_there(
    surprise: BaseException, batch: PacketBatch
) -> None:
    with closing(ScriptedSocket(b"1", b"2", surprise, b"3")) as sock:
        with pytest.raises(type(surprise)):
            recv_mmsg_nowait(sock, batch)
        assert contents(batch) == [b"1", b"2"]
        assert recv_mmsg_nowait(sock, batch) == 1
    assert batch.addresses() == [ScriptedSocket.address] * 3


def test_emsgsize_elsewhere_is_an_error(batch: PacketBatch) -> None:
    """A path MTU that ICMP reported, with IP_RECVERR: no packet has come."""
    with (
        closing(ScriptedSocket(OSError(errno.EMSGSIZE, "path mtu"), b"1")) as sock,
        pytest.raises(OSError, match="path mtu"),
    ):
        recv_mmsg_nowait(sock, batch)
    assert len(batch) == 0


@pytest.mark.parametrize("code", [WSAECONNRESET, WSAENETRESET])
def test_windows_port_unreachable_is_raised_and_passes(code: int, batch: PacketBatch) -> None:
    with closing(ScriptedSocket(b"1", OSError(code, "reset"), b"2")) as sock:
        assert recv_mmsg_nowait(sock, batch) == 1
        with pytest.raises(OSError, match="reset"):
            recv_mmsg_nowait(sock, batch)
        assert recv_mmsg_nowait(sock, batch) == 1


def test_ebadf_is_a_closed_socket(batch: PacketBatch) -> None:
    with (
        closing(ScriptedSocket(OSError(errno.EBADF, "bad"))) as sock,
        pytest.raises(anyio.ClosedResourceError),
    ):
        recv_mmsg_nowait(sock, batch)


def test_ebadf_after_packets_is_a_closed_socket_too(batch: PacketBatch) -> None:
    with closing(ScriptedSocket(b"1", OSError(errno.EBADF, "bad"))) as sock:
        assert recv_mmsg_nowait(sock, batch) == 1
        with pytest.raises(anyio.ClosedResourceError):
            recv_mmsg_nowait(sock, batch)


def test_an_error_between_the_two_runs_of_a_wrap(batch: PacketBatch) -> None:
    script: list[bytes | Exception | None] = [b"%d" % n for n in range(8)]
    with closing(ScriptedSocket(*script, b"8", OSError(errno.ENETDOWN, "down"), b"9")) as sock:
        assert recv_mmsg_nowait(sock, batch) == 8
        batch.release(7)  # the last slot is held, the run goes on at the first
        assert recv_mmsg_nowait(sock, batch) == 1
        with pytest.raises(OSError, match="down"):
            recv_mmsg_nowait(sock, batch)
        assert recv_mmsg_nowait(sock, batch) == 1
        assert contents(batch) == [b"7", b"8", b"9"]


@pytest.mark.skipif(
    not hasattr(socket.socket, "recvmsg_into"), reason="this platform has no recvmsg_into"
)
def test_reading_as_on_macos(family: Family) -> None:
    """By recvmsg_into, which works here too: it reports that it was cut, but not the length."""
    receiver, sender = family.pair()
    batch = PacketBatch(4, 4, "recvfrom_into")
    as_on_macos = RecvfromInto(batch._slots, MSG_DONTWAIT, ask_for_flags=True)
    adopt(batch._slots, RecvfromInto, as_on_macos)
    for data in (b"1234", b"12345", b""):
        sender.send(data)
    drain(receiver, batch, 3)
    assert contents(batch) == [b"1234", b"1234", b""]
    assert [p.truncated for p in batch] == [False, True, False]
    assert [p.wire_size for p in batch] == [4, None, 0]
    assert batch.addresses() == [sender.getsockname()] * 3
    with pytest.raises(anyio.WouldBlock):
        recv_mmsg_nowait(receiver, batch)
