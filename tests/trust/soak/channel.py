"""Lines of JSON through a socket, and the event loops that all processes of the soak run on."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

from anyio_mmsg._compat import wait_socket_readable

BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
"""What `anyio.run` is given for each event loop."""

PYTHON = [sys.executable, *["-O"] * sys.flags.optimize]
"""How this interpreter is started again."""


class Channel:
    """One end of a connected stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)

    def say(self, **message: Any) -> None:
        """Send a message, short enough for the buffer. It is lost if the other end is closed."""
        with contextlib.suppress(BrokenPipeError):
            self._sock.sendall(json.dumps(message).encode() + b"\n")

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Give the other end's messages, until it is closed."""
        unread = b""
        while True:
            await wait_socket_readable(self._sock)
            try:
                data = self._sock.recv(1 << 16)
            except ConnectionResetError:  # it was closed with messages of ours unread
                return
            if not data:
                return
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                yield json.loads(line)

    def close(self) -> None:
        """Close this end: the other one's messages are over."""
        self._sock.close()
