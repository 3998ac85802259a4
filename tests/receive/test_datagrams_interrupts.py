"""Interrupts of `recv_datagrams`: what was read and not returned is returned by the next call."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from anyio_mmsg import ReceiveEngine, recv_datagrams, recv_datagrams_nowait
from anyio_mmsg._receive import datagrams
from anyio_mmsg._receive.outlook import outlook_for
from anyio_mmsg._system.control import SOL_UDP, UDP_GRO
from anyio_mmsg._system.platform import Refused, take_datagrams

from ..helpers import Family
from ..interrupts import BeforeOpcode, Interrupt, interrupt, of_cpython, uninstrument

pytestmark = [pytest.mark.anyio, of_cpython]


@pytest.fixture(autouse=True)
def _by(engine: ReceiveEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Refused, "recvmmsg", engine == "recvfrom_into")


class World:
    """Two receivers, and what was sent to each and is not returned yet."""

    def __init__(self, family: Family, gro: bool) -> None:
        self.receivers = [family.open(), family.open()]
        self.sender = family.open()
        self.sent: list[list[bytes]] = [[], []]
        self.got: list[list[bytes]] = [[], []]
        if gro:
            for sock in self.receivers:
                sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        self.gro = gro
        self.number = 0

    def send(self, to: int, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.sent[to].append(b"%06d" % self.number)
            self.sender.sendto(self.sent[to][-1], self.receivers[to].getsockname())

    def train(self, to: int) -> None:
        if self.gro:
            packets = [b"%06d" % (self.number + i) for i in range(1, 4)]
            self.number += 3
            control = [(SOL_UDP, 103, (6).to_bytes(2, "little"))]  # UDP_SEGMENT
            address = self.receivers[to].getsockname()
            self.sender.sendmsg([b"".join(packets)], control, 0, address)
            self.sent[to] += packets

    def take(self, which: int, limit: int = 64) -> None:
        with contextlib.suppress(anyio.WouldBlock):
            found = recv_datagrams_nowait(self.receivers[which], limit)
            self.got[which] += [data for data, _ in found]

    def finish(self) -> None:
        """The next calls return what was kept first, and everything once."""
        self.send(0, 2)
        self.send(1, 1)
        for which in (1, 0, 1, 0):
            self.take(which, 2)
            self.take(which)
        assert self.got == self.sent
        self.sent, self.got = [[], []], [[], []]


@pytest.fixture(params=[False, pytest.param(True, id="gro")])
def world(request: pytest.FixtureRequest, inet: Family) -> World:
    try:
        return World(inet, request.param)
    except OSError as error:
        pytest.skip(f"UDP_GRO: {error}")


def points(least: int = 10) -> Iterator[BeforeOpcode]:
    """Return each place where CPython may run a handler; none is before a return itself."""
    at = 0
    while True:
        yield (point := BeforeOpcode(at, everywhere=False))
        if not point.reached:
            assert at > least, "too few bytecodes to be true"
            return
        at += 1


@pytest.mark.parametrize("in_one_step", [False, True], ids=["reference", "usual"])
def test_nowait_at_every_bytecode(
    world: World, in_one_step: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_one_step:
        monkeypatch.setattr(datagrams, "take_datagrams", None)
    elif take_datagrams is None:
        pytest.skip("is of the compiled module, on Linux")
    world.send(0, 1)
    world.take(0)
    for point in points(2 if in_one_step else 10):
        world.send(0, 3)
        world.train(0)
        world.send(1, 1)
        with contextlib.suppress(Interrupt), point:
            found = recv_datagrams_nowait(world.receivers[0])
            world.got[0] += [data for data, _ in found]
        try:
            world.finish()
        except AssertionError as error:
            raise AssertionError(f"at {point.where}") from error


def test_of_what_was_kept_at_every_bytecode(world: World) -> None:
    """The call that is to return what an interrupt kept is interrupted itself."""
    sock = world.receivers[0]
    for point in points():
        world.send(0, 4)
        world.train(0)
        with contextlib.suppress(Interrupt), LastBytecode():
            recv_datagrams_nowait(sock)
        kept = outlook_for(sock).unreturned
        assert kept, "nothing was kept, so this tests nothing"
        with contextlib.suppress(Interrupt), point:
            found = recv_datagrams_nowait(sock, 3)
            world.got[0] += [data for data, _ in found]
        try:
            world.finish()
        except AssertionError as error:
            raise AssertionError(f"at {point.where}") from error


class LastBytecode:
    """Within the block, raise when the function is about to return what it has read."""

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        real = datagrams._receive_unusual

        def read_and_raise(*args: Any) -> None:
            real(*args)
            interrupt()

        self.patch.setattr(datagrams, "take_datagrams", None)
        self.patch.setattr(datagrams, "_receive_unusual", read_and_raise)

    def __exit__(self, *exc_info: object) -> None:
        self.patch.undo()


@pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
@pytest.mark.parametrize("waiting", [False, True], ids=["there", "awaited"])
async def test_at_every_bytecode(world: World, waiting: bool) -> None:
    async def send_later() -> None:
        await checkpoint()
        world.send(0, 1)
        world.train(0)

    for point in points():
        world.send(1, 1)
        if not waiting:
            world.send(0, 3)
        async with anyio.create_task_group() as tasks:
            if waiting:
                tasks.start_soon(send_later)
            with contextlib.suppress(Interrupt), point, anyio.fail_after(60):
                found = await recv_datagrams(world.receivers[0], 64)
                world.got[0] += [data for data, _ in found]
        try:
            world.finish()
        except AssertionError as error:
            raise AssertionError(f"at {point.where}") from error
    gc.collect()  # what was never awaited, while it is ignored


def test_a_socket_that_was_initialised_again(world: World) -> None:
    """What was kept is the first one's, not that of another with the same object."""
    sock = world.receivers[0]
    world.send(0, 2)
    with pytest.raises(Interrupt), LastBytecode():
        recv_datagrams_nowait(sock)
    name = sock.getsockname()
    sock.close()
    sock.__init__(socket.AF_INET, socket.SOCK_DGRAM)  # type: ignore[misc]
    sock.setblocking(False)
    sock.bind(name)
    with pytest.raises(anyio.WouldBlock):
        recv_datagrams_nowait(sock)
    world.sender.sendto(b"new", name)
    assert recv_datagrams_nowait(sock) == [(b"new", world.sender.getsockname())]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_return_it_again(world: World) -> None:
    sock = world.receivers[0]
    world.send(0, 2)
    with pytest.raises(Interrupt), LastBytecode():
        recv_datagrams_nowait(sock)
    child = os.fork()
    if child == 0:  # no pytest in here
        try:
            recv_datagrams_nowait(sock)
        except anyio.WouldBlock:
            os._exit(0)
        except BaseException:
            os._exit(2)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    world.finish()


def test_a_smaller_limit_and_size(world: World) -> None:
    """What was kept is returned as the call asks for it."""
    sock, name = world.receivers[0], world.sender.getsockname()
    world.send(0, 3)
    with pytest.raises(Interrupt), LastBytecode():
        recv_datagrams_nowait(sock)
    assert recv_datagrams_nowait(sock, 1, max_size=3) == [(world.sent[0][0][:3], name)]
    assert recv_datagrams_nowait(sock) == [(data, name) for data in world.sent[0][1:]]


def test_every_allocation_may_fail(engine: ReceiveEngine, inet: Family) -> None:
    """What was read is returned once there is memory again. Exact with recvmmsg alone."""
    if engine != "recvmmsg":
        pytest.skip("`socket.recvfrom` may lose what it has read, as CPython has it")
    testcapi: Any = pytest.importorskip(
        "_testcapi", reason="this Python has no failing allocations"
    )
    uninstrument()
    receiver, sender = inet.pair()
    failures = quiet = start = 0
    while quiet < 12:
        got: list[bytes] = []
        for number in range(4):
            sender.send(b"%d" % number)
        found: list[Any] = []
        testcapi.set_nomemory(start, start + 1)
        try:
            found = recv_datagrams_nowait(receiver)
        except (MemoryError, SystemError):
            quiet, failures = 0, failures + 1
        finally:
            testcapi.remove_mem_hooks()
        quiet += bool(found)
        got += [data for data, _ in found]
        with contextlib.suppress(anyio.WouldBlock):
            while True:
                got += [data for data, _ in recv_datagrams_nowait(receiver)]
        assert got == [b"0", b"1", b"2", b"3"], start
        start += 1
    assert failures  # how many allocations there are is the interpreter's
