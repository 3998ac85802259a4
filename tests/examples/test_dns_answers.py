"""The answers of the DNS server: what is in the zone, what fits, what is remembered."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dns", reason="dnspython is not installed; the group 'test' has it")

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zone

from .dns_helpers import (
    APEX,
    HEAD,
    NAMES,
    NOTHING,
    OPT,
    SOA,
    TO_WWW,
    A,
    asked,
    lines,
    message,
    question,
    zone_of,
)
from .helpers import load

dns_answers = load("dns_answers")
dns_server = load("dns_server")


# What is in the zone


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
        # The parent answers for a delegation's DS
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
    answer = asked(dns_answers.Answerer(zone_of(HEAD + text)), question("a.z"))
    assert answer.flags & dns.flags.AA
    assert lines(answer.answer) == ["a.z. 60 IN CNAME x.sub.z."]
    assert lines(answer.authority) == ["sub.z. 60 IN NS ns.sub.z."]
    assert lines(answer.additional) == ["ns.sub.z. 60 IN A 192.0.2.2"]


def test_a_chain_of_aliases_has_an_end() -> None:
    text = "".join(f"a{number} CNAME a{number + 1}\n" for number in range(100))
    answer = asked(dns_answers.Answerer(zone_of(HEAD + text)), question("a0.z", use_edns=0))
    assert len(answer.answer) == 1 + dns_answers.MAX_CHAIN


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
    answerer = dns_answers.Answerer(zone_of(HEAD + addresses + "more A 192.0.2.255"))
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


def test_memory_has_a_bound() -> None:
    zone = dns.zone.from_file(str(dns_server.SAMPLE), relativize=False)
    answerer = dns_answers.Answerer(zone, max_remembered=10)
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
        dns_answers.Answerer(dns.zone.from_text(HEAD))
