"""Protocols that others wrote, for asyncio's transports: a QUIC server and client, and an RPC."""

from __future__ import annotations

import asyncio
import datetime
import importlib
from pathlib import Path
from typing import Any

import anyio
import pytest

from anyio_mmsg import open_udp_socket

from .helpers import serving

pytestmark = [
    pytest.mark.anyio,
    # aioquic and rpcudp use what newer Pythons, and newer versions of cryptography, deprecate.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for localhost, signed by itself, and its key."""
    x509: Any = pytest.importorskip("cryptography.x509")
    hashes: Any = importlib.import_module("cryptography.hazmat.primitives.hashes")
    serialization: Any = importlib.import_module("cryptography.hazmat.primitives.serialization")
    ec: Any = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ec")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@pytest.mark.parametrize("gso", [False, True])
async def test_quic(gso: bool, tmp_path: Path) -> None:
    """The handshake, a quarter of a megabyte to and fro, and the end of the connection."""
    quic: Any = pytest.importorskip("aioquic.asyncio", reason="aioquic is not installed")
    server: Any = importlib.import_module("aioquic.asyncio.server")
    configuration: Any = importlib.import_module("aioquic.quic.configuration")
    connection: Any = importlib.import_module("aioquic.quic.connection")
    path, key = certificate(tmp_path)
    serving_side = configuration.QuicConfiguration(is_client=False)
    serving_side.load_cert_chain(path, key)
    asking_side = configuration.QuicConfiguration(is_client=True, server_name="localhost")
    asking_side.load_verify_locations(str(path))
    sent = bytes(range(256)) * 1024
    tasks: set[asyncio.Task[None]] = set()

    async def echo(reader: asyncio.StreamReader, writer: Any) -> None:
        writer.write(await reader.read())
        writer.write_eof()

    def handle(reader: asyncio.StreamReader, writer: Any) -> None:
        tasks.add(asyncio.create_task(echo(reader, writer)))

    sock = await open_udp_socket("127.0.0.1", receive_buffer_size=1 << 18)
    client_sock = await open_udp_socket("127.0.0.1", receive_buffer_size=1 << 18)
    address = sock.getsockname()
    async with serving("ours", gso=gso) as start:
        await start(sock, server.QuicServer(configuration=serving_side, stream_handler=handle))
        client = quic.QuicConnectionProtocol(connection.QuicConnection(configuration=asking_side))
        await start(client_sock, client)
        with anyio.fail_after(60):
            client.connect(address)
            await client.wait_connected()
            reader, writer = await client.create_stream()
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == sent
            client.close()
            await client.wait_closed()
            await asyncio.gather(*tasks)


async def test_rpc(way: str) -> None:
    """Two hundred questions at once, and their answers."""
    rpcudp: Any = pytest.importorskip("rpcudp.protocol", reason="rpcudp is not installed")

    class Server(rpcudp.RPCProtocol):  # type: ignore[misc]
        def rpc_square(self, sender: Any, number: int) -> int:
            return number * number

        async def rpc_who(self, sender: Any) -> list[Any]:
            await asyncio.sleep(0)
            return list(sender)

    sock = await open_udp_socket("127.0.0.1", receive_buffer_size=1 << 18)
    client_sock = await open_udp_socket("127.0.0.1", receive_buffer_size=1 << 18)
    address = sock.getsockname()
    async with serving(way) as start:
        await start(sock, Server())
        client = rpcudp.RPCProtocol(wait_timeout=30)
        await start(client_sock, client)
        with anyio.fail_after(60):
            answers = await asyncio.gather(*(client.square(address, n) for n in range(200)))
            assert answers == [(True, n * n) for n in range(200)]
            assert await client.who(address) == (True, list(client_sock.getsockname()))
