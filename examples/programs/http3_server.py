"""An HTTP/3 server for static files, on Trio and asyncio by the same code.

    python -m pip install -e '.[trio]' "aioquic>=1.7"
    python examples/programs/http3_server.py --port 4433 --folder . --self-signed /tmp/server.pem
    python examples/programs/http3_server.py --certificate my.pem --key my.key --backend trio

`--self-signed` writes a new certificate for localhost, 127.0.0.1 and ::1 to that file, for clients
to trust. With niquests, for instance, which has to be told that there is nothing but HTTP/3:

    python -m pip install niquests
    python
    >>> import niquests
    >>> session = niquests.Session(disable_http1=True, disable_http2=True)
    >>> session.get("https://localhost:4433/README.md", verify="/tmp/server.pem").text

Files are read once, at the start. /bytes/N gives N bytes, to measure with.

aioquic makes QUIC and HTTP/3 out of bytes and never touches a socket. The folder http3/ is around
it, and this file around that: one receiver, one timer for all connections, and one call that sends
what each batch has caused. On Linux the kernel coalesces what arrives, and splits what is sent
(GRO, GSO).

With `--retry` clients show first that they are where they claim to be. `--connections` bounds how
many there may be. A fault in one connection ends that one alone, and is counted.

Ctrl-C or SIGTERM stops it gracefully: it takes no new connections and asks clients for no new
requests (GOAWAY); a connection is closed when its client has got what it asked for, or after
`--grace` seconds. A second signal ends it at once. The exit status is 0.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import math
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from anyio_mmsg import PacketBatchPool, PacketReceiver, open_udp_socket, send_mmsg
from shared import (
    OneLineErrors,
    Rate,
    add_backend_option,
    announce,
    losses,
    print_at_intervals,
    run_on,
    stop_on_signal,
)

if TYPE_CHECKING:
    from aioquic.quic.configuration import QuicConfiguration

    from http3 import Endpoint, Site

LINUX = sys.platform == "linux"
# What fits into an Ethernet frame over IPv6: 1,500 - 40 - 8 (RFC 2464, RFC 8200, RFC 768). A path
# that carries less needs a smaller --datagram: the kernel is asked not to fragment (RFC 9000
# section 14).
LARGEST = 1452
SMALLEST = 1200  # that any path of QUIC carries (RFC 9000 section 14)


class Server:
    """Moves datagrams between a socket and an `Endpoint`, and watches the clock for it."""

    def __init__(self, sock: socket.socket, receiver: PacketReceiver, endpoint: Endpoint) -> None:
        self._sock = sock
        self._receiver = receiver
        self._endpoint = endpoint
        self._alarm = anyio.CancelScope()
        self._stopping = False
        self._over = anyio.Event()
        self._sends = 0  # under way
        self._sent = 0  # datagrams
        self._failures: Counter[int] = Counter()
        self._rate = Rate(anyio.current_time())

    async def run(self, grace: float, interval: float) -> None:
        """Serve until Ctrl-C, then say goodbye to each client."""
        wanted = anyio.Event()
        async with self._receiver, anyio.create_task_group() as nursery:
            await nursery.start(stop_on_signal, wanted.set, nursery.cancel_scope.cancel)
            announce(self._sock)
            nursery.start_soon(print_at_intervals, interval, self.line)
            nursery.start_soon(self._watch_the_clock)
            nursery.start_soon(self._receive)
            await wanted.wait()
            await self._say_goodbye(grace)
            nursery.cancel_scope.cancel()
        print(self.line(last=True), flush=True)

    async def _receive(self) -> None:
        """Take what arrives: a batch of datagrams, then one call for all that they have caused."""
        async for batch in self._receiver:
            now = anyio.current_time()
            with batch:
                # As bytes: aioquic keeps what it gets, and its parser takes nothing else.
                for data, address in batch.datagrams():
                    self._endpoint.receive(data, address, now)
            await self._send()

    async def _watch_the_clock(self) -> None:
        """Call the endpoint whenever one of its timers is due."""
        while True:
            with anyio.CancelScope(deadline=self._due()) as self._alarm:
                await anyio.sleep_forever()
            self._endpoint.handle_timers(anyio.current_time())
            await self._send()

    async def _send(self) -> None:
        """Send what the endpoint has to send, and set the clock anew."""
        now = anyio.current_time()
        datagrams = self._endpoint.datagrams(now)
        if self._stopping:
            self._endpoint.close_idle()
            datagrams += self._endpoint.datagrams(now)
        self._alarm.deadline = self._due()
        if datagrams:
            # Equal sizes to one client stand together, so the kernel gets them as one (GSO).
            self._sends += 1
            result = await send_mmsg(self._sock, datagrams, gso=True)
            self._sends -= 1
            self._sent += result.sent
            self._failures.update(result.errors)
        if self._stopping and self._endpoint.is_over and not self._sends:
            self._over.set()  # and not before: what clients are told last has gone out

    def _due(self) -> float:
        due = self._endpoint.next_timer()
        return math.inf if due is None else due

    async def _say_goodbye(self, grace: float) -> None:
        """Let clients have what they asked for, then close their connections."""
        self._stopping = True
        self._endpoint.go_away()
        with anyio.move_on_after(grace):
            await self._send()
            await self._over.wait()
        self._endpoint.close_all()
        await self._send()

    def line(self, *, last: bool = False) -> str:
        """Return totals and the rate since the last line; the last line has the overall rate."""
        counts, now = self._endpoint.counts, anyio.current_time()
        rate = self._rate.since_start if last else self._rate.since_last_look
        requests = counts["requests"]
        others = {name: n for name, n in counts.items() if name not in ("requests", "connections")}
        return "; ".join(
            [
                f"{'in all' if last else '--'} {counts['connections']:,} connections "
                f"({len(self._endpoint):,} open)",
                f"{requests:,} requests ({rate(now, requests):,.0f}/s)",
                f"{self._receiver.statistics().packets:,} datagrams received, {self._sent:,} sent",
                *(f"{name} {count:,}" for name, count in sorted(others.items())),
                *(f"send failures {dict(self._failures)}" for _ in range(bool(self._failures))),
                losses(self._receiver.statistics()),
            ]
        )


def self_signed(file: Path) -> None:
    """Write a certificate for this machine's own names, and its key, that lasts for a day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    addresses = [x509.IPAddress(ipaddress.ip_address(host)) for host in ("127.0.0.1", "::1")]
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.touch(mode=0o600)
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)


def configuration_of(options: argparse.Namespace) -> QuicConfiguration:
    """Return QUIC's configuration, by the command line."""
    from aioquic.h3.connection import H3_ALPN
    from aioquic.quic.configuration import QuicConfiguration

    if options.self_signed:
        self_signed(options.self_signed)
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=H3_ALPN,
        idle_timeout=options.idle,
        max_datagram_size=options.datagram,
    )
    configuration.load_cert_chain(options.self_signed or options.certificate, options.key)
    return configuration


async def run(options: argparse.Namespace, configuration: QuicConfiguration, site: Site) -> None:
    """Open the socket and serve."""
    from http3 import Endpoint

    sock = await open_udp_socket(
        options.host,
        options.port,
        gro=LINUX,
        dont_fragment=LINUX,
        receive_buffer_size=options.buffer,
        send_buffer_size=options.buffer,
    )
    endpoint = Endpoint(configuration, site.respond, retry=options.retry, most=options.connections)
    # One batch is enough: nothing is received while it is answered. Without GRO, a slot takes the
    # longest datagram that there can be.
    pool = PacketBatchPool(1, gro=True) if LINUX else PacketBatchPool(1, slot_size=65527)
    await Server(sock, PacketReceiver(sock, pool), endpoint).run(options.grace, options.interval)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=4433, help="0 for any free one")
    parser.add_argument("--folder", type=Path, help="whose files are served")
    parser.add_argument("--certificate", type=Path, help="a file with it, and those above it")
    parser.add_argument("--key", type=Path, help="its key, if that is in another file")
    parser.add_argument(
        "--self-signed", type=Path, metavar="FILE", help="where to write a new one"
    )
    parser.add_argument("--retry", action="store_true", help="have clients show their address")
    parser.add_argument("--connections", type=int, default=10_000, help="at most")
    parser.add_argument("--idle", type=float, default=30, help="seconds until one is given up")
    parser.add_argument("--datagram", type=int, default=LARGEST, help="bytes of one, at most")
    add_backend_option(parser)
    parser.add_argument("--buffer", type=int, help="bytes of the kernel's buffers to ask for")
    parser.add_argument("--interval", type=float, default=10, help="seconds between reports")
    parser.add_argument("--grace", type=float, default=10, help="seconds to finish what is asked")
    options = parser.parse_args()
    if bool(options.self_signed) == bool(options.certificate):
        parser.error("give --certificate, or --self-signed to have one made")
    if not SMALLEST <= options.datagram <= 65527:
        parser.error(f"--datagram has to be at least {SMALLEST}, at most 65527")
    from http3 import Site, read_folder

    try:
        configuration = configuration_of(options)
        site = Site(read_folder(options.folder))
    except (OSError, ValueError, IndexError) as error:  # the last: a file without a certificate
        parser.error(f"the certificate, its key or the folder can't be read: {error}")
    run_on(options.backend, run, options, configuration, site)


if __name__ == "__main__":
    with OneLineErrors():
        main()
