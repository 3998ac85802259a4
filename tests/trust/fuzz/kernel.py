"""A kernel that says what it is told to: to recvmmsg(2), and to the methods of a socket.

The first by kernel.c, which stands before the C library in a process that is started for it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anyio_mmsg._system.control import CONTROL_SIZE, Ancillary
from anyio_mmsg._system.sockaddr import SOCKADDR_SIZE, decode_sockaddr

from ...send.kernel import Iovec, Mmsghdr
from .library import expected_messages

LIBRARY = "ANYIO_MMSG_FUZZ_KERNEL"
"""The variable of the environment that names the library, in a process that has it."""


class Message(NamedTuple):
    """What the kernel says of one message."""

    data: bytes  # as long as a slot, whatever the length is
    length: int
    name: bytes
    name_size: int
    control: bytes
    control_size: int
    flags: int

    @property
    def sockaddr(self) -> bytes:
        return self.name.ljust(SOCKADDR_SIZE, b"\0")[: self.name_size]

    @property
    def messages(self) -> list[Ancillary]:
        """The control messages. A size that can't be true says nothing."""
        if self.control_size > CONTROL_SIZE:
            return []
        return expected_messages(self.control.ljust(CONTROL_SIZE, b"\0")[: self.control_size])


class Kernel:
    """Answers calls with the messages that are left, and has none after that."""

    def __init__(self) -> None:
        self.left: deque[Message] = deque()

    # As a socket of CPython's, for the portable engine.

    def recvfrom_into(self, slot: memoryview, size: int, flags: int) -> tuple[int, Any]:
        message = self._next()
        slot[:] = message.data
        return message.length, decode_sockaddr(message.sockaddr)

    def recvmsg_into(
        self, slots: Sequence[memoryview], size: int, flags: int
    ) -> tuple[int, list[Ancillary], int, Any]:
        assert size == CONTROL_SIZE
        (slot,) = slots
        length, address = self.recvfrom_into(slot, 0, flags)
        return length, self.taken.messages, self.taken.flags, address

    def _next(self) -> Message:
        if not self.left:
            raise BlockingIOError(errno.EAGAIN, "")
        self.taken = self.left.popleft()
        return self.taken

    # As recvmmsg(2).

    def fileno(self) -> int:
        return 0

    def answer(self, at: int, count: int) -> int:
        headers = (Mmsghdr * count).from_address(at)
        taken = 0
        for header in headers:
            if not self.left:
                break
            self._write(header, self.left.popleft())
            taken += 1
        return taken or -errno.EAGAIN

    def _write(self, header: Any, message: Message) -> None:
        to = header.msg_hdr
        assert (to.msg_namelen, to.msg_iovlen) == (SOCKADDR_SIZE, 1), "the header was not armed"
        name = message.name.ljust(SOCKADDR_SIZE, b"\0")
        ctypes.memmove(to.msg_name, name, SOCKADDR_SIZE)
        to.msg_namelen = message.name_size
        iovec = Iovec.from_address(to.msg_iov)
        assert iovec.iov_len == len(message.data)
        ctypes.memmove(iovec.iov_base, message.data, len(message.data))
        if to.msg_control:
            assert to.msg_controllen == CONTROL_SIZE, "the header was not armed"
            control = message.control.ljust(CONTROL_SIZE, b"\0")
            ctypes.memmove(to.msg_control, control, CONTROL_SIZE)
            to.msg_controllen = message.control_size
        to.msg_flags = message.flags
        header.msg_len = message.length


_Handler = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)


def answer_recvmmsg(kernel: Kernel) -> Any:
    """Have `kernel` answer recvmmsg in this process; return what has to live as long as that."""
    raised: list[BaseException] = []

    def answer(at: int, count: int) -> int:
        try:
            return kernel.answer(at, count)
        except BaseException as error:  # ctypes would print it
            raised.append(error)
            return -errno.EBADF

    handler = _Handler(answer)
    ctypes.CDLL(os.environ[LIBRARY]).answer_by(handler)
    return handler, raised


def can_answer() -> bool:
    """Return whether this process was prepared for `answer_recvmmsg`."""
    return LIBRARY in os.environ


def before_libc(folder: str) -> dict[str, str]:
    """Build the library, and return the environment of a process that is prepared."""
    library = f"{folder}/kernel.so"
    compiler = os.environ.get("CC", "cc").split()
    source = str(Path(__file__).with_name("kernel.c"))
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {
        **os.environ,
        # Before a sanitizer's library, which would take the lies for the kernel's work.
        "LD_PRELOAD": f"{library} {os.environ.get('LD_PRELOAD', '')}".strip(),
        "ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:verify_asan_link_order=0",
        LIBRARY: library,
    }
