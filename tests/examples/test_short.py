"""The short examples, each run on every loop that it is for."""

from __future__ import annotations

import ast
import importlib.util
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .helpers import (
    EXAMPLES,
    LARGEST,
    PROGRAMS,
    Program,
    client,
    each_backend,
    each_signal,
    only_linux,
    running,
    send_all,
    without_signals,
    without_uvloop,
)

SHORT = sorted(EXAMPLES.glob("*.py"))
INDEX = (EXAMPLES / "README.md").read_text("utf-8")
RUN = """
import sys

sys.path.insert(0, {folder!r})
import {name}, anyio
anyio.run({name}.main, *{arguments}, backend={backend!r}, backend_options={options!r})
"""
ON_FACTORY = """
import sys

sys.path.insert(0, {folder!r})
import anyio, anyio_mmsg, protocol{uvloop}
anyio.run(protocol.main, 0, backend_options={{"loop_factory": {factory}}})
"""
each_asyncio = pytest.mark.parametrize(
    "backend", ["asyncio", pytest.param("uvloop", marks=without_uvloop)]
)
without_numpy = pytest.mark.skipif(
    importlib.util.find_spec("numpy") is None, reason="numpy is not installed"
)


@contextmanager
def short(name: str, backend: str, *arguments: int) -> Iterator[Program]:
    """Run a short example on a loop, which its last line says how to choose."""
    code = RUN.format(
        name=name,
        folder=str(EXAMPLES),
        arguments=arguments,
        backend="trio" if backend == "trio" else "asyncio",
        options={"use_uvloop": True} if backend == "uvloop" else {},
    )
    with running("-c", code) as program:
        yield program


# All of them


@pytest.mark.parametrize("path", SHORT, ids=lambda path: path.name)
def test_it_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 60
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert re.search(rf"^    python examples/{path.name}( .*)?$", docstring, re.M)


def test_the_index_has_each_file_once() -> None:
    rows = "".join(re.findall(r"^\|.*\n", INDEX, re.M))
    named = re.findall(r"\]\(([\w/]+\.py)\)", rows)
    files = [*SHORT, *PROGRAMS.glob("*.py")]
    assert sorted(named) == sorted(str(path.relative_to(EXAMPLES)) for path in files)


@pytest.mark.parametrize("name", ["ask", "echo", "receive", "send", "workers"])
def test_the_port_has_a_default(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text("utf-8")
    assert "9999" in text.partition("__main__")[2]


# Receiving and sending


@each_backend
def test_receive(backend: str) -> None:
    with short("receive", backend, 0) as program, client("127.0.0.1") as sock:
        address = program.address()
        sock.sendto(b"one", address)
        sock.sendto(b"\xff", address)
        host, port = sock.getsockname()
        assert program.line() == f"{host}:{port} b'one'"
        assert program.line() == f"{host}:{port} b'\\xff'"


@without_signals
@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="AnyIO makes a CancelledError of Ctrl-C on Python 3.10"
)
def test_receive_ends_by_ctrl_c() -> None:
    with running("../receive.py", "0") as program:
        program.address()
        assert program.stop() == ["stopped"]


@each_backend
def test_send(backend: str) -> None:
    with client("127.0.0.1") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**17)
        with short("send", backend, sock.getsockname()[1], 50) as program:
            assert program.end() == ["sent 50 of 50"]
        assert [sock.recv(100) for _ in range(50)] == [b"number %d" % n for n in range(50)]


@each_backend
def test_send_says_what_was_refused(backend: str) -> None:
    with short("send", backend, 0, 5) as program:  # port 0 can't be sent to
        first, *refusals = program.end()
    assert first == "sent 0 of 5"
    assert [line.split()[:2] for line in refusals] == [["packet", f"{n}:"] for n in range(3)]


# Servers


@without_signals
@each_signal
@each_backend
def test_echo(backend: str, how: signal.Signals) -> None:
    with short("echo", backend, 0) as program, client("127.0.0.1") as sock:
        address = program.address()
        for data in (b"one", b"", b"x" * 1233, b"y" * LARGEST["127.0.0.1"]):
            sock.sendto(data, address)
            assert sock.recv(65536) == data
        assert program.stop(how) == ["echoed 4 of 4"]


@without_signals
def test_echo_as_its_first_lines_say() -> None:
    with running("../echo.py", "0") as program:
        _, port = program.address()
        with running("../ask.py", str(port)) as asking:
            assert sorted(asking.end()) == ["one -> one", "three -> three", "two -> two"]
        assert program.stop() == ["echoed 3 of 3"]


@only_linux
def test_trio_nursery() -> None:
    with running("../trio_nursery.py", "0") as program:
        address = program.address()
        send_all(address, [b"x"] * 100)
        program.line_with(" packets in the last second")
        with program.held():
            send_all(address, [b"x"] * 100)
            program.process.send_signal(signal.SIGINT)
        last = program.end()[-1]
    assert last == "in all {'127.0.0.1': 200}, lost in the kernel 0"


@only_linux
@each_signal
@each_asyncio
@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.TaskGroup needs Python 3.11")
def test_asyncio_task_group(backend: str, how: signal.Signals) -> None:
    with short("asyncio_task_group", backend, 0) as program:
        send_all(program.address(), [b"x"] * 500)
        (last,) = program.stop(how)
    received, *done, lost = map(int, re.findall(r"\d+", last))
    assert (received + lost, sum(done)) == (500, received)
    assert len(done) == 3


@only_linux
@each_signal
@each_backend
def test_workers(backend: str, how: signal.Signals) -> None:
    with short("workers", backend, 0) as program:
        send_all(program.address(), [b"x"] * 500)
        counts, kernel = program.stop(how)
    received, done, dropped = map(int, re.findall(r"\d+", counts))
    assert received == done + dropped
    assert kernel == f"lost in the kernel {500 - received}"


@without_signals
@each_backend
def test_fan_out(backend: str) -> None:
    with client("127.0.0.1") as one, client("127.0.0.1") as other:
        ports = one.getsockname()[1], other.getsockname()[1]
        with short("fan_out", backend, 0, *ports) as program:
            send_all(program.address(), [b"a", b"b"])
            for sock in (one, other):
                assert [sock.recv(10) for _ in range(2)] == [b"a", b"b"]
            assert program.stop() == ["received 2, sent 4"]


@without_signals
@each_asyncio
def test_protocol(backend: str) -> None:
    base = "uvloop.Loop" if backend == "uvloop" else ""
    factory = f"anyio_mmsg.batched_loop_factory({base})"
    code = ON_FACTORY.format(
        folder=str(EXAMPLES), uvloop=", uvloop" if base else "", factory=factory
    )
    with running("-c", code) as program, client("127.0.0.1") as sock:
        address = program.address()
        for data in (b"one", b"two"):
            sock.sendto(data, address)
            assert sock.recv(10) == data.upper()
        assert program.stop() == []


# What feeds itself


@each_backend
def test_ask_gives_up(backend: str) -> None:
    """Nobody listens, which is a hint, and what is silent."""
    with client("127.0.0.1") as silent:
        port = silent.getsockname()[1]
        with short("ask", backend, port) as program:
            assert sorted(program.end()) == [f"{n} -> no answer" for n in ("one", "three", "two")]
        tries = [silent.recv(100) for _ in range(12)]
    assert sorted({data[4:] for data in tries}) == [b"one", b"three", b"two"]
    assert len({data[:4] for data in tries}) == 3
    with short("ask", backend, port) as program:
        assert sorted(program.end()) == [f"{n} -> no answer" for n in ("one", "three", "two")]


@each_backend
def test_exact(backend: str) -> None:
    with short("exact", backend) as program:
        assert program.end() == [
            "4 came; 4 of 8: a b c d",
            "time-out: True and 5 of 8: e f g h i",
            "3 more came; 8 of 8: e f g h i j k l",
        ]


@without_numpy
@each_backend
def test_arrays(backend: str) -> None:
    with short("arrays", backend) as program:
        assert program.end() == ["200 packets, numbers 0 to 199", "mean 0.4975, of 1 sender"]
