"""Plain sockets on the loopback interface: opening, filling, and what the kernel dropped."""

from __future__ import annotations

import socket
import struct
import sys

LOOPBACK = "127.0.0.1"

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
        What was granted, as SO_RCVBUF tells. Linux grants, and tells, twice what was asked for,
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


def fill(sender: socket.socket, receiver: socket.socket, count: int, payload: int) -> int:
    """Send `count` datagrams of `payload` bytes; return how many fit into the receiver's buffer.

    On the loopback interface a datagram is in the receiver's queue, or dropped, when the
    send returns.
    """
    data = bytes(payload)
    before = drops(receiver)
    send = sender.send
    for _ in range(count):
        send(data)
    return count - (drops(receiver) - before)
