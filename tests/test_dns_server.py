"""The DNS server: its answers in this process, read by dnspython; the server in one of its own."""

from __future__ import annotations

import importlib
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dns", reason="dnspython is not installed; the extra 'examples' has it")

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zone
from hypothesis import given
from hypothesis import strategies as st

from .test_examples import DEADLINE, EXAMPLES, each_backend, each_host, running, without_signals

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(EXAMPLES)
    # Any: type checkers do not look for modules there.
    dns_server: Any = importlib.import_module("dns_server")

SOA = "ns1.example.org. hostmaster.example.org. 2024010100 7200 900 1209600 300"
NOTHING = f"example.org. 300 IN SOA {SOA}"  # what a negative answer has as its authority
HEAD = "$ORIGIN z.\n$TTL 60\n@ SOA m r 1 2 3 4 30\n@ NS m\nm A 192.0.2.1\n"
SHARED = dns_server.load(dns_server.SAMPLE)  # for hypothesis, which calls a test many times
without_dig = pytest.mark.skipif(
    shutil.which("dig") is None, reason="the dig command is not installed"
)


@pytest.fixture
def answerer() -> Any:
    return dns_server.load(dns_server.SAMPLE)


def zone_of(text: str) -> dns.zone.Zone:
    return dns.zone.from_text(text, relativize=False)


def question(name: str, rdtype: str = "A", **options: Any) -> bytes:
    return dns.message.make_query(name, rdtype, **options).to_wire()


def asked(answerer: Any, query: bytes) -> dns.message.Message:
    """Return the answer; it has to be one to that question, as it was spelled."""
    wire = answerer.answer(query)
    assert type(wire) is bytes
    answer, sent = dns.message.from_wire(wire), dns.message.from_wire(query)
    assert sent.is_response(answer)
    assert answer.question[0].to_text() == sent.question[0].to_text()
    assert not answer.flags & dns.flags.RA
    assert answer.flags & dns.flags.RD == sent.flags & dns.flags.RD
    return answer


def lines(section: list[dns.rrset.RRset]) -> list[str]:
    return [line for rrset in section for line in rrset.to_text().splitlines()]


# What is in the zone


TO_WWW = "www.example.org. 3600 IN CNAME example.org."
APEX = "example.org. 3600 IN A 192.0.2.1"


@pytest.mark.parametrize(
    ("name", "rdtype", "answers"),
    [
        ("example.org", "A", [APEX]),
        ("example.org", "AAAA", ["example.org. 3600 IN AAAA 2001:db8::1"]),
        ("example.org", "TXT", ['example.org. 3600 IN TXT "v=spf1 mx -all"']),
        ("example.org", "SOA", [f"example.org. 3600 IN SOA {SOA}"]),
        ("example.org", "CAA", ['example.org. 3600 IN CAA 0 issue "ca.example.net"']),
        (
            "example.org",
            "NS",
            [
                "example.org. 3600 IN NS ns1.example.org.",
                "example.org. 3600 IN NS ns2.example.org.",
            ],
        ),
        (
            "example.org",
            "MX",
            [
                "example.org. 3600 IN MX 10 mail.example.org.",
                "example.org. 3600 IN MX 20 mail.example.net.",
            ],
        ),
        (
            "_sip._udp.example.org",
            "SRV",
            ["_sip._udp.example.org. 3600 IN SRV 0 5 5060 sip.example.org."],
        ),
        ("sip.example.org", "A", ["sip.example.org. 60 IN A 192.0.2.60"]),
        # ANY: one set of those that there are
        ("example.org", "ANY", [f"example.org. 3600 IN SOA {SOA}"]),
        ("www.example.org", "ANY", [TO_WWW]),
        # Aliases, and who asks for them themselves
        ("www.example.org", "CNAME", [TO_WWW]),
        ("www.example.org", "A", [TO_WWW, APEX]),
        ("ftp.example.org", "A", ["ftp.example.org. 300 IN CNAME www.example.org.", TO_WWW, APEX]),
        ("cdn.example.org", "A", ["cdn.example.org. 3600 IN CNAME example.cdn.example.net."]),
        (
            "ping.example.org",
            "A",
            [
                "ping.example.org. 3600 IN CNAME pong.example.org.",
                "pong.example.org. 3600 IN CNAME ping.example.org.",
            ],
        ),
        # Wildcards: any depth below, under the name that was asked for
        ("a.dyn.example.org", "A", ["a.dyn.example.org. 3600 IN A 192.0.2.80"]),
        ("b.a.dyn.example.org", "TXT", ['b.a.dyn.example.org. 3600 IN TXT "from the wildcard"']),
        ("*.dyn.example.org", "A", ["*.dyn.example.org. 3600 IN A 192.0.2.80"]),
        ("fixed.dyn.example.org", "AAAA", ["fixed.dyn.example.org. 3600 IN AAAA 2001:db8::80"]),
        (
            "x.to-www.example.org",
            "A",
            ["x.to-www.example.org. 3600 IN CNAME www.example.org.", TO_WWW, APEX],
        ),
    ],
)
def test_what_is_there(answerer: Any, name: str, rdtype: str, answers: list[str]) -> None:
    answer = asked(answerer, question(name, rdtype))
    assert lines(answer.answer) == answers
    assert (answer.rcode(), answer.authority, answer.additional) == (dns.rcode.NOERROR, [], [])
    assert answer.flags & dns.flags.AA


@pytest.mark.parametrize(
    ("name", "rdtype", "rcode", "answers"),
    [
        ("nothing.example.org", "A", dns.rcode.NXDOMAIN, []),
        ("nothing.example.org", "ANY", dns.rcode.NXDOMAIN, []),
        ("below.www.example.org", "A", dns.rcode.NXDOMAIN, []),
        ("mail.example.org", "AAAA", dns.rcode.NOERROR, []),
        ("mail.example.org", "TYPE65280", dns.rcode.NOERROR, []),
        # An alias to what is not there: the rcode is that of its end (RFC 6604 section 3)
        (
            "gone.example.org",
            "A",
            dns.rcode.NXDOMAIN,
            ["gone.example.org. 3600 IN CNAME nothing.example.org."],
        ),
        ("www.example.org", "SRV", dns.rcode.NOERROR, [TO_WWW]),
        # Names that hold nothing, but have names below them
        ("_tcp.example.org", "A", dns.rcode.NOERROR, []),
        ("dyn.example.org", "A", dns.rcode.NOERROR, []),
        # A wildcard without that type, and none for what is below a name that is there
        ("a.dyn.example.org", "MX", dns.rcode.NOERROR, []),
        ("fixed.dyn.example.org", "A", dns.rcode.NOERROR, []),
        ("a.fixed.dyn.example.org", "A", dns.rcode.NXDOMAIN, []),
        # A delegation's DS is told by the parent
        ("child.example.org", "DS", dns.rcode.NOERROR, []),
    ],
)
def test_what_is_not_there(
    answerer: Any, name: str, rdtype: str, rcode: dns.rcode.Rcode, answers: list[str]
) -> None:
    answer = asked(answerer, question(name, rdtype))
    assert answer.rcode() == rcode
    assert lines(answer.answer) == answers
    assert lines(answer.authority) == [NOTHING]
    assert answer.flags & dns.flags.AA


@pytest.mark.parametrize("name", ["child", "ns.child", "a.b.child"])
@pytest.mark.parametrize("rdtype", ["A", "NS", "ANY"])
def test_a_delegation_is_referred_to(answerer: Any, name: str, rdtype: str) -> None:
    answer = asked(answerer, question(f"{name}.example.org", rdtype))
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert not answer.flags & dns.flags.AA
    assert lines(answer.authority) == [
        "child.example.org. 3600 IN NS ns.child.example.org.",
        "child.example.org. 3600 IN NS ns.example.net.",
    ]
    assert lines(answer.additional) == ["ns.child.example.org. 3600 IN A 192.0.2.99"]


def test_an_alias_into_a_delegation() -> None:
    text = "a CNAME x.sub\nsub NS ns.sub\nns.sub A 192.0.2.2\n"
    answer = asked(dns_server.Answerer(zone_of(HEAD + text)), question("a.z"))
    assert answer.flags & dns.flags.AA
    assert lines(answer.answer) == ["a.z. 60 IN CNAME x.sub.z."]
    assert lines(answer.authority) == ["sub.z. 60 IN NS ns.sub.z."]
    assert lines(answer.additional) == ["ns.sub.z. 60 IN A 192.0.2.2"]


def test_a_chain_of_aliases_has_an_end() -> None:
    text = "".join(f"a{number} CNAME a{number + 1}\n" for number in range(100))
    answer = asked(dns_server.Answerer(zone_of(HEAD + text)), question("a0.z", use_edns=0))
    assert len(answer.answer) == 1 + dns_server.MAX_CHAIN


def test_every_set_of_the_zone_is_told_as_it_is(answerer: Any) -> None:
    zone = dns.zone.from_file(str(dns_server.SAMPLE), relativize=False)
    child = dns.name.from_text("child.example.org")
    sets = 0
    for name, rdataset in zone.iterate_rdatasets():
        if name.is_subdomain(child):
            continue
        query = dns.message.make_query(name, rdataset.rdtype, use_edns=0, payload=9999)
        answer = asked(answerer, query.to_wire())
        if answer.flags & dns.flags.TC:
            assert name == dns.name.from_text("many.example.org")
            continue
        expected = dns.rrset.from_rdata_list(name, rdataset.ttl, list(rdataset))
        assert answer.answer == [expected]
        sets += 1
    assert sets > 20


@pytest.mark.parametrize(
    ("name", "rdtype", "rdclass"),
    [
        ("example.net", "A", "IN"),
        ("org", "NS", "IN"),
        (".", "NS", "IN"),
        ("notexample.org", "A", "IN"),
        ("version.bind", "TXT", "CH"),
        ("example.org", "A", "CH"),
        ("example.org", "A", "ANY"),
        ("example.org", "AXFR", "IN"),
        ("example.org", "IXFR", "IN"),
        ("example.org", "OPT", "IN"),
    ],
)
def test_what_is_not_ours_is_refused(answerer: Any, name: str, rdtype: str, rdclass: str) -> None:
    query = dns.message.Message()
    query.question.append(dns.rrset.RRset(
        dns.name.from_text(name),
        dns.rdataclass.from_text(rdclass),
        dns.rdatatype.from_text(rdtype),
    ))  # fmt: skip
    answer = dns.message.from_wire(answerer.answer(query.to_wire()))
    assert answer.rcode() == dns.rcode.REFUSED
    assert answer.question == query.question
    assert (answer.answer, answer.authority, answer.additional) == ([], [], [])
    assert not answer.flags & (dns.flags.AA | dns.flags.RA)


# The header, and what is malformed


@pytest.mark.parametrize("opcode", range(1, 16))
def test_other_opcodes_are_not_implemented(answerer: Any, opcode: int) -> None:
    query = bytearray(question("example.org"))
    query[2] |= opcode << 3
    expected = query[:2] + bytes([0x80 | opcode << 3 | 1, dns.rcode.NOTIMP]) + bytes(8)
    assert answerer.answer(bytes(query)) == expected
    assert answerer.statistics().answers == {"NOTIMP": 1}


def test_recursion_desired_is_repeated_and_nothing_else(answerer: Any) -> None:
    for flags in range(0, 0x10000, 0x10):
        if not flags & 0xF800:
            query = dns.message.make_query("example.org", "A", flags=0, id=7)
            query.flags = dns.flags.Flag(flags)
            answer = asked(answerer, query.to_wire())
            assert answer.flags == 0x8400 | flags & 0x0100


A = b"\7example\3org\0\0\1\0\1"
OPT = b"\0" + struct.pack("!HHIH", 41, 4096, 0, 0)
LONGEST = b"\77" + b"x" * 63


def message(*counts: int, rest: bytes, flags: int = 0x0100) -> bytes:
    return struct.pack("!HHHHHH", 0xBEEF, flags, *counts) + rest


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        pytest.param(message(0, 0, 0, 0, rest=b""), "not one question", id="no question"),
        pytest.param(message(2, 0, 0, 0, rest=A * 2), "not one question", id="two questions"),
        pytest.param(message(1, 0, 0, 0, rest=b""), "cut short", id="header alone"),
        pytest.param(message(1, 0, 0, 0, rest=A[:5]), "cut short", id="half a name"),
        pytest.param(message(1, 0, 0, 0, rest=A[:-1]), "cut short", id="half a class"),
        pytest.param(message(1, 0, 0, 0, rest=A + b"\0"), "trailing bytes", id="one byte more"),
        pytest.param(message(1, 0, 0, 0, rest=b"\xc0\x0c\0\1\0\1"), "bad name", id="pointer"),
        pytest.param(message(1, 0, 0, 0, rest=b"\x40" + A), "bad name", id="kind of label"),
        pytest.param(
            message(1, 0, 0, 0, rest=LONGEST * 4 + b"\0\0\1\0\1"), "bad name", id="257 bytes"
        ),
        pytest.param(message(1, 0, 0, 1, rest=A), "cut short", id="no OPT"),
        pytest.param(message(1, 0, 0, 1, rest=A + OPT[:-1]), "cut short", id="half an OPT"),
        pytest.param(message(1, 0, 0, 1, rest=A + OPT * 2), "trailing bytes", id="uncounted OPT"),
        pytest.param(message(1, 0, 0, 2, rest=A + OPT * 2), "bad EDNS", id="two OPTs"),
        pytest.param(message(1, 1, 0, 0, rest=A + OPT), "bad EDNS", id="OPT as an answer"),
        pytest.param(message(1, 0, 0, 1, rest=A + b"\1x" + OPT), "bad EDNS", id="OPT has a name"),
        pytest.param(
            message(1, 0, 0, 1, rest=A + OPT[:-1] + b"\5\0\n\0\2x"), "bad EDNS", id="option"
        ),
        pytest.param(
            message(1, 0, 0, 1, rest=A + OPT[:-1] + b"\3\0\n\0"), "cut short", id="half an option"
        ),
        pytest.param(
            message(1, 0, 0, 1, rest=A + b"\x40" + OPT), "bad name", id="record with a bad name"
        ),
    ],
)
def test_malformed_queries(answerer: Any, query: bytes, kind: str) -> None:
    assert answerer.answer(query) == b"\xbe\xef\x81\1" + bytes(8)
    seen = answerer.statistics()
    assert (seen.malformed, seen.answers, seen.queries) == ({kind: 1}, {"FORMERR": 1}, 1)


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        *((question("example.org")[:size], "too short") for size in range(12)),
        (message(1, 0, 0, 0, rest=A, flags=0x8000), "response"),
        (message(0, 0, 0, 0, rest=b"", flags=0xFFFF), "response"),
    ],
)
def test_what_gets_no_answer(answerer: Any, query: bytes, kind: str) -> None:
    assert answerer.answer(query) is None
    seen = answerer.statistics()
    assert (seen.dropped, seen.answers, seen.queries) == ({kind: 1}, {}, 1)


def test_its_own_answers_get_none(answerer: Any) -> None:
    assert answerer.answer(answerer.answer(question("example.org"))) is None


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"\1x\0" + struct.pack("!HHIH", 250, 255, 0, 3) + b"abc", id="like TSIG"),
        pytest.param(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + b"abcd", id="compressed"),
    ],
)
def test_other_records_are_walked_over(answerer: Any, rest: bytes) -> None:
    for query in (
        message(1, 0, 0, 2, rest=A + OPT + rest),
        message(1, 1, 0, 1, rest=A + rest + OPT),
    ):
        answer = dns.message.from_wire(answerer.answer(query))
        assert answer.edns == 0
        assert lines(answer.answer) == [APEX]
        assert not answerer._verbatim  # they are anybody's bytes


@given(st.binary(max_size=100))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    for query in (data, message(1, 0, 0, 0, rest=data), message(1, 0, 0, 1, rest=A + data)):
        check_any(SHARED, query)


def test_no_mutation_makes_it_raise(answerer: Any) -> None:
    dice = random.Random(1035)
    seeds = [
        question("www.example.org"),
        question("wWw.eXample.org", use_edns=0),
        question("a.child.example.org", "NS", use_edns=0, payload=512),
        question(
            "many.example.org",
            options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")],
        ),
        answerer.answer(question("example.org", "MX")),
    ]
    for _ in range(20_000):
        query = bytearray(dice.choice(seeds))
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(query))
            how = dice.randrange(5)
            if how == 0:
                query[at] = dice.randrange(256)
            elif how == 1:
                query[at] ^= 1 << dice.randrange(8)
            elif how == 2:
                del query[at : at + dice.randrange(4)]
            elif how == 3 and dice.randrange(4) == 0:
                del query[at + 1 :]
            else:
                query[at:at] = dice.randbytes(dice.randrange(4))
            query = query or bytearray(1)  # which has a place to change
        check_any(answerer, bytes(query))
    seen = answerer.statistics()
    # They are neither too mild nor too wild, if they go all ways.
    assert {"NOERROR", "NXDOMAIN", "REFUSED", "FORMERR", "NOTIMP", "BADVERS"} <= set(seen.answers)
    assert len(seen.malformed) == 5
    assert set(seen.dropped) == {"too short", "response"}


def check_any(answerer: Any, query: bytes) -> None:
    """Ask anything. What it is answered with has to be what may be said to that."""
    wire = answerer.answer(query)
    assert answerer.answer(memoryview(query)) == wire
    if len(query) < 12 or query[2] & 0x80:
        assert wire is None
        return
    answer = dns.message.from_wire(wire)
    assert wire[:2] == query[:2]
    assert answer.flags & dns.flags.QR
    assert answer.opcode() == query[2] >> 3 & 15
    assert len(wire) <= (512 if answer.edns < 0 else 1232)
    if answer.question:
        size = len(answer.question[0].name.to_wire() or b"") + 4
        assert wire[12 : 12 + size] == query[12 : 12 + size]
    else:
        assert wire[3] in (dns.rcode.FORMERR, dns.rcode.NOTIMP)
        assert len(wire) == 12


# EDNS and size


@pytest.mark.parametrize("payload", [0, 511, 512, 1231, 1232, 4096, 65535])
@pytest.mark.parametrize("name", ["example.org", "nothing.example.org", "example.net"])
def test_edns_is_answered_with_edns(answerer: Any, name: str, payload: int) -> None:
    for want_dnssec in (False, True):
        query = question(name, use_edns=0, payload=payload, want_dnssec=want_dnssec)
        answer = asked(answerer, query)
        assert (answer.edns, answer.payload) == (0, 1232)
        assert answer.ednsflags == (dns.flags.DO if want_dnssec else 0)
    assert asked(answerer, question(name, use_edns=False)).edns == -1


@pytest.mark.parametrize("version", [1, 255])
def test_other_versions_of_edns(answerer: Any, version: int) -> None:
    query = dns.message.make_query("example.org", "A", use_edns=0)
    query.use_edns(version)
    answer = asked(answerer, query.to_wire())
    assert (answer.rcode(), answer.edns) == (dns.rcode.BADVERS, 0)
    assert answer.answer == []
    assert answerer.statistics().answers == {"BADVERS": 1}


@pytest.mark.parametrize(
    ("records", "options"),
    [
        # Header 12 bytes, question 8 + 4, each record 2 + 10 + 4, OPT 11.
        (30, {"use_edns": False}),
        (29, {"use_edns": 0, "payload": 0}),
        (29, {"use_edns": 0, "payload": 512}),
        (30, {"use_edns": 0, "payload": 515}),
        (74, {"use_edns": 0, "payload": 1232}),
        (74, {"use_edns": 0, "payload": 65535}),
    ],
)
def test_what_does_not_fit(records: int, options: dict[str, Any]) -> None:
    addresses = "".join(f"full A 192.0.2.{n}\nmore A 192.0.2.{n}\n" for n in range(records))
    answerer = dns_server.Answerer(zone_of(HEAD + addresses + "more A 192.0.2.255"))
    fits = asked(answerer, question("full.z", **options))
    assert len(fits.answer[0]) == records
    assert not fits.flags & dns.flags.TC
    cut = asked(answerer, question("more.z", **options))
    assert (cut.answer, cut.authority, cut.additional) == ([], [], [])
    assert cut.flags & dns.flags.TC
    assert cut.flags & dns.flags.AA
    assert (cut.rcode(), cut.edns) == (dns.rcode.NOERROR, fits.edns)


# What it remembers


def random_case(text: str, dice: random.Random) -> str:
    return "".join(dice.choice([letter.upper(), letter.lower()]) for letter in text)


NAMES = ["www.example.org", "gone.example.org", "a.dyn.example.org", "b.child.example.org"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_question_asked_again_is_not_looked_up(
    answerer: Any, kind: Callable[[bytes], bytes]
) -> None:
    queries = [question(name, use_edns=edns, id=1) for name in NAMES for edns in (False, 0)]
    first = [answerer.answer(kind(query)) for query in queries]
    for number in range(2, 5):
        head = bytes([0, number])
        assert [answerer.answer(kind(head + query[2:])) for query in queries] == [
            head + answer[2:] for answer in first
        ]
    seen = answerer.statistics()
    assert (seen.queries, seen.looked_up) == (4 * len(queries), len(queries))
    assert seen.answers == {"NOERROR": 24, "NXDOMAIN": 8}
    assert answerer.statistics() == seen


def test_neither_case_nor_cookies_make_it_look_up(answerer: Any) -> None:
    dice = random.Random(0x20)
    plain = {name: asked(answerer, question(name, use_edns=0)) for name in NAMES}
    for _ in range(100):
        name = dice.choice(NAMES)
        cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, dice.randbytes(8))
        padding = dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(dice.randrange(9)))
        spelled = random_case(name, dice)
        payload = dice.choice([1232, 1400, 4096])
        query = question(spelled, use_edns=0, payload=payload, options=[cookie, padding])
        answer = asked(answerer, query)
        assert answer.options == ()  # cookies are not known here
        answer.id = plain[name].id
        assert answer == plain[name]
        asked(answerer, question(spelled.replace("w", "W").replace("e", "E"), use_edns=0))
    assert answerer.statistics().looked_up == len(NAMES)
    assert len(answerer._understood) == len(answerer._verbatim) == len(NAMES)


def test_what_differs_is_not_confused(answerer: Any) -> None:
    """Each thing that an answer depends on, with all else alike."""
    dice = random.Random(1)
    queries = [
        question(name, rdtype, use_edns=edns, payload=payload, want_dnssec=do, flags=flags)
        for name in ("example.org", "example.net", "long.example.org", "exampl.eorg")
        for rdtype in ("A", "TXT")
        for edns, do in ((False, False), (0, False), (0, True))
        for payload in (512, 1232)
        for flags in (0, 0x100)
    ]
    fresh = [dns_server.load(dns_server.SAMPLE).answer(query) for query in queries]
    for _ in range(3):
        for number in dice.sample(range(len(queries)), len(queries)):
            assert answerer.answer(queries[number]) == fresh[number]


def test_memory_has_a_bound(answerer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "MAX_REMEMBERED", 10)
    query = question("www.example.org", use_edns=False)
    for number in range(1000):
        asked(answerer, question(f"no{number}.example.org"))
        asked(answerer, query)
        asked(
            answerer, message(1, 0, 0, 1, rest=A + OPT[:3] + struct.pack("!H", number) + OPT[5:])
        )
        assert len(answerer._verbatim) <= 10
        assert len(answerer._understood) <= 10
    # What was forgotten is still counted.
    assert answerer.statistics().answers == {"NXDOMAIN": 1000, "NOERROR": 2000}


# Zones that are not served


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (HEAD + "a DNAME b\n", "a.z. has a DNAME, which is not served here; leave it out"),
        (HEAD + "*.a NS m\n", "*.a.z. is a wildcard with an NS; write the names out"),
        (HEAD + "a CNAME b\na A 192.0.2.1\n", "CNAME"),
        (HEAD + "a A nonsense\n", "z.zone:"),
        ("$ORIGIN z.\n$TTL 60\nm A 192.0.2.1\n", "SOA"),
        ("@ 60 SOA m r 1 2 3 4 30\n", "begin it with $ORIGIN and the name of the zone"),
        ("", "begin it with $ORIGIN and the name of the zone"),
        (None, "No such file"),
        ("\xff", "codec can't decode"),
    ],
)
def test_zone_files_that_are_not_served(text: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "z.zone"
    if text is not None:
        path.write_text(text, "latin-1")
    with pytest.raises(ValueError) as error:
        dns_server.load(path)
    assert str(error.value).count(str(path)) == 1
    assert reason in str(error.value)


def test_zones_that_are_not_served() -> None:
    with pytest.raises(ValueError, match="relativize=False"):
        dns_server.Answerer(dns.zone.from_text(HEAD))


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
        program.process.send_signal(getattr(signal, how))
        ended = program.end()
    gone = sum(b"\4gone" in query for query in queries)
    assert summary(ended) == in_all(
        f"106 queries (rate): 2 FORMERR, {101 - gone} NOERROR, {gone} NXDOMAIN",
        malformed="2 (1 not one question, 1 trailing bytes)",
        dropped="3 (1 response, 2 too short)",
    )


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
        [sys.executable, "-W", "error", str(EXAMPLES / "dns_server.py"), "--zone", str(path)],
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.endswith(
        f"error: {path}: a.z. has a DNAME, which is not served here; leave it out\n"
    )
