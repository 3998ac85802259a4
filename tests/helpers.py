"""Sockets for tests: real ones of each family, and one whose reads are scripted."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import random
import signal
import socket
import time
import types
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from anyio_mmsg import PacketBatch, ReceiveEngine, recv_mmsg_nowait
from anyio_mmsg._packets.packet import Control
from anyio_mmsg._system.platform import why_no_batch_calls

ENGINES: list[ReceiveEngine] = ["recvfrom_into"]
"""To receive by, on this machine."""
if not why_no_batch_calls():
    ENGINES.append("recvmmsg")

without_trio = pytest.mark.skipif(not find_spec("trio"), reason="trio is not installed")
by_pythons_allocator = pytest.mark.skipif(
    "ANYIO_MMSG_SANITIZED" in os.environ,  # by tests/trust/sanitize.py
    reason="sanitizers have an allocator of their own, which keeps what was freed",
)
# For tests that drop a batch of a pool on purpose, or whose interrupts may.
loses_batches = pytest.mark.filterwarnings("ignore:a batch .* was dropped:ResourceWarning")
without_uvloop = pytest.mark.skipif(not find_spec("uvloop"), reason="uvloop is not installed")
each_loop = pytest.mark.parametrize(
    "backend", ["asyncio", pytest.param("trio", marks=without_trio)]
)
# For tests of programs that signals end, which need a loop of their own.
each_program_loop = pytest.mark.parametrize(
    "loop",
    [
        "asyncio",
        pytest.param("asyncio+uvloop", marks=without_uvloop),
        pytest.param("trio", marks=without_trio),
    ],
)
# For tests of what asyncio's loops alone have, in the place of the fixture of this name.
each_asyncio_loop = pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=without_uvloop),
    ],
)


@functools.cache
def have_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def attempts(seconds: float = 60) -> Iterator[None]:
    """Have a `for` loop try until it leaves; fail if it is still there after a long time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
    raise AssertionError(f"it did not come within {seconds} seconds")


def wakeup_fd() -> int:
    """The descriptor to which Python writes the number of each signal, or -1."""
    number = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(number)
    return number


def link_local() -> tuple[str, str] | None:
    """A link-local IPv6 address of this machine and its interface, if Linux names one."""
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.exists() else ():
        address, *_, interface = line.split()
        if address.startswith("fe80"):
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address)), interface
    return None


class Family:
    """Makes nonblocking datagram sockets of one family, and closes them."""

    def __init__(self, name: str, folder: Path | None) -> None:
        self.name = name
        self._folder = folder
        self._sockets = ExitStack()
        self._made = 0

    def __enter__(self) -> Family:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._sockets.close()

    def open(self) -> socket.socket:
        """Return a bound socket whose buffer takes some hundred packets."""
        sock = self.unbound()
        self._made += 1
        if self.name == "inet":
            sock.bind(("127.0.0.1", 0))
        elif self.name == "inet6":
            sock.bind(("::1", 0))
        else:
            assert self._folder is not None
            sock.bind(str(self._folder / f"{self._made}"))
        return sock

    def unbound(self) -> socket.socket:
        kind = getattr(socket, f"AF_{self.name.upper()}")
        sock = self._sockets.enter_context(socket.socket(kind, socket.SOCK_DGRAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.setblocking(False)
        return sock

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return a receiver, and a bound sender that is connected to it."""
        receiver, sender = self.open(), self.open()
        sender.connect(receiver.getsockname())
        return receiver, sender


class ScriptedSocket(socket.socket):
    """A socket, always readable, whose reads follow a script.

    Each step is a datagram, an exception to raise, or None for a read that finds nothing. When
    the script is over, reads find nothing.
    """

    address = ("192.0.2.1", 4242)

    def __init__(self, *script: bytes | BaseException | None) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.bind(("127.0.0.1", 0))
        self.setblocking(False)
        self.sendto(b"never read: it keeps the socket readable", self.getsockname())
        self.script = deque(script)
        self.reads = 0

    def recvfrom_into(
        self, buffer: Any, nbytes: int = 0, flags: int = 0
    ) -> tuple[int, tuple[str, int]]:
        self.reads += 1
        step = self.script.popleft() if self.script else None
        if step is None:
            raise BlockingIOError
        if isinstance(step, BaseException):
            raise step
        size = min(len(step), len(buffer))
        buffer[:size] = step[:size]
        return len(step), self.address


def contents(batch: PacketBatch) -> list[bytes]:
    return [bytes(packet.data) for packet in batch]


def read_and_close(batch: PacketBatch, into: list[bytes]) -> None:
    """Consume a batch. An interrupt leaves all of it read and closed, or all of it lost."""
    seen = None
    try:
        seen = contents(batch)
        batch.close()
    except BaseException:
        if seen is not None:
            into += seen
            if not batch.closed:
                batch.close()
        raise
    into += seen


def drain(sock: socket.socket, batch: PacketBatch, count: int) -> None:
    """Receive `count` packets that are there already: loopback delivers within the send."""
    while count:
        count -= recv_mmsg_nowait(sock, batch, count)


async def trickle(sender: socket.socket, steps: int) -> int:
    """Let others run a number of times, and send at every second; return how many were sent."""
    sent = 0
    for step in range(steps):
        if step % 2:
            sender.send(b"%d" % sent)
            sent += 1
        await checkpoint()
    return sent


class Said:
    """Decodes control data that says what it is decoded to: `(Said(), control, timestamp)`."""

    def timestamp(self, control: tuple[Any, ...]) -> Any:
        if isinstance(control[2], Exception):
            raise control[2]
        return control[2]

    def timestamps(self, controls: Sequence[tuple[Any, ...]]) -> list[Any]:
        return list(map(self.timestamp, controls))

    def control(self, control: tuple[Any, ...]) -> Any:
        return control[1]


def stub_engine(batch: PacketBatch) -> types.SimpleNamespace:
    """Let a batch without a socket take datagrams: `stub_engine(batch).put(data, address)`."""

    def put(
        data: bytes,
        address: Any = None,
        wire_size: int | None = None,
        control: Control | None = None,
    ) -> None:
        first, count = slots.free_run(1)
        assert count == 1
        start, size = first * batch.slot_size, min(len(data), batch.slot_size)
        slots.memory[start : start + size] = data[:size]
        size = len(data) if wire_size is None else wire_size
        slots.commit([size], [address], None if control is None else [(Said(), control)])

    slots = batch._slots
    return types.SimpleNamespace(put=put)


def nowhere(family: Family) -> tuple[Any, int]:
    """An address that the system refuses to send to at once, and the errno by which."""
    if family.name == "unix":
        return "/nowhere/at/all", errno.ENOENT
    if family.name == "inet":
        return ("255.255.255.255", 9), errno.EACCES  # without SO_BROADCAST (ip(7))
    return ("::1", 0), errno.EINVAL


@contextlib.contextmanager
def assert_others_run(backend: str) -> Iterator[None]:
    """Fail if the block is not a checkpoint, or does not let others run."""
    if backend == "trio":
        import trio.testing

        with trio.testing.assert_checkpoints():
            yield
    else:
        ran: list[bool] = []
        asyncio.get_running_loop().call_soon(ran.append, True)
        yield
        assert ran


def counted_waits(
    monkeypatch: pytest.MonkeyPatch, module: types.ModuleType, wait: str
) -> list[socket.socket]:
    """Return a list that gets each socket that `module` waits for."""
    waited: list[socket.socket] = []
    real = getattr(module, wait)

    async def counting_wait(sock: socket.socket) -> None:
        waited.append(sock)
        await real(sock)

    monkeypatch.setattr(module, wait, counting_wait)
    return waited


def unheard(sock: socket.socket) -> Any:
    """Have the system refuse what is sent to a bound UDP socket, and return its address.

    The socket is connected elsewhere, so nobody listens at its port, and no socket of another test
    can have it.
    """
    address = sock.getsockname()
    sock.connect((address[0], 9))
    return address


def free_port(kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    """Return a port of 127.0.0.1 that nobody has, for a program that will bind it.

    It is below those that systems choose by themselves (Linux: from 32,768 on, others from 49,152,
    RFC 6335). Another test's socket could have such a one meanwhile, and take what is sent there.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_768), 100):
        with (
            socket.socket(socket.AF_INET, kind) as probe,
            contextlib.suppress(OSError),
        ):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port of a hundred is free")
