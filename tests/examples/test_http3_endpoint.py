"""The HTTP/3 example without a socket: clients by aioquic, a network that loses, our own clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .helpers import load

pytest.importorskip("aioquic", reason="aioquic is not installed; the group 'dev' has it")

from aioquic.h3.connection import H3_ALPN, ErrorCode
from aioquic.quic.configuration import QuicConfiguration

from .http3_client import Client, World

FILES = {
    "/index.html": b"<p>home",
    "/a b.txt": b"text",
    "/big": random.Random(1).randbytes(200_000),
}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file: Path = tmp_path_factory.mktemp("http3") / "server.pem"
    load("http3_server").self_signed(file)
    return file


Make = Callable[..., World]


@pytest.fixture
def make(certificate: Path) -> Make:
    """Makes a world with an endpoint; arguments are those of both."""
    http3 = load("http3")

    def make(
        loss: float = 0.0,
        seed: int = 0,
        respond: Any = None,
        idle_timeout: float = 30.0,
        **options: Any,
    ) -> World:
        configuration = QuicConfiguration(
            is_client=False, alpn_protocols=H3_ALPN, idle_timeout=idle_timeout
        )
        configuration.load_cert_chain(certificate)
        respond = respond or http3.Site(FILES).respond
        return World(http3.Endpoint(configuration, respond, **options), loss, seed)

    return make


def summary(answer: Any) -> tuple[bytes, bytes, int]:
    return answer.headers[b":status"], answer.headers[b"content-type"], len(answer.data)


@pytest.mark.parametrize("retry", [False, True])
def test_what_a_site_answers(make: Make, certificate: Path, retry: bool) -> None:
    world = make(retry=retry)
    client = world.connect(certificate)
    paths = ["/", "/a%20b.txt", "/big?x=1", "/bytes/100000", "/bytes/0", "/no", "/bytes/-1"]
    paths += ["/bytes/9999999999", "/../etc/passwd", "/bytes/x"]
    answers = [client.ask(path) for path in paths]
    answers += [client.ask("/big", "HEAD"), client.ask("/", "POST")]
    world.send()
    world.run(*answers)
    assert [summary(answer) for answer in answers] == [
        (b"200", b"text/html", 7),
        (b"200", b"text/plain", 4),
        (b"200", b"application/octet-stream", 200_000),
        (b"200", b"application/octet-stream", 100_000),
        (b"200", b"application/octet-stream", 0),
        *[(b"404", b"text/plain; charset=utf-8", 10)] * 5,
        (b"200", b"application/octet-stream", 0),
        (b"405", b"text/plain; charset=utf-8", 18),
    ]
    assert bytes(answers[2].data) == FILES["/big"]
    assert answers[2].headers[b"content-length"] == b"200000"
    assert answers[-1].headers[b"allow"] == b"GET, HEAD"
    assert world.endpoint.counts["retries"] == retry


def test_the_list_of_files() -> None:
    http3 = load("http3")
    answer = http3.Site({"/<&.txt": b"1"}).respond("GET", "/")
    assert b'<a href="/%3C%26.txt">/&lt;&amp;.txt</a>, 1 bytes' in b"".join(answer.body)


def test_files_are_read_but_hidden_ones(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("a/b.txt", "c", ".secret", ".git/config"):
        (tmp_path / name).write_bytes(name.encode())
    assert load("http3").read_folder(tmp_path) == {"/a/b.txt": b"a/b.txt", "/c": b"c"}


@pytest.mark.parametrize("seed", range(5))
def test_loss_and_reordering(make: Make, certificate: Path, seed: int) -> None:
    world = make(loss=0.05, seed=seed)
    clients = [world.connect(certificate) for _ in range(5)]
    answers = [client.ask(path) for client in clients for path in ("/big", "/a%20b.txt", "/big")]
    world.send()
    world.run(*answers)
    for first, second, third in zip(*[iter(answers)] * 3, strict=True):
        assert bytes(first.data) == bytes(third.data) == FILES["/big"]
        assert bytes(second.data) == b"text"
    assert world.endpoint.counts["requests"] == 15
    assert world.endpoint.counts["faults"] == 0


def test_an_idle_client_is_forgotten(make: Make, certificate: Path) -> None:
    world = make(idle_timeout=20.0)
    client = world.connect(certificate)
    world.run(client.ask("/a%20b.txt"))
    assert len(world.endpoint) == 1
    world.silent.add(client.address)
    world.run()
    assert len(world.endpoint) == 0
    assert world.endpoint.next_timer() is None


def test_a_client_that_vanishes_costs_little_memory(make: Make, certificate: Path) -> None:
    """It asks for much and then hears nothing: what is queued for it has a bound."""
    http3 = load("http3")
    world = make()
    rude = world.connect(certificate, max_data=1 << 30, max_stream_data=1 << 30)
    other = world.connect(certificate)
    world.run(rude.ask("/a%20b.txt"), other.ask("/a%20b.txt"))
    for _ in range(50):
        rude.ask("/bytes/1000000000")
    world.send()
    most = 0
    world.silent.add(rude.address)
    answer = other.ask("/big")
    for _ in range(2000):
        world.step()
        most = max(most, *(connection.unsent for connection in world.endpoint._ids), 0)
    assert bytes(answer.data) == FILES["/big"]
    assert 0 < most <= http3.WINDOW + 32 * 1024
    world.run()
    assert len(world.endpoint) == 0


def test_a_client_that_stops_a_response(make: Make, certificate: Path) -> None:
    world = make()
    client = world.connect(certificate)
    stopped = client.ask("/bytes/100000000")
    world.send()
    while not stopped.data:
        assert world.step()
    client.quic.stop_stream(0, ErrorCode.H3_REQUEST_CANCELLED)
    answer = client.ask("/big")
    world.send()
    world.run(answer)
    assert bytes(answer.data) == FILES["/big"]
    assert len(stopped.data) < 10_000_000
    assert world.endpoint.counts["faults"] == 0


def test_what_is_not_quic_does_no_harm(make: Make, certificate: Path) -> None:
    world = make(most=1)
    chance = random.Random(3)
    address = ("192.0.2.9", 9)
    for size in (0, 1, 7, 20, 1200, 1500, 65507):
        for first in (0x00, 0x40, 0x80, 0xC0, 0xFF):
            rest = chance.randbytes(max(0, size - 1))
            world.endpoint.receive(bytes([first])[:size] + rest, address, world.now)
    world.endpoint.datagrams(world.now)
    client = world.connect(certificate)
    world.run(client.ask("/a%20b.txt"))
    assert world.endpoint.counts["not QUIC"] > 0
    assert world.endpoint.counts["of no connection"] > 0


def test_another_version_is_answered_with_ours(make: Make, certificate: Path) -> None:
    world = make()
    header = b"\xc0" + b"\x0a\x0a\x0a\x0a" + b"\x08" + b"12345678" + b"\x08" + b"abcdefgh"
    world.endpoint.receive(header + bytes(1200), ("192.0.2.9", 9), world.now)
    [(answer, address)] = world.endpoint.datagrams(world.now)
    assert address == ("192.0.2.9", 9)
    assert answer[1:5] == bytes(4)  # Version Negotiation, RFC 8999 section 6
    # An answer to an answer would never end.
    world.endpoint.receive(answer, address, world.now)
    world.endpoint.receive(answer + bytes(1200), address, world.now)
    assert world.endpoint.datagrams(world.now) == []
    # What is too short for a client's first datagram gets none: RFC 9000 section 5.2.2.
    world.endpoint.receive(header + bytes(1199 - len(header)), address, world.now)
    assert world.endpoint.datagrams(world.now) == []


def test_more_clients_than_there_may_be(make: Make, certificate: Path) -> None:
    world = make(most=1)
    first, second = world.connect(certificate), world.connect(certificate)
    world.run(first.ask("/a%20b.txt"))
    assert len(world.endpoint) == 1
    assert world.endpoint.counts["refused"] > 0
    first.quic.close()
    world.send()
    answer = second.ask("/a%20b.txt")  # it has tried again meanwhile
    world.run(answer)
    assert bytes(answer.data) == b"text"


def test_a_forged_token_is_ignored(make: Make, certificate: Path) -> None:
    world = make(retry=True)
    client = world.connect(certificate, token=b"forged" * 10)
    for _ in range(5):
        world.step()
    assert world.endpoint.counts["bad token"] > 0
    assert len(world.endpoint) == 0
    assert client.ended is None


def test_a_fault_ends_one_connection(make: Make, certificate: Path) -> None:
    site = load("http3").Site(FILES)

    def respond(method: str, path: str) -> Any:
        if path == "/fault":
            raise LookupError(path)
        return site.respond(method, path)

    world = make(respond=respond)
    bad, good = world.connect(certificate), world.connect(certificate)
    bad.ask("/fault")
    answer = good.ask("/big")
    world.send()
    world.run(answer)
    assert bytes(answer.data) == FILES["/big"]
    assert (world.endpoint.counts["faults"], len(world.endpoint)) == (1, 1)


def test_a_client_may_change_its_connection_id_and_its_address(
    make: Make, certificate: Path
) -> None:
    world = make()
    client = world.connect(certificate)
    world.run(client.ask("/a%20b.txt"))
    client.quic.change_connection_id()
    moved = ("192.0.2.77", 7)
    world.clients = {moved: client}
    answer = client.ask("/big")
    world.send()
    world.run(answer)
    assert bytes(answer.data) == FILES["/big"]


def test_a_graceful_end(make: Make, certificate: Path) -> None:
    world = make()
    busy, idle = world.connect(certificate), world.connect(certificate)
    world.run(busy.ask("/a%20b.txt"), idle.ask("/a%20b.txt"))
    while not all(connection.idle for connection in world.endpoint._ids):
        assert world.step()
    wanted = busy.ask("/big")
    world.send()
    while not wanted.data:
        assert world.step()
    world.endpoint.go_away()
    late = busy.ask("/a%20b.txt")
    newcomer = world.connect(certificate)
    for _ in range(10_000):
        world.endpoint.close_idle()
        world.send()
        if world.endpoint.is_over:
            break
        assert world.step()
    world.run()
    assert bytes(wanted.data) == FILES["/big"]
    assert late.reset == ErrorCode.H3_REQUEST_REJECTED
    for client in (busy, idle):
        assert client.ended is not None
        assert client.ended.error_code == ErrorCode.H3_NO_ERROR
    # GOAWAY (7, one byte long) names the first stream that was not used for a request.
    assert busy.control.endswith(b"\x07\x01\x08")
    assert newcomer.answers == {}
    assert len(world.endpoint) == 0


def test_its_client_checks_the_certificate(make: Make, certificate: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    load("http3_server").self_signed(other)
    world = make()
    client: Client = world.connect(other)
    world.run()
    assert client.ended is not None
    assert client.ended.error_code != ErrorCode.H3_NO_ERROR
