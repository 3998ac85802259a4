"""A receiver that gets control data, and senders that have it say something."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

from anyio_mmsg._system.control import SOL_IP, SOL_IPV6
from anyio_mmsg._system.options import ask_for

LOOPBACK = socket.if_nametoindex("lo") if hasattr(socket, "if_nametoindex") else 0
IP_TOS, IP_TTL, IPV6_UNICAST_HOPS, IPV6_TCLASS = 1, 2, 16, 67  # linux/in.h, linux/in6.h

OPTIONS = ("timestamps", "destinations", "ecn", "hop_limits")
ALL: dict[str, bool] = dict.fromkeys(OPTIONS, True)


class Line:
    """A receiver at all addresses of a kind, and a sender.

    Args:
        kind: "inet", "inet6", or "mapped": IPv4 to a dual-stack socket.
        asked: For `ask_for`.
    """

    def __init__(self, kind: str, **asked: bool) -> None:
        self.kind = kind
        self._sockets = ExitStack()
        self.receiver = self._open("0.0.0.0" if kind == "inet" else "::")
        ask_for(self.receiver, **asked)
        self.sender = self._open("::1" if kind == "inet6" else "127.0.0.1")
        self.port = self.receiver.getsockname()[1]
        self.hosts = ["::1"] if kind == "inet6" else ["127.0.0.1", "127.0.0.2"]
        self.name: Any = self.sender.getsockname()
        if kind == "mapped":
            self.name = ("::ffff:127.0.0.1", self.name[1], 0, 0)

    def _open(self, host: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = self._sockets.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, 0))
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        return sock

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._sockets.close()

    def send(self, data: bytes, host: str | None = None, tos: int = 0, hops: int = 64) -> None:
        if self.kind == "inet6":
            self.sender.setsockopt(SOL_IPV6, IPV6_TCLASS, tos)
            self.sender.setsockopt(SOL_IPV6, IPV6_UNICAST_HOPS, hops)
        else:
            self.sender.setsockopt(SOL_IP, IP_TOS, tos)
            self.sender.setsockopt(SOL_IP, IP_TTL, hops)
        self.sender.sendto(data, (host or self.hosts[0], self.port))

    def shown(self, host: str) -> str:
        """How a destination is shown: mapped, if the socket has the other version."""
        return f"::ffff:{host}" if self.kind == "mapped" else host
