"""Reading the error queue: what entries say, whose the queue is, and what is left behind."""

from __future__ import annotations

import copy
import errno
import pickle
import socket
import struct
from typing import Any

import pytest

from anyio_mmsg._system import error_queue
from anyio_mmsg._system.error_queue import (
    errors_pending,
    ours_to_read,
    read_errors,
    report_errors,
)
from anyio_mmsg._system.icmp import IcmpError

from .conftest import Version, provoke

SO_TIMESTAMPING, SO_ZEROCOPY, SO_TXTIME = 37, 60, 61
TX_SOFTWARE, RX_SOFTWARE, SOFTWARE = 1 << 1, 1 << 3, 1 << 4


def test_a_port_where_nobody_listens(version: Version) -> None:
    sock, address = version.open(), version.unheard()
    provoke(sock, address, b"first", b"", b"third")
    assert errors_pending(sock)
    errors = read_errors(sock, 64)
    assert [error.data for error in errors] == [b"first", b"", b"third"]
    for error in errors:
        assert isinstance(error, IcmpError)
        assert isinstance(error, ConnectionRefusedError)
        assert error.errno == errno.ECONNREFUSED
        assert isinstance(error.destination, tuple)
        assert error.destination[:2] == address
        assert error.offender == version.host
        kind = (1, 4) if version.name == "inet6" else (3, 3)  # RFC 4443, RFC 792
        assert (error.icmp_type, error.icmp_code) == kind
        assert (error.mtu, error.local) == (None, False)
    assert str(errors[0]).startswith(
        f"[Errno {errno.ECONNREFUSED}] Connection refused: to {address[0]} port {address[1]}, "
        f"reported by {version.host} (ICMP type "
    )


def test_a_packet_that_is_too_long(version: Version) -> None:
    sock, address = version.open(), version.unheard()
    sock.setsockopt(0, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    if version.name != "inet":
        sock.setsockopt(41, 23, 2)
    with pytest.raises(OSError, match="too long"):  # for IPv4; for IPv6 and loopback's MTU
        sock.sendto(bytes(65_527), address)
    (error,) = read_errors(sock, 64)
    assert error.errno == errno.EMSGSIZE
    assert error.local
    assert error.mtu is not None
    assert error.mtu >= 65_535
    assert error.offender is None
    assert "reported by this machine" in str(error)


def test_the_limit_and_what_is_left(version: Version) -> None:
    sock, address = version.open(), version.unheard()
    provoke(sock, address, *(b"%d" % n for n in range(5)))
    for n in (0, 2):
        assert [error.data for error in read_errors(sock, 2)] == [b"%d" % n, b"%d" % (n + 1)]
        # The kernel has made the next error the pending one, which is reported by the queue.
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert errors_pending(sock)
    assert [error.data for error in read_errors(sock, 2)] == [b"4"]
    assert not errors_pending(sock)
    assert read_errors(sock, 2) == []


def test_without_the_option(version: Version) -> None:
    sock = version.open(errors=False)
    sock.connect(version.unheard())
    sock.send(b"x")
    assert errors_pending(sock)
    assert not ours_to_read(sock)
    assert read_errors(sock, 1) == []
    with pytest.raises(ConnectionRefusedError):  # it is left where it was
        sock.send(b"x")


def test_the_option_of_somebody_else(version: Version) -> None:
    sock = version.open(errors=False)
    if version.name == "inet6":
        sock.setsockopt(socket.IPPROTO_IPV6, error_queue.IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, error_queue.IP_RECVERR, 1)
    provoke(sock, version.unheard(), b"x")
    assert [error.data for error in read_errors(sock, 2)] == [b"x"]


def test_switched_off(version: Version) -> None:
    sock = version.open()
    provoke(sock, version.unheard(), b"x", b"y")
    report_errors(sock, False)
    assert not ours_to_read(sock)
    assert read_errors(sock, 2) == []
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert not errors_pending(sock)


@pytest.mark.parametrize("flags", [TX_SOFTWARE | SOFTWARE, SOFTWARE | 1 << 7 | 1 << 11])
def test_transmit_timestamps_are_the_programs(version: Version, flags: int) -> None:
    """Though IP_RECVERR is on too: the queue is one, and can't be peeked at."""
    sock = version.open(errors=False)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, flags)
    sock.setsockopt(socket.IPPROTO_IP, error_queue.IP_RECVERR, 1)
    assert not ours_to_read(sock)
    with pytest.raises(ValueError, match="transmit timestamps"):
        report_errors(sock, True)
    assert not ours_to_read(sock)


def test_timestamps_of_what_is_received_are_not(version: Version) -> None:
    sock = version.open(errors=False)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE)
    report_errors(sock, True)
    assert ours_to_read(sock)


@pytest.mark.parametrize(
    ("option", "value"),
    [(SO_ZEROCOPY, struct.pack("i", 1)), (SO_TXTIME, struct.pack("=iI", 1, 2))],
)
def test_other_reports_are_the_programs(version: Version, option: int, value: bytes) -> None:
    sock = version.open(errors=False)
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    except OSError as error:
        pytest.skip(f"this kernel has no such option: {error}")
    sock.setsockopt(socket.IPPROTO_IP, error_queue.IP_RECVERR, 1)
    assert not ours_to_read(sock)
    with pytest.raises(ValueError, match="leave icmp_errors out"):
        report_errors(sock, True)


def test_what_else_comes_by_a_queue_of_ours_is_dropped(version: Version) -> None:
    sock = version.open()
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | SOFTWARE)
    provoke(sock, version.unheard(), b"first", b"second")
    assert [error.data for error in read_errors(sock, 64)] == [b"first", b"second"]
    assert not errors_pending(sock)


def test_a_socket_object_that_became_another_socket(version: Version) -> None:
    sock = version.open()
    family = sock.family
    sock.close()
    sock.__init__(family, socket.SOCK_DGRAM)  # type: ignore[misc]
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | SOFTWARE)
    sock.setsockopt(socket.IPPROTO_IP, error_queue.IP_RECVERR, 1)
    assert not ours_to_read(sock)
    sock.close()
    assert not ours_to_read(sock)


def test_nothing_is_kept_of_sockets_that_are_gone(version: Version) -> None:
    before = len(error_queue.ASKED)
    sock = version.open()
    assert len(error_queue.ASKED) == before + 1
    sock.close()
    version._stack.pop_all()
    del sock
    assert len(error_queue.ASKED) == before


@pytest.mark.parametrize("kind", ["unix", "stream", "closed"])
def test_other_sockets_have_none(kind: str) -> None:
    """MSG_ERRQUEUE means nothing to a unix socket: a packet would be read."""
    if kind == "unix":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.send(b"x")
    else:
        ours, theirs = socket.socket(), socket.socket()
    if kind == "closed":
        ours.close()
    with ours, theirs:
        assert read_errors(ours, 1) == []
        assert not errors_pending(ours) or kind == "stream"
        if kind == "unix":
            assert ours.recv(9) == b"x"


# The errors themselves


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ECONNREFUSED, ConnectionRefusedError),
        (errno.EACCES, PermissionError),
        (errno.EHOSTUNREACH, OSError),
    ],
)
def test_copies_and_pickles(code: int, kind: type[OSError]) -> None:
    error = IcmpError(code, ("192.0.2.1", 53), "192.0.2.9", 3, 1, 1280, False, b"data")
    for same in (error, copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert isinstance(same, IcmpError)
        assert isinstance(same, kind)
        assert type(same).__name__ == "IcmpError"
        assert same.args == error.args
        assert vars(same) == vars(error)
        assert same.destination == ("192.0.2.1", 53)
        assert same.mtu == 1280


def test_a_destination_without_a_port_or_a_reporter() -> None:
    details: dict[str, Any] = {"destination": ("192.0.2.1", 0), "mtu": 1280}
    assert str(IcmpError(errno.EMSGSIZE, **details)).endswith(
        "Message too long: to 192.0.2.1, where 1280 bytes pass, reported by the network "
        "(ICMP type 0, code 0)"
    )
