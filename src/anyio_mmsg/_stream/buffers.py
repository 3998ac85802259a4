"""The sizes of a socket's buffers in the kernel: asking for one, and saying what was granted."""

from __future__ import annotations

import contextlib
import socket
import warnings
from typing import Literal

from .._arguments import whole_number
from .._log import SYSTEM
from .._system.platform import ON_LINUX

# Options of Linux that Python does not name (asm-generic/socket.h).
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

_BUFFERS = {
    "receive": (socket.SO_RCVBUF, _SO_RCVBUFFORCE, "net.core.rmem_max"),
    "send": (socket.SO_SNDBUF, _SO_SNDBUFFORCE, "net.core.wmem_max"),
}
_FULL = {"receive": "are lost", "send": "wait for it, or are not sent"}


def check_buffer_size(which: Literal["receive", "send"], size: int | None) -> None:
    """Raise TypeError or ValueError for a size that can't be asked for; None is the default."""
    if size is not None:
        fix = "give bytes, at most 1,073,741,823 (half a C int's), or None for the default"
        if whole_number(f"{which}_buffer_size", size, 1, fix) >= 2**30:
            raise ValueError(f"{which}_buffer_size is {size}; {fix}")


def set_buffer_size(sock: socket.socket, which: Literal["receive", "send"], size: int) -> None:
    """Set the size of a buffer, and warn, and log it, if fewer bytes were granted.

    The warning points to the caller of the caller's caller.
    """
    option, force, limit = _BUFFERS[which]
    # Linux doubles the size, to have room for its own bookkeeping, and reports the double.
    factor = 2 if ON_LINUX else 1
    sock.setsockopt(socket.SOL_SOCKET, option, size)
    granted = sock.getsockopt(socket.SOL_SOCKET, option) // factor
    if granted < size and ON_LINUX:
        with contextlib.suppress(PermissionError):
            sock.setsockopt(socket.SOL_SOCKET, force, size)
        granted = sock.getsockopt(socket.SOL_SOCKET, option) // factor
    if granted < size:
        remedy = (
            f"sysctl -w {limit}={size}" if ON_LINUX else "the system's limit on socket buffers"
        )
        message = (
            f"the system granted a {which} buffer of {granted:,} bytes instead of {size:,}, and "
            f"packets that find no room {_FULL[which]}. Raise it: {remedy}"
        )
        if SYSTEM.hasHandlers():  # else Python would print it here, and as a warning
            SYSTEM.warning(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)
