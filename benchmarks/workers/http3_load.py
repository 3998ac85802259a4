"""A client of HTTP/3 by qh3, whose crypto is Rust's: ``python -m benchmarks.workers.http3_load``.

Each command opens a connection, and its clock begins after the handshake.

===========================  =================================================================
get PORT SIZE COUNT WINDOW   asks for /bytes/SIZE COUNT times, WINDOW of them at a time:
                             {"seconds", "bytes"}, or {"missing": why not}
===========================  =================================================================
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from time import perf_counter
from typing import Any

from qh3.asyncio.client import connect
from qh3.asyncio.protocol import QuicConnectionProtocol
from qh3.h3.connection import H3_ALPN, H3Connection
from qh3.h3.events import DataReceived, HeadersReceived
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.events import QuicEvent

from benchmarks.udp import LOOPBACK

from .protocol import Answer, answer

PATIENCE = 10.0  # seconds: some ten times what the slowest takes


class Asking(QuicConnectionProtocol):
    """Asks for one path again and again, some at a time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.http = H3Connection(self._quic)  # now: the server's streams come with the handshake

    def start(self, size: int, count: int, window: int) -> None:
        """Send the first requests."""
        self.size = size
        self.left = count
        self.under_way = 0
        self.got = 0
        self.done = asyncio.Event()
        for _ in range(min(window, count)):
            self._ask()
        self.transmit()

    def _ask(self) -> None:
        self.left -= 1
        self.under_way += 1
        headers = {
            ":method": "GET",
            ":scheme": "https",
            ":authority": "localhost",
            ":path": f"/bytes/{self.size}",
        }
        stream = self._quic.get_next_available_stream_id()
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.http.send_headers(stream, encoded, end_stream=True)

    def quic_event_received(self, event: QuicEvent) -> None:
        """Count what comes, and ask for more."""
        for received in self.http.handle_event(event):
            if isinstance(received, DataReceived):
                self.got += len(received.data)
            if isinstance(received, DataReceived | HeadersReceived) and received.stream_ended:
                self.under_way -= 1
                if self.left:
                    self._ask()
                elif not self.under_way:
                    self.done.set()


async def get(port: int, size: int, count: int, window: int) -> Answer:
    """Ask a server."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, server_name="localhost", verify_mode=ssl.CERT_NONE
    )
    try:
        async with connect(
            LOOPBACK, port, configuration=configuration, create_protocol=Asking
        ) as client:
            assert isinstance(client, Asking)
            start = perf_counter()
            client.start(size, count, window)
            await asyncio.wait_for(client.done.wait(), PATIENCE)
            return {"seconds": perf_counter() - start, "bytes": client.got}
    except (OSError, asyncio.TimeoutError) as error:
        return {"missing": f"the client got no answer: {error!r}"}


def main() -> None:
    """Obey commands until the input ends."""
    answer({})
    while words := sys.stdin.readline().split():
        match words:
            case ["get", port, size, count, window]:
                answer(asyncio.run(get(int(port), int(size), int(count), int(window))))
            case _:
                raise SystemExit(f"unknown command: {words}")


if __name__ == "__main__":
    main()
