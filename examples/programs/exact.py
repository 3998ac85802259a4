"""Ask for an exact number of packets, with a deadline, and see what a timeout leaves behind.

    python -m pip install -e '.[trio]'
    python examples/programs/exact.py
    python examples/programs/exact.py --backend trio --deadline 2

It feeds itself: a task sends packets over loopback, first as many as are asked for, then too few.
`--backend` is asyncio, trio or uvloop. Ctrl-C or SIGTERM cancels the call that waits, and the
program prints what the batch holds: nothing that was read is lost. The exit status is always 0.
"""

from __future__ import annotations

import argparse
import socket

import anyio

from anyio_mmsg import PacketBatch, recv_mmsg_exact
from shared import add_backend_option, announce, run_on, stop_on_signal

SLOT_SIZE = 64  # it receives only what it sends itself: one letter a packet


def held(batch: PacketBatch) -> str:
    """Say what the batch holds."""
    texts = [bytes(packet.data).decode() for packet in batch]
    return f"the batch holds {len(batch)} of {batch.capacity}: {' '.join(texts) or 'nothing'}"


def say(text: str) -> None:
    """Print a line now, even into a pipe."""
    print(text, flush=True)


async def send(sock: socket.socket, names: str) -> None:
    """Send a packet for each letter."""
    for name in names:
        await anyio.sleep(0.01)
        sock.send(name.encode())


async def demonstrate(
    receiver: socket.socket, sender: socket.socket, batch: PacketBatch, deadline: float
) -> None:
    """Ask for an exact number of packets in four ways; two of them time out."""
    say("1. As many as asked for: it returns when the last one is there.")
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(send, sender, "abcd")
        with anyio.fail_after(deadline):
            count = await recv_mmsg_exact(receiver, batch, 4)
            say(f"   {count} received; {held(batch)}")
    batch.clear()

    say(f"2. Too few, under move_on_after: after {deadline:g} s it goes on without an error.")
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(send, sender, "efghi")
        with anyio.move_on_after(deadline) as scope:
            await recv_mmsg_exact(receiver, batch)  # without a count: every free slot
        say(f"   timed out: {scope.cancelled_caught}; {held(batch)}")

    say("3. What came is kept. Ask for the rest: every slot that is still free.")
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(send, sender, "jkl")
        with anyio.fail_after(deadline):
            count = await recv_mmsg_exact(receiver, batch)
            say(f"   {count} received; {held(batch)}")
    batch.clear()

    say(f"4. Too few, under fail_after: after {deadline:g} s a TimeoutError.")
    try:
        with anyio.fail_after(deadline):
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(send, sender, "mn")
                await recv_mmsg_exact(receiver, batch, 8)
    except TimeoutError:
        say(f"   TimeoutError; {held(batch)}")


async def run(deadline: float) -> None:
    """Open the sockets, then demonstrate until the end or Ctrl-C."""
    batch = PacketBatch(capacity=8, slot_size=SLOT_SIZE)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        for sock in (receiver, sender):
            sock.setblocking(False)
        async with anyio.create_task_group() as nursery:
            cancel = nursery.cancel_scope.cancel
            await nursery.start(stop_on_signal, cancel, cancel)
            announce(receiver)
            await demonstrate(receiver, sender, batch, deadline)
            nursery.cancel_scope.cancel()
    say(f"At the end {held(batch)}")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_backend_option(parser)
    parser.add_argument("--deadline", type=float, default=0.5, help="seconds for each call")
    options = parser.parse_args()
    run_on(options.backend, run, options.deadline)


if __name__ == "__main__":
    main()
