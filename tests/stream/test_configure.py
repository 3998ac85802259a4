"""`configure_udp_socket`: the options of `open_udp_socket` for a socket that exists."""

from __future__ import annotations

import inspect
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import anyio
import pytest

from anyio_mmsg import (
    IcmpError,
    PacketBatch,
    ReceiveEngine,
    configure_udp_socket,
    open_udp_socket,
    recv_mmsg,
    recv_mmsg_nowait,
)
from anyio_mmsg._system import control, options, stamps
from anyio_mmsg._system.options import has_control_data, has_gro

from ..helpers import contents, have_ipv6

pytestmark = pytest.mark.anyio
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="options of Linux")
SWITCHES = (
    "timestamps",
    "destinations",
    "ecn",
    "hop_limits",
    "gro",
    "icmp_errors",
    "dont_fragment",
)


@pytest.fixture(
    params=[
        "127.0.0.1",
        *(
            pytest.param(
                host, marks=pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
            )
            for host in ("::1", "::")
        ),
    ]
)
def sock(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A socket that another library has made, nonblocking and bound."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if request.param == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setblocking(False)
        sock.bind((request.param, 0))
        yield sock


def settings(sock: socket.socket) -> dict[tuple[int, int], int]:
    """What the socket's options are that can be configured."""
    found = {}
    for level, numbers in (
        (socket.SOL_SOCKET, (stamps.SO_TIMESTAMPNS_NEW, stamps.SO_TIMESTAMPNS_OLD)),
        (control.SOL_IP, (control.IP_PKTINFO, 11, 12, 13, options.IP_MTU_DISCOVER)),
        (control.SOL_IPV6, (options.IPV6_MTU_DISCOVER, 25, 49, 51, 66)),
        (control.SOL_UDP, (control.UDP_GRO,)),
    ):
        for number in numbers:
            try:
                found[level, number] = sock.getsockopt(level, number)
            except OSError:
                found[level, number] = -1
    return found


@on_linux
@pytest.mark.parametrize("name", SWITCHES)
async def test_as_a_socket_that_is_opened_with_it(sock: socket.socket, name: str) -> None:
    before = settings(sock)
    configure_udp_socket(sock)
    assert settings(sock) == before
    asked: dict[str, Any] = {name: True}
    configure_udp_socket(sock, **asked)
    dual: dict[str, Any] = {"v6only": False} if sock.getsockname()[0] == "::" else {}
    with await open_udp_socket(sock.getsockname()[0], **asked, **dual) as opened:
        assert settings(sock) == settings(opened) != before
    configure_udp_socket(sock)
    assert settings(sock) != before
    if name == "gro":
        with pytest.raises(ValueError, match="gro can't be switched off on an open socket"):
            configure_udp_socket(sock, gro=False, timestamps=True)
        assert not sock.getsockopt(socket.SOL_SOCKET, stamps.SO_TIMESTAMPNS_NEW)
    else:
        configure_udp_socket(sock, **{name: False})
        assert settings(sock) == before
        configure_udp_socket(sock, **{name: False})
        assert settings(sock) == before


@on_linux
def test_has_control_data(sock: socket.socket) -> None:
    """What a receiver's default pool follows, whoever has set the option."""
    so_timestamping, rx_software = 37, 1 << 3
    assert not has_control_data(sock)
    for name in SWITCHES:
        if name not in ("gro", "icmp_errors", "dont_fragment"):
            configure_udp_socket(sock, **{name: True})
            assert has_control_data(sock)
            configure_udp_socket(sock, **{name: False})
        assert not has_control_data(sock)
    sock.setsockopt(socket.SOL_SOCKET, so_timestamping, rx_software)
    assert has_control_data(sock)


@on_linux
def test_gro_after_a_first_receive(sock: socket.socket, engine: ReceiveEngine) -> None:
    """A plain batch can't tell the packets of a train apart: it is refused from then on."""
    to = (sock.getsockname()[0].replace("::", "::1").replace("::11", "::1"), sock.getsockname()[1])
    batch, other = PacketBatch(engine=engine), PacketBatch(engine=engine, gro=True)
    sock.sendto(b"1", to)
    assert recv_mmsg_nowait(sock, batch) == 1
    configure_udp_socket(sock, timestamps=True)
    sock.sendto(b"2", to)
    assert recv_mmsg_nowait(sock, batch) == 1
    configure_udp_socket(sock, gro=True)
    assert has_gro(sock)
    sock.sendto(b"3", to)
    with pytest.raises(ValueError, match="the socket has UDP_GRO on"):
        recv_mmsg_nowait(sock, batch)
    assert recv_mmsg_nowait(sock, other) == 1
    assert contents(batch) + contents(other) == [b"1", b"2", b"3"]


@on_linux
async def test_errors_of_a_socket_that_exists(sock: socket.socket) -> None:
    host = "::1" if sock.family == socket.AF_INET6 else "127.0.0.1"
    with socket.socket(sock.family, socket.SOCK_DGRAM) as gone:
        gone.bind((host, 0))
        address = gone.getsockname()
    configure_udp_socket(sock, icmp_errors=True)
    sock.sendto(b"x", address)
    with anyio.fail_after(60), pytest.raises(IcmpError):
        await recv_mmsg(sock, PacketBatch())


def test_buffers(sock: socket.socket) -> None:
    before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    configure_udp_socket(sock, receive_buffer_size=20_000)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) in (20_000, 40_000)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == before
    configure_udp_socket(sock, send_buffer_size=30_000)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) in (30_000, 60_000)


def test_a_warning_points_here(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    from anyio_mmsg._stream import buffers

    monkeypatch.setattr(buffers, "ON_LINUX", False)  # so that CAP_NET_ADMIN is not used
    with pytest.warns(RuntimeWarning, match="the system granted a receive buffer") as warned:
        configure_udp_socket(sock, receive_buffer_size=2**30 - 1)
    assert Path(warned[0].filename) == Path(__file__)


def test_all_arguments_are_those_of_open_udp_socket() -> None:
    ours = inspect.signature(configure_udp_socket).parameters
    theirs = inspect.signature(open_udp_socket).parameters
    assert set(ours) - {"sock"} <= set(theirs)
    assert {*SWITCHES, "receive_buffer_size", "send_buffer_size"} == set(ours) - {"sock"}


# What is refused


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", [1, 0, "no"])
def test_not_a_bool(sock: socket.socket, name: str, value: Any) -> None:
    before = settings(sock)
    with pytest.raises(TypeError, match=f"{name} is a .*; give True or False"):
        configure_udp_socket(sock, **{"receive_buffer_size": 9999, name: value})
    assert settings(sock) == before


@pytest.mark.parametrize("name", SWITCHES)
def test_another_platform(sock: socket.socket, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "ON_LINUX", False)
    with pytest.raises(ValueError, match=f"{name}=True needs Linux"):
        configure_udp_socket(sock, **{name: True})
    configure_udp_socket(sock, **{name: False})  # as it is


@pytest.mark.parametrize("size", [0, -1, 2**30])
def test_a_size_that_is_none(sock: socket.socket, size: int) -> None:
    with pytest.raises(ValueError, match=f"send_buffer_size is {size}"):
        configure_udp_socket(sock, send_buffer_size=size)


@pytest.mark.parametrize("kind", [Mock, AsyncMock])
def test_a_mock(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"has to be a socket\.socket"):
        configure_udp_socket(kind(spec=socket.socket))


def test_other_sockets() -> None:
    with socket.socket() as sock, pytest.raises(ValueError, match="not a UDP socket"):
        configure_udp_socket(sock)
    if hasattr(socket, "AF_UNIX"):
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with unix, pytest.raises(ValueError, match="not a UDP socket"):
            configure_udp_socket(unix, timestamps=True)
    with pytest.raises(anyio.ClosedResourceError):
        configure_udp_socket(sock)


@on_linux
def test_transmit_timestamps_and_errors_exclude_each_other(sock: socket.socket) -> None:
    so_timestamping, tx_software = 37, 1 << 1
    sock.setsockopt(socket.SOL_SOCKET, so_timestamping, tx_software)
    before = settings(sock)
    with pytest.raises(ValueError, match="transmit timestamps"):
        configure_udp_socket(sock, icmp_errors=True, timestamps=True)
    assert settings(sock) == before
