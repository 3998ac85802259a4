"""Each candidate does what its figures are of: it receives, sends or answers everything."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import anyio
import pytest

import anyio_mmsg
from anyio_mmsg import recv_mmsg_nowait

pytest.importorskip("rich", reason="the benchmarks need the group 'bench'")

from benchmarks import example, udp
from benchmarks.candidates import (
    fields,
    receivers,
    receiving_peers,
    senders,
    servers,
    serving_peers,
    singles,
    trains,
    veth,
)
from benchmarks.children import Children
from benchmarks.spec import PLAIN, AnySpec, Spec, UnavailableError
from benchmarks.workers import load, protocol, send

COUNT = 64  # packets, which AnyIO's queue of 100 holds all
PAYLOAD, LEAST = 1232, 600
SECONDS = 20  # against hanging
QUERY = b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01"


def cases(specs: list[Any]) -> list[Any]:
    """Return parameters, of which those that are unavailable here are skipped."""
    return [
        pytest.param(
            spec,
            id=spec.key,
            marks=[
                pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed")
                for module in spec.modules
            ],
        )
        for spec in specs
        if spec.kind != "floor"
    ]


def run(spec: AnySpec, function: Callable[[], Awaitable[None]]) -> None:
    """Run on the candidate's loop."""

    async def within() -> None:
        with anyio.fail_after(SECONDS):
            try:
                await function()
            except UnavailableError as reason:
                pytest.skip(str(reason))

    if spec.loop == "trio":
        anyio.run(within, backend="trio")
    else:
        anyio.run(within, backend_options={"use_uvloop": spec.loop == "uvloop"})


RECEIVERS = list(receiving_peers.SPECS.values())


@pytest.mark.parametrize("spec", cases(RECEIVERS))
def test_receiver_gets_every_packet_and_reads_it(spec: receivers.ReceiverSpec) -> None:
    async def check() -> None:
        assert spec.open is not None
        sock = udp.open_socket()
        with sock.dup() as options, udp.Filler(options, COUNT, PAYLOAD, LEAST, 3) as filler:
            udp.set_buffer(options, 2**20)
            receiver = await spec.open(sock)
            ours: tuple[receivers.Use, ...] = ("read", "columns", "received")
            for use in ours * 2 if isinstance(receiver, receivers.Ours) else ours[:1] * 2:
                receiver.got = receiver.octets = 0
                assert filler.fill(options) == COUNT
                await receiver.receive(COUNT, use)
                assert receiver.got == COUNT
                if isinstance(receiver, fields.Fields):
                    assert receiver.total == receiver.octets == 0  # the payloads are zeros
                elif use != "received" or isinstance(receiver, receivers.Stream):
                    assert receiver.octets == filler.octets
            await receiver.aclose()

    run(spec, check)


@pytest.mark.parametrize("destinations", [1, 5])
@pytest.mark.parametrize("spec", cases(list(senders.SPECS.values())))
def test_sender_sends_every_packet(spec: senders.SenderSpec, destinations: int) -> None:
    async def check() -> None:
        assert spec.open is not None
        sock = udp.open_socket()
        own = sock.getsockname()
        sender = await spec.open(sock)
        found = await send.clocked(sender, own, (100, destinations, 16, COUNT, 2), 2**20)
        assert found["lost"] == 0
        assert len(found["ns"]) == 2
        await sender.aclose()

    run(spec, check)


async def asked(spec: serving_peers.ServerSpec, requests: list[bytes]) -> list[bytes]:
    """Send requests to a server; return as many replies."""
    assert spec.open is not None
    sock = udp.open_socket()
    port = sock.getsockname()[1]
    server = await spec.open(sock)
    replies: list[bytes] = []
    with udp.open_sender(port) as client:
        client.setblocking(False)
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(server.serve)
            for request in requests:
                client.send(request)
            while len(replies) < len(requests):
                await anyio.wait_readable(client)
                replies.append(client.recv(PAYLOAD))
            nursery.cancel_scope.cancel()
    await server.aclose()
    return replies


@pytest.mark.parametrize("spec", cases(serving_peers.ECHO))
def test_echo_server_sends_everything_back(spec: serving_peers.ServerSpec) -> None:
    async def check() -> None:
        requests = [bytes([number]) * (number + 1) for number in range(COUNT)]
        assert await asked(spec, requests) == requests

    run(spec, check)


@pytest.mark.parametrize("spec", cases(serving_peers.echoes("ours", "gso", "plain", "sendto")))
def test_echo_server_that_was_cancelled_begins_anew(spec: serving_peers.ServerSpec) -> None:
    async def check() -> None:
        assert spec.open is not None
        sock = udp.open_socket()
        server = await spec.open(sock)
        assert isinstance(server, servers.OurServer)
        capacity = server.batch.capacity
        with udp.Filler(sock, capacity, 10) as filler, udp.open_sender() as client:
            filler.fill(sock)
            assert recv_mmsg_nowait(sock, server.batch, capacity) == capacity
            client.setblocking(False)
            client.sendto(b"new", sock.getsockname())
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(server.serve)
                await anyio.wait_readable(client)
                nursery.cancel_scope.cancel()
            assert client.recv(10) == b"new"
        await server.aclose()

    run(spec, check)


@pytest.mark.parametrize("spec", cases(serving_peers.DNS))
def test_dns_servers_give_the_answers_of_the_example(spec: serving_peers.ServerSpec) -> None:
    async def check() -> None:
        answer = example.load_answer()(QUERY)
        assert answer is not None
        assert answer[:2] == QUERY[:2]
        assert await asked(spec, [QUERY] * 3) == [answer] * 3

    run(spec, check)


@pytest.mark.parametrize("spec", cases(singles.SINGLES + singles.AWAITED))
def test_single_call_takes_or_sends_one_packet_each(spec: singles.SingleSpec) -> None:
    async def check() -> None:
        call = spec.open
        assert call is not None
        with udp.open_socket() as sock:
            filler = singles.prepare(spec.key, sock, 8)
            if filler is not None:
                with filler:
                    assert filler.fill(sock) == 8
            await call(sock, 8)
            assert udp.empty(sock) == (8 if spec.key.startswith("send") else 0)

    run(spec, check)


@pytest.mark.skipif(sys.platform != "linux", reason="GRO and control data are Linux's")
@pytest.mark.parametrize("train", [1, 4, 52])
@pytest.mark.parametrize("spec", cases(trains.TRAINS + trains.CONTROL))
def test_who_takes_trains_takes_every_packet(spec: trains.TrainSpec, train: int) -> None:
    receiver, sender, take = trains.open_pair(spec)
    with receiver, sender:
        udp.set_buffer(receiver, 1 << 20)
        for count in (52, 53):
            trains.fill(sender, count, train)
            assert take() == count
        assert take() == 0


@pytest.mark.parametrize("spec", veth.VETH, ids=lambda spec: spec.key)
def test_who_receives_from_another_network_says_what_came(spec: veth.VethSpec) -> None:
    count = 3 * veth.TRAIN + 1
    with Children() as children:
        if not children.start([spec], 1 << 22):
            pytest.skip(children.missing[spec.key])
        for way in veth.WAYS:
            for command, *rate in (["cross", 100_000], ["burst"]):
                done = children[spec.key].ask(command, way.key, count, *rate)
                if "missing" in done:
                    assert done["missing"]
                    continue
                assert done.keys() - {"ns"} == {"sent", "received", "messages"}
                assert done["sent"] == count
                assert 0 <= done["messages"] <= done["received"] <= count


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "end of input"])
def test_networks_end_with_whoever_made_them(how: str) -> None:
    """The kernel removes a network with its last process."""
    spec = veth.VETH[0]
    ours = socket.if_nameindex()
    with Children() as children:
        child = children.spawn(spec)
        greeting = child.hear()
        if reason := greeting.get("missing"):
            pytest.skip(reason)
        both = (child.process.pid, greeting["load"])
        networks = {Path(f"/proc/{who}/ns/net").readlink() for who in ("self", *both)}
        assert len(networks) == 3
        ended = os.pidfd_open(greeting["load"])
        try:
            if how == "end of input":
                child.close()
            else:
                child.process.send_signal(signal.Signals[how])
            assert select.select([ended], [], [], SECONDS)[0]
        finally:
            os.close(ended)
    assert socket.if_nameindex() == ours


def test_no_networks_no_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without `ip`
    with Children() as children:
        assert children.start(veth.VETH[:1], 1 << 20) == []
        ((reason, names),) = children.left_out(veth.VETH).items()
    assert names == [veth.VETH[0].label]
    assert reason.startswith(("network namespaces are", "no network namespaces", "ip "))


def test_sizes_of_cut_slots_differ_from_one_packet_to_the_next() -> None:
    with udp.open_socket() as sock, udp.Filler(sock, COUNT, PAYLOAD, LEAST) as filler:
        filler.fill(sock)
        sizes = [len(sock.recv(PAYLOAD)) for _ in range(COUNT)]
    assert sum(sizes) == filler.octets
    assert min(sizes) >= LEAST
    assert max(sizes) < PAYLOAD
    assert all(one != other for one, other in pairwise(sizes))


def test_senders_take_turns() -> None:
    with udp.open_socket() as sock, udp.Filler(sock, 5, 10, senders=3) as filler:
        filler.fill(sock)
        filler.fill(sock)
        sources = [sock.recvfrom(10)[1] for _ in range(10)]
    assert len(set(sources)) == 3
    assert sources == (sources[:3] * 4)[:10]


class Echo:
    """A server in a thread, for the load."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((udp.LOOPBACK, 0))
        self.port = self.sock.getsockname()[1]

    def serve(self) -> None:
        """Echo until an empty datagram comes."""
        while True:
            data, address = self.sock.recvfrom(PAYLOAD)
            if not data:
                break
            self.sock.sendto(data, address)

    def stop(self) -> None:
        """End `serve`."""
        with udp.open_sender(self.port) as sender:
            sender.send(b"")


def loaded(function: Callable[[int], protocol.Answer]) -> protocol.Answer:
    """Put a load on an echo server."""
    echo = Echo()
    thread = Thread(target=echo.serve)
    with echo.sock:
        thread.start()
        try:
            return function(echo.port)
        finally:
            echo.stop()
            thread.join()


@pytest.mark.parametrize(
    "function",
    [lambda port: load.ping(port, PAYLOAD, 10), lambda port: load.pace(port, PAYLOAD, 10, 1e6)],
    ids=["ping", "pace"],
)
def test_load_counts_no_packet_twice(function: Callable[[int], protocol.Answer]) -> None:
    found = loaded(function)
    # On a machine in distress an echo may come too late to be waited for, or to go on.
    assert len(found["ns"]) + found["lost"] <= 10


def test_flood_ends() -> None:
    found = loaded(lambda port: load.flood(port, PAYLOAD, 64, 0.02))
    assert set(found) == {"echoed", "lost", "seconds", "cpu"}


def main(spec: AnySpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the worker's `main` in this process; it is to serve nobody."""

    async def serve(spec: AnySpec) -> None:
        raise UnavailableError("there is nothing to serve")

    monkeypatch.setattr(sys, "argv", ["worker", spec.key])
    protocol.main(serve, {spec.key: spec})


@pytest.mark.parametrize(
    ("kind", "compiled", "reason"),
    [
        ("ours", True, "nothing to serve"),
        ("ours", False, "the compiled module is not built"),
        ("plain", False, "nothing to serve"),
        ("peer", False, "nothing to serve"),
    ],
)
def test_worker_says_what_is_missing(
    kind: Any,
    compiled: bool,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(anyio_mmsg, "compiled", compiled, raising=False)
    main(Spec("k", "label", "", kind, None, "receive"), monkeypatch)
    assert reason in json.loads(capsys.readouterr().out)["missing"]


def test_plain_python_is_never_measured_with_the_compiled_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(anyio_mmsg, "compiled", True, raising=False)
    with pytest.raises(SystemExit, match="without the compiled module"):
        main(Spec("k", "label", "", "plain", None, "receive", environment=PLAIN), monkeypatch)


def test_who_can_not_be_started_is_left_out() -> None:
    absent: AnySpec = Spec("absent", "Absent", "trio", "peer", None, "receive", needs=("nowhere",))
    floor: AnySpec = Spec("floor", "C", "", "floor", None, "unheard_of")
    with Children() as children:
        assert children.start([absent, floor], 2**16) == []
        assert children.left_out([absent, floor]) == {
            "nowhere is not installed": ["Absent, trio"],
            "C floors need Linux and a compiler": ["C"],
        }
