"""Sockets bound to all addresses, and what shows where an answer came from."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from anyio_mmsg import PacketBatch, SendResult, send_mmsg_nowait
from anyio_mmsg._system.options import ask_for
from anyio_mmsg._system.platform import ON_LINUX

from ..helpers import drain, have_ipv6

linux = pytest.mark.skipif(not ON_LINUX, reason="control data is sent on Linux")

_IPV6 = pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")

PLACES = {
    "inet": ["127.0.0.1", "127.0.0.2"],
    "inet6": ["::1"],  # loopback has but this one; source_network.py has more
    "dual": ["127.0.0.1", "127.0.0.2", "::1"],
}
"""By kind of socket, where it can be reached."""

NOT_OURS = {errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH}
"""What kernels say to a source that is not this machine's, the last one for want of a route."""

each_kind = pytest.mark.parametrize(
    "kind", ["inet", pytest.param("inet6", marks=_IPV6), pytest.param("dual", marks=_IPV6)]
)


@contextmanager
def wildcard(kind: str, **wanted: bool) -> Iterator[socket.socket]:
    """A socket bound to all addresses, which asks for control data."""
    family = socket.AF_INET if kind == "inet" else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if kind != "inet":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, kind == "inet6")
        ask_for(sock, **wanted)
        sock.bind(("", 0))
        sock.setblocking(False)
        yield sock


@contextmanager
def client(place: str) -> Iterator[socket.socket]:
    """A socket for a place, at the first loopback address of its family."""
    family = socket.AF_INET6 if ":" in place else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1" if ":" in place else "127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


def seen_from(sock: socket.socket, other: socket.socket) -> Any:
    """The address of `sock`, as `other` has to write it."""
    host, port, *_ = sock.getsockname()
    if other.family == sock.family:
        return host, port
    return f"::ffff:{host}", port


def sources(sock: socket.socket) -> list[tuple[bytes, str]]:
    """What has arrived, and the host that each came from."""
    got: list[tuple[bytes, str]] = []
    while True:
        try:
            data, address = sock.recvfrom(70_000)
        except BlockingIOError:
            return got
        got.append((data, address[0]))


def ask(
    server: socket.socket, asking: socket.socket, batch: PacketBatch, places: list[str]
) -> None:
    """Have a batch hold questions that were sent to these places: 0, 1, 2, ..."""
    for number, place in enumerate(places):
        asking.sendto(b"%d" % number, (place, server.getsockname()[1]))
    drain(server, batch, len(places))


Answer = Callable[..., SendResult]


def _batch(sock: socket.socket, batch: PacketBatch, **how: Any) -> SendResult:
    return send_mmsg_nowait(sock, batch, **how)


def _packets(sock: socket.socket, batch: PacketBatch, **how: Any) -> SendResult:
    return send_mmsg_nowait(sock, iter(batch), **how)


def _pairs(sock: socket.socket, batch: PacketBatch, **how: Any) -> SendResult:
    return send_mmsg_nowait(sock, [(bytes(packet.data), packet) for packet in batch], **how)


def _mixed(sock: socket.socket, batch: PacketBatch, **how: Any) -> SendResult:
    items: list[Any] = [
        packet if number % 2 else [packet.data, packet] for number, packet in enumerate(batch)
    ]
    return send_mmsg_nowait(sock, items, **how)


each_answer = pytest.mark.parametrize(
    "answer", [_batch, _packets, _pairs, _mixed], ids=["batch", "packets", "pairs", "mixed"]
)
segmented = pytest.mark.parametrize("gso", [False, True], ids=["single", "gso"])
