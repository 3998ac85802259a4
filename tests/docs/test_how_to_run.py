"""docs/how-to: programs as processes: how they stop, and several of them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketReceiver

from ..helpers import attempts
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
from .opening import Opening, until

STOP, LAST_FLUSH, GOODBYE = python_blocks("docs/how-to/graceful-stop.md")
WORKER, PARENT = python_blocks("docs/how-to/processes.md")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc says it")


# Stopping


def on_loop(block: Block, run: str) -> Block:
    """Return a program that another event loop runs than asyncio's."""
    return block.replace("anyio.run(main)", run)


@runs(STOP)
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "run",
    [
        "anyio.run(main)",
        'anyio.run(main, backend="trio")',
        'anyio.run(main, backend_options={"use_uvloop": True})',
    ],
    ids=["asyncio", "trio", "uvloop"],
)
def test_a_program_that_stops(run: str, by: signal.Signals) -> None:
    if "uvloop" in run:
        pytest.importorskip("uvloop")
    port = free_port()
    program = on_loop(STOP.replace(9999, port), run)
    with as_child(program) as child, client(port, child, b"hello") as sock:
        assert child.stdout is not None
        assert child.stdout.readline() == "b'hello'\n"
        for number in range(100):
            sock.send(b"%d" % number)
        lines = interrupt(child, by).splitlines()
    assert sorted(lines[:-1]) == sorted(f"b'{number}'" for number in range(100))
    assert lines[-1] == "handled 101 of 101, 0 unread"
    assert child.returncode == 0


@contextlib.asynccontextmanager
async def a_worker_that_hangs(grace: float) -> AsyncIterator[PacketReceiver]:
    """Run the program with a worker that never ends; yield its receiver."""
    page = as_module(STOP)
    receivers: list[PacketReceiver] = []

    async def work(batches: Any) -> None:
        async with batches:
            await anyio.sleep_forever()

    def receiver(*arguments: Any) -> PacketReceiver:
        receivers.append(PacketReceiver(*arguments))
        return receivers[0]

    page |= {"work": work, "GRACE": grace, "open_udp_socket": Opening(b"1", b"2")}
    page["PacketReceiver"] = receiver
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(page["main"])
            await until(lambda: receivers and receivers[0].statistics().packets)
            yield receivers[0]


@pytest.mark.anyio
@runs(STOP)
async def test_a_worker_that_hangs(capsys: pytest.CaptureFixture[str]) -> None:
    async with a_worker_that_hangs(grace=0.01):
        os.kill(os.getpid(), signal.SIGTERM)
    assert capsys.readouterr().out == "handled 0 of 2, 0 unread\n"


@needs_linux
@runs(STOP)
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal(by: signal.Signals) -> None:
    port = free_port()
    hangs = STOP.replace(9999, port).replace(
        'counts["handled"] += 1', "await anyio.sleep_forever()"
    )
    with as_child(hangs) as child, client(port, child, b"hello"):
        assert child.stdout is not None
        assert child.stdout.readline() == "b'hello'\n"
        child.send_signal(by)
        for _ in attempts():  # then no signal stops it gently any more
            if not caught(child.pid) >> (signal.SIGTERM - 1) & 1:
                break
        child.send_signal(by)
        out, err = child.communicate(timeout=60)
    assert out == ""
    if by == signal.SIGINT and sys.version_info < (3, 11):
        assert "CancelledError" in err  # which AnyIO makes of Ctrl-C there
    else:
        assert child.returncode == -by
        assert ("KeyboardInterrupt" in err) == (by == signal.SIGINT)


@needs_linux
@runs(GOODBYE)
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_goodbye(by: signal.Signals) -> None:
    port = free_port()
    with (
        as_child(GOODBYE.replace(9999, port)) as child,
        client(port, child, b"hello") as one,
        client(port, child, b"hello") as other,
    ):
        for _ in attempts():
            if caught(child.pid) & 1 << (signal.SIGTERM - 1):
                break
        assert interrupt(child, by) == ""
        assert [sock.recv(9) for sock in (one, other)] == [b"bye", b"bye"]
    assert child.returncode == 0


@needs_linux
@runs(LAST_FLUSH)
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_last_flush(by: signal.Signals) -> None:
    """Long before the first interval is over."""
    port = free_port()
    program = LAST_FLUSH.replace(9999, port).replace("flush_every, 10", "flush_every, 3600")
    with as_child(program) as child, client(port, child, b"hello") as sock:
        for _ in attempts():
            if caught(child.pid) & 1 << (signal.SIGTERM - 1):
                break
        for _ in range(100):
            sock.send(b"hello")
        assert interrupt(child, by) == "{b'hello': 101}\n"
    assert child.returncode == 0


@pytest.mark.anyio
@runs(LAST_FLUSH)
async def test_a_flush_is_not_cut_in_two() -> None:
    page, begun, go_on, ended = as_module(LAST_FLUSH), anyio.Event(), anyio.Event(), anyio.Event()
    done: list[str] = []

    async def flush() -> None:
        begun.set()
        await go_on.wait()
        done.append("flush")

    page["flush"] = flush
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(page["flush_every"], 0, ended)
            await begun.wait()
            ended.set()
            go_on.set()
    assert done == ["flush"]


# Several processes


@contextlib.contextmanager
def as_script(folder: Path, *blocks: Block, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run blocks as a file, which multiprocessing needs where it does not fork."""
    executed.update(block.place for block in blocks)
    script = folder / "collector.py"
    script.write_text("\n\n".join(block.text for block in blocks))
    child = subprocess.Popen(
        [sys.executable, "-u", "-W", "error", str(script), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def send_from_many(port: int) -> int:
    """Send packets from 40 ports, one after the other; return how many."""
    for number in range(40):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"%d" % number, ("127.0.0.1", port))
    return 40


def received(printed: str) -> list[int]:
    """Return how many packets each process printed that it received."""
    line = r"process [0-9]+: ([0-9]+) packets"
    # Unbuffered, text and line end are two writes, so two processes may mix theirs.
    assert re.sub(line, "", printed).strip() == ""
    return list(map(int, re.findall(line, printed)))


def wait_until_ready(port: int, parent: subprocess.Popen[str], *pids: int) -> None:
    """Wait until two processes, a parent and its children or `pids`, listen and handle SIGTERM.

    A parent may have other children, which do neither: since 3.14 `multiprocessing` starts a fork
    server and a resource tracker.
    """
    mask = 1 << (signal.SIGTERM - 1)
    for _ in attempts():
        assert parent.poll() is None, parent.communicate()
        lines = Path("/proc/net/udp").read_text().splitlines()[1:]
        inodes = {
            line.split()[9] for line in lines if int(line.split()[1].partition(":")[2], 16) == port
        }
        ours = {parent.pid, *pids, *descendants(parent.pid)}
        listening = [pid for pid in ours if inodes & set(sockets(pid))]
        needed = {parent.pid, *pids, *listening}
        if len(inodes) == len(listening) == 2 and all(caught(pid) & mask for pid in needed):
            return


def descendants(pid: int) -> Iterator[int]:
    """Give the processes that a process has started, and those that these have."""
    with contextlib.suppress(OSError):  # it ended meanwhile
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                yield child
                yield from descendants(child)


def sockets(pid: int) -> Iterator[str]:
    """Give the numbers of a process's sockets."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            yield from re.findall(r"^socket:.([0-9]+).$", str(file.readlink()))


def caught(pid: int) -> int:
    """Return the set of signals that a process handles."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(re.findall(r"^SigCgt:\t(.*)$", status, re.M)[0], 16)
    return 0


@needs_linux
@runs(WORKER)
def test_two_processes_that_something_starts(tmp_path: Path) -> None:
    port = free_port()
    with (
        as_script(tmp_path, WORKER, port=port) as one,
        as_script(tmp_path, WORKER, port=port) as two,
    ):
        wait_until_ready(port, one, two.pid)
        sent = send_from_many(port)
        counts = [received(interrupt(child, signal.SIGTERM)) for child in (one, two)]
    assert sum(map(sum, counts)) == sent
    assert (one.returncode, two.returncode) == (0, 0)


@needs_linux
@runs(WORKER, PARENT)
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_parent_of_processes(tmp_path: Path, by: signal.Signals) -> None:
    port = free_port()
    parent = PARENT.replace("len(os.sched_getaffinity(0))", 2)
    worker = dataclasses.replace(WORKER, text=WORKER.text.partition("if __name__")[0])
    with as_script(tmp_path, worker, parent, port=port) as child:
        wait_until_ready(port, child)
        sent = send_from_many(port)
        counts = received(interrupt(child, by))
    assert len(counts) == 2
    assert sum(counts) == sent
    assert child.returncode == 0
