"""Sockets of each version of IP that hear of what becomes of their packets."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from anyio_mmsg._system.error_queue import report_errors

from ..helpers import have_ipv6, unheard

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if sys.platform != "linux":
        for item in items:
            if FOLDER in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="error queues are a part of Linux"))


class Version:
    """Makes nonblocking UDP sockets of one version of IP, and closes them.

    Attributes:
        name: "inet", "inet6" or "dual": the last are IPv6 sockets that talk IPv4.
        host: This machine, as such a socket writes it.
    """

    def __init__(self, name: str, stack: ExitStack) -> None:
        self.name = name
        self.host = {"inet": "127.0.0.1", "inet6": "::1", "dual": "::ffff:127.0.0.1"}[name]
        self._stack = stack

    def open(self, errors: bool = True) -> socket.socket:
        """Return a bound socket; with `errors` it has asked for them, as our options do."""
        family = socket.AF_INET if self.name == "inet" else socket.AF_INET6
        sock = self._stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        sock.setblocking(False)
        if self.name == "dual":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if errors:
            report_errors(sock, True)
        sock.bind((self.host, 0))
        return sock

    def unheard(self) -> tuple[str, int]:
        """Return an address of this machine where nobody listens."""
        return self.host, unheard(self.open(errors=False))[1]


@pytest.fixture(
    params=[
        "inet",
        *(
            pytest.param(
                name, marks=pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
            )
            for name in ("inet6", "dual")
        ),
    ]
)
def version(request: pytest.FixtureRequest) -> Iterator[Version]:
    with ExitStack() as stack:
        yield Version(request.param, stack)


def provoke(sock: socket.socket, address: tuple[str, int], *datas: bytes) -> None:
    """Send datagrams that nobody receives; loopback reports each within the send."""
    for data in datas:
        try:
            sock.sendto(data, address)
        except ConnectionRefusedError:  # that of the one before
            sock.sendto(data, address)
