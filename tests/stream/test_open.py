"""Opening sockets: addresses, buffers, groups, and errors that say what to do."""

from __future__ import annotations

import socket
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from anyio_mmsg import MulticastGroup, PacketBatch, open_udp_socket, recv_mmsg

from ..helpers import assert_others_run, contents, have_ipv6, link_local

pytestmark = pytest.mark.anyio
needs_ipv6 = pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
LOOPBACK = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", pytest.param("::1", marks=needs_ipv6)])
async def test_receives(host: str) -> None:
    with await open_udp_socket(host) as sock:
        assert sock.getblocking() is False
        assert sock.type is socket.SOCK_DGRAM
        with socket.socket(sock.family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", sock.getsockname())
        batch = PacketBatch()
        with anyio.fail_after(60):
            assert await recv_mmsg(sock, batch) == 1
        assert contents(batch) == [b"x"]


async def test_all_addresses() -> None:
    with await open_udp_socket() as sock:
        assert sock.family == socket.AF_INET
        assert sock.getsockname()[0] == "0.0.0.0"


@needs_ipv6
async def test_all_addresses_of_both_versions() -> None:
    with await open_udp_socket(family=socket.AF_INET6) as sock:
        port = sock.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"4", ("127.0.0.1", port))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"6", ("::1", port))
        batch = PacketBatch()
        while len(batch) < 2:
            with anyio.fail_after(60):
                await recv_mmsg(sock, batch)
        assert contents(batch) == [b"4", b"6"]
        assert [address[0] for address in batch.addresses()] == ["::ffff:127.0.0.1", "::1"]


@needs_ipv6
async def test_family_chooses() -> None:
    with await open_udp_socket("localhost", family=socket.AF_INET) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


async def test_buffers() -> None:
    with await open_udp_socket(
        "127.0.0.1", receive_buffer_size=50_000, send_buffer_size=60_000
    ) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 50_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 60_000


@pytest.mark.skipif(sys.platform != "linux", reason="net.core.rmem_max is Linux's")
async def test_a_buffer_beyond_the_limit_is_forced_or_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = 1 << 29
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with await open_udp_socket("127.0.0.1", receive_buffer_size=asked) as sock:
            granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    messages = [str(warning.message) for warning in caught]
    if granted == asked:
        assert messages == []  # may do as it likes: CAP_NET_ADMIN
    else:
        assert len(messages) == 1
        assert f"a receive buffer of {granted:,} bytes instead of {asked:,}" in messages[0]
        assert f"sysctl -w net.core.rmem_max={asked}" in messages[0]


@pytest.mark.skipif(sys.platform != "linux", reason="net.core.rmem_max is Linux's")
async def test_a_user_without_the_right_is_warned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if without CAP_NET_ADMIN: the option that would force it does not exist."""
    monkeypatch.setattr(
        "anyio_mmsg._stream.buffers._BUFFERS",
        {
            "receive": (socket.SO_RCVBUF, socket.SO_RCVLOWAT, "net.core.rmem_max"),
        },
    )
    with pytest.warns(RuntimeWarning, match=r"sysctl -w net\.core\.rmem_max=536870912") as caught:
        (await open_udp_socket("127.0.0.1", receive_buffer_size=1 << 29)).close()
    assert len(caught) == 1


async def test_two_sockets_on_one_port() -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        with pytest.raises(ValueError, match="no SO_REUSEPORT"):
            await open_udp_socket("127.0.0.1", reuse_port=True)
        return
    with await open_udp_socket("127.0.0.1", reuse_port=True) as one:
        port = one.getsockname()[1]
        with await open_udp_socket("127.0.0.1", port, reuse_port=True) as other:
            assert other.getsockname() == one.getsockname()
        with pytest.raises(OSError, match="in use"):
            await open_udp_socket("127.0.0.1", port)


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["inet", "inet6"])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    if request.param == socket.AF_INET:
        if LOOPBACK is None:
            pytest.skip("there is no interface named lo or lo0")
        with Group(request.param, "239.192.7.7", LOOPBACK, "127.0.0.1") as group:
            yield group
    else:
        # Linux gives lo no route for IPv6 multicast: another interface, from which with a hop
        # limit of 0 nothing leaves.
        if (found := link_local()) is None:
            pytest.skip("no interface here has a link-local address")
        with Group(request.param, "ff02::4242", found[1], found[0]) as group:
            yield group


class Group:
    """A multicast group that stays on this machine, and a sender to it."""

    def __init__(self, family: int, address: str, interface: str, source: str) -> None:
        self.family, self.address, self.interface = family, address, interface
        self.source, self.index = source, socket.if_nametoindex(interface)

    def __enter__(self) -> Group:
        self.sender = sender = socket.socket(self.family, socket.SOCK_DGRAM)
        if self.family == socket.AF_INET:
            host = socket.inet_aton(self.source)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, host)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
            sender.bind((self.source, 0))
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, self.index)
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 0)
            sender.bind((self.source, 0, 0, self.index))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sender.close()

    async def open(self, source: str | None, port: int = 0, by_index: bool = False) -> Any:
        interface = self.index if by_index else self.interface
        join = MulticastGroup(self.address, interface, source)
        return await open_udp_socket(local_port=port, family=self.family, multicast_groups=[join])


@pytest.mark.parametrize("specific", [False, True], ids=["any-source", "source-specific"])
async def test_multicast(group: Group, specific: bool) -> None:
    if specific and sys.platform != "linux":
        pytest.skip("source-specific joins are tested on Linux")
    source = group.source if specific else None
    one = await group.open(source)
    port = one.getsockname()[1]
    other = await group.open(source, port, by_index=True)
    with one, other:
        group.sender.sendto(b"to all", (group.address, port))
        for sock in (one, other):  # each of the group's sockets gets it
            batch = PacketBatch()
            with anyio.fail_after(60):
                assert await recv_mmsg(sock, batch) == 1
            assert contents(batch) == [b"to all"]
            assert batch[0].address[0] == group.source


@pytest.mark.skipif(sys.platform != "linux", reason="source-specific joins are tested on Linux")
async def test_another_source_is_not_heard(group: Group) -> None:
    stranger = "192.0.2.1" if group.family == socket.AF_INET else "2001:db8::1"
    with await group.open(stranger) as sock:
        await assert_not_heard(sock, group)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a socket hears its own groups")
async def test_a_group_that_another_socket_joined_is_not_heard(group: Group) -> None:
    with await group.open(None) as other:
        address, port = group.address, other.getsockname()[1]
        group.address = "239.192.7.8" if group.family == socket.AF_INET else "ff02::4243"
        with await group.open(None, port) as sock:
            group.address = address
            await assert_not_heard(sock, group)


async def assert_not_heard(sock: socket.socket, group: Group) -> None:
    group.sender.sendto(b"not for us", (group.address, sock.getsockname()[1]))
    with anyio.move_on_after(0.05) as scope:
        await recv_mmsg(sock, PacketBatch())
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"local_port": 65536}, ValueError, "local_port is 65536; give 0 to 65535"),
        ({"local_port": -1}, ValueError, "local_port is -1"),
        ({"local_port": "53"}, TypeError, "local_port is a str, not an int"),
        ({"family": 1}, ValueError, r"family is 1; give socket\.AF_INET"),
        ({"receive_buffer_size": 0}, ValueError, "receive_buffer_size is 0; give bytes"),
        ({"send_buffer_size": True}, TypeError, "send_buffer_size is True"),
        ({"receive_buffer_size": 2**30}, ValueError, "at most 1,073,741,823"),
        ({"multicast_groups": "ff02::1%lo"}, ValueError, "has a scope; give it as"),
        ({"multicast_groups": "239.1.1.1,239.1.1.2"}, ValueError, "give numeric addresses"),
        ({"multicast_groups": ["239.1.1.1"] * 2}, OSError, r"joining MulticastGroup\(group='239"),
        ({"multicast_groups": ["10.0.0.1"]}, ValueError, "not a multicast address"),
        ({"multicast_groups": ["all-hosts"]}, ValueError, "give numeric addresses"),
        ({"multicast_groups": ["ff02::1"]}, ValueError, "not for the socket's IPv4"),
        (
            {"multicast_groups": [MulticastGroup("239.1.1.1", "no-such")]},
            ValueError,
            "no interface 'no-such'; there are ",
        ),
        ({"local_host": "no.such.host.invalid"}, socket.gaierror, "no.such.host.invalid"),
    ],
)
async def test_bad_arguments(
    arguments: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        await open_udp_socket(**arguments)


@pytest.mark.parametrize("host", [None, "127.0.0.1"])
async def test_always_a_checkpoint(host: str | None, anyio_backend_name: str) -> None:
    with assert_others_run(anyio_backend_name), await open_udp_socket(host):
        pass
    with anyio.CancelScope() as scope:  # a socket would be left open, which warns
        scope.cancel()
        await open_udp_socket(host)
    assert scope.cancelled_caught


async def test_a_failure_leaves_no_socket_open() -> None:
    """Warnings are errors here, and an unclosed socket warns."""
    with pytest.raises(OSError, match=r"assign|address"):
        await open_udp_socket("192.0.2.1")
