"""Layouts of the C structs, and the bindings."""

from __future__ import annotations

import ctypes
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from anyio_mmsg._libc import MSG_DONTWAIT, MSG_TRUNC, Iovec, Mmsghdr, Msghdr, load_recvmmsg
from anyio_mmsg._sockaddr import SOCKADDR_SIZE

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
