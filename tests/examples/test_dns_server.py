"""dns_server.py, asked by real clients in a process of its own."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("dns", reason="dnspython is not installed; the group 'test' has it")

import dns.message
import dns.query
import dns.rcode

from .dns_helpers import APEX, HEAD, NAMES, TO_WWW, A, lines, message, question
from .helpers import (
    BUFFER,
    CUT,
    DEADLINE,
    PROGRAMS,
    client,
    each_backend,
    each_host,
    each_signal,
    only_linux,
    running,
    without_ipv6,
    without_signals,
)

without_dig = pytest.mark.skipif(
    shutil.which("dig") is None, reason="the dig command is not installed"
)


# The server


def summary(lines: list[str]) -> str:
    """Return the last line without the rate, which is anybody's guess."""
    return re.sub(r"\([0-9,]+/s\)", "(rate)", lines[-1])


def in_all(answers: str, malformed: str = "0", dropped: str = "0", failures: str = "0") -> str:
    return (
        f"in all {answers}; malformed {malformed}, dropped {dropped}, send failures {failures}, "
        f"dropped by kernel {0 if sys.platform == 'linux' else 'unknown'}"
    )


@without_signals
@each_backend
@each_host
def test_server_answers_dnspython(host: str, backend: str) -> None:
    with running("dns_server.py", "--host", host, "--port", "0", "--backend", backend) as program:
        listening, port = program.address()
        assert listening == host
        for name, rdtype, rcode, answers in [
            ("example.org", "A", "NOERROR", [APEX]),
            ("example.org", "AAAA", "NOERROR", ["example.org. 3600 IN AAAA 2001:db8::1"]),
            ("Example.ORG", "TXT", "NOERROR", ['Example.ORG. 3600 IN TXT "v=spf1 mx -all"']),
            ("www.example.org", "A", "NOERROR", [TO_WWW, APEX]),
            ("nothing.example.org", "A", "NXDOMAIN", []),
            ("example.net", "A", "REFUSED", []),
        ]:
            for use_edns in (False, 0):
                query = dns.message.make_query(name, rdtype, use_edns=use_edns)
                for _ in range(2):
                    answer = dns.query.udp(query, host, DEADLINE, port)
                    assert dns.rcode.to_text(answer.rcode()) == rcode
                    assert lines(answer.answer) == answers
        ended = program.stop()
    assert summary(ended) == in_all("24 queries (rate): 16 NOERROR, 4 NXDOMAIN, 4 REFUSED")


@without_signals
@without_dig
@each_backend
@each_host
def test_server_answers_dig(host: str, backend: str) -> None:
    with running("dns_server.py", "--host", host, "--port", "0", "--backend", backend) as program:
        port = program.address()[1]

        def dig(*options: str) -> str:
            command = ["dig", f"@{host}", "-p", str(port), "+notcp", "+ignore", "+time=10"]
            return subprocess.run(
                [*command, *options],
                check=True,
                timeout=DEADLINE,
                capture_output=True,
                encoding="utf-8",
            ).stdout

        assert dig("+short", "example.org", "A").split() == ["192.0.2.1"]
        assert dig("+short", "example.org", "AAAA").split() == ["2001:db8::1"]
        assert dig("+short", "example.org", "TXT").strip() == '"v=spf1 mx -all"'
        assert dig("+short", "ftp.example.org").split() == [
            *("www.example.org.", "example.org.", "192.0.2.1")
        ]
        assert dig("+short", "a.dyn.example.org").split() == ["192.0.2.80"]
        assert "status: NXDOMAIN" in (negative := dig("nothing.example.org"))
        assert "flags: qr aa rd; QUERY: 1, ANSWER: 0, AUTHORITY: 1, ADDITIONAL: 1" in negative
        assert "status: REFUSED" in dig("example.net")
        assert "status: REFUSED" in dig("version.bind", "TXT", "CH")
        assert "status: NOERROR" in (any_ := dig("example.org", "ANY"))
        assert "ANSWER: 1," in any_
        assert "flags: qr aa tc rd;" in dig("many.example.org")
        assert "status: BADVERS" in dig("+edns=1", "+noednsneg", "example.org")
        assert "status: NOTIMP" in dig("+opcode=4", "example.org")
        for text in ("malformed", "parse", "WARNING: Messages has"):
            assert text not in any_ + negative
        ended = program.stop()
    answers = "1 BADVERS, 7 NOERROR, 1 NOTIMP, 1 NXDOMAIN, 2 REFUSED"
    assert summary(ended) == in_all(f"12 queries (rate): {answers}")


def places(host: str) -> list[str]:
    """Addresses where a server on all of them can be asked."""
    return ["127.0.0.1", "127.0.0.2", "127.9.9.9"] + ["::1"] * (host == "::")


everywhere = pytest.mark.parametrize("host", ["0.0.0.0", pytest.param("::", marks=without_ipv6)])


@only_linux
@each_backend
@everywhere
def test_server_answers_from_where_it_was_asked(host: str, backend: str) -> None:
    """Connected clients get nothing that comes from elsewhere; dnspython refuses it."""
    with running("dns_server.py", "--host", host, "--port", "0", "--backend", backend) as program:
        listening, port = program.address()
        assert listening == host
        for place in places(host):
            # Without `source` both leave it to the system where they ask from.
            query = dns.message.make_query("example.org", "A")
            answer = dns.query.udp(query, place, DEADLINE, port)
            assert lines(answer.answer) == [APEX]
        with client("127.0.0.1") as sock:
            order = [place for place in places("0.0.0.0") for _ in range(3)]
            with program.held():
                for number, place in enumerate(order):
                    sock.sendto(question("example.org", id=number), (place, port))
            got = [sock.recvfrom(2000) for _ in order]
        assert [(int.from_bytes(data[:2], "big"), at) for data, at in got] == [
            (number, (place, port)) for number, place in enumerate(order)
        ]
        ended = program.stop()
    count = len(places(host)) + len(order)
    assert summary(ended) == in_all(f"{count} queries (rate): {count} NOERROR")


@only_linux
@without_dig
@everywhere
def test_dig_accepts_answers_from_where_it_asked(host: str) -> None:
    """It says so and goes on waiting if one comes from elsewhere."""
    with running("dns_server.py", "--host", host, "--port", "0") as program:
        port = program.address()[1]
        for place in places(host):
            asked = ["dig", f"@{place}", "-p", str(port), "+notcp", "+time=10", "+tries=1"]
            done = subprocess.run(
                # From an address that the kernel would answer from 127.0.0.1.
                [*asked, "-b", "::1" if ":" in place else "127.0.0.1", "+short", "example.org"],
                timeout=DEADLINE,
                capture_output=True,
                encoding="utf-8",
            )
            assert (done.stdout, done.stderr, done.returncode) == ("192.0.2.1\n", "", 0)
        ended = program.stop()
    count = len(places(host))
    assert summary(ended) == in_all(f"{count} queries (rate): {count} NOERROR")


@without_signals
@each_backend
@each_host
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_server_survives_and_counts(host: str, backend: str, how: str) -> None:
    options = ["--host", host, "--port", "0", "--backend", backend, "--interval", "0.02"]
    with running("dns_server.py", *options) as program:
        address = program.address()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(address)
            dice = random.Random(53)
            queries = [question(dice.choice(NAMES), id=number) for number in range(100)]
            for query in queries:
                sock.send(query)
            # In the order of the questions: a batch is sent in the order it came.
            assert [sock.recv(2000)[:2] for _ in queries] == [query[:2] for query in queries]

            for dropped in (b"", b"\0" * 11, message(1, 0, 0, 0, rest=A, flags=0x8000)):
                sock.send(dropped)
            sock.send(message(0, 0, 0, 0, rest=b""))
            assert sock.recv(2000) == b"\xbe\xef\x81\1" + bytes(8)
            sock.send(message(1, 0, 0, 0, rest=A + bytes(5000)))  # more than a slot takes
            assert sock.recv(2000) == b"\xbe\xef\x81\1" + bytes(8)
            sock.send(message(1, 0, 0, 0, rest=A))
            assert lines(dns.message.from_wire(sock.recv(2000)).answer) == [APEX]
        assert program.line_with("-- 106 queries")
        ended = program.stop(getattr(signal, how), logged=CUT)
    gone = sum(b"\4gone" in query for query in queries)
    assert summary(ended) == in_all(
        f"106 queries (rate): 2 FORMERR, {101 - gone} NOERROR, {gone} NXDOMAIN",
        malformed="2 (1 not one question, 1 trailing bytes)",
        dropped="3 (1 response, 2 too short)",
    )


@without_signals
@each_backend
@each_signal
def test_server_answers_what_waits_when_it_is_stopped(how: signal.Signals, backend: str) -> None:
    options = ["--port", "0", "--backend", backend, "--buffer", BUFFER]
    with running("dns_server.py", *options) as program, client("127.0.0.1") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
        sock.connect(program.address())
        queries = [question("example.org", id=number) for number in range(500)]
        with program.held():
            for query in queries:
                sock.send(query)
            program.process.send_signal(how)
        assert [sock.recv(2000)[:2] for _ in queries] == [query[:2] for query in queries]
        ended = program.end()
    assert summary(ended) == in_all("500 queries (rate): 500 NOERROR")


@pytest.mark.skipif(sys.platform != "linux", reason="raw sockets differ elsewhere")
@each_backend
def test_server_survives_a_sender_that_none_can_answer(backend: str) -> None:
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    except PermissionError:
        pytest.skip("only root may forge a sender")
    with raw, running("dns_server.py", "--port", "0", "--backend", backend) as program:
        host, port = program.address()
        query = question("example.org")
        raw.sendto(struct.pack("!HHHH", 0, port, 8 + len(query), 0) + query, (host, 0))
        dns.query.udp(dns.message.make_query("example.org", "A"), host, DEADLINE, port)
        ended = program.stop()
    assert summary(ended) == in_all("2 queries (rate): 2 NOERROR", failures="1 (1 EINVAL)")


@without_signals
def test_server_with_a_zone_file(tmp_path: Path) -> None:
    path = tmp_path / "z.zone"
    path.write_text(HEAD)
    with running("dns_server.py", "--port", "0", "--zone", str(path)) as program:
        host, port = program.address()
        answer = dns.query.udp(dns.message.make_query("m.z", "A"), host, DEADLINE, port)
        assert lines(answer.answer) == ["m.z. 60 IN A 192.0.2.1"]
        program.stop()


def test_server_tells_what_is_wrong_with_a_zone_file(tmp_path: Path) -> None:
    path = tmp_path / "z.zone"
    path.write_text(HEAD + "a DNAME b\n")
    failed = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAMS / "dns_server.py"), "--zone", str(path)],
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.endswith(
        f"error: {path}: a.z. has a DNAME, which is not served here; leave it out\n"
    )
