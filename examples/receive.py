"""Print what arrives: the shortest program, with nothing to give back.

    python examples/receive.py 9999
    echo hello | nc -u -w1 127.0.0.1 9999       (in another terminal)

`recv_datagrams` waits for a packet, then returns all that are there, as `bytes`. It is enough for
most programs. `echo.py` beside it has a receiver, which costs less a packet and counts.
"""

import sys

import anyio

from anyio_mmsg import open_udp_socket, recv_datagrams


async def main(port: int) -> None:
    """Receive for ever."""
    with await open_udp_socket("127.0.0.1", port) as sock:
        print("listening on {}:{}".format(*sock.getsockname()), flush=True)
        while True:
            for data, (host, peer) in await recv_datagrams(sock):
                print(f"{host}:{peer} {data!r}", flush=True)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9999
    try:
        anyio.run(main, port)  # or trio.run, with backend="trio"
    except KeyboardInterrupt:
        print("stopped")
    except OSError as error:  # such as a port in use
        sys.exit(f"receive.py: {error}")
