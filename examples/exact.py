"""Ask for an exact number of packets with a deadline, and see what a time-out leaves behind.

    python examples/exact.py

It feeds itself: a task sends letters over loopback, first as many as are asked for, then too few.
A deadline or a cancellation loses nothing: what came is in the batch, and the next call goes on.
"""

import socket

import anyio

from anyio_mmsg import PacketBatch, open_udp_socket, recv_mmsg_exact


async def send(sock: socket.socket, letters: str) -> None:
    """Send a packet for each letter, to the socket itself."""
    for letter in letters:
        await anyio.sleep(0.01)
        sock.sendto(letter.encode(), sock.getsockname())


def held(batch: PacketBatch) -> str:
    """Say what the batch holds."""
    return f"{len(batch)} of {batch.capacity}: " + b" ".join(batch.payloads()).decode()


async def main(deadline: float = 0.5) -> None:
    """Ask for as many as come, for too many, and for the rest."""
    with await open_udp_socket("127.0.0.1") as sock, PacketBatch(8, slot_size=64) as batch:
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(send, sock, "abcd")
            print(await recv_mmsg_exact(sock, batch, 4), "came;", held(batch))
        batch.clear()

        async with anyio.create_task_group() as nursery:
            nursery.start_soon(send, sock, "efghi")
            with anyio.move_on_after(deadline) as scope:
                await recv_mmsg_exact(sock, batch)  # without a number: every free slot
            print("time-out:", scope.cancelled_caught, "and", held(batch))

        async with anyio.create_task_group() as nursery:
            nursery.start_soon(send, sock, "jkl")
            print(await recv_mmsg_exact(sock, batch), "more came;", held(batch))


if __name__ == "__main__":
    anyio.run(main)  # or with backend="trio"
