"""Layouts of the C structs, and sockaddr decoding."""

from __future__ import annotations

import ctypes
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from anyio_mmsg._libc import (
    ADDRESS_CACHE_SIZE,
    MSG_DONTWAIT,
    MSG_TRUNC,
    SOCKADDR_SIZE,
    AddressCache,
    Iovec,
    Mmsghdr,
    Msghdr,
    decode_sockaddr,
    load_recvmmsg,
)

WORD = ctypes.sizeof(ctypes.c_void_p)


def offsets(struct_type: type[ctypes.Structure]) -> list[int]:
    fields: list[str] = [field[0] for field in struct_type._fields_]
    return [getattr(struct_type, name).offset for name in fields]


def test_layout() -> None:
    """What the kernel's ABI says for 4- and 8-byte words (include/linux/socket.h, user_*)."""
    assert WORD in (4, 8)
    assert offsets(Iovec) == [0, WORD]
    assert offsets(Msghdr) == [word * WORD for word in range(7)]
    assert offsets(Mmsghdr) == [0, 7 * WORD]
    assert ctypes.sizeof(Iovec) == 2 * WORD
    assert ctypes.sizeof(Msghdr) == 7 * WORD
    assert ctypes.sizeof(Mmsghdr) == 8 * WORD


PROBE = """
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#define AT(type, field) (int)offsetof(struct type, field)
int main(void) {
    printf("%d %d %d ", AT(iovec, iov_base), AT(iovec, iov_len), (int)sizeof(struct iovec));
    printf("%d %d %d %d ", AT(msghdr, msg_name), AT(msghdr, msg_namelen), AT(msghdr, msg_iov),
           AT(msghdr, msg_iovlen));
    printf("%d %d %d %d ", AT(msghdr, msg_control), AT(msghdr, msg_controllen),
           AT(msghdr, msg_flags), (int)sizeof(struct msghdr));
    printf("%d %d %d ", AT(mmsghdr, msg_hdr), AT(mmsghdr, msg_len), (int)sizeof(struct mmsghdr));
    printf("%d", (int)sizeof(struct sockaddr_storage));
    return 0;
}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the structs are those of Linux")
@pytest.mark.parametrize("compiler", ["cc", "musl-gcc"])
def test_layout_is_that_of_the_c_library(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here to compare with")
    source, program = tmp_path / "probe.c", tmp_path / "probe"
    source.write_text(PROBE)
    subprocess.run([compiler, "-o", program, source], check=True)
    told = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert [int(number) for number in told.split()] == [
        *(*offsets(Iovec), ctypes.sizeof(Iovec)),
        *(*offsets(Msghdr), ctypes.sizeof(Msghdr)),
        *(*offsets(Mmsghdr), ctypes.sizeof(Mmsghdr)),
        SOCKADDR_SIZE,
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="the constants are those of Linux")
def test_constants() -> None:
    assert socket.MSG_TRUNC == MSG_TRUNC
    assert socket.MSG_DONTWAIT == MSG_DONTWAIT


@pytest.mark.skipif(sys.platform != "linux", reason="recvmmsg(2) is a system call of Linux")
def test_the_binding_calls_the_kernel() -> None:
    recvmmsg = load_recvmmsg()
    assert recvmmsg is not None
    assert recvmmsg(-1, 0, 0, 0, None) == -1
    assert ctypes.get_errno() != 0


def sockaddr(family: int, rest: bytes) -> bytes:
    return struct.pack("=H", family) + rest


def test_decoding() -> None:
    inet = sockaddr(socket.AF_INET, b"\x12\x34" + bytes([192, 0, 2, 1]) + bytes(8))
    assert decode_sockaddr(inet) == ("192.0.2.1", 0x1234)
    host = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    rest = b"\x00\x35" + struct.pack("!I", 0x0ABCDEF1) + host + struct.pack("=I", 7)
    inet6 = sockaddr(socket.AF_INET6, rest)
    assert decode_sockaddr(inet6) == ("2001:db8::1", 53, 0x0ABCDEF1, 7)
    assert decode_sockaddr(b"") is None
    unix = socket.AF_UNIX if hasattr(socket, "AF_UNIX") else 1
    assert decode_sockaddr(sockaddr(unix, b"")) == ""
    assert decode_sockaddr(sockaddr(unix, b"/run/log\0")) == "/run/log"
    assert decode_sockaddr(sockaddr(unix, b"\xff")) == "\udcff"
    assert decode_sockaddr(sockaddr(unix, b"\0a\0b\0")) == b"\0a\0b\0"
    assert decode_sockaddr(sockaddr(250, b"???")) == (250, b"???")


def test_forged_senders_do_not_grow_memory() -> None:
    cache = AddressCache()
    for number in range(3 * ADDRESS_CACHE_SIZE):
        raw = sockaddr(socket.AF_INET, struct.pack("!HI8x", 9, number))
        assert cache[raw] == (socket.inet_ntoa(struct.pack("!I", number)), 9)
        assert cache[raw] is cache[raw]
        assert len(cache) <= ADDRESS_CACHE_SIZE
