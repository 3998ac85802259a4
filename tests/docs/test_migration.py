"""docs/migration: programs before and after give the same answers."""

from __future__ import annotations

import dataclasses
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from anyio_mmsg import PacketBatch, recv_mmsg

from .blocks import (
    Block,
    as_child,
    as_module,
    client,
    executed,
    free_port,
    interrupt,
    python_blocks,
    runs,
)

PROTOCOL, ASYNCIO, ONE_LINE, FACTORY, MANY, BOTH = python_blocks("docs/migration/asyncio.md")
UDP, ANYIO, CONNECTED_UDP, CONNECTED = python_blocks("docs/migration/anyio.md")
TRIO_SOCKET, TRIO, TRIO_LOW, PLAIN = python_blocks("docs/migration/trio.md")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")


def answers(program: Block) -> list[bytes]:
    """Run a server; return its answers to some packets."""
    port = free_port()
    with as_child(program.replace(9999, port)) as child, client(port, child, b"hello") as sock:
        assert sock.recv(100) == b"HELLO"
        got = []
        for data in b"one", b"\0\xff", b"longer" * 100:
            sock.send(data)
            got.append(sock.recv(1000))
        ended = interrupt(child)
    # The latter by AnyIO 4.4 on Python 3.10.
    assert ended.splitlines()[-1].endswith(("KeyboardInterrupt", "CancelledError"))
    assert "Warning" not in ended
    assert child.returncode in (1, -signal.SIGINT, 130)
    return got


EXPECTED = [b"ONE", b"\0\xff", b"LONGER" * 100]


@pytest.mark.parametrize(
    "program", [PROTOCOL, ASYNCIO, UDP, ANYIO, TRIO_SOCKET, TRIO, TRIO_LOW], ids=str
)
def test_a_server(program: Block) -> None:
    assert answers(program) == EXPECTED


@pytest.mark.parametrize(
    ("program", "run", "other"),
    [
        (ASYNCIO, "asyncio.run(main())", "import uvloop; uvloop.run(main())"),
        (ASYNCIO, "asyncio.run(main())", "import trio; trio.run(main)"),
        (ASYNCIO, "asyncio.run(main())", "import anyio; anyio.run(main)"),
        (UDP, "anyio.run(main)", 'anyio.run(main, backend="trio")'),
        (ANYIO, "anyio.run(main)", 'anyio.run(main, backend="trio")'),
    ],
)
def test_a_server_on_another_loop(program: Block, run: str, other: str) -> None:
    if "uvloop" in other:
        pytest.importorskip("uvloop")
    assert answers(program.replace(run, other)) == EXPECTED


@runs(PROTOCOL, ONE_LINE)
@pytest.mark.parametrize("run", ["asyncio.run(main())", "import uvloop; uvloop.run(main())"])
def test_a_protocol_by_one_line(run: str) -> None:
    """With the protocol of the page, as it is."""
    if "uvloop" in run:
        pytest.importorskip("uvloop")
    executed.add(PROTOCOL.place)
    protocol = PROTOCOL.text.partition("async def main")[0]
    program = dataclasses.replace(ONE_LINE, text=protocol + ONE_LINE.text)
    assert answers(program.replace("asyncio.run(main())", run)) == EXPECTED


@runs(PROTOCOL, FACTORY, MANY)
@pytest.mark.parametrize("base", ["", "__import__('uvloop').Loop"])
@pytest.mark.parametrize("many", [False, True])
def test_a_protocol_that_a_library_has(base: str, many: bool) -> None:
    """A loop by the factory, with the program of the page, and with its protocol of batches."""
    if base:
        pytest.importorskip("uvloop")
    executed.update((PROTOCOL.place, MANY.place))
    text, protocol_of_batches = PROTOCOL.text.partition("\n\nif __name__")[0], MANY.text
    if many:
        main = text.partition("async def main")[2]
        text = f"import asyncio\n{protocol_of_batches}\nasync def main{main}"
    program = dataclasses.replace(FACTORY, text=f"{text}\n{FACTORY.text}")
    assert answers(program.replace("_factory()", f"_factory({base})")) == EXPECTED


@runs(PROTOCOL, FACTORY, BOTH)
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "plain"])
def test_a_protocol_for_both(batched: bool) -> None:
    executed.update((PROTOCOL.place, FACTORY.place, BOTH.place))
    before, _, main = PROTOCOL.text.partition("class Capitals")
    text = f"{before}\n{BOTH.text}\nasync def main{main.partition('async def main')[2]}"
    if batched:
        text = text.partition("\n\nif __name__")[0] + f"\n{FACTORY.text}"
    assert answers(dataclasses.replace(PROTOCOL, text=text)) == EXPECTED


@contextmanager
def capitals() -> Iterator[int]:
    """A server in a thread that answers two packets; yields its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(30)

        def serve() -> None:
            for _ in range(2):
                data, address = sock.recvfrom(100)
                sock.sendto(data.upper(), address)

        thread = threading.Thread(target=serve)
        thread.start()
        yield sock.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("program", [CONNECTED_UDP, CONNECTED], ids=str)
@pytest.mark.parametrize("run", ["anyio.run(main)", 'anyio.run(main, backend="trio")'])
def test_a_connected_socket(program: Block, run: str) -> None:
    with capitals() as port:
        program = program.replace(9999, port).replace("anyio.run(main)", run)
        with as_child(program) as child:
            assert child.communicate(timeout=60) == ("b'ONE'\nb'TWO'\n", "")


@runs(PLAIN)
def test_a_socket_of_trio() -> None:
    import trio

    async def main() -> None:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", 0))
            with as_module(PLAIN)["as_plain_socket"](sock) as plain, PacketBatch() as batch:
                await sock.sendto(b"hello", sock.getsockname())
                with trio.fail_after(60):
                    assert await recv_mmsg(plain, batch) == 1
                    assert batch[0].data == b"hello"
                    assert batch[0].address == sock.getsockname()

    trio.run(main)
