"""http3_server.py, run as a program, and asked by aioquic's and niquests' clients."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .helpers import (
    DEADLINE,
    Program,
    client,
    each_backend,
    each_host,
    has_nothing,
    numbers,
    only_linux,
    running,
    wait_for_all,
    without_signals,
)

pytest.importorskip("aioquic", reason="aioquic is not installed; the group 'dev' has it")

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

pytestmark = without_signals

MOST = Path("/proc/sys/net/core/rmem_max")  # bytes of a buffer that may be asked for
CONTENT = random.Random(1).randbytes(150_000)


class Client(QuicConnectionProtocol):
    """A client that asks for files."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._http = H3Connection(self._quic)
        self._waiting: dict[int, tuple[asyncio.Future[bytes], bytearray]] = {}
        self.body_begins = asyncio.Event()

    async def get(self, path: str) -> bytes:
        """Return a response's body."""
        stream = self._quic.get_next_available_stream_id()
        fields = {":method": "GET", ":scheme": "https", ":authority": "localhost", ":path": path}
        headers = [(name.encode(), value.encode()) for name, value in fields.items()]
        self._http.send_headers(stream, headers, end_stream=True)
        future = asyncio.get_running_loop().create_future()
        self._waiting[stream] = future, bytearray()
        self.transmit()
        body: bytes = await future
        return body

    def quic_event_received(self, event: QuicEvent) -> None:
        for http_event in self._http.handle_event(event):
            self._take(http_event)

    def _take(self, event: H3Event) -> None:
        assert isinstance(event, HeadersReceived | DataReceived)
        future, body = self._waiting[event.stream_id]
        if isinstance(event, DataReceived):
            body += event.data
            self.body_begins.set()
        if event.stream_ended:
            future.set_result(bytes(body))


@contextmanager
def server(folder: Path, *options: str) -> Iterator[tuple[Program, tuple[str, int], Path]]:
    """Run the server for a folder; give it, its address, and its certificate."""
    (folder / "files").mkdir()
    (folder / "files" / "content").write_bytes(CONTENT)
    certificate = folder / "server.pem"
    where = ["--folder", str(folder / "files"), "--self-signed", str(certificate), "--port", "0"]
    with running("http3_server.py", *where, *options) as program:
        yield program, program.address(), certificate


@asynccontextmanager
async def connected(address: tuple[str, int], certificate: Path) -> AsyncIterator[Any]:
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, cafile=str(certificate), server_name="localhost"
    )
    async with connect(*address, configuration=configuration, create_protocol=Client) as client:
        yield client


class Relay(asyncio.DatagramProtocol):
    """Stands between clients and a server; loses one datagram in 20, and swaps one in 10."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._random = random.Random(7)
        self._client: tuple[str, int] | None = None
        self._held: tuple[bytes, Any] | None = None
        self.lost = 0

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.DatagramTransport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        to: Any = self._client
        if addr != self._server:
            self._client, to = addr, self._server
        chance = self._random.random()
        if chance < 0.05:
            self.lost += 1
        elif chance < 0.15 and self._held is None:
            self._held = data, to
        else:
            self._transport.sendto(data, to)
            if self._held is not None:
                self._transport.sendto(*self._held)
                self._held = None


@each_backend
@each_host
def test_files_for_many_clients(tmp_path: Path, backend: str, host: str) -> None:
    async def one(address: tuple[str, int], certificate: Path) -> None:
        async with connected(address, certificate) as client:
            for got in await asyncio.gather(*[client.get("/content") for _ in range(3)]):
                assert got == CONTENT
            assert await client.get("/bytes/70000") == bytes(70000)

    async def all_of_them(address: tuple[str, int], certificate: Path) -> None:
        await asyncio.wait_for(
            asyncio.gather(*[one(address, certificate) for _ in range(4)]), DEADLINE
        )

    with server(tmp_path, "--backend", backend, "--host", host) as (program, address, certificate):
        asyncio.run(all_of_them(address, certificate))
        lines = program.stop(signal.SIGTERM)
    assert numbers(lines[-1], "in all # connections") == (4,)
    assert numbers(lines[-1], "; # requests") == (16,)
    assert "faults" not in lines[-1]
    assert "send failures" not in lines[-1]


@pytest.mark.parametrize("retry", [(), ("--retry",)])
def test_niquests_gets_files(tmp_path: Path, retry: tuple[str, ...]) -> None:
    """A client of another QUIC library: qh3, in Rust."""
    niquests = pytest.importorskip("niquests", reason="niquests is not installed")
    with server(tmp_path, *retry) as (program, (_, port), certificate):
        with niquests.Session(disable_http1=True, disable_http2=True) as session:
            url = f"https://localhost:{port}"
            got = session.get(f"{url}/content", verify=str(certificate), timeout=DEADLINE)
            assert (got.http_version, got.status_code, got.content) == (30, 200, CONTENT)
            missing = session.get(f"{url}/no", verify=str(certificate), timeout=DEADLINE)
            assert missing.status_code == 404
        lines = program.stop()
    assert numbers(lines[-1], "; # requests") == (2,)
    assert ("retries" in lines[-1]) == bool(retry)


@each_backend
def test_through_a_relay_that_loses_and_swaps(tmp_path: Path, backend: str) -> None:
    async def get(address: tuple[str, int], certificate: Path) -> int:
        loop = asyncio.get_running_loop()
        transport, relay = await loop.create_datagram_endpoint(
            lambda: Relay(address), local_addr=("127.0.0.1", 0)
        )
        try:
            between = transport.get_extra_info("sockname")
            async with connected(between, certificate) as client:
                assert await asyncio.wait_for(client.get("/content"), DEADLINE) == CONTENT
        finally:
            transport.close()
        return relay.lost

    with server(tmp_path, "--backend", backend) as (program, address, certificate):
        assert asyncio.run(get(address, certificate)) > 0
        program.stop()


def test_a_rude_client_hinders_nobody(tmp_path: Path) -> None:
    async def get(address: tuple[str, int], certificate: Path) -> None:
        chance = random.Random(5)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rude:
            for size in [0, 1, 50, 1200, 1400] * 100:
                rude.sendto(chance.randbytes(size), address)
            async with connected(address, certificate) as client:
                assert await asyncio.wait_for(client.get("/content"), DEADLINE) == CONTENT

    with server(tmp_path) as (program, address, certificate):
        asyncio.run(get(address, certificate))
        lines = program.stop()
    assert numbers(lines[-1], "not QUIC #")[0] > 0
    assert "faults" not in lines[-1]


def of_another_version(name: bytes) -> bytes:
    """Return a client's first datagram, of a version that nobody speaks: the answer has `name`."""
    header = b"\xc0\x1a\x2a\x3a\x4a\x08whatever\x08" + name
    return header.ljust(1200, b"\0")


@only_linux
@each_backend
def test_a_burst_of_1000(tmp_path: Path, backend: str) -> None:
    """Each datagram that the kernel has taken is answered; it counts what it did not take."""
    names = [b"%8d" % number for number in range(1000)]
    room = min(int(MOST.read_text()), 2**22)  # for 1000, if that much is allowed
    books = "; # datagrams received, .*; dropped by kernel #"
    options = ["--backend", backend, "--buffer", str(room), "--interval", "0.05"]
    with server(tmp_path, *options) as (program, address, _), ExitStack() as stack:
        senders = [stack.enter_context(client(address[0])) for _ in range(20)]
        with program.held():  # so that all of them are there when it goes on
            for number, name in enumerate(names):
                senders[number % 20].sendto(of_another_version(name), address)
        wait_for_all(program, 1000, books)
        last = program.stop()[-1]
        answers = []
        for sock in senders:
            while not has_nothing(sock, socket.MSG_PEEK):
                answers.append(sock.recv(2000)[6:14])
    received, sent = numbers(last, "; # datagrams received, # sent")
    assert (sent, len(answers)) == (received, received)
    assert len(set(answers) & set(names)) == received
    if room >= 2**22:
        assert received == 1000


@each_backend
def test_a_stop_lets_a_response_end(tmp_path: Path, backend: str) -> None:
    """GOAWAY while a body is under way: it comes whole, then the connection is closed."""

    async def get(program: Program, address: tuple[str, int], certificate: Path) -> None:
        async with connected(address, certificate) as client:
            assert await asyncio.wait_for(client.get("/bytes/0"), DEADLINE) == b""
            wanted = asyncio.ensure_future(client.get("/bytes/1000000"))
            await asyncio.wait_for(client.body_begins.wait(), DEADLINE)
            program.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(wanted, DEADLINE) == bytes(1_000_000)
            await asyncio.wait_for(client.wait_closed(), DEADLINE)

    with server(tmp_path, "--backend", backend, "--grace", "50") as (program, address, cert):
        asyncio.run(get(program, address, cert))
        lines = program.end()
    assert numbers(lines[-1], "; # requests") == (2,)


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async def ask(program: Program, address: tuple[str, int], certificate: Path) -> list[str]:
        async with connected(address, certificate) as client:
            wanted = asyncio.ensure_future(client.get("/bytes/1000000000"))
            await asyncio.wait_for(client.body_begins.wait(), DEADLINE)
            for how in (signal.SIGINT, signal.SIGTERM):  # two that don't become one
                program.process.send_signal(how)
            lines = await asyncio.to_thread(program.end)
            wanted.cancel()
            client._quic.close()
            return lines

    with server(tmp_path, "--grace", "50") as (program, address, certificate):
        lines = asyncio.run(ask(program, address, certificate))
    assert numbers(lines[-1], "; # requests") == (1,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give --certificate, or --self-signed"),
        (("--certificate", "/nonexistent"), "can't be read: "),
        (("--self-signed", "x.pem", "--datagram", "1"), "--datagram has to be at least 1200"),
    ],
)
def test_wrong_options(options: tuple[str, ...], words: str) -> None:
    with running("http3_server.py", *options) as program:
        assert program.process.stderr is not None
        assert words in program.process.stderr.read()
        assert program.process.wait() == 2
