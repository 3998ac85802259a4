"""docs/tutorial.md: each program receives, and those that promise it stop without a loss."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .blocks import Block, as_child, as_module, catches, client, free_port, python_blocks, runs

BLOCKS = python_blocks("docs/tutorial.md")
PRINT, (SEND, TAKE, STOP), STORE = BLOCKS[:3], BLOCKS[3:6], BLOCKS[6:]
RUNS = ["anyio.run(main)", "trio.run(main)", "asyncio.run(main())"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tutorial is for Linux")


def test_there_are_tabs() -> None:
    for tabs in (PRINT, STORE):
        last_lines = [block.text.splitlines()[-1] for block in tabs]
        assert last_lines == RUNS


def lines_of(child: subprocess.Popen[str], until: str) -> list[str]:
    """Read what a child prints, up to a line with some text."""
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(line)
        if until in line:
            return lines
    raise AssertionError(f"{lines}, and no {until!r}")


@pytest.mark.parametrize("block", PRINT, ids=str)
def test_it_prints_what_arrives(block: Block) -> None:
    port = free_port()
    with as_child(block.replace(9999, port)) as child, client(port, child, b"1") as sock:
        sock.send(b"2")
        lines = lines_of(child, "b'2'")
        sender = sock.getsockname()
    shown = [line for line in lines if not line.endswith(" packets\n")]
    assert shown == [f"{sender} b'1'\n", f"{sender} b'2'\n"]


@runs(SEND)
def test_packets_to_try_it_with() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
        as_module(SEND.replace(9999, receiver.getsockname()[1]))
        received = [receiver.recv(100) for _ in range(3)]
    assert received == [b"cpu 0.5", b"cpu 0.7", b"cpu 0.6"]


def by(run: str, block: Block) -> Block:
    """Change the last line, as the page says, and the import with it."""
    library = run.partition(".")[0]
    return block.replace("anyio.run(main)", run).replace("import anyio\n", f"import {library}\n")


@runs(TAKE)
@pytest.mark.parametrize("run", RUNS)
def test_it_reads_what_they_say(run: str) -> None:
    program = by(run, TAKE)
    port = free_port()
    with as_child(program.replace(9999, port)) as child, client(port, child, b"cpu 0.5") as sock:
        for data in (b"\xff", b"cpu much", b"disk 7", b"", b"cpu 0.75"):
            sock.send(data)
        assert lines_of(child, "0.75")[-1] == "{'cpu': 0.75, 'disk': 7.0} 3\n"


@runs(STOP)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("run", RUNS)
def test_it_stops_without_a_loss(run: str, number: signal.Signals) -> None:
    port = free_port()
    with as_child(by(run, STOP).replace(9999, port)) as child, client(port, child, b"0") as sock:
        catches(child, signal.SIGTERM)  # the last one of the two
        for packet in range(50):
            sock.send(b"%d" % packet)
        child.send_signal(number)
        assert child.communicate(timeout=60) == ("received 51\n", "")
    assert child.returncode == 0


@pytest.mark.parametrize("block", STORE, ids=str)
def test_workers_store_every_packet(block: Block, tmp_path: Path) -> None:
    if "asyncio.TaskGroup" in block.text and sys.version_info < (3, 11):
        pytest.skip("asyncio.TaskGroup needs Python 3.11")
    port = free_port()
    program = block.replace(9999, port).replace("1 << 20", "100_000")  # which is granted anywhere
    with (
        as_child(program, folder=tmp_path) as child,
        client(port, child, b"cpu 0") as sock,
    ):
        catches(child, signal.SIGTERM)
        for packet in range(1, 100):
            sock.send(b"cpu %d" % packet)
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=60)
    assert (out, err) == ("stored 100 unread 0\nlost in the kernel 0\n", "")
    stored = (tmp_path / "readings.txt").read_text().splitlines()
    assert sorted(stored) == sorted(f"cpu {packet}" for packet in range(100))
