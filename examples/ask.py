"""Ask and wait: many questions at once over one socket, with time-outs and further tries.

    python examples/echo.py 9999
    python examples/ask.py 9999                 (in another terminal)

Four random bytes in front of a question say which answer is its own. The echo server sends them
back, and the question is the answer. docs/how-to/request-answer.md says why it is done so.
"""

import contextlib
import secrets
import socket
import sys

import anyio

from anyio_mmsg import open_udp_socket, recv_datagrams, send_mmsg

Waiting = dict[bytes, tuple[anyio.Event, list[bytes]]]


async def hear(sock: socket.socket, waiting: Waiting) -> None:
    """Give each answer to the task that waits for it. Start it in a nursery."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):  # a hint; the time-outs decide
            for data, _ in await recv_datagrams(sock):
                if data[:4] in waiting:  # else it is late, or forged
                    waiting[data[:4]][1].append(data[4:])
                    waiting[data[:4]][0].set()


async def ask(sock: socket.socket, waiting: Waiting, question: bytes, tries: int = 4) -> None:
    """Print the answer, or that there is none in all tries."""
    key = secrets.token_bytes(4)
    answered, answers = waiting[key] = anyio.Event(), []
    for attempt in range(tries):
        await send_mmsg(sock, [(key + question, None)])
        with anyio.move_on_after(0.2 * 2**attempt):
            await answered.wait()
            break
    del waiting[key]
    print(question.decode(), "->", answers[0].decode() if answers else "no answer")


async def main(port: int) -> None:
    """Ask three questions at once."""
    waiting: Waiting = {}
    with await open_udp_socket(remote_host="127.0.0.1", remote_port=port) as sock:
        async with anyio.create_task_group() as hearing:
            hearing.start_soon(hear, sock, waiting)
            async with anyio.create_task_group() as asking:
                for question in (b"one", b"two", b"three"):
                    asking.start_soon(ask, sock, waiting, question)
            hearing.cancel_scope.cancel()


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9999
    anyio.run(main, port)
