"""One packet's error does not stop the others; the socket's error ends the call."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys

import pytest

from anyio_mmsg import (
    SendEngine,
    SendResult,
    UnusableSocketError,
    send_mmsg_nowait,
)

from ..helpers import Family, nowhere, unheard
from .helpers import arrived, failures


def test_one_bad_destination_does_not_stop_the_rest(sending: SendEngine, family: Family) -> None:
    sender, receiver = family.open(), family.open()
    bad, number = nowhere(family)
    good = receiver.getsockname()
    for places in ([0], [2], [4], [0, 1], [1, 3], [3, 4], [0, 1, 2, 3, 4]):
        packets = [(b"%d" % n, bad if n in places else good) for n in range(5)]
        result = send_mmsg_nowait(sender, packets, engine=sending)
        assert failures(result) == [(place, number) for place in places]
        assert result.sent == 5 - len(places)
        assert result.handled == 5
        assert [int(data) for data, _ in arrived(receiver)] == sorted({*range(5)} - {*places})


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")
def test_an_empty_path_is_nobodys(sending: SendEngine) -> None:
    """It is no abstract name: somebody else may have that one."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as somebody,
    ):
        with contextlib.suppress(OSError):  # another run of the suite has it
            somebody.bind(b"\0")
        sender.setblocking(False)
        result = send_mmsg_nowait(sender, [(b"x", "")], engine=sending)
        assert failures(result) == [(0, errno.EINVAL)]
        somebody.setblocking(False)
        with pytest.raises(BlockingIOError):
            somebody.recv(1)


def test_errors_have_their_class_and_no_frames(sending: SendEngine, inet: Family) -> None:
    sender = inet.open()
    bad, number = nowhere(inet)
    ((index, error),) = send_mmsg_nowait(sender, [(b"", bad)], engine=sending).failures
    assert (index, error.errno, error.strerror) == (0, number, os.strerror(number))
    assert type(error) is type(OSError(number, ""))
    assert error.__traceback__ is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows reports that when receiving")
def test_an_error_of_an_earlier_packet_is_that_of_the_next(
    sending: SendEngine, inet: Family
) -> None:
    """An ICMP error waits in a connected socket; the next packet reports it, and is not sent."""
    receiver, sender = inet.pair()
    unheard(receiver)
    for number in range(4):
        result = send_mmsg_nowait(sender, [(b"%d" % number, None)], engine=sending)
        assert failures(result) == [(0, errno.ECONNREFUSED)] * (number % 2)
    packets = [(b"%d" % number, None) for number in range(4)]
    result = send_mmsg_nowait(sender, packets, engine=sending)
    # sendmmsg keeps no error that it met after a packet: sent again, the next one meets none.
    among = [(1, errno.ECONNREFUSED), (3, errno.ECONNREFUSED)]
    assert failures(result) == (among if sending == "sendto" else [])
    assert result.handled == 4


def test_no_destination(sending: SendEngine, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    packets = [(b"1", receiver.getsockname()), (b"2", None), (b"3", receiver.getsockname())]
    result = send_mmsg_nowait(sender, packets, engine=sending)
    ((index, error),) = result.failures
    assert (index, result.sent) == (1, 2)
    assert error.errno in (errno.EDESTADDRREQ, errno.ENOTCONN)
    assert [data for data, _ in arrived(receiver)] == [b"1", b"3"]


def test_a_reply_to_port_0_is_one_packets_failure(sending: SendEngine, inet: Family) -> None:
    """Whoever forges it must not keep the others from their replies."""
    sender, receiver = inet.open(), inet.open()
    packets = [(b"1", ("127.0.0.1", 0)), (b"2", receiver.getsockname())]
    result = send_mmsg_nowait(sender, packets, engine=sending)
    assert [index for index, _ in result.failures] == [0]
    assert [data for data, _ in arrived(receiver)] == [b"2"]


@pytest.mark.skipif(sys.platform == "win32", reason="a descriptor of Windows is not a file's")
def test_a_socket_that_is_none_any_more(sending: SendEngine, inet: Family) -> None:
    receiver, sender = inet.pair()
    packets = [(b"1", None)]
    reading, writing = os.pipe()
    kept = os.dup(sender.fileno())
    try:
        os.dup2(writing, sender.fileno())
        with pytest.raises(UnusableSocketError) as raised:
            send_mmsg_nowait(sender, packets, engine=sending)
        assert raised.value.errno == errno.ENOTSOCK
        assert raised.value.result == SendResult(0, [])
        os.dup2(kept, sender.fileno())
    finally:
        for number in (reading, writing, kept):
            os.close(number)
    assert send_mmsg_nowait(sender, packets, engine=sending).sent == 1
    os.close(sender.detach())
    with pytest.raises(UnusableSocketError) as raised:
        send_mmsg_nowait(sender, packets, engine=sending)
    assert raised.value.errno == errno.EBADF
    assert arrived(receiver)[0][0] == b"1"
