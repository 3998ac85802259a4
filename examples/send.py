"""Send many packets, by as few system calls as possible.

    python examples/send.py 9999 200            (to 127.0.0.1:9999, 200 packets)

A packet is `(data, address)`. One that the system refuses does not stop the others: the result
says which, and why. Where nobody listens, they count as sent all the same: UDP does not tell.
"""

import sys

import anyio

from anyio_mmsg import open_udp_socket, send_mmsg


async def main(port: int, count: int) -> None:
    """Send `count` numbered packets."""
    with await open_udp_socket("127.0.0.1") as sock:
        packets = [(b"number %d" % number, ("127.0.0.1", port)) for number in range(count)]
        # It waits while the socket's buffer is full. gso=True makes long runs of packets of one
        # size still cheaper, on Linux.
        result = await send_mmsg(sock, packets)
        print(f"sent {result.sent} of {count}")
        for failure in result.failures[:3]:
            print(f"packet {failure.index}: {failure.error}")


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9999
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    anyio.run(main, port, count)
