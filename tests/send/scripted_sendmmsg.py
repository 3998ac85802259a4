"""What loopback does not give: a kernel whose answers to sendmmsg are scripted.

Run by test_scripted_sendmmsg.py, in a process in which that is possible.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any, TypeAlias

import anyio
import pytest
from anyio import WouldBlock
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_mmsg import (
    PacketBatch,
    SendOptions,
    SendResult,
    UnusableSocketError,
    send_mmsg,
    send_mmsg_nowait,
)
from anyio_mmsg._packets.packet import Control
from anyio_mmsg._send.engine import sender_of
from anyio_mmsg._system.control import Ancillary
from anyio_mmsg._system.platform import Refused

from ..helpers import Family, stub_engine
from .helpers import arrived
from .kernel import Kernel, Listener, answering

PACKETS = [(b"%d" % number, ("127.0.0.1", 9)) for number in range(6)]


@pytest.fixture
def sock(inet: Family) -> socket.socket:
    return inet.open()


@pytest.fixture(autouse=True)
def not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Refused, "sendmmsg", False)


Under: TypeAlias = Callable[[Kernel], None]


@pytest.fixture
def under() -> Iterator[Under]:
    """Have a kernel answer until the end of the test."""
    with ExitStack() as stack:
        yield lambda kernel: stack.enter_context(answering(kernel))


@pytest.fixture
def asked() -> Iterator[list[int]]:
    """How many messages each call of sendmmsg was given."""
    listener = Listener()
    with answering(listener):
        yield listener.asked


def payloads(*numbers: int) -> list[list[bytes]]:
    return [[b"%d" % number] for number in numbers]


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
    under: Under,
) -> None:
    """A short count hides the next packet's error: it is sent again to get it.

    EPERM is a packet filter's, unless an empty call gets it too.
    """
    kernel = Kernel(*script)
    under(kernel)
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


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.lists(PACKET, max_size=12), st.booleans(), ANSWERS), max_size=5))
def test_whatever_the_kernel_answers(
    calls: list[tuple[list[tuple[int, int]], bool, list[int | str]]],
) -> None:
    """Each packet is handed over once, in order, whole, and to whom it is for, or is a failure."""
    kernel = Kernel()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, answering(kernel):
        for shapes, gso, answers in calls:
            packets: list[Any] = [
                (bytes([number + 1]) * size, (None, ("127.0.0.1", 9), ("127.0.0.2", 10))[to])
                for number, (size, to) in enumerate(shapes)
            ]
            kernel.script = deque(answers)
            kernel.taken, kernel.names = [], []
            sender = sender_of(sock, packets, gso, "sendmmsg")
            result = SendResult()
            while sender.handled < len(packets):
                assert sender.send(sock, result, True) in (0, errno.EAGAIN)
            sender.release()
            failed = {index for index, _ in result.failures}
            assert [index for index, _ in result.failures] == sorted(failed)
            assert result.handled == len(packets)
            handed = [
                (data, name)
                for datas, name in zip(kernel.taken, kernel.names, strict=True)
                for data in datas
            ]
            assert handed == [pair for n, pair in enumerate(packets) if n not in failed]


def test_no_room_in_the_middle(sock: socket.socket, under: Under) -> None:
    kernel = Kernel(2, "EHOSTUNREACH", "EAGAIN", "EAGAIN")
    under(kernel)
    result = send_mmsg_nowait(sock, PACKETS)
    assert (result.sent, result.handled) == (2, 3)
    with pytest.raises(WouldBlock):
        send_mmsg_nowait(sock, PACKETS[result.handled :])
    assert send_mmsg_nowait(sock, PACKETS[result.handled :]).sent == 3
    assert kernel.taken == payloads(0, 1, 3, 4, 5)


@pytest.mark.parametrize("number", ["EBADF", "ENOTSOCK"])
def test_unusable_in_the_middle(number: str, sock: socket.socket, under: Under) -> None:
    under(Kernel(2, "EHOSTUNREACH", number))
    with pytest.raises(UnusableSocketError) as raised:
        send_mmsg_nowait(sock, PACKETS)
    assert raised.value.errno == getattr(errno, number)
    result = raised.value.result
    assert (result.sent, [index for index, _ in result.failures]) == (2, [2])


@pytest.mark.parametrize(
    "script",
    [
        ["ENOSYS", "ENOSYS"],
        [2, "ENOSYS", "ENOSYS"],
        ["EPERM", "EPERM"],
        [2, "EPERM", "EPERM"],
        [2, "EPERM", "ENOSYS"],
    ],
    ids=str,
)
def test_a_missing_call(
    script: list[Any], under: Under, sock: socket.socket, inet: Family
) -> None:
    """From then on by sendto, from the packet on that met it."""
    kernel = Kernel(*script)
    under(kernel)
    receiver = inet.open()
    packets = [(data, receiver.getsockname()) for data, _ in PACKETS]
    assert send_mmsg_nowait(sock, packets) == SendResult(6, [])
    by_sendto = [receiver.recv(10) for _ in range(6 - len(kernel.taken))]
    assert [data for (data,) in kernel.taken] + by_sendto == [data for data, _ in PACKETS]
    calls = len(kernel.asked)
    assert send_mmsg_nowait(sock, packets, engine="sendmmsg") == SendResult(6, [])
    assert len(kernel.asked) == calls


SOURCES = ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.2", "127.0.0.2"]


def hosts_of(controls: list[list[Ancillary]]) -> list[str]:
    """The sources that control messages name."""
    return [socket.inet_ntoa(data[4:8]) for messages in controls for _, _, data in messages]


def batch_for(receiver: socket.socket) -> PacketBatch:
    """Packets that came to those sources, from one peer."""
    batch = PacketBatch(ancillary=True)
    stub = stub_engine(batch)
    for number, local in enumerate(SOURCES):
        stub.put(b"%d" % number, receiver.getsockname(), control=Control(local=local))
    return batch


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("answering", [False, True])
def test_a_missing_call_and_control_data(
    answering: bool, before: int, under: Under, sock: socket.socket, inet: Family
) -> None:
    """What was laid out for sendmmsg goes by sendmsg, each packet with its own."""
    kernel = Kernel(*([before] if before else []), "ENOSYS", "ENOSYS")
    under(kernel)
    receiver = inet.open()
    sock = inet.unbound()
    if answering:
        result = send_mmsg_nowait(sock, batch_for(receiver), reply_from_destination=True)
        sources = SOURCES
    else:
        packets = [(b"%d" % number, receiver.getsockname()) for number in range(6)]
        result = send_mmsg_nowait(sock, packets, source="127.0.0.9")
        sources = ["127.0.0.9"] * 6
    assert result == SendResult(6, [])
    assert hosts_of(kernel.controls) == sources[:before]
    got = arrived(receiver)
    assert [host for _, (host, _) in got] == sources[before:]
    assert [data for (data,) in kernel.taken] + [data for data, _ in got] == [
        b"%d" % number for number in range(6)
    ]


def test_runs_share_their_source(under: Under, inet: Family, sock: socket.socket) -> None:
    kernel = Kernel()
    under(kernel)
    batch = batch_for(sock)
    result = send_mmsg_nowait(sock, batch, gso=True, reply_from_destination=True)
    assert result == SendResult(6, [])
    assert kernel.taken == [[b"0", b"1"], [b"2"], [b"3", b"4", b"5"]]
    assert hosts_of(kernel.controls) == ["127.0.0.2", "127.0.0.3", "127.0.0.2"]


def test_one_run_with_control_data(under: Under, sock: socket.socket) -> None:
    kernel = Kernel()
    under(kernel)
    how: dict[str, Any] = {"source": "127.0.0.2", "ecn": 1, "gso": True}
    assert send_mmsg_nowait(sock, PACKETS, **how).sent == 6
    assert kernel.taken == [[data for data, _ in PACKETS]]
    ((source, ecn),) = kernel.controls
    assert (source[:2], ecn) == ((0, 8), (0, 1, struct.pack("=i", 1)))


def test_equal_options_share_a_run(under: Under, sock: socket.socket) -> None:
    kernel = Kernel()
    under(kernel)
    options = [SendOptions(ecn=1, hop_limit=9)] * 2 + [SendOptions(ecn=1, hop_limit=9)]
    options += [SendOptions(ecn=1), SendOptions(ecn=1)]
    packets: list[Any] = [
        (data, address, own)
        for (data, address), own in zip(PACKETS, [*options, None], strict=True)
    ]
    assert send_mmsg_nowait(sock, packets, gso=True).sent == 6
    assert kernel.taken == [[b"0", b"1", b"2"], [b"3", b"4"], [b"5"]]
    ecn, hops = (0, 1, struct.pack("=i", 1)), (0, 2, struct.pack("=i", 9))
    assert kernel.controls == [[ecn, hops], [ecn], []]


def test_options_fall_back(under: Under, inet: Family) -> None:
    """What was laid out for sendmmsg goes by sendmsg, each packet with its own."""
    under(Kernel("ENOSYS", "ENOSYS"))
    receiver, sock = inet.open(), inet.unbound()
    packets: list[Any] = [
        (b"%d" % n, receiver.getsockname(), SendOptions(f"127.0.0.{n + 2}")) for n in range(3)
    ]
    assert send_mmsg_nowait(sock, packets) == SendResult(3)
    assert [(data, host) for data, (host, _) in arrived(receiver)] == [
        (b"%d" % n, f"127.0.0.{n + 2}") for n in range(3)
    ]


def test_a_call_that_seems_to_be_missing_once(sock: socket.socket, under: Under) -> None:
    """What is not confirmed is nothing: the packets are sent, and nothing changes for good."""
    kernel = Kernel(2, "ENOSYS", 0, 1, "ENOSYS", 0)
    under(kernel)
    assert send_mmsg_nowait(sock, PACKETS) == SendResult(6, [])
    assert kernel.asked == [6, 4, 0, 4, 3, 0, 3]
    assert kernel.taken == payloads(*range(6))
    assert not Refused.sendmmsg


def test_a_packet_that_seems_to_miss_the_call_twice(sock: socket.socket, under: Under) -> None:
    kernel = Kernel(2, "ENOSYS", 0, "ENOSYS", 0)
    under(kernel)
    result = send_mmsg_nowait(sock, PACKETS)
    assert [(index, error.errno) for index, error in result.failures] == [(2, errno.ENOSYS)]
    assert kernel.taken == payloads(0, 1, 3, 4, 5)
    assert not Refused.sendmmsg


def test_a_descriptor_that_closes_during_the_question(sock: socket.socket, under: Under) -> None:
    """That is not a refusal of the call."""
    under(Kernel("EPERM", "EBADF", "EBADF"))
    with pytest.raises(UnusableSocketError) as raised:
        send_mmsg_nowait(sock, PACKETS)
    assert [index for index, _ in raised.value.result.failures] == [0]
    assert not Refused.sendmmsg


@pytest.mark.parametrize("refusal", ["EIO", "EINVAL", "EMSGSIZE"])
def test_a_route_that_refuses_segmentation(
    refusal: str, sock: socket.socket, under: Under
) -> None:
    kernel = Kernel(1, refusal)
    under(kernel)
    packets = PACKETS[:2] + [(data * 2, to) for data, to in PACKETS[2:]]
    assert send_mmsg_nowait(sock, packets, gso=True) == SendResult(6, [])
    assert kernel.asked == [2, 1, 4]
    assert kernel.taken == [[b"0", b"1"], [b"22"], [b"33"], [b"44"], [b"55"]]
    # The next call tries again.
    assert send_mmsg_nowait(sock, packets, gso=True).sent == 6
    assert kernel.asked[3:] == [2]


@pytest.mark.anyio
async def test_a_refusal_is_remembered_over_a_wait(sock: socket.socket, under: Under) -> None:
    kernel = Kernel(1, "EIO", 1, "EAGAIN")
    under(kernel)
    packets = PACKETS[:2] + [(data * 2, to) for data, to in PACKETS[2:]]
    with anyio.fail_after(60):
        assert await send_mmsg(sock, packets, gso=True) == SendResult(6, [])
    assert kernel.asked == [2, 1, 4, 3, 3]


def test_a_run_and_a_packet_filter(sock: socket.socket, under: Under) -> None:
    """An error that is not segmentation's is the first packet's of the run."""
    kernel = Kernel("EPERM", 0)
    under(kernel)
    result = send_mmsg_nowait(sock, PACKETS, gso=True)
    assert [(index, error.errno) for index, error in result.failures] == [(0, errno.EPERM)]
    assert kernel.asked == [1, 0, 1]
    assert kernel.taken == [[b"1", b"2", b"3", b"4", b"5"]]


def test_a_run_that_is_refused_packet_by_packet(sock: socket.socket, under: Under) -> None:
    kernel = Kernel(*["EACCES"] * 4, 2)
    under(kernel)
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


def test_no_room_for_a_run(sock: socket.socket, under: Under) -> None:
    kernel = Kernel(1, "EAGAIN")
    under(kernel)
    packets = PACKETS[:2] + [(data * 2, to) for data, to in PACKETS[2:]]
    result = send_mmsg_nowait(sock, packets, gso=True)
    assert result == SendResult(2, [])
    assert send_mmsg_nowait(sock, packets[2:], gso=True).sent == 4
    assert kernel.taken == [[b"0", b"1"], [b"22", b"33", b"44", b"55"]]


def test_an_old_kernel_is_not_asked_for_segmentation(sock: socket.socket, under: Under) -> None:
    """Before 4.18 it ignores the control message, and would send all as one datagram."""
    kernel = Kernel()
    under(kernel)
    with closing(OldSocket()) as old:
        assert send_mmsg_nowait(old, PACKETS, gso=True).sent == 6
    assert kernel.asked == [6]


class OldSocket(socket.socket):
    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.setblocking(False)

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")


def test_one_system_call_sends_a_run(inet: Family, asked: list[int]) -> None:
    """Were it not so, the other tests of segmentation would say nothing."""
    receiver, sender = inet.pair()
    send_mmsg_nowait(sender, [(b"%03d" % number, None) for number in range(64)], gso=True)
    assert asked == [1]
    assert [data for data, _ in arrived(receiver)] == [b"%03d" % number for number in range(64)]


def test_a_socket_that_refuses_segmentation(inet: Family, asked: list[int]) -> None:
    """One that sends without checksums: the kernel says EINVAL to a run, and each is sent."""
    receiver, sender = inet.pair()
    so_no_check = 11  # asm-generic/socket.h
    sender.setsockopt(socket.SOL_SOCKET, so_no_check, 1)
    packets = [(b"%d" % number, None) for number in range(9)]
    result = send_mmsg_nowait(sender, packets, gso=True)
    assert asked == [1, 9]
    assert result == SendResult(9, [])
    assert [data for data, _ in arrived(receiver)] == [data for data, _ in packets]
