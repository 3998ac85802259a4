"""Opening sockets: connected ones, options of IPv6 and multicast, and errors with their causes."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from anyio_mmsg import (
    MulticastGroup,
    PacketBatch,
    open_udp_socket,
    recv_mmsg,
    recv_mmsg_nowait,
)
from anyio_mmsg._stream import multicast

from ..helpers import contents, have_ipv6

pytestmark = pytest.mark.anyio
needs_ipv6 = pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="this is so on Linux")
LOOPBACK = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
needs_lo = pytest.mark.skipif(LOOPBACK is None, reason="there is no interface named lo or lo0")


# Connected sockets


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", pytest.param("::1", marks=needs_ipv6)])
@pytest.mark.parametrize("bound", [False, True])
async def test_a_connected_socket(host: str, bound: bool) -> None:
    with await open_udp_socket(host) as server:
        address, port = server.getsockname()[:2]
        local = host if bound else None
        with await open_udp_socket(
            local, remote_host=host, remote_port=port, family=server.family
        ) as client:
            assert client.getpeername() == server.getsockname()
            assert client.getsockname()[0] == address
            assert not client.getblocking()
            with socket.socket(server.family, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(b"not from the peer", client.getsockname())
            with anyio.fail_after(60):
                client.send(b"question")
                batch = PacketBatch()
                await recv_mmsg(server, batch)
                assert contents(batch) == [b"question"]
                server.sendto(b"answer", batch[0].address)
                batch.clear()
                await recv_mmsg(client, batch)
                assert contents(batch) == [b"answer"]


@needs_ipv6
async def test_the_remote_hosts_version_is_taken() -> None:
    with await open_udp_socket(remote_host="::1", remote_port=9) as sock:
        assert sock.family == socket.AF_INET6
    with await open_udp_socket(remote_host="127.0.0.1", remote_port=9) as sock:
        assert sock.family == socket.AF_INET


@needs_ipv6
@pytest.mark.parametrize("names", [("localhost", "::1"), ("localhost", "127.0.0.1")])
async def test_names_of_both_versions_agree(
    names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [("127.0.0.1", 0), ("::1", 0, 0, 0)]
    real = anyio.getaddrinfo

    async def getaddrinfo(host: str, port: int, **options: Any) -> Any:
        if host != "localhost":
            return await real(host, port, **options)
        kinds = [socket.AF_INET, socket.AF_INET6]
        return [(kind, 0, 0, "", (a[0], port)) for kind, a in zip(kinds, both, strict=True)]

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    for local, remote in (names, names[::-1]):
        with await open_udp_socket(local, remote_host=remote, remote_port=9) as sock:
            assert sock.getpeername()[0] == (remote if remote != "localhost" else local)


@needs_ipv6
async def test_versions_that_differ() -> None:
    with pytest.raises(ValueError, match=r"127\.0\.0\.1 and ::1 have no address of the same IP"):
        await open_udp_socket("127.0.0.1", remote_host="::1", remote_port=9)


# IPv6


@needs_ipv6
@pytest.mark.parametrize("v6only", [None, False, True])
@pytest.mark.parametrize("host", [None, "::"])
async def test_v6only(v6only: bool | None, host: str | None) -> None:
    with await open_udp_socket(host, family=socket.AF_INET6, v6only=v6only) as sock:
        option = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as plain:
        default = plain.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    if v6only is not None:
        assert option == v6only
    else:
        assert option == (default if host else 0)


@needs_ipv6
async def test_ipv4_is_left_to_others() -> None:
    with await open_udp_socket(family=socket.AF_INET6, v6only=True) as sock:
        port = sock.getsockname()[1]
        with await open_udp_socket("0.0.0.0", port) as other:
            assert other.getsockname()[1] == port


# Multicast on its way out


@pytest.mark.parametrize(
    "family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=needs_ipv6)]
)
@needs_lo
async def test_outgoing_options(family: int) -> None:
    assert LOOPBACK is not None
    index = socket.if_nametoindex(LOOPBACK)
    for interface in (LOOPBACK, index):
        with await open_udp_socket(
            family=family, multicast_ttl=7, multicast_loop=False, multicast_interface=interface
        ) as sock:
            if family == socket.AF_INET6:
                level = socket.IPPROTO_IPV6
                assert sock.getsockopt(level, socket.IPV6_MULTICAST_HOPS) == 7
                assert sock.getsockopt(level, socket.IPV6_MULTICAST_LOOP) == 0
                assert sock.getsockopt(level, socket.IPV6_MULTICAST_IF) == index
            if family == socket.AF_INET or sys.platform == "linux":  # also for mapped groups
                assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 7
                assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP) == 0
            if sys.platform == "linux":
                raw = sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 12)
                assert len(raw) == 4 or struct.unpack("@i", raw[8:])[0] == index


async def test_outgoing_options_are_left_alone() -> None:
    with await open_udp_socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as plain:
        for option in (socket.IP_MULTICAST_TTL, socket.IP_MULTICAST_LOOP):
            default = plain.getsockopt(socket.IPPROTO_IP, option)
            assert sock.getsockopt(socket.IPPROTO_IP, option) == default


@needs_lo
async def test_a_group_is_reached_through_the_interface() -> None:
    """Not by the machine's routes, which may have none for groups."""
    assert LOOPBACK is not None
    group = MulticastGroup("239.192.7.9", LOOPBACK)
    with await open_udp_socket(multicast_groups=group) as sock:
        port = sock.getsockname()[1]
        with await open_udp_socket(
            remote_host=group.group,
            remote_port=port,
            multicast_ttl=0,
            multicast_interface=LOOPBACK,
        ) as sender:
            sender.send(b"x")
            batch = PacketBatch()
            with anyio.fail_after(60):
                await recv_mmsg(sock, batch)
        assert contents(batch) == [b"x"]


# Groups that would not be heard


@on_linux
@needs_lo
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "239.192.7.8"])
async def test_a_bound_address_that_hears_no_group(host: str) -> None:
    group = MulticastGroup("239.192.7.9", LOOPBACK)
    with pytest.raises(ValueError, match=r"hears nothing of the group 239\.192\.7\.9 on Linux"):
        await open_udp_socket(host, multicast_groups=group, family=socket.AF_INET)


@on_linux
@needs_ipv6
async def test_a_bound_address_that_hears_no_ipv6_group() -> None:
    with pytest.raises(ValueError, match=r"hears nothing of the group ff02::4242"):
        await open_udp_socket("::1", multicast_groups="ff02::4242")


@on_linux
@needs_lo
@pytest.mark.parametrize("host", [None, "", "0.0.0.0", "239.192.7.9"])
async def test_bound_addresses_that_hear_the_group(host: str | None) -> None:
    group = MulticastGroup("239.192.7.9", LOOPBACK)
    with await open_udp_socket(host, multicast_groups=group) as sock:
        with await open_udp_socket(multicast_ttl=0, multicast_interface=LOOPBACK) as sender:
            sender.sendto(b"x", (group.group, sock.getsockname()[1]))
        batch = PacketBatch()
        with anyio.fail_after(60):
            await recv_mmsg(sock, batch)
        assert contents(batch) == [b"x"]


@needs_lo
async def test_elsewhere_such_an_address_may_be_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows can't bind a group's address."""
    monkeypatch.setattr(multicast, "ON_LINUX", False)
    group = MulticastGroup("239.192.7.9", LOOPBACK)
    sock = await open_udp_socket("127.0.0.1", multicast_groups=group)
    with sock, pytest.raises(anyio.WouldBlock):
        recv_mmsg_nowait(sock, PacketBatch())


# Errors that say what to do


def sysctl(name: str) -> int:
    return int(Path("/proc/sys", *name.split(".")).read_text())


@on_linux
@needs_lo
async def test_too_many_groups() -> None:
    limit = sysctl("net.ipv4.igmp_max_memberships")
    groups = [MulticastGroup(f"239.1.{n // 200}.{n % 200 + 1}", LOOPBACK) for n in range(limit)]
    (await open_udp_socket(multicast_groups=groups)).close()
    groups.append(MulticastGroup("239.2.0.1", LOOPBACK))
    with pytest.raises(OSError, match=r"239\.2\.0\.1.*net\.ipv4\.igmp_max_memberships") as raised:
        await open_udp_socket(multicast_groups=groups)
    assert raised.value.errno == errno.ENOBUFS
    groups[-1] = MulticastGroup("239.2.0.1", LOOPBACK, "127.0.0.1")
    with pytest.raises(OSError, match=r"239\.2\.0\.1.*net\.ipv4\.igmp_max_memberships"):
        await open_udp_socket(multicast_groups=groups)


@on_linux
@needs_lo
async def test_too_many_sources_of_a_group() -> None:
    limit = sysctl("net.ipv4.igmp_max_msf")
    sources = [MulticastGroup("239.1.1.1", LOOPBACK, f"10.0.0.{n + 1}") for n in range(limit + 1)]
    (await open_udp_socket(multicast_groups=sources[:-1])).close()
    with pytest.raises(OSError, match=r"net\.ipv4\.igmp_max_msf") as raised:
        await open_udp_socket(multicast_groups=sources)
    assert raised.value.errno == errno.ENOBUFS


@on_linux
@needs_ipv6
@needs_lo
async def test_too_many_sources_of_an_ipv6_group() -> None:
    limit = sysctl("net.ipv6.mld_max_msf")
    sources = [
        MulticastGroup("ff02::4242", LOOPBACK, f"fe80::{n + 1:x}") for n in range(limit + 1)
    ]
    with pytest.raises(OSError, match=r"net\.ipv6\.mld_max_msf|optmem_max"):
        await open_udp_socket(family=socket.AF_INET6, multicast_groups=sources)


@pytest.mark.parametrize("host", ["127.0.0.1", None, pytest.param("::1", marks=needs_ipv6)])
async def test_a_port_in_use_is_named(host: str | None) -> None:
    with await open_udp_socket(host) as sock:
        address, port = sock.getsockname()[:2]
        with pytest.raises(OSError, match=f"binding to {address} port {port}: ") as raised:
            await open_udp_socket(host, port)
        assert raised.value.errno == errno.EADDRINUSE


async def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(OSError, match=r"binding to 192\.0\.2\.1 port 0: "):
        await open_udp_socket("192.0.2.1")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may bind every port"
)
@on_linux
async def test_a_port_for_root_is_named() -> None:
    if sysctl("net.ipv4.ip_unprivileged_port_start") <= 1:
        pytest.skip("every user may bind every port here")
    with pytest.raises(PermissionError, match=r"binding to 127\.0\.0\.1 port 1: "):
        await open_udp_socket("127.0.0.1", 1)


@on_linux
async def test_a_peer_without_a_route_is_named() -> None:
    with pytest.raises(OSError, match=r"connecting to 255\.255\.255\.255 port 9: "):
        await open_udp_socket(remote_host="255.255.255.255", remote_port=9)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"remote_host": "127.0.0.1"}, ValueError, "give remote_host and remote_port together"),
        ({"remote_port": 9}, ValueError, "give remote_host and remote_port together"),
        ({"remote_host": "", "remote_port": 9}, ValueError, "together"),
        ({"remote_host": "::1", "remote_port": 0}, ValueError, "remote_port is 0; give 1 to 65"),
        ({"remote_host": "::1", "remote_port": 65536}, ValueError, "remote_port is 65536"),
        ({"remote_host": "::1", "remote_port": "9"}, TypeError, "remote_port is a str"),
        (
            {"remote_host": "no.such.host.invalid", "remote_port": 9},
            socket.gaierror,
            "no.such.host.invalid",
        ),
        ({"v6only": True}, ValueError, "v6only is for IPv6 sockets"),
        ({"v6only": 1, "family": socket.AF_INET6}, TypeError, "v6only is a int; give a bool"),
        ({"multicast_ttl": 256}, ValueError, "multicast_ttl is 256; give 0"),
        ({"multicast_ttl": -1}, ValueError, "multicast_ttl is -1"),
        ({"multicast_ttl": True}, TypeError, "multicast_ttl is True"),
        ({"multicast_loop": 0}, TypeError, "multicast_loop is a int; give a bool"),
        *(
            ({name: value}, TypeError, f"{name} is a {type(value).__name__}; give True or False")
            for name in ("reuse_address", "reuse_port", "timestamps", "gro", "dont_fragment")
            for value in (1, None, "no")
        ),
        ({"multicast_interface": "no-such"}, ValueError, "no interface 'no-such'; there are "),
    ],
)
async def test_bad_arguments(
    arguments: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        await open_udp_socket(**arguments)
