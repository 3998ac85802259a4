"""What loopback does not give: a kernel whose answers to sendmmsg, or sendto, are scripted."""

from __future__ import annotations

import ctypes
import errno
import gc
import socket
import sys
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import Any

import anyio
import pytest
from anyio import WouldBlock
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_mmsg import SendResult, UnusableSocketError, send_mmsg, send_mmsg_nowait
from anyio_mmsg import _engine as engines
from anyio_mmsg._libc import Mmsghdr, SegmentSize
from anyio_mmsg._outgoing import UNLIMITED, outgoing
from anyio_mmsg._sender_linux import LinuxSender
from anyio_mmsg._sockaddr import decode_sockaddr

from .helpers import Family

PACKETS = [(b"%d" % number, ("127.0.0.1", 9)) for number in range(6)]


class Kernel:
    """Takes packets by sendmmsg as scripted: each step is how many messages, or an errno.

    Attributes:
        taken: By message, the payloads of its segments.
        names: By message, where it goes.
        asked: How many messages each call had.
    """

    def __init__(self, *script: int | str) -> None:
        self.script = deque(script)
        self.taken: list[list[bytes]] = []
        self.names: list[Any] = []
        self.asked: list[int] = []

    def sendmmsg(self, fd: int, at: int, count: int, flags: int) -> int:
        self.asked.append(count)
        step = self.script.popleft() if self.script else count
        if isinstance(step, str):
            ctypes.set_errno(getattr(errno, step))
            return -1
        step = min(step, count)
        headers = (Mmsghdr * count).from_address(at)
        for header in headers[:step]:
            iovecs = (ctypes.c_size_t * (2 * header.msg_hdr.msg_iovlen)).from_address(
                header.msg_hdr.msg_iov
            )
            pairs = zip(iovecs[::2], iovecs[1::2], strict=True)
            data = b"".join(ctypes.string_at(start, size) for start, size in pairs)
            size = len(data) or 1
            if header.msg_hdr.msg_controllen:
                size = SegmentSize.from_address(header.msg_hdr.msg_control).size
                assert len(data) > size, "no run"
            self.taken.append([data[at : at + size] for at in range(0, len(data) or 1, size)])
            name = ctypes.string_at(header.msg_hdr.msg_name, header.msg_hdr.msg_namelen)
            self.names.append(decode_sockaddr(name))
        return step


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with Family("inet", None) as family:
        yield family.open()


def under(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(engines, "_sendmmsg", kernel.sendmmsg)
    monkeypatch.setattr(engines, "_linux_senders", [LinuxSender(kernel.sendmmsg)])
    monkeypatch.setattr(engines, "_sendmmsg_refused", False)
    return kernel


linux = pytest.mark.skipif(sys.platform != "linux", reason="errno by ctypes is that of Linux")


def payloads(*numbers: int) -> list[list[bytes]]:
    return [[b"%d" % number] for number in numbers]


@linux
@pytest.mark.parametrize(
    ("script", "asked", "taken", "failed"),
    [
        ([], [6], range(6), []),
        ([2, 1], [6, 4, 3], range(6), []),
        (["EINTR", 2, "EINTR"], [6, 6, 4, 4], range(6), []),
        ([2, "EPERM", 0], [6, 4, 0, 3], [0, 1, 3, 4, 5], [(2, errno.EPERM)]),
        (["ENOBUFS", 1, "ENETUNREACH"], [6, 5, 4, 3], [1, 3, 4, 5], [(0, 105), (2, 101)]),
        ([5, "EMSGSIZE"], [6, 1], range(5), [(5, errno.EMSGSIZE)]),
    ],
    ids=str,
)
def test_counts(
    script: list[Any],
    asked: list[int],
    taken: list[int],
    failed: list[tuple[int, int]],
    sock: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A short count hides the next packet's error: it is sent again to get it.

    EPERM is a packet filter's, unless an empty call gets it too.
    """
    kernel = under(Kernel(*script), monkeypatch)
    result = send_mmsg_nowait(sock, PACKETS)
    assert kernel.asked == asked
    assert kernel.taken == payloads(*taken)
    assert [(index, error.errno) for index, error in result.failures] == failed
    assert result.sent == len(taken)


PACKET = st.tuples(
    st.sampled_from([0, 1, 50, 50, 50, 50, 1232, 40_000]), st.sampled_from([0, 1, 1, 1, 2])
)
ANSWERS = st.lists(
    st.one_of(
        st.integers(1, 4),
        st.just("ENETUNREACH"),
        st.sampled_from(["EAGAIN", "EINTR", "ENETUNREACH", "EIO", "EINVAL", "EMSGSIZE"]),
    )
)


@linux
@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.lists(PACKET, max_size=12), st.booleans(), ANSWERS), max_size=5))
def test_whatever_the_kernel_answers(
    calls: list[tuple[list[tuple[int, int]], bool, list[int | str]]],
) -> None:
    """Each packet is handed over once, in order, whole, and to whom it is for, or is a failure.

    All calls are made by one sender, which keeps what it has laid for the one before.
    """
    kernel = Kernel()
    sender = LinuxSender(kernel.sendmmsg)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # Once more after each the same, without errors: what was laid must not be taken for good.
        for shapes, gso, answers in chain.from_iterable((c, (*c[:2], [])) for c in calls):
            packets: list[Any] = [
                (bytes([number + 1]) * size, (None, ("127.0.0.1", 9), ("127.0.0.2", 10))[to])
                for number, (size, to) in enumerate(shapes)
            ]
            kernel.script = deque(answers)
            kernel.taken, kernel.names = [], []
            todo, result = outgoing(socket.AF_INET, UNLIMITED, packets), SendResult()
            todo.gso = gso
            while todo.handled < len(packets):
                assert sender.send(sock, todo, result) is None
            failed = {index for index, _ in result.failures}
            assert [index for index, _ in result.failures] == sorted(failed)
            assert result.handled == len(packets)
            handed = [
                (data, name)
                for datas, name in zip(kernel.taken, kernel.names, strict=True)
                for data in datas
            ]
            assert handed == [pair for n, pair in enumerate(packets) if n not in failed]


@linux
def test_no_room_in_the_middle(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = under(Kernel(2, "EHOSTUNREACH", "EAGAIN", "EAGAIN"), monkeypatch)
    result = send_mmsg_nowait(sock, PACKETS)
    assert (result.sent, result.handled) == (2, 3)
    with pytest.raises(WouldBlock):
        send_mmsg_nowait(sock, PACKETS[result.handled :])
    assert send_mmsg_nowait(sock, PACKETS[result.handled :]).sent == 3
    assert kernel.taken == payloads(0, 1, 3, 4, 5)


@linux
@pytest.mark.parametrize("number", ["EBADF", "ENOTSOCK"])
def test_unusable_in_the_middle(
    number: str, sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    under(Kernel(2, "EHOSTUNREACH", number), monkeypatch)
    with pytest.raises(UnusableSocketError) as raised:
        send_mmsg_nowait(sock, PACKETS)
    assert raised.value.errno == getattr(errno, number)
    result = raised.value.result
    assert (result.sent, [index for index, _ in result.failures]) == (2, [2])


@linux
@pytest.mark.parametrize(
    "script", [["ENOSYS"], [2, "ENOSYS"], ["EPERM", "EPERM"], [2, "EPERM", "EPERM"]], ids=str
)
def test_a_missing_call(
    script: list[Any], monkeypatch: pytest.MonkeyPatch, sock: socket.socket, inet: Family
) -> None:
    """From then on by sendto, from the packet on that met it."""
    kernel = under(Kernel(*script), monkeypatch)
    receiver = inet.open()
    packets = [(data, receiver.getsockname()) for data, _ in PACKETS]
    assert send_mmsg_nowait(sock, packets) == SendResult(6, [])
    by_sendto = [receiver.recv(10) for _ in range(6 - len(kernel.taken))]
    assert [data for (data,) in kernel.taken] + by_sendto == [data for data, _ in PACKETS]
    calls = len(kernel.asked)
    assert send_mmsg_nowait(sock, packets, engine="sendmmsg") == SendResult(6, [])
    assert len(kernel.asked) == calls


@linux
def test_a_descriptor_that_closes_during_the_question(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no refusal of the call."""
    under(Kernel("EPERM", "EBADF", "EBADF"), monkeypatch)
    with pytest.raises(UnusableSocketError) as raised:
        send_mmsg_nowait(sock, PACKETS)
    assert [index for index, _ in raised.value.result.failures] == [0]
    assert not engines._sendmmsg_refused


@linux
@pytest.mark.parametrize("refusal", ["EIO", "EINVAL", "EMSGSIZE"])
def test_a_route_that_refuses_segmentation(
    refusal: str, sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = under(Kernel(1, refusal), monkeypatch)
    packets = PACKETS[:2] + [(data * 2, to) for data, to in PACKETS[2:]]
    assert send_mmsg_nowait(sock, packets, gso=True) == SendResult(6, [])
    assert kernel.asked == [2, 1, 4]
    assert kernel.taken == [[b"0", b"1"], [b"22"], [b"33"], [b"44"], [b"55"]]
    # The next call tries again.
    assert send_mmsg_nowait(sock, packets, gso=True).sent == 6
    assert kernel.asked[3:] == [2]


@linux
@pytest.mark.anyio
async def test_a_refusal_is_remembered_over_a_wait(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = under(Kernel(1, "EIO", 1, "EAGAIN"), monkeypatch)
    packets = PACKETS[:2] + [(data * 2, to) for data, to in PACKETS[2:]]
    with anyio.fail_after(5):
        assert await send_mmsg(sock, packets, gso=True) == SendResult(6, [])
    assert kernel.asked == [2, 1, 4, 3, 3]


@linux
def test_a_run_and_a_packet_filter(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not segmentation's is the first packet's of the run."""
    kernel = under(Kernel("EPERM", 0), monkeypatch)
    result = send_mmsg_nowait(sock, PACKETS, gso=True)
    assert [(index, error.errno) for index, error in result.failures] == [(0, errno.EPERM)]
    assert kernel.asked == [1, 0, 1]
    assert kernel.taken == [[b"1", b"2", b"3", b"4", b"5"]]


@linux
def test_a_run_that_is_refused_packet_by_packet(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = under(Kernel(*["EACCES"] * 4, 2), monkeypatch)
    packets = PACKETS[:4] + [(data, ("127.0.0.2", 9)) for data, _ in PACKETS[4:]]
    result = send_mmsg_nowait(sock, [*packets, *packets], gso=True)
    assert [(index, error.errno) for index, error in result.failures] == [
        (index, errno.EACCES) for index in range(4)
    ]
    assert result.errors == {errno.EACCES: 4}
    assert kernel.asked == [4, 4, 4, 4, 3, 1]
    assert result.sent == 8
    assert kernel.taken == [
        [b"4", b"5"],
        [b"0", b"1", b"2", b"3"],
        [b"4", b"5"],
    ]
    kernel.taken.clear()
    assert send_mmsg_nowait(sock, PACKETS).sent == 6
    assert kernel.taken == payloads(*range(6))


@linux
def test_no_room_for_a_run(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = under(Kernel(1, "EAGAIN"), monkeypatch)
    packets = PACKETS[:2] + [(data * 2, to) for data, to in PACKETS[2:]]
    result = send_mmsg_nowait(sock, packets, gso=True)
    assert result == SendResult(2, [])
    assert send_mmsg_nowait(sock, packets[2:], gso=True).sent == 4
    assert kernel.taken == [[b"0", b"1"], [b"22", b"33", b"44", b"55"]]


@linux
def test_an_old_kernel_is_not_asked_for_segmentation(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 4.18 it ignores the control message, and would send all as one datagram."""
    kernel = under(Kernel(), monkeypatch)
    with closing(OldSocket()) as old:
        assert send_mmsg_nowait(old, PACKETS, gso=True).sent == 6
    assert kernel.asked == [6]


class OldSocket(socket.socket):
    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.setblocking(False)

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")


@linux
def test_interrupted_while_laying(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KeyboardInterrupt anywhere leaves nothing that the next call would take as laid."""
    kernel = under(Kernel(), monkeypatch)
    (sender,) = engines._linux_senders
    plain = [(b"x" * 10, ("127.0.0.1", 9))] * 4
    other = [(b"y" * 12, ("127.0.0.2", 10))] * 4
    steps = 0
    while True:
        kernel.taken.clear()
        assert send_mmsg_nowait(sock, plain).sent == 4
        assert kernel.taken == [[b"x" * 10]] * 4
        kernel.taken.clear()
        if not interrupted(lambda: send_mmsg_nowait(sock, other, gso=True), steps):
            break
        steps += 1
    assert steps > 50
    assert engines._linux_senders == [sender]


def interrupted(call: Any, after: int) -> bool:
    """Raise KeyboardInterrupt in the sender's code after so many of its lines; tell if it was."""
    left = after

    def trace(frame: Any, event: str, arg: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith("_sender_linux.py"):
            return trace
        if event == "line":
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


class ScriptedSender(socket.socket):
    """A socket whose sendto follows a script: an error to raise, or None to send."""

    def __init__(self, *script: OSError | None) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.setblocking(False)
        self.script = deque(script)
        self.taken: list[bytes] = []

    def sendto(self, data: Any, *args: Any) -> int:
        step = self.script.popleft() if self.script else None
        if step is not None:
            raise step
        self.taken.append(bytes(data))
        return len(data)


def test_sendto_is_called_again() -> None:
    unreachable = OSError(errno.EHOSTUNREACH, "no route")
    steps = [InterruptedError(), None, unreachable, None, InterruptedError(), BlockingIOError()]
    with closing(ScriptedSender(*steps)) as sock:
        result = send_mmsg_nowait(sock, PACKETS, engine="sendto")
        assert (result.sent, result.failures) == (2, [(1, unreachable)])
        result = send_mmsg_nowait(sock, PACKETS[result.handled :], engine="sendto")
        assert result == SendResult(3, [])
        assert sock.taken == [b"0", b"2", b"3", b"4", b"5"]


def test_unusable_by_sendto() -> None:
    with closing(ScriptedSender(None, OSError(errno.EBADF, "bad"))) as sock:
        with pytest.raises(UnusableSocketError) as raised:
            send_mmsg_nowait(sock, PACKETS, engine="sendto")
        assert raised.value.result == SendResult(1, [])


def test_failures_do_not_keep_the_socket_alive() -> None:
    sock = ScriptedSender(OSError(errno.EHOSTUNREACH, "no route"))
    result = send_mmsg_nowait(sock, PACKETS, engine="sendto")
    gone = weakref.ref(sock)
    sock.close()
    gc.disable()
    try:
        del sock
        assert gone() is None
    finally:
        gc.enable()
    assert len(result.failures) == 1
