"""A Trio nursery with a receiver and a report each second, which a signal stops without a loss.

    python examples/trio_nursery.py 9999
    python examples/send.py 9999 200            (in another terminal)

Nothing here starts a task but the nursery, so an error in any task ends all of them, and comes
out of `main`. The whole program of this kind is `programs/syslog_collector.py`.
"""

import signal
import sys
from collections import Counter

from anyio_mmsg import PacketReceiver, ReceiverStatistics, open_udp_socket

try:
    import trio
except ModuleNotFoundError:
    sys.exit("trio_nursery.py needs trio: python -m pip install trio")


async def count(receiver: PacketReceiver, senders: Counter[str]) -> None:
    """Count packets by sender, until the receiver ends."""
    async for batch in receiver:
        with batch:
            senders.update(packet.address[0] for packet in batch)


async def report(receiver: PacketReceiver, earlier: ReceiverStatistics) -> None:
    """Print each second how many came in it."""
    while True:
        await trio.sleep(1)
        later = receiver.statistics()
        print(f"{(later - earlier).packets} packets in the last second", flush=True)
        earlier = later


async def main(port: int) -> None:
    """Count until a signal, then print all counts."""
    senders: Counter[str] = Counter()
    sock = await open_udp_socket("127.0.0.1", port)
    async with PacketReceiver(sock) as receiver, trio.open_nursery() as nursery:
        nursery.start_soon(report, receiver, receiver.statistics())
        with receiver.stop_on(signal.SIGINT, signal.SIGTERM):
            print("listening on {}:{}".format(*sock.getsockname()), flush=True)
            await count(receiver, senders)  # returns when all that had arrived is counted
        nursery.cancel_scope.cancel()  # the report
    print(f"in all {dict(senders)}, lost in the kernel {receiver.statistics().dropped_by_kernel}")


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9999
    try:
        trio.run(main, port)
    except OSError as error:  # such as a port in use
        sys.exit(f"trio_nursery.py: {error}")
