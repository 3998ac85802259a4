"""The C side: struct layouts, constants, the binding, and sockaddr decoding. No policy.

Layouts are those of the kernel's ABI, recvmmsg(2) and recvmsg(2), in ctypes types so that they
fit 32- and 64-bit machines alike. glibc's are the same. musl declares `msg_iovlen` and
`msg_controllen` as 32 bits with 32 bits of padding, which it clears before the call: the same
bytes again, since both numbers are small.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Callable
from typing import TypeAlias, cast

from ._batch import Address


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


SOCKADDR_SIZE = 128
"""Bytes of sockaddr_storage: room for the address of any family (RFC 3493 section 3.10)."""

# Linux's own on every machine (include/linux/socket.h). As plain ints: to combine Python's enums
# costs as much as the system call.
MSG_TRUNC = 0x20
MSG_DONTWAIT = 0x40

UIO_MAXIOV = 1024
"""The most messages of one recvmmsg call; the kernel cuts a larger number in silence."""

_FAMILY = struct.Struct("=H")
_INET = struct.Struct("!2xH4s")  # family, port, address; 8 bytes of padding follow
_INET6 = struct.Struct("!2xHI16s")  # family, port, flow info, address; the scope id follows
_SCOPE_ID = struct.Struct("=I")  # in the host's byte order, unlike the rest

ADDRESS_CACHE_SIZE = 4096
"""Senders whose addresses are remembered. Arbitrary: a large collector's share of busy senders,
in about 1 MB (tracemalloc). More senders, or forged ones, cost a decoding each, not memory."""


def decode_sockaddr(raw: bytes) -> Address:
    """Decode a sockaddr, cut to its length, into what `socket.recvfrom` gives for it.

    An empty one is None: a sender without a name. A family other than AF_INET, AF_INET6 and
    AF_UNIX gives ``(family, bytes)``, as CPython does for those that it does not know.
    """
    if not raw:
        return None
    (family,) = _FAMILY.unpack_from(raw)
    if family == socket.AF_INET:
        port, host = _INET.unpack_from(raw)
        return socket.inet_ntop(socket.AF_INET, host), port
    if family == socket.AF_INET6:
        port, flowinfo, host = _INET6.unpack_from(raw)
        (scope_id,) = _SCOPE_ID.unpack_from(raw, _INET6.size)
        return socket.inet_ntop(socket.AF_INET6, host), port, flowinfo, scope_id
    name = raw[_FAMILY.size :]
    if family == socket.AF_UNIX:
        if name.startswith(b"\0"):
            return name  # abstract: every byte counts (unix(7))
        return os.fsdecode(name.partition(b"\0")[0])
    return family, name


class AddressCache(dict[bytes, Address]):
    """Decoded addresses by sockaddr: ``cache[raw]`` decodes what it does not have.

    A dict, since a hit then costs no call into Python. It is emptied when it is full, so that
    forged senders can't grow it; busy ones are back with their next packet.
    """

    def __missing__(self, raw: bytes) -> Address:
        if len(self) >= ADDRESS_CACHE_SIZE:
            self.clear()
        address = self[raw] = decode_sockaddr(raw)
        return address


Recvmmsg: TypeAlias = Callable[[int, int, int, int, None], int]
"""recvmmsg(fd, address of the first mmsghdr, how many, flags, no timeout): how many were filled,
or -1 and the reason in `ctypes.get_errno`."""


def load_recvmmsg() -> Recvmmsg | None:
    """Return the C library's recvmmsg, or None if it has none."""
    try:
        recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
    except (AttributeError, OSError):
        return None
    recvmmsg.restype = ctypes.c_int
    recvmmsg.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_void_p,
    ]
    return cast(Recvmmsg, recvmmsg)


# Options of sockets on Linux that Python does not name (asm-generic/socket.h, linux/in.h).
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SO_MEMINFO = 55
IPV6_MULTICAST_ALL = 29
IP_MULTICAST_ALL = 49
MCAST_JOIN_GROUP = 42
MCAST_JOIN_SOURCE_GROUP = 46

# SO_MEMINFO's numbers (linux/sock_diag.h, SK_MEMINFO_*): how many, and which ones matter here.
MEMINFO = struct.Struct("=9I")
MEMINFO_RMEM_ALLOC, MEMINFO_RCVBUF, MEMINFO_DROPS = 0, 1, 8


class GroupSourceReq(ctypes.Structure):
    """struct group_source_req; without its last field it is struct group_req (RFC 3678)."""

    _fields_ = [
        ("gsr_interface", ctypes.c_uint32),
        # sockaddr_storage, aligned as for a pointer
        ("gsr_group", ctypes.c_size_t * (SOCKADDR_SIZE // ctypes.sizeof(ctypes.c_size_t))),
        ("gsr_source", ctypes.c_size_t * (SOCKADDR_SIZE // ctypes.sizeof(ctypes.c_size_t))),
    ]


def group_request(interface: int, group: bytes, source: bytes | None) -> bytes:
    """Pack the argument of MCAST_JOIN_GROUP, or with a source of MCAST_JOIN_SOURCE_GROUP.

    Args:
        interface: Its index, 0 to leave the choice to the system.
        group: A packed IPv4 or IPv6 address (4 or 16 bytes).
        source: The same, of the only sender to hear.
    """
    request = GroupSourceReq(gsr_interface=interface)
    size = ctypes.sizeof(request) if source else GroupSourceReq.gsr_source.offset
    memory = bytearray(request)
    for field, host in ((GroupSourceReq.gsr_group, group), (GroupSourceReq.gsr_source, source)):
        if host:
            raw = _sockaddr(host)
            memory[field.offset : field.offset + len(raw)] = raw
    return bytes(memory[:size])


def _sockaddr(host: bytes) -> bytes:
    if len(host) == 4:
        return _FAMILY.pack(socket.AF_INET) + bytes(2) + host + bytes(8)
    return _FAMILY.pack(socket.AF_INET6) + bytes(6) + host + bytes(4)
