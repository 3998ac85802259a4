"""syslog_collector.py: fed by real clients, and by what the field sends."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys

import pytest

from anyio_mmsg.testing import make_batch

from .helpers import (
    CUT,
    DEADLINE,
    each_host,
    each_signal,
    load,
    numbers,
    running,
    send_all,
    without_signals,
)

pytestmark = without_signals
without_logger = pytest.mark.skipif(
    shutil.which("logger") is None, reason="the logger command is not installed"
)


@without_logger
@each_host
def test_syslog_from_the_logger_command(host: str) -> None:
    with running("syslog_collector.py", "--host", host, "--port", "0") as program:
        listening, port = program.address()
        assert listening == host
        # What can be given to a program depends on the locale.
        mark = "\u2713" if sys.getfilesystemencoding() == "utf-8" else "!"
        logger = ["logger", "-n", host, "-P", str(port), "-d", "-t", "door"]
        for options in (
            ["--rfc5424", "--msgid", "ID7", "-p", "local3.err", f"it's open {mark}"],
            ["--rfc5424", "--sd-id", "bell@1", "--sd-param", r'tone="a\]b"', "it rang"],
            ["--rfc3164", "-p", "user.crit", "--id=99", "it burns"],
            ["--rfc3164", "\x1b[31mred"],
        ):
            subprocess.run([*logger, *options], check=True, timeout=DEADLINE)
        lines = program.stop()
    word = r"\S+"
    for line, expected in zip(
        lines,
        [
            rf"local3\.err {word}T{word} {word} door\[-\] ID7 \[.*\] it's open {mark}",
            rf"user\.notice {word}T{word} {word} door\[-\] - .*\[bell@1 tone='a\]b'\] it rang",
            rf"user\.crit \w+ +\d+ [0-9:]+ {word} door\[99\] - it burns",
            rf"user\.notice \w+ +\d+ [0-9:]+ {word} door\[-\] - \\x1b\[31mred",
            r"-- 4 messages \(1 crit, 1 err, 2 notice\), 0 malformed, 0 truncated",
        ],
        strict=True,
    ):
        assert re.fullmatch(expected, line)


def test_syslog_reads_what_the_rfcs_show_and_survives_the_rest() -> None:
    cases = [
        (  # RFC 5424 section 6.5, examples 1 to 4
            b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - "
            b"\xef\xbb\xbf'su root' failed for lonvick on /dev/pts/8",
            "auth.crit 2003-10-11T22:14:15.003Z mymachine.example.com su[-] ID47 "
            "'su root' failed for lonvick on /dev/pts/8",
        ),
        (
            b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - "
            b"%% It's time to make the do-nuts.",
            "local4.notice 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc[8710] - "
            "%% It's time to make the do-nuts.",
        ),
        (
            b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 "
            b'[exampleSDID@32473 iut="3" eventSource="Application"] \xef\xbb\xbfAn entry',
            "local4.notice 2003-10-11T22:14:15.003Z mymachine.example.com evntslog[-] ID47 "
            "[exampleSDID@32473 iut='3' eventSource='Application'] An entry",
        ),
        (
            b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 "
            b'[exampleSDID@32473 iut="3"][examplePriority@32473 class="high"]',
            "local4.notice 2003-10-11T22:14:15.003Z mymachine.example.com evntslog[-] ID47 "
            "[exampleSDID@32473 iut='3'] [examplePriority@32473 class='high'] ",
        ),
        # its section 6.3.3: escapes in a value, and an element without parameters
        (
            rb'<0>1 - - - - - [a b="\"\\\]\n"][c] x',
            r"""kern.emerg - 127.0.0.1 -[-] - [a b='"\\]\\n'] [c] x""",
        ),
        (b"<191>1 - - - - - -", "local7.debug - 127.0.0.1 -[-] - "),
        # RFC 3164 section 5.4
        (
            b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            "auth.crit Oct 11 22:14:15 mymachine su[-] - "
            "'su root' failed for lonvick on /dev/pts/8",
        ),
        (
            b"<13>Feb  5 17:32:18 ::1 Use the BFG!",
            "user.notice Feb  5 17:32:18 ::1 -[-] - Use the BFG!",
        ),
        (b"<13>Feb  5 17:32:18 h cron[7]: ok\n\0", "user.notice Feb  5 17:32:18 h cron[7] - ok"),
        (b"<13>3 disks: failed", "user.notice - 127.0.0.1 -[-] - 3 disks: failed"),
        (b"<13>", "user.notice - 127.0.0.1 -[-] - "),
        # Bytes that mean nothing in UTF-8, and characters that steer terminals
        (
            b"<13>\xff\xc3(\0\x1b[2J\r\nx\xe2\x80\xae",
            r"user.notice - 127.0.0.1 -[-] - \xff\xc3(\x00\x1b[2J\r\nx\u202e",
        ),
        # Malformed: no PRI or a wrong one, RFC 5424 begun and not kept, nothing at all
        (b"no \x07PRI", r"malformed, from 127.0.0.1: b'no \x07PRI'"),
        (b"<192>x", "malformed, from 127.0.0.1: b'<192>x'"),
        (b"<013>x", "malformed, from 127.0.0.1: b'<013>x'"),
        (b"<\xd9\xa1>x", r"malformed, from 127.0.0.1: b'<\xd9\xa1>x'"),
        (b"<13>1 - - - - - [a", "malformed, from 127.0.0.1: b'<13>1 - - - - - [a'"),
        (
            b'<13>1 - - - - - [a b="]"]',
            "malformed, from 127.0.0.1: b'<13>1 - - - - - [a b=\"]\"]'",
        ),
        (b"<13>1 yesterday - - - - -", "malformed, from 127.0.0.1: b'<13>1 yesterday - - - - -'"),
        (b"", "malformed, from 127.0.0.1: b''"),
    ]
    with running("syslog_collector.py", "--port", "0") as program:
        address = program.address()
        send_all(address, [payload for payload, _ in cases])
        for _, expected in cases:
            assert program.line() == expected
        send_all(address, [b"<13>" + b"x" * 9000])
        assert program.line().endswith("xx ... (truncated, 9004 bytes)")

        dice = random.Random(5424)
        pieces = [
            b"<13>",
            b"1 ",
            b"- ",
            b"[a",
            b' b="',
            b'"',
            b"]",
            b"\\",
            b"\xef\xbb\xbf",
            b"\xff",
        ]
        for _ in range(20):
            noise = [
                b"".join(dice.choices(pieces, k=dice.randrange(30))) + dice.randbytes(8)
                for _ in range(40)
            ]
            send_all(address, [*noise, b"<14>still here"])
            program.line_with("user.info - 127.0.0.1 -[-] - still here")
        summary = program.stop(logged=CUT)[-1]
    counted = re.fullmatch(r"-- (\d+) messages \(.*\), (\d+) malformed, 1 truncated", summary)
    assert counted
    assert int(counted[1]) + int(counted[2]) == len(cases) + 1 + 20 * 41


SOURCE = "192.0.2.7"
BSD_TIME = "Oct  1 10:00:00"


@pytest.mark.parametrize(
    ("rest", "host", "app", "procid", "text"),
    [
        # No host: BusyBox and local log sockets, Docker's log driver, proxies, the kernel
        ("app[12]: text", None, "app", "12", "text"),
        ("root: text", None, "root", "-", "text"),
        ("docker/3f2a9c8b7d6e[1234]: text", None, "docker/3f2a9c8b7d6e", "1234", "text"),
        ("my-app_1.web[7]: text", None, "my-app_1.web", "7", "text"),
        ("postfix/smtpd[123]: connect from x[::1]", None, "postfix/smtpd", "123",
         "connect from x[::1]"),
        ("sshd(pam_unix)[3]: a: b", None, "sshd(pam_unix)", "3", "a: b"),
        ("haproxy[99]: 192.0.2.1:3 [x] y", None, "haproxy", "99", "192.0.2.1:3 [x] y"),
        ("nginx: 192.0.2.1 - - [x] y", None, "nginx", "-", "192.0.2.1 - - [x] y"),
        ("kernel: [    1.5] text", None, "kernel", "-", "[    1.5] text"),
        ("/usr/sbin/cron[1]: text", None, "/usr/sbin/cron", "1", "text"),
        ("[12]: text", None, "-", "12", "text"),
        ("app[12] text", None, "app", "12", "text"),
        ("app[12]:text", None, "app", "12", "text"),
        ("app:text", None, "app", "-", "text"),
        ("app[12]:", None, "app", "12", ""),
        ("app:", None, "app", "-", ""),
        ("%SYS-5-CONFIG_I: text", None, "%SYS-5-CONFIG_I", "-", "text"),
        ("größe[1]: text", None, "größe", "1", "text"),
        ("- app[1]: text", None, "app", "1", "text"),
        ("-- MARK --", None, "-", "-", "-- MARK --"),
        ("(root) CMD (true)", None, "-", "-", "(root) CMD (true)"),
        ("word", None, "-", "-", "word"),
        ("", None, "-", "-", ""),
        # A host
        ("host app[12]: text", "host", "app", "12", "text"),
        ("web-1.example.org app: text", "web-1.example.org", "app", "-", "text"),
        ("my_host docker/1f[2]: text", "my_host", "docker/1f", "2", "text"),
        ("192.0.2.1 app: text", "192.0.2.1", "app", "-", "text"),
        ("2001:db8::1 app[1]: text", "2001:db8::1", "app", "1", "text"),
        ("fe80::1%eth0 app: text", "fe80::1%eth0", "app", "-", "text"),
        ("[2001:db8::1] app: text", "[2001:db8::1]", "app", "-", "text"),
        ("host Use the BFG!", "host", "-", "-", "Use the BFG!"),
        ("host app[1]: x[2]: y", "host", "app", "1", "x[2]: y"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "timestamp",
    [
        BSD_TIME,
        "Oct 1 10:00:00",
        "Oct 31 10:00:00",
        "Oct 01 2026 10:00:00",
        "Oct  1 10:00:00.123",
        "2026-10-01T10:00:00Z",
        "2026-10-01T10:00:00.123Z",
        "2026-10-01T10:00:00.123456789Z",
        "2026-10-01T10:00:00+02:00",
        "2026-10-01T10:00:00.123456-07:00",
        "2026-10-01T10:00:00+0530",
        "2026-10-01T10:00:00+02",
        "2026-10-01T10:00:00",
        "2026-10-01 10:00:00,123",
    ],
)
def test_syslog_splits_bsd_messages(
    timestamp: str, rest: str, host: str | None, app: str, procid: str, text: str
) -> None:
    message = load("syslog_collector").parse(f"<13>{timestamp} {rest}".encode(), SOURCE)
    assert message.timestamp == timestamp
    assert message.host == (host or SOURCE)
    assert (message.app, message.procid, message.text) == (app, procid, text)


@pytest.mark.parametrize(
    ("rest", "app", "procid", "text"),
    [
        ("app[12]: text", "app", "12", "text"),
        ("app: text", "app", "-", "text"),
        ("text", "-", "-", "text"),
        ("host app: text", "-", "-", "host app: text"),
        ("3 disks: failed", "-", "-", "3 disks: failed"),
        ("http://example.org/ is down", "-", "-", "http://example.org/ is down"),
        ("12:30 is late", "-", "-", "12:30 is late"),
        ("Oct  1 10:00 app: text", "-", "-", "Oct  1 10:00 app: text"),
        ("Okt  1 10:00:00 app: text", "-", "-", "Okt  1 10:00:00 app: text"),
        ("2026-10-01 app: text", "-", "-", "2026-10-01 app: text"),
    ],
)
def test_syslog_without_a_timestamp(rest: str, app: str, procid: str, text: str) -> None:
    message = load("syslog_collector").parse(f"<13>{rest}".encode(), SOURCE)
    assert (message.timestamp, message.host) == ("-", SOURCE)
    assert (message.app, message.procid, message.text) == (app, procid, text)


@pytest.mark.parametrize("start", ["<13>Oct  1 10:00:00: ", "<13> Oct  1 10:00:00 "])
def test_syslog_of_network_equipment(start: str) -> None:
    message = load("syslog_collector").parse(f"{start}%SYS-5-CONFIG_I: text".encode(), SOURCE)
    assert (message.timestamp, message.host) == (BSD_TIME, SOURCE)
    assert (message.app, message.text) == ("%SYS-5-CONFIG_I", "text")


def test_syslog_rfc5424_of_docker() -> None:
    name = f"{'service' * 9}/1f2e3d4c5b6a"  # longer than the RFC's 48 characters
    line = f"<30>1 2026-10-01T10:00:00.123456+02:00 - {name} 1234 {name} - text"
    message = load("syslog_collector").parse(line.encode(), SOURCE)
    assert (message.host, message.app, message.procid) == (SOURCE, name, "1234")
    assert (message.msgid, message.text) == (name, "text")


def test_syslog_tells_devices_apart_that_name_no_host(
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = load("syslog_collector")
    statistics, packets = example.Statistics(), []
    for host, start in ((2, f"{BSD_TIME} "), (3, f"{BSD_TIME} "), (4, ""), (5, "1 - - ")):
        text = "app 1 - - text" if start.startswith("1") else "app[1]: text"
        packets.append((f"<13>{start}{text}".encode(), (f"192.0.2.{host}", 514)))
    with make_batch(packets, slot_size=example.SLOT_SIZE) as batch:
        for packet in batch:
            example.collect(packet, statistics)
    assert capsys.readouterr().out.splitlines() == [
        f"user.notice {timestamp} 192.0.2.{host} app[1] - text"
        for host, timestamp in ((2, BSD_TIME), (3, BSD_TIME), (4, "-"), (5, "-"))
    ]
    assert (statistics.messages, statistics.malformed) == (4, 0)


@each_signal
def test_syslog_prints_what_waits_when_it_is_stopped(how: signal.Signals) -> None:
    with running("syslog_collector.py", "--port", "0") as program:
        address = program.address()
        with program.held():
            send_all(address, [b"<13>%d" % number for number in range(500)])
            program.process.send_signal(how)
        lines = program.end()
    assert [line.split()[-1] for line in lines[:-1]] == [str(number) for number in range(500)]
    assert lines[-1] == "-- 500 messages (500 notice), 0 malformed, 0 truncated"


def test_syslog_says_what_a_second_signal_leaves() -> None:
    with running("syslog_collector.py", "--port", "0") as program:
        address = program.address()
        with program.held():
            send_all(address, [b"<13>x"] * 500)
            program.process.send_signal(signal.SIGTERM)
            program.process.send_signal(signal.SIGINT)
        output = program.end()
    counted = numbers(output[-1], "-- # messages")[0]
    left = [numbers(line, "^left: # packets$")[0] for line in output if line.startswith("left")]
    assert counted + sum(left) == 500
    assert len(output) == counted + len(left) + 1


def test_syslog_prints_a_summary_at_each_interval() -> None:
    with running("syslog_collector.py", "--port", "0", "--interval", "0.05") as program:
        send_all(program.address(), [b"<11>one", b"two"])
        program.line_with("-- 1 messages (1 err), 1 malformed, 0 truncated")
        assert program.stop()[-1] == "-- 1 messages (1 err), 1 malformed, 0 truncated"
