"""relay.py, run as a user would: what each destination gets, its books checked."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack

import pytest

from ..helpers import unheard
from .helpers import (
    BUFFER,
    DEADLINE,
    LARGEST,
    client,
    command,
    each_backend,
    each_host,
    each_signal,
    numbers,
    only_linux,
    payloads_up_to,
    running,
    send_all,
    without_ipv6,
    without_nc,
    without_signals,
)

pytestmark = without_signals
SEEN = " # packets .*, # bytes, # batches: "


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
        nobody = unheard(stack.enter_context(client(host)))
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
@each_signal
def test_relay_sends_on_what_waits_when_it_is_stopped(how: signal.Signals, backend: str) -> None:
    with client("127.0.0.1") as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
        options = ["--port", "0", "--backend", backend, "--buffer", BUFFER]
        options += ["--to", at(receiver.getsockname())]
        with running("relay.py", *options) as program:
            address = program.address()
            with program.held():
                send_all(address, [b"%d" % number for number in range(500)])
                program.process.send_signal(how)
            got = [receiver.recv(99) for _ in range(500)]
            assert got == [b"%d" % number for number in range(500)]
            assert numbers(program.end()[0], SENT) == (500, 0)


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
