"""trio_nursery.py, the syslog collector: fed by real clients, and by what the field sends."""

from __future__ import annotations

import random
import re
import shutil
import subprocess

import pytest

from .helpers import DEADLINE, each_host, running, send_all, without_signals

pytestmark = without_signals
without_logger = pytest.mark.skipif(
    shutil.which("logger") is None, reason="the logger command is not installed"
)


@without_signals
@without_logger
@each_host
def test_syslog_from_the_logger_command(host: str) -> None:
    with running("trio_nursery.py", "--host", host, "--port", "0") as program:
        listening, port = program.address()
        assert listening == host
        logger = ["logger", "-n", host, "-P", str(port), "-d", "-t", "door"]
        for options in (
            ["--rfc5424", "--msgid", "ID7", "-p", "local3.err", "it's open \u2713"],
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
            rf"local3\.err {word}T{word} {word} door\[-\] ID7 \[.*\] it's open \u2713",
            rf"user\.notice {word}T{word} {word} door\[-\] - .*\[bell@1 tone='a\]b'\] it rang",
            rf"user\.crit \w+ +\d+ [0-9:]+ {word} door\[99\] - it burns",
            rf"user\.notice \w+ +\d+ [0-9:]+ {word} door\[-\] - \\x1b\[31mred",
            r"-- 4 messages \(1 crit, 1 err, 2 notice\), 0 malformed, 0 truncated",
        ],
        strict=True,
    ):
        assert re.fullmatch(expected, line)


@without_signals
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
            r"""kern.emerg - - -[-] - [a b='"\\]\\n'] [c] x""",
        ),
        (b"<191>1 - - - - - -", "local7.debug - - -[-] - "),
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
        (b"<13>3 disks: failed", "user.notice - - -[-] - 3 disks: failed"),
        (b"<13>", "user.notice - - -[-] - "),
        # Bytes that mean nothing in UTF-8, and characters that steer terminals
        (
            b"<13>\xff\xc3(\0\x1b[2J\r\nx\xe2\x80\xae",
            r"user.notice - - -[-] - \xff\xc3(\x00\x1b[2J\r\nx\u202e",
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
    with running("trio_nursery.py", "--port", "0") as program:
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
            program.line_with("user.info - - -[-] - still here")
        summary = program.stop()[-1]
    counted = re.fullmatch(r"-- (\d+) messages \(.*\), (\d+) malformed, 1 truncated", summary)
    assert counted
    assert int(counted[1]) + int(counted[2]) == len(cases) + 1 + 20 * 41


@without_signals
def test_syslog_prints_a_summary_at_each_interval() -> None:
    with running("trio_nursery.py", "--port", "0", "--interval", "0.05") as program:
        send_all(program.address(), [b"<11>one", b"two"])
        program.line_with("-- 1 messages (1 err), 1 malformed, 0 truncated")
        assert program.stop()[-1] == "-- 1 messages (1 err), 1 malformed, 0 truncated"
