"""An asyncio task group: a receiver, a queue and three workers, stopped without a loss.

    python examples/asyncio_task_group.py 9999
    python examples/send.py 9999 200            (in another terminal)

When the workers are too slow the queue is full, nothing more is received, and packets wait in the
kernel. It needs Python 3.11. The whole program of this kind is `programs/statsd_server.py`.
"""

import asyncio
import signal
import sys

from anyio_mmsg import PacketReceiver, open_udp_socket

try:
    from asyncio import TaskGroup  # type: ignore[attr-defined] # by tools that look with 3.10
except ImportError:
    sys.exit("asyncio_task_group.py needs Python 3.11: its asyncio has TaskGroup")

Queue = asyncio.Queue[list[tuple[bytes, tuple[str, int]]]]


async def work(queue: Queue, done: list[int], number: int) -> None:
    """Take packets until it is cancelled."""
    while True:
        for _data, _address in await queue.get():
            await asyncio.sleep(0.0001)  # your own work
            done[number] += 1
        queue.task_done()


async def main(port: int) -> None:
    """Work until a signal, then say how much was done."""
    sock = await open_udp_socket("127.0.0.1", port)
    queue = Queue(8)
    done = [0, 0, 0]
    async with PacketReceiver(sock) as receiver, TaskGroup() as group:
        workers = [group.create_task(work(queue, done, number)) for number in range(3)]
        with receiver.stop_on(signal.SIGINT, signal.SIGTERM):
            print("listening on {}:{}".format(*sock.getsockname()), flush=True)
            async for batch in receiver:
                with batch:
                    datagrams = batch.datagrams()  # copies, so the batch is free at once
                await queue.put(datagrams)
        await queue.join()  # all that had arrived is done
        for worker in workers:
            worker.cancel()
    seen = receiver.statistics()
    print(f"received {seen.packets}, done {done}, lost in the kernel {seen.dropped_by_kernel}")


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9999
    try:
        asyncio.run(main(port))  # or uvloop.run
    except OSError as error:  # such as a port in use
        sys.exit(f"asyncio_task_group.py: {error}")
