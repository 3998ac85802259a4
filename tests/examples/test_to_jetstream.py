"""to_jetstream.py against a real NATS server, which is stopped, killed and started again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from ..helpers import free_port
from .helpers import (
    BUFFER,
    CUT,
    LINUX,
    Program,
    load,
    numbers,
    running,
    send_all,
    without_signals,
    without_uvloop,
)

nats = pytest.importorskip("nats", reason="nats-py is not installed")
pytestmark = [
    without_signals,
    pytest.mark.skipif(shutil.which("nats-server") is None, reason="nats-server is not installed"),
]
each_backend = pytest.mark.parametrize(
    "backend", ["asyncio", pytest.param("uvloop", marks=without_uvloop)]
)

BOOKS = " received # = stored # + refused # + unacknowledged #;"


class Server:
    """A NATS server with JetStream, on one port, whose files survive it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port(socket.SOCK_STREAM)
        self.url = f"nats://127.0.0.1:{self.port}"
        self.start()

    def start(self, config: str = "", jetstream: bool = True) -> None:
        (self.folder / "config").write_text(config)
        arguments = ["-a", "127.0.0.1", "-p", str(self.port), "-c", "config"]
        if jetstream:
            arguments += ["-js", "-sd", "."]
        self.process = subprocess.Popen(
            ["nats-server", *arguments], cwd=self.folder, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def hold(self) -> None:
        """Stop the process where it is, until SIGCONT."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # returns when it has stopped

    def ask(self, question: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """Run a function of a client's JetStream context; return what it returns."""

        async def ask() -> Any:
            async def ignore(error: Exception) -> None:
                """That it is not up yet."""

            client = await nats.connect(
                self.url, error_cb=ignore, max_reconnect_attempts=-1, reconnect_time_wait=0.05
            )
            try:
                return await question(client.jetstream())
            finally:
                await client.close()

        return anyio.run(ask)

    def stored(self) -> list[Any]:
        """Return the messages of the stream."""

        async def read(stream: Any) -> list[Any]:
            count = (await stream.stream_info("udp")).state.messages
            return [await stream.get_msg("udp", number + 1) for number in range(count)]

        messages: list[Any] = self.ask(read)
        return messages


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


def options(server: Server, *more: str) -> list[str]:
    return [
        *("to_jetstream.py", "--port", "0", "--servers", server.url, "--interval", "0.05"),
        *("--buffer", BUFFER, "--grace", "60", *more),
    ]


def wait_for(program: Program, **wanted: int) -> None:
    """Read lines until some of the books say what is wanted."""
    while True:
        received, stored, refused, open_ = numbers(program.line_with(" received "), BOOKS)
        seen = {"received": received, "stored": stored, "refused": refused, "open": open_}
        if wanted.items() <= seen.items():
            return


def failed(program: Program) -> list[str]:
    """Stop a program that has to say that it failed; return the lines of its output."""
    program.process.send_signal(signal.SIGTERM)
    output, errors = program.process.communicate()
    assert (errors, program.process.returncode) == ("", 1)
    return output.splitlines()


def numbered(first: int, last: int) -> list[bytes]:
    return [b"packet %d" % number for number in range(first, last)]


@each_backend
def test_each_packet_is_a_message(server: Server, backend: str) -> None:
    with running(*options(server, "--backend", backend)) as program:
        address = program.address()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            source = "{}:{}".format(*sock.getsockname())
            for payload in (b"one", b"", bytes(1472), bytes(1473)):
                sock.sendto(payload, address)
        wait_for(program, stored=4)
        lines = program.stop(signal.SIGTERM, logged=CUT)
    assert numbers(lines[-1], BOOKS) == (4, 4, 0, 0)
    assert "truncated 1;" in lines[-1]
    messages = server.stored()
    assert [message.data or b"" for message in messages] == [b"one", b"", bytes(1472), bytes(1472)]
    assert {message.headers["Udp-Source"] for message in messages} == {source}
    assert len({message.headers["Nats-Msg-Id"] for message in messages}) == 4


@each_backend
def test_a_message_holds_a_batch(server: Server, backend: str) -> None:
    with running(*options(server, "--backend", backend, "--pack", "--batch", "16")) as program:
        address = program.address()
        with program.held():
            send_all(address, [*numbered(0, 99), b""])
            program.process.send_signal(signal.SIGTERM)
        lines = program.end()
    assert numbers(lines[-1], BOOKS) == (100, 100, 0, 0)
    messages = server.stored()
    assert len(messages) < 50
    unpack = load("to_jetstream").unpack
    packets = [packet for message in messages for packet in unpack(message.data)]
    assert sorted(data for _, data in packets) == sorted([*numbered(0, 99), b""])
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", source) for source, _ in packets)


@each_backend
def test_a_killed_server_loses_nothing(server: Server, backend: str) -> None:
    """What is under way when it dies is sent again, and stored once."""
    with running(*options(server, "--backend", backend)) as program:
        address = program.address()
        send_all(address, numbered(0, 100))
        wait_for(program, stored=100)
        server.hold()  # it acknowledges nothing any more
        send_all(address, numbered(100, 200))
        wait_for(program, received=200, open=100)
        server.kill()
        send_all(address, numbered(200, 300))
        wait_for(program, received=300, open=200)
        server.start()
        wait_for(program, stored=300)
        lines = program.stop()
    assert numbers(lines[-1], BOOKS) == (300, 300, 0, 0)
    assert sorted(message.data for message in server.stored()) == sorted(numbered(0, 300))


def test_what_is_sent_again_is_stored_once(server: Server) -> None:
    with running(*options(server)) as program:
        address = program.address()
        send_all(address, numbered(0, 1))
        wait_for(program, stored=1)
        server.hold()
        send_all(address, numbered(1, 50))
        while numbers(
            program.line_with(" sent again "), "sent again #, of these stored before #"
        ) < (1, 0):
            pass
        server.process.send_signal(signal.SIGCONT)
        wait_for(program, stored=50)
        lines = program.stop()
    again, before = numbers(lines[-1], "sent again #, of these stored before #")
    assert again >= before >= 1
    assert sorted(message.data for message in server.stored()) == sorted(numbered(0, 50))


def test_the_pool_bounds_what_is_under_way(server: Server) -> None:
    """The rest waits in the kernel, and both are counted when it can't be stored."""
    few = ["--in-flight", "2", "--batch", "8", "--grace", "0"]
    with running(*options(server), *few) as program:
        address = program.address()
        send_all(address, [b"x"])
        wait_for(program, stored=1)
        server.kill()
        with program.held():  # so that its batches are full
            send_all(address, [b"x"] * 100)
        wait_for(program, received=17, open=16)
        *_, last = failed(program)
    assert numbers(last, BOOKS) == (17, 1, 0, 16)
    if LINUX:
        assert numbers(last, "left #") == (84,)


def test_a_killed_program_has_stored_what_it_says(server: Server) -> None:
    for run in range(2):  # the second one's messages are not taken for the first one's
        with running(*options(server)) as program:
            send_all(program.address(), numbered(100 * run, 100 * run + 100))
            wait_for(program, stored=100)
            os.kill(program.process.pid, signal.SIGKILL)
    assert sorted(message.data for message in server.stored()) == sorted(numbered(0, 200))


def test_what_the_server_refuses_is_counted(server: Server) -> None:
    async def make(stream: Any) -> None:
        await stream.add_stream(name="udp", subjects=["udp"], max_msg_size=200)

    server.ask(make)
    with running(*options(server)) as program:
        send_all(program.address(), [b"x", bytes(1000), b"y"])
        wait_for(program, stored=2, refused=1)
        *_, books, refused = failed(program)
    assert numbers(books, BOOKS) == (3, 2, 1, 0)
    assert re.fullmatch(r"[-+:\dT]+ refused: .*size exceeds.* 1", refused)


def test_a_server_that_takes_too_little_is_an_error(server: Server) -> None:
    server.kill()
    server.start("max_payload: 50000")
    with running(*options(server, "--pack", "--batch", "64")) as program:
        assert program.process.stderr is not None
        assert "give a smaller --batch" in program.process.stderr.read()
        assert program.process.wait() == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--stream", "a.b"], "invalid stream name"),
        (["--stream", "other", "--subject", "no subject"], "invalid subject"),
        (["--stream", "other", "--subject", "udp"], "subjects overlap with an existing stream"),
    ],
)
def test_a_stream_that_can_not_be_is_an_error(server: Server, more: list[str], words: str) -> None:
    async def make(stream: Any) -> None:
        await stream.add_stream(name="udp", subjects=["udp"])

    server.ask(make)
    with running(*options(server), *more) as program:
        assert program.process.stderr is not None
        said = program.process.stderr.read()
        assert re.fullmatch(f"there can't be a stream .*{words}.*\n", said)
        assert program.process.wait() == 2


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("third", "the stream 'udp' is there, but does not take 'third'"),
        ("second", "the subject 'second' belongs to the stream 'other'"),
    ],
)
def test_the_subject_of_another_stream_is_an_error(
    server: Server, subject: str, words: str
) -> None:
    async def make(stream: Any) -> None:
        await stream.add_stream(name="udp", subjects=["first"])
        await stream.add_stream(name="other", subjects=["second"])

    server.ask(make)
    with running(*options(server, "--subject", subject)) as program:
        assert program.process.stderr is not None
        assert program.process.stderr.read() == words + "\n"
        assert program.process.wait() == 2


def test_what_another_stream_takes_meanwhile_is_refused(server: Server) -> None:
    async def hand_over(stream: Any) -> None:
        await stream.update_stream(name="udp", subjects=["else"])
        await stream.add_stream(name="other", subjects=["udp"])

    with running(*options(server)) as program:
        address = program.address()
        send_all(address, [b"x"])
        wait_for(program, stored=1)
        server.ask(hand_over)
        send_all(address, [b"y", b"z"])
        wait_for(program, stored=1, refused=2)
        *_, refused = failed(program)
    assert refused.endswith(" refused: expected stream does not match 2")
    assert [message.data for message in server.stored()] == [b"x"]


def test_without_a_server_it_says_so_and_what_it_left(server: Server) -> None:
    server.kill()
    with running(*options(server)) as program:
        address = program.address()
        assert "Connect call failed" in program.line_with(" not connected: ")
        send_all(address, [b"x"] * 3)
        program.process.send_signal(signal.SIGINT)  # it waits for the server, for --grace seconds
        program.line_with(" received 0 ")
        *_, last = failed(program)
    assert numbers(last, BOOKS) == (0, 0, 0, 0)
    if LINUX:
        assert numbers(last, "left #;") == (3,)
    assert "; not connected: " in last


def test_what_keeps_it_from_storing(server: Server) -> None:
    """A wrong password, then no JetStream: each is named; nothing is lost when it is mended."""
    server.kill()
    server.start('authorization { user: "a", password: "right" }')
    with running(*options(server)) as program:
        address = program.address()
        send_all(address, [b"x"])
        assert "Authorization Violation" in program.line_with(" not connected: ")
        server.kill()
        server.start(jetstream=False)
        program.line_with(" connected, but JetStream does not answer: ServiceUnavailableError")
        server.kill()
        server.start()
        wait_for(program, stored=1)
        program.stop()


def test_json(server: Server) -> None:
    with running(*options(server, "--json")) as program:
        first = json.loads(program.line())
        send_all(tuple(first["listening"]), [b"x", b"y"])
        program.line_with('"stored": 2,')
        lines = [json.loads(line) for line in program.stop()]
    books = lines[-1]
    assert [books[name] for name in ("received", "stored", "refused", "left")] == [2, 2, 0, 0]
    assert (books["state"], books["trouble"]) == ("connected", "")
    for line in (first, books):
        assert datetime.fromisoformat(line["time"]).utcoffset() is not None
