"""A protocol of asyncio, served by batches: the loop's own endpoints, by one line at the end.

    python examples/protocol.py 9999
    nc -u 127.0.0.1 9999                        (in another terminal)

Libraries that call `create_datagram_endpoint` themselves (aioquic, aiocoap, python-osc ...) gain
by that line too, unchanged. A protocol that knows of batches gets each by one call, as here.
"""

import asyncio
import signal
import sys
from typing import Any

import anyio

from anyio_mmsg import batched_loop_factory


class Capitals(asyncio.DatagramProtocol):
    """Answers in capitals."""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def datagrams_received(self, datagrams: list[tuple[bytes, tuple[str, int]]]) -> None:
        """Answer a batch. Without this method, `datagram_received` gets them one by one."""
        self.transport.sendto_many((data.upper(), address) for data, address in datagrams)


async def main(port: int) -> None:
    """Serve until a signal."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Capitals, local_addr=("127.0.0.1", port))
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    print("listening on {}:{}".format(*transport.get_extra_info("sockname")), flush=True)
    await stopped.wait()
    transport.close()


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9999
    # From Python 3.12 on: asyncio.run(main(), loop_factory=batched_loop_factory())
    options = {"loop_factory": batched_loop_factory()}  # or batched_loop_factory(uvloop.Loop)
    try:
        anyio.run(main, port, backend_options=options)
    except OSError as error:  # such as a port in use
        sys.exit(f"protocol.py: {error}")
