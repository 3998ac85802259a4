"""A socket that hears nothing for a while: from before it is bound until it is connected.

Between the two a UDP socket would take packets from anybody. So it gets a packet filter that
drops everything (SO_ATTACH_FILTER, socket(7)), which is taken away again once it is connected.
"""

from __future__ import annotations

import socket
import struct
from array import array

from .platform import ON_LINUX

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h; Python does not name them
_RETURN_NOTHING = struct.pack("=HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: keep 0 bytes of a packet


def hear_nothing(sock: socket.socket) -> bool:
    """Have the kernel drop all that comes for a socket; return whether it can."""
    if not ON_LINUX:
        return False
    program = array("B", _RETURN_NOTHING)  # which the kernel copies during the call
    address, _ = program.buffer_info()
    try:
        sock.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, address)
        )  # struct sock_fprog
    except OSError:  # forbidden here, or not emulated
        return False
    return True


def hear_again(sock: socket.socket) -> None:
    """End what `hear_nothing` began."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
