"""What the system has, and what it refused. The only place that asks for the platform."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Literal

from .._load import module, why_not_compiled
from .._log import SYSTEM

ON_LINUX = sys.platform == "linux"
ON_WINDOWS = sys.platform == "win32"


# The compiled module has them on Linux alone.
Recvmmsg: Any = getattr(module, "Recvmmsg", None)
"""The engine that calls recvmmsg(2), or None if it is unavailable."""

again: Any = getattr(module, "again", None)
ready: Any = getattr(module, "ready", None)
refill: Any = getattr(module, "refill", None)
take_datagrams: Any = getattr(module, "datagrams", None)
"""Checks of the receive functions as one step, or None; see _compiled/again.c."""

Sendmmsg: Any = getattr(module, "Sendmmsg", None)
"""The sender that calls sendmmsg(2), or None if it is unavailable."""

Shortcut: Any = getattr(module, "Shortcut", None)
"""What makes the usual send in one step, or None if it is unavailable."""

Entry: Any = getattr(module, "Entry", None)
"""What has the usual calls of a function made in C, or None if it is unavailable."""

MSG_DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
"""The flag that keeps a call from waiting, as a plain int: to combine Python's enums costs as
much as the system call. 0 where the system lacks it; the sockets are nonblocking anyway."""

RECEIVE_FLAGS = MSG_DONTWAIT
"""For each receive. On Linux MSG_TRUNC makes it return a datagram's length as sent, though it was
cut (recv(2))."""

ASK_FOR_FLAGS = False
"""Whether truncation shows only in the flags that recvmsg returns, without the length: macOS and
the BSDs. Windows raises WSAEMSGSIZE."""

if ON_LINUX:
    RECEIVE_FLAGS |= int(socket.MSG_TRUNC)
else:
    ASK_FOR_FLAGS = hasattr(socket.socket, "recvmsg_into")


# Not socket.socket.family and .type, which build an enum at each access: the ints beneath them.
family_of: Callable[[socket.socket], int] = socket.SocketType.family.__get__
type_of: Callable[[socket.socket], int] = socket.SocketType.type.__get__
proto_of: Callable[[socket.socket], int] = socket.SocketType.proto.__get__


# Families and protocols of Linux that take MSG_TRUNC as an argument (recv(2)); without a number
# of its own, a socket of AF_INET or AF_INET6 is one for UDP.
_REPORT_LENGTHS = {
    getattr(socket, f"AF_{name}", None) for name in ("INET", "INET6", "UNIX", "NETLINK", "PACKET")
}
_PING = {socket.IPPROTO_ICMP, getattr(socket, "IPPROTO_ICMPV6", 58), 115}  # and L2TP


def hides_cuts(sock: socket.socket) -> bool:
    """Whether a socket of Linux says that a datagram was cut only in the flags of recvmsg(2).

    Ping sockets do (SOCK_DGRAM with IPPROTO_ICMP), and families that few use.
    """
    if not ON_LINUX:
        return False
    if family_of(sock) not in _REPORT_LENGTHS:
        return True
    return proto_of(sock) in _PING and type_of(sock) == socket.SOCK_DGRAM


def inode_of(sock: socket.socket) -> int:
    """Return the number that the system has for this very socket, as opposed to its descriptor."""
    try:
        return os.fstat(sock.fileno()).st_ino
    except OSError:  # closed; or on Windows, where sockets are not files
        return 0


class Refused:
    """Whether the system refused a call, twice: ENOSYS, or EPERM from a seccomp filter.

    A refusal applies to the whole process, not to one batch.
    """

    recvmmsg = False
    sendmmsg = False


def give_up(call: Literal["recvmmsg", "sendmmsg"]) -> None:
    """Note that the system has refused a call twice, and report it once."""
    if not getattr(Refused, call):
        setattr(Refused, call, True)
        SYSTEM.warning(
            "the system refuses %s(2): from now on each packet costs a system call. If a sandbox "
            "forbids it (seccomp, in containers and systemd units), allow it there",
            call,
        )


def why_no_batch_calls() -> str:
    """Return why the batch calls of Linux are unavailable here, for a message; or ""."""
    if not ON_LINUX:
        return f"needs Linux, and this platform is {sys.platform}"
    if why_not_compiled:
        return f"needs the compiled module, and {why_not_compiled}"
    return ""
