"""Send each packet on to several ports: all packets of a batch to all of them by one call.

    python examples/fan_out.py 9999 5001 5002
    python examples/receive.py 5001             (in another terminal)

`batch.payloads()` are views of the memory that the packets were received into: nothing is copied.
`programs/relay.py` is the whole program, with counts and errors by destination.
"""

import signal
import sys

import anyio

from anyio_mmsg import PacketReceiver, open_udp_socket, send_mmsg


async def main(port: int, *to: int) -> None:
    """Send packets on until a signal, then say how many."""
    destinations = [("127.0.0.1", number) for number in to]
    sock = await open_udp_socket("127.0.0.1", port)
    sent = 0
    # From a socket of its own: what the destinations answer is nothing to send on.
    with await open_udp_socket("127.0.0.1") as out:
        async with PacketReceiver(sock) as receiver:
            with receiver.stop_on(signal.SIGINT, signal.SIGTERM):
                print("listening on {}:{}".format(*sock.getsockname()), flush=True)
                async for batch in receiver:
                    with batch:
                        pairs = [(data, to) for to in destinations for data in batch.payloads()]
                        sent += (await send_mmsg(out, pairs)).sent
    print(f"received {receiver.statistics().packets}, sent {sent}")


if __name__ == "__main__":
    port, *to = map(int, sys.argv[1:] or ("9999",))
    try:
        anyio.run(main, port, *to)
    except OSError as error:  # such as a port in use
        sys.exit(f"fan_out.py: {error}")
