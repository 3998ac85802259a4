"""Networks that loopback is not: a slow line, a packet filter, routes that refuse segmentation.

Each test runs one function of this file in a process of its own, which has a network of its own
(network_namespaces(7)), without anything of the machine's: `unshare --net` and this file as the
program.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import anyio
import pytest
from anyio import WouldBlock

from anyio_mmsg import PacketBatch, SendEngine, SendResult, recv_mmsg, send_mmsg, send_mmsg_nowait
from anyio_mmsg._compat import wait_socket_writable
from anyio_mmsg._send import engine as engines
from anyio_mmsg._send import turns

from ..helpers import contents
from .kernel import LIBRARY, Listener, answering, before_libc

MISSING = 77
"""The exit code that says: this machine can't do it, and the output why (as automake has it)."""

SECONDS = 20
"""What a program may take; the slowest needs half of one."""


# What the tests call


def in_a_network(scene: str, how: dict[str, Any], backend: tuple[str, dict[str, Any]]) -> None:
    """Run a scene, a function below, by its name and arguments."""
    command = [*own_network(), sys.executable, "-W", "error", "-m", __name__]
    command += [scene, json.dumps(how), json.dumps(backend)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=3 * SECONDS,
        cwd=Path(__file__).parents[2],
        env=before_libc() or None,
    )
    if done.returncode == MISSING:
        pytest.skip(done.stdout.strip())
    assert (done.stdout, done.stderr, done.returncode) == ("played\n", "", 0)


@functools.cache
def own_network() -> list[str]:
    """How to run a program in a network of its own; skips the test if that is impossible."""
    if sys.platform != "linux":
        pytest.skip("network namespaces are a part of Linux")
    for tool in ("unshare", "ip"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    says = ""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        tried = subprocess.run([*command, "true"], capture_output=True, text=True)
        if tried.returncode == 0:
            return command
        says = tried.stderr.strip()
    pytest.skip(f"this user can't have a network: {says}")


segmented = pytest.mark.parametrize("gso", [False, True], ids=["plain", "gso"])


@segmented
def test_a_slow_line_fills_the_buffer(gso: bool, sending: SendEngine, anyio_backend: Any) -> None:
    """The call waits for room, and all packets arrive, once, in order."""
    in_a_network("send_by_a_slow_line", {"sending": sending, "gso": gso}, anyio_backend)


@segmented
def test_a_slow_line_and_a_cancellation(
    gso: bool, sending: SendEngine, anyio_backend: Any
) -> None:
    """What the result says was sent arrives, and nothing else; the rest can be sent later."""
    in_a_network("cancel_on_a_slow_line", {"sending": sending, "gso": gso}, anyio_backend)


@segmented
def test_a_packet_filter(gso: bool, sending: SendEngine, anyio_backend: Any) -> None:
    """Its EPERM is that of the packets that it refuses, and does not end the use of sendmmsg."""
    in_a_network("send_past_a_filter", {"sending": sending, "gso": gso}, anyio_backend)


@pytest.mark.parametrize("whole", [False, True], ids=["fragments", "whole"])
def test_segments_above_the_mtu(whole: bool, sending: SendEngine, anyio_backend: Any) -> None:
    """The kernel refuses to cut into such. Sent one by one they are fragmented, or refused."""
    in_a_network("send_above_the_mtu", {"sending": sending, "whole": whole}, anyio_backend)


@pytest.mark.parametrize("destination", ["10.9.0.2", "fd09::2"], ids=["inet", "inet6"])
def test_a_device_without_checksums(
    destination: str, sending: SendEngine, anyio_backend: Any
) -> None:
    """Older kernels say EIO to a run on its way there; later ones make the checksums."""
    how = {"sending": sending, "destination": destination}
    in_a_network("send_without_checksums", how, anyio_backend)


# The scenes. What they need comes first, outside of the event loop.

Play = Callable[[], Awaitable[None]]


def numbered(count: int, size: int) -> list[bytes]:
    return [b"%d" % number + bytes(size - len(b"%d" % number)) for number in range(count)]


def send_by_a_slow_line(stack: ExitStack, sending: SendEngine, gso: bool) -> Play:
    receiver, sender = slow_line(stack)
    packets = [(data, None) for data in numbered(200, 500)]
    waits = 0
    wait = wait_socket_writable

    async def counting_wait(sock: socket.socket) -> None:
        nonlocal waits
        waits += 1
        await wait(sock)

    async def play() -> None:
        got: list[bytes] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(turns, "wait_socket_writable", counting_wait)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive, receiver, len(packets), got)
                result = await send_mmsg(sender, packets, gso=gso, engine=sending)
                assert result == SendResult(len(packets), [])
        assert got == [data for data, _ in packets]
        assert waits > 1, "this line is not slow"

        # Without waiting: as many as there is room for, then none.
        result = send_mmsg_nowait(sender, packets, gso=gso, engine=sending)
        assert result == SendResult(result.sent, [])
        sent = result.sent
        assert 0 < sent < len(packets)
        while sent < len(packets):  # meanwhile the line may have made room for a few
            try:
                more = send_mmsg_nowait(sender, packets[sent:], gso=gso, engine=sending)
            except WouldBlock:
                break
            assert more == SendResult(more.sent, [])
            sent += more.sent
        assert sent < len(packets), "this line is not slow"
        got.clear()
        await receive(receiver, sent, got)
        assert got == [data for data, _ in packets[:sent]]

    return play


def cancel_on_a_slow_line(stack: ExitStack, sending: SendEngine, gso: bool) -> Play:
    receiver, sender = slow_line(stack)
    datas = numbered(200, 500)
    packets = [(data, None) for data in datas]

    async def play() -> None:
        got: list[bytes] = []
        async with anyio.create_task_group() as tasks:
            start = 0
            for enough in (1, 70, 150):
                result = SendResult()
                with anyio.CancelScope() as scope:
                    tasks.start_soon(receive, receiver, enough - len(got), got, scope)
                    await send_mmsg(
                        sender, packets[start:], gso=gso, engine=sending, result=result
                    )
                assert scope.cancelled_caught, "this line is not slow"
                assert result.failures == []
                assert len(got) <= start + result.sent < len(packets)
                start += result.handled
                # What is on its way arrives, and nothing after it.
                await send_mmsg(sender, [(b"fence", None)])
                await receive(receiver, start + 1 - len(got), got)
                assert got.pop() == b"fence"
                assert got == datas[:start]
            tasks.start_soon(receive, receiver, len(packets) - start, got)
            result = await send_mmsg(sender, packets[start:], gso=gso, engine=sending)
            assert result == SendResult(len(packets) - start, [])
        assert got == datas

    return play


def send_past_a_filter(stack: ExitStack, sending: SendEngine, gso: bool) -> Play:
    change("ip link set lo up")
    if shutil.which("nft"):
        change("nft add table ip test")
        change("nft add chain ip test output { type filter hook output priority 0; }")
        change("nft add rule ip test output ip daddr 127.0.0.2 drop")
    elif shutil.which("iptables"):
        change("iptables -A OUTPUT -d 127.0.0.2 -j DROP")
    else:
        missing("neither nft nor iptables is installed")
    sender, good, refused = (udp(stack, f"127.0.0.{n}") for n in (1, 1, 2))

    async def play() -> None:
        with allowed(sending):
            for bad in ([0], [5], [9], [3, 4, 5, 6], range(10)):
                datas = numbered(10, 100)
                packets = [
                    (data, (refused if index in bad else good).getsockname())
                    for index, data in enumerate(datas)
                ]
                result = await send_mmsg(sender, packets, gso=gso, engine=sending)
                assert failures(result) == [(index, errno.EPERM) for index in bad]
                assert result.handled == 10
                got: list[bytes] = []
                if result.sent:
                    await receive(good, result.sent, got)
                assert got == [data for index, data in enumerate(datas) if index not in bad]

    return play


def send_above_the_mtu(stack: ExitStack, sending: SendEngine, whole: bool) -> Play:
    change("ip link set lo up mtu 1400")
    receiver, sender = udp(stack), udp(stack)
    sender.connect(receiver.getsockname())
    if whole:  # linux/in.h
        ip_mtu_discover, ip_pmtudisc_do = 10, 2
        sender.setsockopt(socket.IPPROTO_IP, ip_mtu_discover, ip_pmtudisc_do)
    fits = 1400 - 20 - 8
    sizes = [fits] * 4 + [fits + 1] * 5 + [100] * 3 + [5000, 5000, 100, 100]
    datas = [os.urandom(size) for size in sizes]
    too_long = [index for index, size in enumerate(sizes) if size > fits]

    async def play() -> None:
        with allowed(sending) as told:
            packets = [(data, None) for data in datas]
            result = await send_mmsg(sender, packets, gso=True, engine=sending)
        bad = too_long if whole else []
        assert failures(result) == [(index, errno.EMSGSIZE) for index in bad]
        if sending == "sendmmsg":
            # Runs of 4; 5, refused (by older kernels as EINVAL); then one by one.
            assert told[:2] in ([], [1, -errno.EMSGSIZE], [1, -errno.EINVAL])
        got: list[bytes] = []
        await receive(receiver, result.sent, got)
        assert got == [data for index, data in enumerate(datas) if index not in bad]

    return play


def send_without_checksums(stack: ExitStack, sending: SendEngine, destination: str) -> Play:
    change("ip link add here type veth peer name there")
    other = OtherNetwork()
    change(f"ip link set there netns /proc/{os.getpid()}/fd/{other.opened}")
    with other.entered():
        bring_up("there", "2")
        receiver = udp(stack, destination)
    bring_up("here", "1")
    switch_checksums_off("here")
    sender = udp(stack, destination[:-1] + "1")
    sender.connect(receiver.getsockname())

    async def play() -> None:
        datas = [*numbered(9, 1000), b"the last is shorter"]
        packets = [(data, None) for data in datas]
        with allowed(sending) as told:
            result = await send_mmsg(sender, packets, gso=True, engine=sending)
        assert result == SendResult(10, [])
        if sending == "sendmmsg":
            assert told in ([], [1], [-errno.EIO, 10])
        got: list[bytes] = []
        await receive(receiver, 10, got)
        assert got == datas

    return play


# Their means


def missing(why: str) -> NoReturn:
    print(why)
    sys.exit(MISSING)


def change(command: str) -> None:
    """Change the network; or have the test skipped, in the words of who refuses."""
    program, *arguments = command.split()
    if not shutil.which(program):
        missing(f"{program} is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode:
        missing(f"`{command}` is refused here: {done.stderr.strip()}")


def bring_up(device: str, host: str) -> None:
    change(f"ip address add 10.9.0.{host}/24 dev {device}")
    change(f"ip address add fd09::{host}/64 dev {device} nodad")
    change(f"ip link set {device} up")


def switch_checksums_off(device: str) -> None:
    """Have packets leave `device` with checksums made by the kernel, as by `ethtool -K tx off`."""
    import fcntl  # there is none on Windows

    siocethtool, ethtool_stxcsum = 0x8946, 0x17  # linux/sockios.h, ethtool.h
    value = ctypes.create_string_buffer(struct.pack("=II", ethtool_stxcsum, 0))
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(value))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, siocethtool, request)
        except OSError as error:
            missing(f"checksums can't be switched off here: {error}")


class OtherNetwork:
    """Another network namespace of this process, which sockets can be made in.

    Attributes:
        opened: Its descriptor; it is there until the process ends.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._ours = self._open()
        clone_newnet = 0x40000000  # linux/sched.h
        self._call("unshare", clone_newnet)
        self.opened = self._open()
        self._call("setns", self._ours, 0)

    @contextmanager
    def entered(self) -> Iterator[None]:
        self._call("setns", self.opened, 0)
        try:
            yield
        finally:
            self._call("setns", self._ours, 0)

    def _open(self) -> int:
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY)

    def _call(self, name: str, *arguments: int) -> None:
        if getattr(self._libc, name)(*arguments):
            missing(f"{name}: {os.strerror(ctypes.get_errno())}")


def udp(stack: ExitStack, host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    sock.setblocking(False)
    sock.bind((host, 0))
    return sock


def slow_line(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Return a receiver, and a sender whose buffer is soon full: a packet's way takes 1 ms."""
    change("ip link set lo up")
    change("tc qdisc add dev lo root tbf rate 4mbit burst 4000 limit 4mb")
    receiver, sender = udp(stack), udp(stack)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    sender.connect(receiver.getsockname())
    return receiver, sender


async def receive(
    sock: socket.socket, count: int, got: list[bytes], then: anyio.CancelScope | None = None
) -> None:
    """Receive `count` packets; then cancel a scope."""
    batch = PacketBatch(slot_size=5000)
    while count > 0:
        count -= await recv_mmsg(sock, batch, min(count, batch.capacity))
        got += contents(batch)
        batch.clear()
    if then is not None:
        then.cancel()


@contextmanager
def allowed(sending: SendEngine) -> Iterator[list[int]]:
    """Allow to send by one engine only; report what sendmmsg returned, or the errno, if it can be
    heard."""
    listener = Listener()
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        if sending == "sendmmsg":
            patch.setattr(engines, "Sendto", None)
            if LIBRARY in os.environ:
                stack.enter_context(answering(listener))
        else:
            patch.setattr(engines, "Sendmmsg", None)
        yield listener.said


def failures(result: SendResult) -> list[tuple[int, int | None]]:
    return [(index, error.errno) for index, error in result.failures]


SCENES: dict[str, Callable[..., Play]] = {
    scene.__name__: scene
    for scene in (
        send_by_a_slow_line,
        cancel_on_a_slow_line,
        send_past_a_filter,
        send_above_the_mtu,
        send_without_checksums,
    )
}


def main(scene: str, how: str, backend: str) -> None:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # not that a step was slow

    async def within_time(play: Play) -> None:
        with anyio.fail_after(SECONDS):
            await play()

    name, options = json.loads(backend)
    with ExitStack() as stack:
        play = SCENES[scene](stack, **json.loads(how))
        anyio.run(within_time, play, backend=name, backend_options=options)
    print("played")


if __name__ == "__main__":
    main(*sys.argv[1:])
