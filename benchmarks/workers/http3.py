"""Others' HTTP/3 servers: ``python -m benchmarks.workers.http3 KEY CERTIFICATE``.

CERTIFICATE is a file with it and its key. It prints "listening on HOST:PORT", and serves until it
is terminated. It answers with the site of the example.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as serve_quic
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent

from anyio_mmsg import batched_loop_factory
from benchmarks import example
from benchmarks.candidates.http3_servers import AIOQUIC, BATCHED, SPECS, Http3Spec
from benchmarks.udp import LOOPBACK

SITE = example.load("http3").Site({})


class Serving(QuicConnectionProtocol):
    """A connection of aioquic's server, written as its own example is."""

    http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        """Answer requests."""
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if self.http is None:
            return
        for received in self.http.handle_event(event):
            if isinstance(received, HeadersReceived):
                self._answer(self.http, received)

    def _answer(self, http: H3Connection, request: HeadersReceived) -> None:
        asked = dict(request.headers)
        response = SITE.respond(asked[b":method"].decode(), asked[b":path"].decode())
        headers = [(b":status", str(response.status).encode())]
        http.send_headers(request.stream_id, headers)
        http.send_data(request.stream_id, b"".join(response.body), end_stream=True)
        self.transmit()


async def serve_aioquic(certificate: str) -> None:
    """Serve by `aioquic.asyncio.serve`, on whatever loop runs."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(certificate)
    server: Any = await serve_quic(
        LOOPBACK, 0, configuration=configuration, create_protocol=Serving
    )
    listening(server._transport.get_extra_info("sockname")[1])  # it has no other way to say it
    await asyncio.Event().wait()


async def answer(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer by the site: an ASGI application."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])  # so that no life span is waited for
    while (await receive()).get("more_body"):
        pass
    response = SITE.respond(scope["method"], scope["path"])
    await send({"type": "http.response.start", "status": response.status, "headers": []})
    for chunk in response.body:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def free_port() -> int:
    """Return a port that is free now; Hypercorn reports none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, 0))
        port: int = sock.getsockname()[1]
        return port


def listening(port: int) -> None:
    """Say where."""
    print(f"listening on {LOOPBACK}:{port}", flush=True)


def serve_hypercorn(loop: str, certificate: str) -> None:
    """Serve by Hypercorn's workers."""
    from hypercorn.config import Config

    config, port = Config(), free_port()
    config.bind, config.quic_bind = [f"{LOOPBACK}:0"], [f"{LOOPBACK}:{port}"]
    config.certfile = config.keyfile = certificate
    config.errorlog = None
    listening(port)  # in an instant, and a client asks again
    if loop == "trio":
        import trio
        from hypercorn.trio import serve as serve_on_trio

        application: Any = answer
        trio.run(partial(serve_on_trio, application, config))
    else:
        from hypercorn.asyncio import serve as serve_on_asyncio

        run(serve_on_asyncio(answer, config), loop_class(loop))  # type: ignore[arg-type]


def loop_class(loop: str) -> type[asyncio.AbstractEventLoop]:
    """Return asyncio's or uvloop's class of loops."""
    if loop == "uvloop":
        import uvloop

        return uvloop.Loop
    return asyncio.SelectorEventLoop


def run(
    serving: Coroutine[Any, Any, None], factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Run until the end."""
    loop = factory()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serving)


def main(spec: Http3Spec, certificate: str) -> None:
    """Serve."""
    if AIOQUIC in spec.key:
        run(serve_aioquic(certificate), loop_class(spec.loop))
    elif BATCHED in spec.key:
        run(serve_aioquic(certificate), batched_loop_factory(loop_class(spec.loop)))
    else:
        serve_hypercorn(spec.loop, certificate)


if __name__ == "__main__":
    main(SPECS[sys.argv[1]], sys.argv[2])
