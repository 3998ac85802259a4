"""What a network reports: a router with a small MTU, one without a route, a host that refuses.

Each test runs this file in a process of its own, with three networks: ours, a router's, a
server's (as tests/send/test_network.py does, where the means come from).
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from anyio_mmsg import (
    IcmpError,
    PacketBatch,
    PacketReceiver,
    open_udp_socket,
    recv_mmsg,
)
from anyio_mmsg._system.error_queue import errors_pending

from ..helpers import ENGINES, contents
from ..send.test_network import MISSING, SECONDS, OtherNetwork, change, own_network

MTU = 1280
"""Of the way from the router to the server: the least that IPv6 allows."""


@pytest.mark.parametrize("version", ["inet", "inet6", "dual"])
def test_what_a_network_reports(version: str, anyio_backend: Any) -> None:
    command = [*own_network(), sys.executable, "-W", "error", "-m", __name__]
    command += [version, json.dumps(anyio_backend)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=3 * SECONDS, cwd=Path(__file__).parents[2]
    )
    if done.returncode == MISSING:
        pytest.skip(done.stdout.strip())
    assert (done.stdout, done.stderr, done.returncode) == ("played\n", "", 0)


# What runs in networks of its own


class World:
    """We, a router, and a server behind it.

    Attributes:
        server: The server's address, as a socket of the version writes it.
        router: The router's, on our side.
        nowhere: An address that the router has no route to.
    """

    def __init__(self, version: str, stack: ExitStack) -> None:
        self.version = version
        hosts = ("10.9.2.1", "10.9.1.2", "10.9.3.1")
        if version == "inet6":
            hosts = ("fd09:2::1", "fd09:1::2", "fd09:3::1")
        elif version == "dual":
            hosts = ("::ffff:10.9.2.1", "::ffff:10.9.1.2", "::ffff:10.9.3.1")
        self.server, self.router, self.nowhere = hosts
        router, server = OtherNetwork(), OtherNetwork()
        change("ip link add ours type veth peer name near")
        change(f"ip link set near netns /proc/{os.getpid()}/fd/{router.opened}")
        change("ip link set lo up")
        bring_up("ours", 1, 1)
        change("ip route add default via 10.9.1.2")
        change("ip route add default via fd09:1::2")
        with router.entered():
            change("ip link add far type veth peer name there")
            change(f"ip link set there netns /proc/{os.getpid()}/fd/{server.opened}")
            change("ip link set lo up")
            bring_up("near", 1, 2)
            bring_up("far", 2, 2)
            change(f"ip link set far mtu {MTU}")
            setting("ipv4/ip_forward", 1)
            setting("ipv6/conf/all/forwarding", 1)
            report_all()
        with server.entered():
            change("ip link set lo up")
            bring_up("there", 2, 1)
            change("ip route add default via 10.9.2.2")
            change("ip route add default via fd09:2::2")
            report_all()
            family = socket.AF_INET6 if version == "inet6" else socket.AF_INET
            self.listener = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            self.listener.bind((self.server.removeprefix("::ffff:"), 0))
            with socket.socket(family, socket.SOCK_DGRAM) as gone:
                gone.bind((self.server.removeprefix("::ffff:"), 0))
                self.unheard = gone.getsockname()[1]
            until_up("there")
        with router.entered():
            until_up("near", "far")
        until_up("ours")


def bring_up(device: str, net: int, host: int) -> None:
    change(f"ip address add 10.9.{net}.{host}/24 dev {device}")
    change(f"ip address add fd09:{net}::{host}/64 dev {device} nodad")
    change(f"ip link set {device} up")


def until_up(*devices: str) -> None:
    """Wait until the kernel sends by a line whose both ends are up: before, it drops packets."""
    for device in devices:
        shown: Any = None
        for _ in range(10_000):
            shown = subprocess.run(["ip", "link", "show", device], capture_output=True, text=True)
            if "state UP" in shown.stdout and "qdisc noop " not in shown.stdout:
                break
        else:
            raise AssertionError(shown)


def setting(name: str, value: int) -> None:
    Path("/proc/sys/net", name).write_text(str(value))


def report_all() -> None:
    """Have this network's host report each packet, not some a second."""
    setting("ipv4/icmp_ratelimit", 0)
    setting("ipv6/icmp/ratelimit", 0)


async def play(world: World) -> None:
    any_host: dict[str, Any] = {"family": socket.AF_INET}
    if world.version != "inet":
        any_host = {"family": socket.AF_INET6, "v6only": world.version == "inet6"}
    ipv6 = world.version == "inet6"
    unheard = (world.server, world.unheard)
    # Where to, what the kernel makes of it, who reports it, the message (RFC 792, RFC 4443).
    refused = (unheard, errno.ECONNREFUSED, world.server, (1, 4) if ipv6 else (3, 3), None)
    no_route = (
        (world.nowhere, 9),
        errno.ENETUNREACH,
        world.router,
        (1, 0) if ipv6 else (3, 0),
        None,
    )
    too_far = (unheard, errno.EHOSTUNREACH, world.router, (3, 0) if ipv6 else (11, 0), None)
    too_long = (
        (world.server, world.listener.getsockname()[1]),
        errno.EMSGSIZE,
        world.router,
        (2, 0) if ipv6 else (3, 4),
        MTU,
    )
    asker: Any = None
    for engine in ENGINES:
        batch = PacketBatch(engine=engine)
        sock = await open_udp_socket(icmp_errors=True, **any_host)
        with sock:
            for expected in (refused, no_route):
                for data in (b"first", b"second"):
                    check(await raised(sock, batch, data, expected[0]), expected, data)
            hops(sock, 1)
            check(await raised(sock, batch, b"far", unheard), too_far, b"far")
            hops(sock, 64)
            # It hears on.
            _, asker = heard(world.listener, sock, b"question", too_long[0])
            await answered(sock, batch, world.listener, asker)

    # A receiver counts them, in their order, and goes on.
    seen: list[OSError] = []
    scope = anyio.CancelScope()

    def note(error: OSError) -> None:
        seen.append(error)
        scope.cancel()

    sock = await open_udp_socket(icmp_errors=True, **any_host)
    async with PacketReceiver(sock, on_error=note) as receiver:
        for expected in (refused, no_route):
            for _ in range(9):  # sent again if the network has lost it, as in `raised`
                with contextlib.suppress(OSError):  # struck by the report of the one before
                    sock.sendto(b"data", expected[0])
                with anyio.move_on_after(2) as scope:
                    await receiver.receive()
                if expected[1] in [error.errno for error in seen]:
                    break
            check(seen[-1], expected, b"data")
        for _ in range(9):
            world.listener.sendto(b"answer", (asker[0], sock.getsockname()[1]))
            with anyio.move_on_after(2) as scope:
                with await receiver.receive() as received:
                    assert set(contents(received)) == {b"answer"}
                break
        counted = receiver.statistics().transient_errors
        assert sum(counted.values()) == len(seen)
        assert set(counted) == {errno.ECONNREFUSED, errno.ENETUNREACH}

    # The router says how long a packet may be; from then on this machine does.
    with await open_udp_socket(icmp_errors=True, dont_fragment=True, **any_host) as sock:
        long = bytes(1400)
        error = await raised(sock, PacketBatch(), long, too_long[0])
        check(error, too_long, None)
        assert 0 < len(error.data) <= len(long)
        with pytest.raises(OSError, match="too long"):
            sock.sendto(long, too_long[0])
        with pytest.raises(IcmpError) as caught:
            await recv_mmsg(sock, PacketBatch())
        error = caught.value
        assert (error.errno, error.mtu, error.local) == (errno.EMSGSIZE, MTU, True)
        assert isinstance(error.destination, tuple)
        assert error.destination[0] == world.server
        headers = 48 if ipv6 else 28
        data, _ = heard(world.listener, sock, bytes(MTU - headers), too_long[0])
        assert len(data) == MTU - headers


def hops(sock: socket.socket, number: int) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, number)
    if sock.family == socket.AF_INET or not sock.getsockopt(41, socket.IPV6_V6ONLY):
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, number)


# A kernel that is busy may drop a packet, or report it late: then it is sent again.


def heard(
    listener: socket.socket, sock: socket.socket, data: bytes, address: tuple[str, int]
) -> tuple[bytes, Any]:
    """Send a packet, and return what the listener hears, and from where."""
    listener.settimeout(1)
    for _ in range(9):
        with contextlib.suppress(OSError):  # no packet in time; or a report strikes the send
            sock.sendto(data, address)
            return listener.recvfrom(9999)
    raise AssertionError("the listener heard nothing")


async def answered(
    sock: socket.socket, batch: PacketBatch, listener: socket.socket, asker: Any
) -> None:
    """Have the listener answer, and receive that."""
    for _ in range(9):
        listener.sendto(b"answer", asker)
        with anyio.move_on_after(2), contextlib.suppress(IcmpError):  # of a packet before
            await recv_mmsg(sock, batch)
            assert set(contents(batch)) == {b"answer"}
            return
    raise AssertionError("no answer came")


async def raised(
    sock: socket.socket, batch: PacketBatch, data: bytes, address: tuple[str, int]
) -> IcmpError:
    """Send a packet, and return the error that it causes.

    A report that is there has to wake whoever waits.
    """
    for _ in range(9):
        with contextlib.suppress(OSError):  # struck by a report that came late
            sock.sendto(data, address)
        with anyio.move_on_after(2):
            with pytest.raises(IcmpError) as caught:
                await recv_mmsg(sock, batch)
            if caught.value.data in (data, data[: len(caught.value.data) or 1]):
                return caught.value
            continue  # it was that of one before, which came late
        assert not errors_pending(sock), "a wait was not woken"
    raise AssertionError("nothing was reported")


def check(error: OSError, expected: tuple[Any, ...], data: bytes | None) -> None:
    destination, code, offender, message, mtu = expected
    assert isinstance(error, IcmpError)
    assert isinstance(error.destination, tuple)
    assert (error.destination[:2], error.errno, error.offender) == (destination, code, offender)
    assert ((error.icmp_type, error.icmp_code), error.mtu) == (message, mtu)
    assert not error.local
    if data is not None:
        assert error.data == data


def main(version: str, backend: str) -> None:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # not that a step was slow

    async def within_time() -> None:
        with anyio.fail_after(SECONDS):
            await play(world)

    name, options = json.loads(backend)
    with ExitStack() as stack:
        world = World(version, stack)
        anyio.run(within_time, backend=name, backend_options=options)
    print("played")


if __name__ == "__main__":
    main(*sys.argv[1:])
