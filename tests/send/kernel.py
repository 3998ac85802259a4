"""A kernel whose answers to sendmmsg are scripted, or at least heard.

kernel.c stands before the C library's function, in a process that is started for it.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anyio_mmsg._send.known import SOL_UDP, UDP_SEGMENT
from anyio_mmsg._system.control import Ancillary, split
from anyio_mmsg._system.platform import why_no_batch_calls
from anyio_mmsg._system.sockaddr import decode_sockaddr

LIBRARY = "ANYIO_MMSG_TEST_KERNEL"
"""The variable of the environment that names the library, in a process that has it."""

_Handler = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int
)


class Iovec(ctypes.Structure):
    _fields_ = [("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    """As the kernel has it; on musl too, which declares some fields narrower, with padding."""

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


class Kernel:
    """Takes packets by sendmmsg as scripted: each step is how many messages, or an errno.

    Attributes:
        taken: By message, the payloads of its segments.
        names: By message, where it goes.
        controls: By message, its control messages, without the size of segments.
        asked: How many messages each call had.
    """

    def __init__(self, *script: int | str) -> None:
        self.script = deque(script)
        self.taken: list[list[bytes]] = []
        self.names: list[Any] = []
        self.controls: list[list[Ancillary]] = []
        self.asked: list[int] = []

    def sendmmsg(self, fd: int, at: int, count: int, flags: int) -> int:
        self.asked.append(count)
        step = self.script.popleft() if self.script else count
        if isinstance(step, str):
            return -int(getattr(errno, step))
        step = min(step, count)
        headers = (Mmsghdr * count).from_address(at)
        for header in headers[:step]:
            self._take(header.msg_hdr)
        return step

    def _take(self, header: Msghdr) -> None:
        iovecs = (Iovec * header.msg_iovlen).from_address(header.msg_iov)
        data = b"".join(ctypes.string_at(iovec.iov_base or 0, iovec.iov_len) for iovec in iovecs)
        size = len(data) or 1
        control = split(ctypes.string_at(header.msg_control or 0, header.msg_controllen))
        if control and control[-1][:2] == (SOL_UDP, UDP_SEGMENT):
            size = int.from_bytes(control.pop()[2], sys.byteorder)
            assert len(data) > size, "no run"
        self.controls.append(control)
        self.taken.append([data[at : at + size] for at in range(0, len(data) or 1, size)])
        name = ctypes.string_at(header.msg_name or 0, header.msg_namelen)
        self.names.append(decode_sockaddr(name))


class Listener:
    """Has the system answer, and notes what it was asked and said: how many, or -errno."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.said: list[int] = []

    def sendmmsg(self, fd: int, at: int, count: int, flags: int) -> int:
        self.asked.append(count)
        answer = int(_library().real_sendmmsg(fd, ctypes.c_size_t(at), count, flags))
        self.said.append(answer)
        return answer


def _library() -> Any:
    return ctypes.CDLL(os.environ[LIBRARY])


@contextmanager
def answering(kernel: Kernel | Listener) -> Iterator[None]:
    """Have `kernel` answer all calls of sendmmsg in this process, which `before_libc` prepared."""
    raised: list[BaseException] = []

    def answer(fd: int, at: int, count: int, flags: int) -> int:
        try:
            return kernel.sendmmsg(fd, at, count, flags)
        except BaseException as error:
            raised.append(error)
            return -errno.EBADF

    handler = _Handler(answer)
    library = _library()
    library.answer_by(handler)
    try:
        yield
    finally:
        library.answer_by(None)
        if raised:
            raise raised[0]


@functools.cache
def before_libc() -> dict[str, str]:
    """Return the environment of a process in which sendmmsg can be scripted; empty if none can."""
    compiler = os.environ.get("CC", "cc").split()
    if why_no_batch_calls() or not shutil.which(compiler[0]):
        return {}
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    library = f"{folder.name}/kernel.so"
    source = str(Path(__file__).with_name("kernel.c"))
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    others = os.environ.get("LD_PRELOAD", "")  # a sanitizer's, which has to be first
    preload = f"{others}:{library}" if others else library
    return {**os.environ, "LD_PRELOAD": preload, LIBRARY: library}
