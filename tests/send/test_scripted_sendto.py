"""A sendto whose answers are scripted."""

from __future__ import annotations

import errno
import gc
import socket
import weakref
from collections import deque
from contextlib import closing
from typing import Any

import pytest

from anyio_mmsg import SendResult, UnusableSocketError, send_mmsg_nowait

PACKETS = [(b"%d" % number, ("127.0.0.1", 9)) for number in range(6)]


class ScriptedSender(socket.socket):
    """A socket whose sendto follows a script: an error to raise, or None to send."""

    def __init__(self, *script: OSError | None) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.setblocking(False)
        self.script = deque(script)
        self.taken: list[bytes] = []

    def sendto(self, data: Any, *args: Any) -> int:
        step = self.script.popleft() if self.script else None
        if step is not None:
            raise step
        self.taken.append(bytes(data))
        return len(data)


def test_sendto_is_called_again() -> None:
    unreachable = OSError(errno.EHOSTUNREACH, "no route")
    steps = [InterruptedError(), None, unreachable, None, InterruptedError(), BlockingIOError()]
    with closing(ScriptedSender(*steps)) as sock:
        result = send_mmsg_nowait(sock, PACKETS, engine="sendto")
        assert (result.sent, result.failures) == (2, [(1, unreachable)])
        result = send_mmsg_nowait(sock, PACKETS[result.handled :], engine="sendto")
        assert result == SendResult(3, [])
        assert sock.taken == [b"0", b"2", b"3", b"4", b"5"]


def test_unusable_by_sendto() -> None:
    with closing(ScriptedSender(None, OSError(errno.EBADF, "bad"))) as sock:
        with pytest.raises(UnusableSocketError) as raised:
            send_mmsg_nowait(sock, PACKETS, engine="sendto")
        assert raised.value.result == SendResult(1, [])


def test_failures_do_not_keep_the_socket_alive() -> None:
    sock = ScriptedSender(OSError(errno.EHOSTUNREACH, "no route"))
    result = send_mmsg_nowait(sock, PACKETS, engine="sendto")
    gone = weakref.ref(sock)
    sock.close()
    gc.disable()
    try:
        del sock
        assert gone() is None
    finally:
        gc.enable()
    assert len(result.failures) == 1
