"""The C side: struct layouts, constants, and the bindings. No policy.

Layouts are those of the kernel's ABI, recvmmsg(2) and recvmsg(2), in ctypes types so that they
fit 32- and 64-bit machines alike. glibc's are the same. musl declares `msg_iovlen` and
`msg_controllen` as 32 bits with 32 bits of padding, which it clears before the call: the same
bytes again, since both numbers are small.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeAlias, cast


class Iovec(ctypes.Structure):
    _fields_ = [("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    _fields_ = [
        ("msg_name", ctypes.c_void_p),
        ("msg_namelen", ctypes.c_uint32),
        ("msg_iov", ctypes.c_void_p),
        ("msg_iovlen", ctypes.c_size_t),
        ("msg_control", ctypes.c_void_p),
        ("msg_controllen", ctypes.c_size_t),
        ("msg_flags", ctypes.c_int),
    ]


class Mmsghdr(ctypes.Structure):
    _fields_ = [("msg_hdr", Msghdr), ("msg_len", ctypes.c_uint32)]


class SegmentSize(ctypes.Structure):
    """A control message, cmsg(3), that has one number of 16 bits; padded as CMSG_SPACE says."""

    _fields_ = [
        ("cmsg_len", ctypes.c_size_t),
        ("cmsg_level", ctypes.c_int),
        ("cmsg_type", ctypes.c_int),
        ("size", ctypes.c_uint16),
    ]


# Linux's own on every machine (include/linux/socket.h). As plain ints: to combine Python's enums
# costs as much as the system call.
MSG_TRUNC = 0x20
MSG_DONTWAIT = 0x40

UIO_MAXIOV = 1024
"""The most messages of one recvmmsg or sendmmsg call; the kernel cuts a larger number in
silence. Also the most iovecs of one message."""

# Segmentation offload (linux/udp.h), which Python does not name. 64 segments are what each kernel
# takes that has it (4.18); later ones take 128.
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_MAX_SEGMENTS = 64

Recvmmsg: TypeAlias = Callable[[int, int, int, int, None], int]
"""recvmmsg(fd, address of the first mmsghdr, how many, flags, no timeout): how many were filled,
or -1 and the reason in `ctypes.get_errno`."""

Sendmmsg: TypeAlias = Callable[[int, int, int, int], int]
"""sendmmsg(fd, address of the first mmsghdr, how many, flags): how many were sent, or -1 and the
reason in `ctypes.get_errno`."""

_ARGTYPES = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


def load_recvmmsg() -> Recvmmsg | None:
    """Return the C library's recvmmsg, or None if it has none."""
    return cast("Recvmmsg | None", _load("recvmmsg", *_ARGTYPES, ctypes.c_void_p))


def load_sendmmsg() -> Sendmmsg | None:
    """Return the C library's sendmmsg, or None if it has none."""
    return cast("Sendmmsg | None", _load("sendmmsg", *_ARGTYPES))


def _load(name: str, *argtypes: Any) -> object:
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError, TypeError):  # the last on Windows
        return None
    function.restype = ctypes.c_int
    function.argtypes = argtypes
    return function
