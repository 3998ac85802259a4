"""Libraries that call `create_datagram_endpoint` themselves, each served by batches by one line.

That line is the loop of `batched_loop_factory`, which each test runs its library on.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from anyio_mmsg import batched_loop_factory
from anyio_mmsg._protocol import endpoint

from ..helpers import free_port
from .conftest import base_of
from .test_packages import certificate

# What these libraries do that newer Pythons, and newer versions of others, deprecate.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture
def run(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a program on a loop of ours, and check that its endpoints are."""
    made: list[object] = []
    start = endpoint.start

    @functools.wraps(start)
    def counting(*arguments: Any) -> Any:
        transport = start(*arguments)
        made.append(transport)
        return transport

    monkeypatch.setattr(endpoint, "start", counting)

    def running(main: Callable[[], Awaitable[None]]) -> None:
        async def limited() -> None:
            with anyio.fail_after(60):
                await main()

        factory = batched_loop_factory(base_of(anyio_backend[1]))  # the line
        anyio.run(limited, backend_options={"loop_factory": factory})
        assert made

    return running


def test_aioquic(run: Run, tmp_path: Path) -> None:
    """Its own server and client, which open their sockets themselves."""
    quic: Any = pytest.importorskip("aioquic.asyncio", reason="aioquic is not installed")
    configuration: Any = importlib.import_module("aioquic.quic.configuration")
    path, key = certificate(tmp_path)
    server = configuration.QuicConfiguration(is_client=False)
    server.load_cert_chain(path, key)
    client = configuration.QuicConfiguration(is_client=True, server_name="localhost")
    client.load_verify_locations(str(path))
    sent, port = bytes(range(256)) * 400, free_port()
    tasks: set[asyncio.Task[None]] = set()

    async def echo(reader: asyncio.StreamReader, writer: Any) -> None:
        writer.write(await reader.read())
        writer.write_eof()

    def handle(reader: asyncio.StreamReader, writer: Any) -> None:
        tasks.add(asyncio.create_task(echo(reader, writer)))

    async def main() -> None:
        serving = await quic.serve("127.0.0.1", port, configuration=server, stream_handler=handle)
        async with quic.connect("127.0.0.1", port, configuration=client) as connection:
            reader, writer = await connection.create_stream()
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == sent
        serving.close()
        await asyncio.gather(*tasks)

    run(main)


def test_aiocoap(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With those of its transports that use endpoints; another one has add_reader of its own."""
    aiocoap: Any = pytest.importorskip("aiocoap", reason="aiocoap is not installed")
    resource: Any = importlib.import_module("aiocoap.resource")
    monkeypatch.setenv("AIOCOAP_SERVER_TRANSPORT", "simplesocketserver")
    monkeypatch.setenv("AIOCOAP_CLIENT_TRANSPORT", "simple6")
    port = free_port()

    class Squares(resource.Resource):  # type: ignore[misc]
        async def render_post(self, request: Any) -> Any:
            return aiocoap.Message(payload=b"%d" % int(request.payload) ** 2)

    async def main() -> None:
        site = resource.Site()
        site.add_resource(["square"], Squares())
        server = await aiocoap.Context.create_server_context(site, bind=("127.0.0.1", port))
        client = await aiocoap.Context.create_client_context()

        async def ask(number: int) -> bytes:
            message = aiocoap.Message(
                code=aiocoap.POST, payload=b"%d" % number, uri=f"coap://127.0.0.1:{port}/square"
            )
            answer: bytes = (await client.request(message).response).payload
            return answer

        for number in range(20):
            assert await ask(number) == b"%d" % number**2
        await client.shutdown()
        await server.shutdown()

    run(main)


def test_pysnmp(run: Run) -> None:
    """An agent and a manager in one loop."""
    snmp: Any = pytest.importorskip(
        "pysnmp.hlapi.v3arch.asyncio", reason="pysnmp is not installed"
    )
    engine_module: Any = importlib.import_module("pysnmp.entity.engine")
    config: Any = importlib.import_module("pysnmp.entity.config")
    responder: Any = importlib.import_module("pysnmp.entity.rfc3413.cmdrsp")
    contexts: Any = importlib.import_module("pysnmp.entity.rfc3413.context")
    udp: Any = importlib.import_module("pysnmp.carrier.asyncio.dgram.udp")
    port = free_port()

    async def main() -> None:
        agent = engine_module.SnmpEngine()
        config.add_transport(
            agent, udp.DOMAIN_NAME, udp.UdpTransport().open_server_mode(("127.0.0.1", port))
        )
        config.add_v1_system(agent, "area", "public")
        config.add_vacm_user(agent, 2, "area", "noAuthNoPriv", (1, 3, 6, 1, 2, 1))
        responder.GetCommandResponder(agent, contexts.SnmpContext(agent))
        manager = snmp.SnmpEngine()
        failure, status, _, answers = await snmp.get_cmd(
            manager,
            snmp.CommunityData("public"),
            await snmp.UdpTransportTarget.create(("127.0.0.1", port)),
            snmp.ContextData(),
            snmp.ObjectType(snmp.ObjectIdentity("1.3.6.1.2.1.1.2.0")),
        )
        assert (failure, int(status)) == (None, 0)
        assert len(answers) == 1
        manager.close_dispatcher()
        agent.close_dispatcher()

    run(main)


def test_python_osc(run: Run) -> None:
    """A hundred messages at once."""
    dispatcher: Any = pytest.importorskip(
        "pythonosc.dispatcher", reason="python-osc is not installed"
    )
    server: Any = importlib.import_module("pythonosc.osc_server")
    client: Any = importlib.import_module("pythonosc.udp_client")
    port = free_port()
    heard: list[int] = []

    async def main() -> None:
        all_heard = asyncio.Event()

        def hear(address: str, number: int) -> None:
            heard.append(number)
            if len(heard) == 100:
                all_heard.set()

        routes = dispatcher.Dispatcher()
        routes.map("/number", hear)
        loop = asyncio.get_running_loop()
        serving = server.AsyncIOOSCUDPServer(("127.0.0.1", port), routes, loop)
        transport, _ = await serving.create_serve_endpoint()
        sender = client.SimpleUDPClient("127.0.0.1", port)
        for number in range(100):
            sender.send_message("/number", number)
        await all_heard.wait()
        transport.close()
        await asyncio.sleep(0)

    run(main)
    assert heard == list(range(100))


def test_zeroconf(run: Run) -> None:
    """A service is announced on loopback, and found there by another instance."""
    asynchronous: Any = pytest.importorskip("zeroconf.asyncio", reason="zeroconf is not installed")
    zeroconf: Any = importlib.import_module("zeroconf")
    kind, name = "_mmsg-test._udp.local.", "batches._mmsg-test._udp.local."

    async def main() -> None:
        options: Any = {"interfaces": ["127.0.0.1"], "ip_version": zeroconf.IPVersion.V4Only}
        server = asynchronous.AsyncZeroconf(**options)
        client = asynchronous.AsyncZeroconf(**options)
        service = asynchronous.AsyncServiceInfo(
            kind, name, port=4242, addresses=[socket.inet_aton("127.0.0.1")], server="here.local."
        )
        await (await server.async_register_service(service))
        found = await client.async_get_service_info(kind, name, timeout=20_000)
        assert found is not None
        assert found.port == 4242
        await client.async_close()
        await server.async_close()

    run(main)
