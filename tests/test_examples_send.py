"""The examples that send, each run as a user would: asked by real clients, its books checked."""

from __future__ import annotations

import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .test_examples import (
    DEADLINE,
    Program,
    each_backend,
    each_host,
    running,
    without_ipv6,
    without_signals,
)

pytestmark = without_signals
LINUX = sys.platform == "linux"
only_linux = pytest.mark.skipif(not LINUX, reason="other systems have one loopback address")
without_nc = pytest.mark.skipif(shutil.which("nc") is None, reason="nc is not installed")
without_socat = pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")
# Others send no more than 9216 bytes at once, unless told (net.inet.udp.maxdgram).
LARGEST = {"127.0.0.1": 65507, "::1": 65527} if LINUX else {"127.0.0.1": 9216, "::1": 9216}


@contextmanager
def client(host: str, port: int = 0) -> Iterator[socket.socket]:
    """A socket on `host`; nothing that it does lasts for ever."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE)
        sock.bind((host, port))
        yield sock


def has_nothing(sock: socket.socket) -> bool:
    """Whether nothing has come; loopback delivers within the send."""
    sock.setblocking(False)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    return False


def payloads_up_to(largest: int) -> list[bytes]:
    sizes = [0, 1, 1232, 1233, largest - 1, largest, 0, 2]
    return [random.Random(size).randbytes(size) for size in sizes]


def numbers(line: str, pattern: str) -> tuple[int, ...]:
    """Return the numbers that `pattern` finds, each where it has #; it has to."""
    found = re.search(pattern.replace("#", "([0-9,]+)"), line)
    assert found, line
    return tuple(int(number.replace(",", "")) for number in found.groups())


# echo.py

BOOKS = " # packets .* echoed #, not answered #, unsent #, refused #[ ;]"
SEEN = " # packets .*, # bytes, # batches: "


@each_backend
@each_host
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_echo_sends_everything_back(how: signal.Signals, host: str, backend: str) -> None:
    options = ["--host", host, "--port", "0", "--backend", backend]
    with running("echo.py", *options) as program, client(host) as sock:
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


@without_nc
@each_backend
@each_host
def test_echo_to_netcat(host: str, backend: str) -> None:
    options = ["--host", host, "--port", "0", "--backend", backend]
    with running("echo.py", *options) as program:
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
    with running("echo.py", *options) as program, (tmp_path / "payload").open("rb") as file:
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


@contextmanager
def command(*arguments: str) -> Iterator[Program]:
    """A command that is talked to, and killed when it was talked to, or at the deadline."""
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="ascii"
    ) as process:
        watchdog = threading.Timer(DEADLINE, process.kill)
        watchdog.start()
        try:
            yield Program(process)
        finally:
            watchdog.cancel()
            watchdog.join()
            process.kill()


@only_linux
@each_backend
def test_echo_does_not_answer_its_like(backend: str) -> None:
    with running("echo.py", "--port", "0", "--backend", backend) as program, ExitStack() as stack:
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
    with running("echo.py", "--port", "0", "--backend", backend) as program, ExitStack() as stack:
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
    with running("echo.py", "--port", "0", "--backend", backend) as program, ExitStack() as stack:
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
    with running("echo.py", *options) as program:
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


# relay.py

SENT = ": sent on #, refused #;"


def at(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# No program may send there; for the latter it is a matter of permission in a socket that has IPv4.
BARRED = {"127.0.0.1": "255.255.255.255:9", "::1": "[::ffff:255.255.255.255]:9"}


@each_backend
@each_host
@pytest.mark.parametrize("gso", [[], ["--gso"]], ids=["", "gso"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_relay_sends_everything_to_each(
    how: signal.Signals, gso: list[str], host: str, backend: str
) -> None:
    with ExitStack() as stack:
        receivers = [stack.enter_context(client(host)) for _ in range(3)]
        with client(host) as sock:
            nobody = sock.getsockname()
        first, *others = [at(sock.getsockname()) for sock in receivers]
        names = [first, BARRED[host], at(nobody), *others]
        options = ["--host", host, "--port", "0", "--backend", backend, *gso]
        options += [f"--to={name}" for name in names]
        program = stack.enter_context(running("relay.py", *options))
        sender = stack.enter_context(client(host))
        sender.connect(program.address())
        alike = [b"%04d" % number * 50 for number in range(150)]
        groups = [[payload] for payload in payloads_up_to(LARGEST[host])]
        groups += [alike[start : start + 50] for start in range(0, 150, 50)]
        for group in groups:  # they find room in the buffer of each receiver
            for payload in group:
                sender.send(payload)
            for sock in receivers:
                assert [sock.recv(2**16) for _ in group] == group
        program.process.send_signal(how)
        total, *lines = program.end()
    payloads = [payload for group in groups for payload in group]
    count = len(payloads)
    assert numbers(total, SEEN)[:2] == (count, sum(map(len, payloads)))
    assert numbers(total, SENT) == (4 * count, count)
    gone = f": sent {count}, unsent 0, refused 0"
    barred = f": sent 0, unsent 0, refused {count} ({count} EACCES)"
    assert lines == [name + (barred if name == BARRED[host] else gone) for name in names]


@each_backend
def test_relay_does_not_relay_answers(backend: str) -> None:
    with client("127.0.0.1") as receiver, client("127.0.0.1") as sender:
        options = ["--port", "0", "--backend", backend, "--interval", "0.02"]
        options += ["--to", at(receiver.getsockname())]
        with running("relay.py", *options) as program:
            address = program.address()
            for count in range(3):
                sender.sendto(b"%d" % count, address)
                payload, relay = receiver.recvfrom(99)
                assert payload == b"%d" % count
                assert relay != address
                receiver.sendto(b"answer", relay)
            program.line_with("-- 3 packets")
            assert numbers(program.stop()[-2], SENT) == (3, 0)


@without_nc
def test_relay_from_netcat_to_a_name() -> None:
    with client("127.0.0.1") as receiver:
        port = receiver.getsockname()[1]
        # The other has no IPv6, so the name is not to either.
        options = ["--port", "0", "--to", f"localhost:{port}", "--to", "127.0.0.1:9"]
        with running("relay.py", *options) as program:
            host, listening = program.address()
            with command("nc", "-u", host, str(listening)) as nc:
                assert nc.process.stdin is not None
                nc.process.stdin.write("hello\n")
                nc.process.stdin.flush()
                assert receiver.recv(99) == b"hello\n"
            assert program.stop()[1] == f"localhost:{port}: sent 1, unsent 0, refused 0"


def refusal(*options: str) -> str:
    """Return why the relay does not start."""
    with running("relay.py", *options) as program:
        output, errors = program.process.communicate(timeout=DEADLINE)
    assert (program.process.returncode, output) == (2, "")
    return errors.rpartition("relay.py: error: ")[2].rstrip("\n")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("127.0.0.1", "give HOST:PORT, the port from 1 to 65535"),
        (":9", "give HOST:PORT, the port from 1 to 65535"),
        ("127.0.0.1:0", "give HOST:PORT, the port from 1 to 65535"),
        ("127.0.0.1:65536", "give HOST:PORT, the port from 1 to 65535"),
        ("127.0.0.1:http", "give HOST:PORT, the port from 1 to 65535"),
        ("::1:9", "write an IPv6 address as [ADDRESS]:PORT"),
    ],
)
def test_relay_refuses_what_is_no_destination(name: str, reason: str) -> None:
    assert refusal("--port", "0", "--to", name) == f"{name}: {reason}"


@pytest.mark.parametrize("name", ["[127.0.0.1.1]:9", f"{'a' * 70}.invalid:9"])
def test_relay_refuses_what_it_does_not_find(name: str) -> None:
    assert refusal("--port", "0", "--to", name).startswith(f"{name}: ")


@without_ipv6
def test_relay_refuses_destinations_of_two_kinds() -> None:
    assert refusal("--port", "0", "--to", "127.0.0.1:9", "--to", "[::1]:9") == (
        "the destinations are not all IPv4 or all IPv6; run a relay for each kind"
    )


@pytest.mark.parametrize(
    ("host", "to"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.1"),
        pytest.param("0.0.0.0", "127.9.9.9", marks=only_linux),
        pytest.param("::1", "[::1]", marks=without_ipv6),
        pytest.param("::", "[::1]", marks=without_ipv6),
        pytest.param("::", "127.0.0.1", marks=without_ipv6),
        pytest.param("127.0.0.1", "[::ffff:127.0.0.1]", marks=without_ipv6),
        pytest.param("0.0.0.0", "[::ffff:127.0.0.1]", marks=without_ipv6),
    ],
)
def test_relay_refuses_its_own_address(host: str, to: str) -> None:
    with client(host) as sock:
        port = sock.getsockname()[1]
    assert refusal("--host", host, "--port", str(port), "--to", f"{to}:{port}") == (
        f"{to}:{port} is where the relay listens: that would be a loop"
    )


@only_linux
def test_relay_may_use_its_port_on_another_address() -> None:
    with client("127.0.0.2") as receiver, client("127.0.0.1") as sender:
        port = receiver.getsockname()[1]
        with running("relay.py", "--port", str(port), "--to", f"127.0.0.2:{port}") as program:
            sender.sendto(b"hello", program.address())
            assert receiver.recv(99) == b"hello"
            program.stop()
