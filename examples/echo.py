"""Send each packet back to its sender, a batch at a time.

    python examples/echo.py 9999
    nc -u 127.0.0.1 9999                        (in another terminal)

The packets go back from the memory that they were received into, without a copy, by one system
call for a batch. Ctrl-C or SIGTERM stops it: what has arrived is still answered.

Two such servers would answer each other for ever, if somebody forged a packet between them.
`programs/echo_server.py` looks at the port that a packet comes from.
"""

import signal
import sys

import anyio

from anyio_mmsg import PacketBatchPool, PacketReceiver, open_udp_socket, send_mmsg


async def main(port: int) -> None:
    """Echo until a signal, then say how much."""
    sock = await open_udp_socket("127.0.0.1", port)
    pool = PacketBatchPool(1, slot_size=65507)  # the longest packet there is, over IPv4
    echoed = 0
    async with PacketReceiver(sock, pool) as receiver:  # it closes the socket too
        with receiver.stop_on(signal.SIGINT, signal.SIGTERM):
            print("listening on {}:{}".format(*sock.getsockname()), flush=True)
            async for batch in receiver:
                with batch:  # its memory is used again after this block
                    result = await send_mmsg(sock, batch)
                echoed += result.sent
    print(f"echoed {echoed} of {receiver.statistics().packets}")


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9999
    try:
        anyio.run(main, port)  # or with backend="trio"
    except OSError as error:  # such as a port in use
        sys.exit(f"echo.py: {error}")
