"""Read thousands of packets as numpy arrays, without a Python object for each.

    python -m pip install numpy
    python examples/arrays.py

It feeds itself: 200 packets over loopback, each with a number and four samples. `columns()` shows
the ring itself as arrays, without a copy. docs/how-to/arrays.md has more, with Arrow and polars.
"""

import sys

import anyio

from anyio_mmsg import PacketBatch, open_udp_socket, recv_mmsg_exact, send_mmsg

try:
    import numpy as np
except ModuleNotFoundError:
    sys.exit("arrays.py needs numpy: python -m pip install numpy")

LAYOUT = np.dtype([("number", "<u4"), ("samples", "<f4", 4)])
COUNT = 200  # as many fit into the usual buffer of a socket


async def main() -> None:
    """Send, receive, and look at all packets at once."""
    packets = np.zeros(COUNT, LAYOUT)
    packets["number"] = np.arange(COUNT)
    packets["samples"] = np.arange(COUNT)[:, None] / COUNT

    sock = await open_udp_socket("127.0.0.1")
    with sock, PacketBatch(COUNT, slot_size=64) as batch:
        async with anyio.create_task_group() as nursery:
            pairs = [(packet.tobytes(), sock.getsockname()) for packet in packets]
            nursery.start_soon(send_mmsg, sock, pairs)
            with anyio.fail_after(5):  # packets may be lost, even here
                await recv_mmsg_exact(sock, batch)

        columns = batch.columns()
        whole = np.asarray(columns.wire_sizes) == LAYOUT.itemsize
        came = np.asarray(columns.data)[whole, : LAYOUT.itemsize].view(LAYOUT)[:, 0]
        print(f"{len(came)} packets, numbers {came['number'].min()} to {came['number'].max()}")
        print(f"mean {came['samples'].mean():.4f}, of {len(set(columns.ports))} sender")


if __name__ == "__main__":
    anyio.run(main)  # or with backend="trio"
