"""What tests put in the place of `open_udp_socket` in a program of a page."""

from __future__ import annotations

import socket
from typing import Any

from anyio.lowlevel import checkpoint

from anyio_mmsg import open_udp_socket

from ..helpers import attempts


class Opening:
    """`open_udp_socket` that opens free ports, where some packets wait already.

    Args:
        packets: They are sent to each socket as soon as it is open.
        instead: Options that replace those of the program.

    Attributes:
        opened: The sockets, in order.
    """

    def __init__(self, *packets: bytes, **instead: Any) -> None:
        self._packets = packets
        self._instead = instead
        self.opened: list[socket.socket] = []

    async def __call__(
        self, local_host: str | None = None, local_port: int = 0, **options: Any
    ) -> socket.socket:
        options.pop("receive_buffer_size", None)  # which may be more than is granted here
        sock = await open_udp_socket(local_host, 0, **options | self._instead)
        self.opened.append(sock)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for packet in self._packets:
                sender.sendto(packet, ("127.0.0.1", sock.getsockname()[1]))
        return sock

    async def address(self) -> tuple[str, int]:
        """Wait until the program has opened a socket; return where it is reached."""
        await until(lambda: self.opened)
        return "127.0.0.1", self.opened[0].getsockname()[1]


async def until(condition: Any) -> None:
    """Let others run until a function returns something true."""
    for _ in attempts():
        if condition():
            return
        await checkpoint()
