"""Errors that are others' fail no send; a packet's own error does, and is reported once."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from anyio_mmsg import SendEngine, SendResult, send_mmsg, send_mmsg_nowait
from anyio_mmsg._system.error_queue import IP_RECVERR, IPV6_RECVERR, read_errors
from anyio_mmsg._system.icmp import ICMP_ERRORS

from .conftest import Version, provoke

how_sent = pytest.mark.parametrize("gso", [False, True], ids=["plain", "gso"])

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, DO = 10, 23, 2  # linux/in.h, in6.h


def theirs(version: Version) -> socket.socket:
    """A socket on which somebody else has set the options."""
    sock = version.open(errors=False)
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    if version.name != "inet":
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    return sock


whose = pytest.mark.parametrize("opened", [Version.open, theirs], ids=["ours", "theirs"])


def received(sock: socket.socket) -> list[bytes]:
    got: list[bytes] = []
    while True:
        try:
            got.append(sock.recv(70_000))
        except BlockingIOError:
            return got


@whose
@how_sent
def test_each_is_sent_though_others_are_refused(
    gso: bool, opened: Callable[[Version], socket.socket], sending: SendEngine, version: Version
) -> None:
    """Loopback reports a refusal within the send, so every other packet is struck."""
    sender, receiver = opened(version), version.open(errors=False)
    bad, good = version.unheard(), receiver.getsockname()[:2]
    for shape in ((bad, good), (bad, bad, good), (good, bad), (bad, *[good] * 3) * 9):
        packets = [(b"%02d" % number, to) for number, to in enumerate(shape)]
        result = send_mmsg_nowait(sender, packets, gso=gso, engine=sending)
        assert result == SendResult(len(packets))
        assert received(receiver) == [data for data, to in packets if to is good]
        reported = [error.destination[:2] for error in read_errors(sender, 99)]
        assert set(reported) <= {bad}
        assert reported


@whose
def test_what_is_pending_before_the_call(
    opened: Callable[[Version], socket.socket], sending: SendEngine, version: Version
) -> None:
    sender, receiver = opened(version), version.open(errors=False)
    for _ in range(3):
        provoke(sender, version.unheard(), b"who")
        packets: list[Any] = [(b"there", receiver.getsockname()[:2])]
        assert send_mmsg_nowait(sender, packets, engine=sending) == SendResult(1)
        assert received(receiver) == [b"there"]
    errors = read_errors(sender, 99)
    assert [error.errno for error in errors] == [errno.ECONNREFUSED] * 3


def test_an_option_that_the_program_sets_later(sending: SendEngine, version: Version) -> None:
    """After the first send by the socket, by which it is known."""
    sender, receiver = version.open(errors=False), version.open(errors=False)
    packets: list[Any] = [(b"there", receiver.getsockname()[:2])]
    assert send_mmsg_nowait(sender, packets, engine=sending) == SendResult(1)
    sender.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    if version.name != "inet":
        sender.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    provoke(sender, version.unheard(), b"who")
    assert send_mmsg_nowait(sender, packets, engine=sending) == SendResult(1)
    assert received(receiver) == [b"there"] * 2


@how_sent
def test_a_packet_that_is_too_long_is_reported_once(
    gso: bool, sending: SendEngine, version: Version
) -> None:
    """Its error is its own: sent again, it would be queued a second time."""
    sender, receiver = version.open(), version.open(errors=False)
    level, option = socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER
    if version.name != "inet6":
        sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DO)
    if version.name != "inet":
        sender.setsockopt(level, option, DO)
    to = receiver.getsockname()[:2]
    long = bytes(65_507)  # as an IP packet longer than loopback's MTU, 65,536
    if len(long) + 28 <= 65_536 and version.name != "inet6":
        pytest.skip("IPv4 carries nothing that is longer than loopback's MTU")
    provoke(sender, version.unheard(), b"who")
    result = send_mmsg_nowait(
        sender, [(b"1", to), (long, to), (b"3", to)], gso=gso, engine=sending
    )
    assert [(index, error.errno) for index, error in result.failures] == [(1, errno.EMSGSIZE)]
    assert received(receiver) == [b"1", b"3"]
    errors = read_errors(sender, 99)
    assert [error.errno for error in errors] == [errno.ECONNREFUSED, errno.EMSGSIZE]


def test_an_error_that_is_its_own_in_the_end(sending: SendEngine, version: Version) -> None:
    """One that stays however often the packet is sent; those after it are sent."""
    sender, receiver = version.open(), version.open(errors=False)
    if version.name == "inet6":
        pytest.skip("a broadcast address, which is refused, is IPv4's")
    prefix = "::ffff:" if version.name == "dual" else ""
    to = receiver.getsockname()[:2]
    packets = [(b"1", (prefix + "255.255.255.255", 9)), (b"2", to)]
    result = send_mmsg_nowait(sender, packets, engine=sending)
    ((index, error),) = result.failures
    assert (index, error.errno) == (0, errno.EACCES)
    assert errno.EACCES in ICMP_ERRORS
    assert received(receiver) == [b"2"]


@pytest.mark.parametrize(
    "times", [100, pytest.param(10_000, marks=pytest.mark.thorough)], ids=["some", "many"]
)
def test_while_errors_arrive_from_another_thread(
    times: int, sending: SendEngine, version: Version
) -> None:
    """Whatever strikes when, and how often, no packet fails, is lost, or is sent twice."""
    sender, receiver = version.open(), version.open(errors=False)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    bad, good = version.unheard(), receiver.getsockname()[:2]
    over = threading.Event()

    def strike() -> None:
        while not over.is_set():
            provoke(sender, bad, b"who")
            read_errors(sender, 99)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        for _ in range(times):
            packets = [(b"%d" % number, good) for number in range(20)]
            assert send_mmsg_nowait(sender, packets, engine=sending) == SendResult(20)
            assert received(receiver) == [data for data, _ in packets]
    finally:
        over.set()
        thread.join()


_STRIKE = """
import os, socket, sys
sock, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
print("striking", flush=True)
while os.getppid() == parent:
    for _ in range(100):
        try:
            sock.sendto(b"who", (sys.argv[3], int(sys.argv[4])))
        except OSError:
            pass
    try:
        while True:
            sock.recvmsg(9, 512, 0x2000)  # MSG_ERRQUEUE
    except OSError:
        pass
"""


def test_while_errors_arrive_from_another_process(sending: SendEngine, version: Version) -> None:
    """It runs at any time, also between two calls. Many packets are struck several times."""
    sender, receiver = version.open(), version.open(errors=False)
    bad, good = version.unheard(), receiver.getsockname()[:2]
    arguments = [sender.fileno(), os.getpid(), *bad]
    process = subprocess.Popen(
        [sys.executable, "-c", _STRIKE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        pass_fds=[sender.fileno()],
    )
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline() == b"striking\n"
            for _ in range(1000):
                packets = [(b"%d" % number, good) for number in range(20)]
                assert send_mmsg_nowait(sender, packets, engine=sending) == SendResult(20)
                assert received(receiver) == [data for data, _ in packets]
        finally:
            process.kill()


@pytest.mark.anyio
async def test_a_wait_for_room_with_unread_errors_pauses(
    sending: SendEngine, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait would end at once. Room comes when the sender's buffer is made larger."""
    from anyio_mmsg._send import functions

    sender, receiver = version.open(), version.open(errors=False)
    provoke(sender, version.unheard(), b"who")
    good = receiver.getsockname()[:2]
    pauses: list[int] = []
    no_room = _NoRoom(12)

    async def pause(number: int) -> None:
        pauses.append(number)
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(functions, "back_off", pause)
    monkeypatch.setattr(functions, "sender_of", no_room.sender_of)
    with anyio.fail_after(60):
        result = await send_mmsg(sender, [(b"x", good)], engine=sending)
    assert result == SendResult(1)
    assert received(receiver) == [b"x"]
    assert pauses == list(range(1, 12))


class _NoRoom:
    """Senders that find no room a number of times."""

    def __init__(self, times: int) -> None:
        self._left = times

    def sender_of(self, *given: Any) -> Any:
        from anyio_mmsg._send.engine import sender_of

        self._real: Any = sender_of(*given)
        return self

    def send(self, sock: socket.socket, result: Any, keep: bool) -> int:
        if self._left:
            self._left -= 1
            return errno.EAGAIN
        code: int = self._real.send(sock, result, keep)
        return code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
