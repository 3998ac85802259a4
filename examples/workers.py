"""Workers on batches, and a bounded queue in between that drops the oldest when they are slow.

    python examples/workers.py 9999
    python examples/send.py 9999 200            (in another terminal)

`feed` moves batches into a memory object stream of AnyIO. Each worker owns the batch that it
takes until the end of its `with batch:`. Everything is counted, what is dropped too.
"""

import signal
import sys

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from anyio_mmsg import PacketBatch, PacketBatchPool, PacketReceiver, feed, open_udp_socket

WORKERS, QUEUE = 3, 8


async def work(batches: MemoryObjectReceiveStream[PacketBatch], done: list[int]) -> None:
    """Work on batches until the stream ends."""
    async with batches:
        async for batch in batches:
            with batch:
                for _packet in batch:
                    await anyio.sleep(0.001)  # your own work
                done.append(len(batch))


async def main(port: int) -> None:
    """Receive and work until a signal, then say what became of the packets."""
    done: list[int] = []
    sock = await open_udp_socket("127.0.0.1", port)
    send, batches = anyio.create_memory_object_stream[PacketBatch](QUEUE)
    # As many as can be in use: in the queue, at work, one in feed, one at the receiver.
    pool = PacketBatchPool(QUEUE + WORKERS + 2)
    async with PacketReceiver(sock, pool) as receiver, anyio.create_task_group() as nursery:
        for _ in range(WORKERS):
            nursery.start_soon(work, batches.clone(), done)
        with batches, receiver.stop_on(signal.SIGINT, signal.SIGTERM):
            print("listening on {}:{}".format(*sock.getsockname()), flush=True)
            await feed(receiver, send, "drop_oldest", batches)
    seen = receiver.statistics()
    print(f"received {seen.packets} = done {sum(done)} + dropped {seen.dropped}")
    print(f"lost in the kernel {seen.dropped_by_kernel}")


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9999
    try:
        anyio.run(main, port)
    except OSError as error:  # such as a port in use
        sys.exit(f"workers.py: {error}")
