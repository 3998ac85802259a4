"""A socket that is opened hears nobody else: neither strangers nor other groups, from the start.

What could come between two steps of opening it is sent there, by a step that is patched.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import anyio
import pytest

from anyio_mmsg import MulticastGroup, PacketBatch, open_udp_socket, recv_mmsg, recv_mmsg_nowait
from anyio_mmsg._stream import open as opening

from ..helpers import contents, have_ipv6, link_local

pytestmark = pytest.mark.anyio
needs_ipv6 = pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="filters and options of Linux")
hosts = pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
LOOPBACK = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)


def before(
    monkeypatch: pytest.MonkeyPatch, step: str, act: Callable[[socket.socket], object]
) -> None:
    """Have something happen just before a step of opening a socket."""
    real = getattr(opening, step)

    def acting(sock: socket.socket, *arguments: Any) -> Any:
        act(sock)
        return real(sock, *arguments)

    monkeypatch.setattr(opening, step, acting)


@hosts
@pytest.mark.parametrize("filtered", [pytest.param(True, marks=on_linux), False])
async def test_strangers_before_the_connect(
    host: str, filtered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`join` comes between bind and connect. Without filters, what has come is thrown away."""
    with ExitStack() as stack:
        family = socket.AF_INET6 if host == "::1" else socket.AF_INET
        peer, stranger = (
            stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2)
        )
        for sock in (peer, stranger):
            sock.bind((host, 0))

        def speak(sock: socket.socket) -> None:
            for number in range(5):
                stranger.sendto(b"%d" % number, (host, sock.getsockname()[1]))

        before(monkeypatch, "join", speak)
        if not filtered:
            monkeypatch.setattr(opening, "hear_nothing", lambda _: False)
        port = peer.getsockname()[1]
        for local in (None, host):
            with await open_udp_socket(local, remote_host=host, remote_port=port) as sock:
                peer.sendto(b"answer", sock.getsockname())
                batch = PacketBatch()
                with anyio.fail_after(60):
                    await recv_mmsg(sock, batch)
                assert contents(batch) == [b"answer"]
                with pytest.raises(anyio.WouldBlock):
                    recv_mmsg_nowait(sock, batch)


@on_linux
@hosts
async def test_a_flood_from_a_stranger(host: str) -> None:
    """Of a hundred sockets at the port that is flooded, none hears any of it."""
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    over = threading.Event()
    with ExitStack() as stack:
        peer, stranger, probe = (
            stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(3)
        )
        peer.bind((host, 0))
        probe.bind((host, 0))
        port = probe.getsockname()[1]
        probe.close()

        def flood() -> None:
            while not over.is_set():
                stranger.sendto(b"flood", (host, port))

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for _ in range(100):
                sock = await open_udp_socket(
                    host, port, remote_host=host, remote_port=peer.getsockname()[1]
                )
                with sock, pytest.raises(anyio.WouldBlock):
                    recv_mmsg_nowait(sock, PacketBatch())
        finally:
            over.set()
            thread.join()


@on_linux
@pytest.mark.skipif(LOOPBACK is None, reason="there is no interface named lo")
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    "family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=needs_ipv6)]
)
async def test_other_groups(
    family: socket.AddressFamily, early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups that another socket of the machine has joined, before the own one is, and later.

    An IPv6 socket that takes IPv4 too hears none of the IPv4 groups either.
    """
    assert LOOPBACK is not None
    index = socket.if_nametoindex(LOOPBACK)
    other = "239.192.7.99"
    mreqn = socket.inet_aton(other) + bytes(4) + index.to_bytes(4, sys.byteorder)
    with ExitStack() as stack:
        listener, sender = (
            stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2)
        )
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreqn)
        for option, value in (
            (socket.IP_MULTICAST_IF, bytes(8) + mreqn[8:]),
            (socket.IP_MULTICAST_TTL, 0),
        ):
            sender.setsockopt(socket.IPPROTO_IP, option, value)

        def speak(sock: socket.socket) -> None:
            sender.sendto(b"not for you", (other, sock.getsockname()[1]))

        group = "ff02::4242" if family == socket.AF_INET6 else "239.192.7.98"
        if early:
            before(monkeypatch, "join", speak)
        sock = await open_udp_socket(
            family=family, multicast_groups=MulticastGroup(group, LOOPBACK)
        )
        with sock:
            if not early:
                speak(sock)
            with pytest.raises(anyio.WouldBlock):
                recv_mmsg_nowait(sock, PacketBatch())

        # The sender is heard by a socket that does not mind.
        with socket.socket(type=socket.SOCK_DGRAM) as plain:
            plain.bind(("0.0.0.0", 0))
            plain.setblocking(False)
            speak(plain)
            assert plain.recv(99) == b"not for you"


@on_linux
@pytest.mark.parametrize("early", [True, False])
async def test_other_ipv6_groups(early: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above. Loopback has no route for IPv6 groups; a hop limit of 0 lets nothing out."""
    if (found := link_local()) is None:
        pytest.skip("no interface here has a link-local address")
    host, interface = found
    index, level = socket.if_nametoindex(interface), socket.IPPROTO_IPV6
    other = "ff02::4299"
    with ExitStack() as stack:
        listener, sender = (
            stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            for _ in range(2)
        )
        joined = socket.inet_pton(socket.AF_INET6, other) + index.to_bytes(4, sys.byteorder)
        listener.setsockopt(level, socket.IPV6_JOIN_GROUP, joined)
        sender.setsockopt(level, socket.IPV6_MULTICAST_IF, index)
        sender.setsockopt(level, socket.IPV6_MULTICAST_HOPS, 0)
        sender.bind((host, 0, 0, index))

        def speak(sock: socket.socket) -> None:
            sender.sendto(b"not for you", (other, sock.getsockname()[1], 0, index))

        if early:
            before(monkeypatch, "join", speak)
        group = MulticastGroup("ff02::4298", interface)
        sock = await open_udp_socket(family=socket.AF_INET6, multicast_groups=group)
        with sock:
            if not early:
                speak(sock)
            with pytest.raises(anyio.WouldBlock):
                recv_mmsg_nowait(sock, PacketBatch())
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as plain:
            plain.bind(("::", 0))
            plain.setblocking(False)
            speak(plain)
            assert plain.recv(99) == b"not for you"


@on_linux
async def test_what_a_socket_is_asked_for_comes_before_it_is_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first packet, which comes before `open_udp_socket` returns, has all of it."""
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        before(
            monkeypatch,
            "join",
            lambda sock: sender.sendto(b"early", ("127.0.0.1", sock.getsockname()[1])),
        )
        asked: Any = dict.fromkeys(("timestamps", "destinations", "ecn", "hop_limits"), True)
        with await open_udp_socket(**asked) as sock:
            batch = PacketBatch(ancillary=True)
            with anyio.fail_after(60):
                await recv_mmsg(sock, batch)
            (packet,) = batch
            assert packet.timestamp is not None
            assert (packet.destination, packet.ecn, packet.hop_limit) == ("127.0.0.1", 0, 64)
            assert packet.interface
