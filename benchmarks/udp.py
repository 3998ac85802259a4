"""Plain sockets on the loopback interface: opening, filling, and what the kernel dropped."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import ExitStack
from typing import Any

LOOPBACK = "127.0.0.1"

LARGEST = 65_507  # bytes of a datagram over IPv4

FILES = 100  # that a process has open besides its sockets, and to spare

_SO_RCVBUFFORCE = 33  # socket(7); the socket module does not have it
_SO_MEMINFO = 55  # linux/sock_diag.h: nine u32, of which SK_MEMINFO_DROPS is the last
_MEMINFO = struct.Struct("9I")


def open_socket() -> socket.socket:
    """Open a nonblocking UDP socket, bound to a free port of the loopback interface."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((LOOPBACK, 0))
    sock.setblocking(False)
    return sock


def open_sender(port: int | None = None) -> socket.socket:
    """Open a blocking UDP socket, connected to `port` of the loopback interface if given."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if port is not None:
        sock.connect((LOOPBACK, port))
    return sock


def allow_sockets(count: int) -> None:
    """Have this process hold `count` sockets, and some files, as far as the system permits."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def set_buffer(sock: socket.socket, size: int) -> int:
    """Ask for a receive buffer of `size` bytes, beyond the system's limit where permitted.

    Returns:
        What was granted, as SO_RCVBUF reports. Linux grants and reports twice what was asked for,
        since it counts its own overhead too (socket(7)).
    """
    try:
        if sys.platform != "linux":
            raise PermissionError
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def drops(sock: socket.socket) -> int:
    """Return how many datagrams the kernel dropped at this socket, ever; 0 if it won't say."""
    if sys.platform != "linux":
        return 0
    info = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    return int(_MEMINFO.unpack(info)[-1])


class Filler:
    """Sends datagrams to one socket, the same each time: see `fill`. A context manager.

    Args:
        receiver: The socket to fill.
        count: Datagrams.
        payload: Bytes of each, if `least` is the same or 0.
        least: If less than `payload`, sizes go round from here to one byte less than `payload`.
        senders: Sockets that take turns in sending.

    Attributes:
        octets: Bytes of payload in all.
    """

    STEP = 37  # between the sizes of datagrams that follow each other; arbitrary

    def __init__(
        self, receiver: socket.socket, count: int, payload: int, least: int = 0, senders: int = 1
    ) -> None:
        self.count = count
        self._stack = ExitStack()
        self._turn = 0
        data = memoryview(bytes(payload))
        if 0 < least < payload:
            self._payloads = [
                data[: least + i * self.STEP % (payload - least)] for i in range(count)
            ]
        else:
            self._payloads = [data] * count
        self.octets = sum(map(len, self._payloads))
        allow_sockets(senders)
        port = receiver.getsockname()[1]
        self._sends = [self._stack.enter_context(open_sender(port)).send for _ in range(senders)]

    def __enter__(self) -> Filler:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets that it sends from."""
        self._stack.close()

    def fill(self, receiver: socket.socket) -> int:
        """Send all; return how many fit into the receiver's buffer.

        On the loopback interface a datagram is in the receiver's queue, or dropped, when the
        send returns.
        """
        before = drops(receiver)
        sends, turn = self._sends, self._turn
        if len(sends) == 1:
            send = sends[0]
            for data in self._payloads:
                send(data)
        else:
            for data in self._payloads:
                sends[turn](data)
                turn = (turn + 1) % len(sends)
            self._turn = turn
        return self.count - (drops(receiver) - before)


def empty(sock: socket.socket, sender: Any = None) -> int:
    """Receive all that came; return how many came from the address `sender`, if it is given.

    Others may still send to whoever had a socket's port before.
    """
    buffer = bytearray(LARGEST)
    got = 0
    try:
        while True:
            address = sock.recvfrom_into(buffer)[1]
            got += sender is None or address == sender
    except BlockingIOError:
        return got
