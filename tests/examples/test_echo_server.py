"""echo_server.py, asked by real clients, its books checked."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import struct
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from .helpers import (
    BUFFER,
    DEADLINE,
    LARGEST,
    client,
    command,
    each_backend,
    each_host,
    each_signal,
    has_nothing,
    numbers,
    only_linux,
    payloads_up_to,
    running,
    without_nc,
    without_signals,
)

pytestmark = without_signals
without_socat = pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")


BOOKS = " # packets .* echoed #, not answered #, unsent #, refused #[ ;]"
SEEN = " # packets .*, # bytes, # batches: "


@each_backend
@each_host
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_echo_sends_everything_back(how: signal.Signals, host: str, backend: str) -> None:
    options = ["--host", host, "--port", "0", "--backend", backend]
    with running("echo_server.py", *options) as program, client(host) as sock:
        sock.connect(program.address())
        payloads = payloads_up_to(LARGEST[host])
        for payload in payloads:
            sock.send(payload)
            assert sock.recv(2**16) == payload
        burst = [b"%d" % number for number in range(100)]
        for payload in burst:
            sock.send(payload)
        assert [sock.recv(2**16) for _ in burst] == burst
        program.process.send_signal(how)
        (line,) = program.end()
    count = len(payloads) + len(burst)
    assert numbers(line, BOOKS) == (count, count, 0, 0, 0)
    _, size, batches = numbers(line, SEEN)
    assert size == sum(map(len, payloads + burst))
    assert len(payloads) < batches <= count


@each_backend
@each_signal
def test_echo_answers_what_waits_when_it_is_stopped(how: signal.Signals, backend: str) -> None:
    options = ["--port", "0", "--backend", backend, "--buffer", BUFFER]
    with running("echo_server.py", *options) as program, client("127.0.0.1") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
        sock.connect(program.address())
        with program.held():
            for number in range(500):
                sock.send(b"%d" % number)
            program.process.send_signal(how)
        assert [sock.recv(99) for _ in range(500)] == [b"%d" % number for number in range(500)]
        assert numbers(program.end()[-1], BOOKS) == (500, 500, 0, 0, 0)


@without_nc
@each_backend
@each_host
def test_echo_to_netcat(host: str, backend: str) -> None:
    options = ["--host", host, "--port", "0", "--backend", backend]
    with running("echo_server.py", *options) as program:
        address = program.address()
        with command("nc", "-u", address[0], str(address[1])) as nc:
            assert nc.process.stdin is not None
            for line in ("hello", "and again"):
                nc.process.stdin.write(f"{line}\n")
                nc.process.stdin.flush()
                assert nc.line() == line
        assert numbers(program.stop()[-1], BOOKS) == (2, 2, 0, 0, 0)


@without_socat
@each_backend
@each_host
def test_echo_to_socat(host: str, backend: str, tmp_path: Path) -> None:
    """A datagram as long as can be, then an empty one, at whose return it ends."""
    size = LARGEST[host]
    payload = random.Random(7).randbytes(size)
    (tmp_path / "payload").write_bytes(payload)  # of a pipe it may read a part
    options = ["--host", host, "--port", "0", "--backend", backend]
    with running("echo_server.py", *options) as program, (tmp_path / "payload").open("rb") as file:
        where = "UDP6:[{}]:{}" if ":" in host else "UDP4:{}:{}"
        target = where.format(*program.address()) + ",shut-null,null-eof"
        socat = subprocess.run(
            ["socat", "-b", str(2**16), "-t", str(DEADLINE), "-", target],
            stdin=file,
            capture_output=True,
            timeout=DEADLINE,
        )
        assert (socat.returncode, socat.stderr) == (0, b"")
        assert socat.stdout == payload
        line = program.stop()[-1]
    assert numbers(line, BOOKS) == (2, 2, 0, 0, 0)
    assert numbers(line, SEEN)[1] == size


@only_linux
@each_backend
def test_echo_does_not_answer_its_like(backend: str) -> None:
    with (
        running("echo_server.py", "--port", "0", "--backend", backend) as program,
        ExitStack() as stack,
    ):
        address = program.address()
        like = stack.enter_context(client("127.0.0.2", address[1]))
        sock = stack.enter_context(client("127.0.0.1"))
        for count in range(3):
            like.sendto(b"echo", address)
            sock.sendto(b"%d" % count, address)
        assert [sock.recv(99) for _ in range(3)] == [b"0", b"1", b"2"]
        assert has_nothing(like)
        assert numbers(program.stop()[-1], BOOKS) == (6, 3, 3, 0, 0)


@each_backend
def test_echo_does_not_answer_well_known_ports(backend: str) -> None:
    with (
        running("echo_server.py", "--port", "0", "--backend", backend) as program,
        ExitStack() as stack,
    ):
        address = program.address()
        try:
            chargen = stack.enter_context(client("127.0.0.1", 19))
        except PermissionError:
            pytest.skip("ports below 1024 are for the superuser here")
        except OSError as error:
            pytest.skip(f"port 19 can't be bound: {error.strerror}")
        sock = stack.enter_context(client("127.0.0.1"))
        chargen.sendto(b"echo", address)
        sock.sendto(b"hello", address)
        assert sock.recv(99) == b"hello"
        assert has_nothing(chargen)
        assert numbers(program.stop()[-1], BOOKS) == (2, 1, 1, 0, 0)


@only_linux
@each_backend
def test_echo_counts_what_the_system_refuses(backend: str) -> None:
    """A sender who forged port 0 can't be answered; those before and after it can."""
    with (
        running("echo_server.py", "--port", "0", "--backend", backend) as program,
        ExitStack() as stack,
    ):
        address = program.address()
        kind = (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        try:
            forger = stack.enter_context(socket.socket(*kind))
        except PermissionError:
            pytest.skip("raw sockets are for the superuser here")
        sock = stack.enter_context(client("127.0.0.1"))
        # RFC 768: ports, the length with these 8 bytes, no checksum.
        forged = struct.pack("!HHHH", 0, address[1], 8 + 6, 0) + b"forged"
        for count in range(3):
            sock.sendto(b"%d" % count, address)
            forger.sendto(forged, (address[0], 0))
        sock.sendto(b"3", address)
        assert [sock.recv(99) for _ in range(4)] == [b"0", b"1", b"2", b"3"]
        line = program.stop()[-1]
    assert numbers(line, BOOKS) == (7, 4, 0, 0, 3)
    assert "refused 3 (3 EINVAL)" in line


@each_backend
def test_echo_accounts_for_each_packet_of_a_flood(backend: str) -> None:
    """The sender never reads, and it is stopped in the middle."""
    options = ["--port", "0", "--backend", backend, "--interval", "0.02"]
    with running("echo_server.py", *options) as program:
        address = program.address()
        done = threading.Event()

        def flood() -> None:
            with client("127.0.0.1") as sock:
                while not done.is_set():
                    sock.sendto(b"x" * 1000, address)

        sender = threading.Thread(target=flood)
        sender.start()
        try:
            while numbers(program.line_with("-- "), BOOKS)[1] < 1000:
                pass
            line = program.stop()[-1]
        finally:
            done.set()
            sender.join()
    received, *became = numbers(line, BOOKS)
    assert received == sum(became)
    assert numbers(line, SEEN)[:2] == (received, received * 1000)
