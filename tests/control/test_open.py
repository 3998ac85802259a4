"""`open_udp_socket` asks the kernel for control data, and not to fragment."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from anyio_mmsg import PacketBatchPool, PacketReceiver, ReceiveEngine, open_udp_socket
from anyio_mmsg._system import control, options, stamps

from .packets import ALL, LOOPBACK

pytestmark = pytest.mark.anyio

HOSTS = {"inet": ("0.0.0.0", "127.0.0.2"), "inet6": ("::1", "::1"), "mapped": ("::", "127.0.0.2")}


async def test_all_that_packets_can_say(kind: str, engine: ReceiveEngine) -> None:
    local, host = HOSTS[kind]
    asked: dict[str, Any] = {**ALL, "v6only": False if kind == "mapped" else None}
    sock = await open_udp_socket(local, **asked)
    pool = PacketBatchPool(2, 4, engine=engine, ancillary=True)
    family = socket.AF_INET6 if kind == "inet6" else socket.AF_INET
    async with PacketReceiver(sock, pool) as receiver:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"1", (host, sock.getsockname()[1]))
        with await receiver.receive() as batch:
            (packet,) = batch
            shown = "::ffff:127.0.0.2" if kind == "mapped" else host
            assert (packet.destination, packet.interface) == (shown, LOOPBACK)
            assert (packet.ecn, packet.hop_limit) == (0, 64)
            assert packet.timestamp is not None


async def test_nothing_is_asked_for_by_default() -> None:
    with await open_udp_socket("127.0.0.1") as sock:
        for option in (control.IP_PKTINFO, options.IP_RECVTOS, options.IP_RECVTTL):
            assert sock.getsockopt(control.SOL_IP, option) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, stamps.SO_TIMESTAMPNS_NEW) == 0
        assert not options.has_gro(sock)


@pytest.mark.parametrize("name", ["timestamps", "destinations", "ecn", "hop_limits", "gro"])
async def test_another_platform_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "ON_LINUX", False)
    asked: dict[str, Any] = {name: True}
    not_asked: dict[str, Any] = {name: False}
    with pytest.raises(ValueError, match=f"{name}=True needs Linux; leave it out"):
        await open_udp_socket("127.0.0.1", **asked)
    with await open_udp_socket("127.0.0.1", **not_asked):
        pass


async def test_the_old_timestamps(monkeypatch: pytest.MonkeyPatch, engine: ReceiveEngine) -> None:
    """Of a kernel before 5.1, which does not know the new option."""
    monkeypatch.setattr(options, "SO_TIMESTAMPNS_NEW", 12345)
    sock = await open_udp_socket("127.0.0.1", timestamps=True)
    pool = PacketBatchPool(2, 4, engine=engine, ancillary=True)
    async with PacketReceiver(sock, pool) as receiver:
        sock.sendto(b"1", sock.getsockname())
        with await receiver.receive() as batch:
            assert type(batch[0].timestamp) is int


@pytest.mark.parametrize("dont_fragment", [False, True])
async def test_packets_longer_than_the_path(dont_fragment: bool, kind: str) -> None:
    local, host = HOSTS[kind]
    sock = await open_udp_socket(
        local, v6only=False if kind == "mapped" else None, dont_fragment=dont_fragment
    )
    with sock:
        level, option = (
            (control.SOL_IPV6, options.IPV6_MTU_DISCOVER)
            if kind == "inet6"
            else (control.SOL_IP, options.IP_MTU_DISCOVER)
        )
        assert (sock.getsockopt(level, option) == options.PMTUDISC_DO) == dont_fragment
        if kind == "mapped":
            asked = sock.getsockopt(control.SOL_IPV6, options.IPV6_MTU_DISCOVER)
            assert (asked == options.PMTUDISC_DO) == dont_fragment
            host = "::ffff:127.0.0.2"
        address = (host, sock.getsockname()[1])
        sock.sendto(b"x" * 1000, address)
        if dont_fragment:
            # 65,507 bytes and 28 of headers fit no path: loopback's MTU is 65,536.
            try:
                sock.sendto(b"x" * 65_507, address)
            except OSError as error:
                assert error.errno == errno.EMSGSIZE  # noqa: PT017
