"""What the DNS server makes of headers, of malformed queries, of any bytes."""

from __future__ import annotations

import random
import struct
import sys
from typing import Any

import pytest

pytest.importorskip("dns", reason="dnspython is not installed; the group 'test' has it")

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
from hypothesis import given
from hypothesis import strategies as st

from .dns_helpers import APEX, LONGEST, OPT, A, asked, lines, message, question
from .helpers import load

dns_server = load("dns_server")
SHARED = dns_server.load(dns_server.SAMPLE)  # for hypothesis, which calls a test many times


# The header, and what is malformed


FORMERR, NOTIMP = 1, 4


def refusal(
    query: bytes | bytearray, rcode: int, has_opt: bool, want_dnssec: bool = False
) -> bytes:
    """A header, and OPT if the query had it (RFC 6891 section 6.1.1), with its DO."""
    head = bytes(query[:2]) + bytes([0x80 | query[2] & 0x79, rcode]) + bytes(7) + bytes([has_opt])
    flags = 0x8000 if want_dnssec else 0
    return head + (b"\0" + struct.pack("!HHIH", 41, 1232, flags, 0) if has_opt else b"")


@pytest.mark.parametrize("opcode", range(1, 16))
def test_other_opcodes_are_not_implemented(answerer: Any, opcode: int) -> None:
    for use_edns, want_dnssec in ((False, False), (0, False), (0, True)):
        query = bytearray(question("example.org", use_edns=use_edns, want_dnssec=want_dnssec))
        query[2] |= opcode << 3
        expected = refusal(query, NOTIMP, use_edns is not False, want_dnssec)
        assert answerer.answer(bytes(query)) == expected
    assert answerer.statistics().answers == {"NOTIMP": 3}


@pytest.mark.parametrize("opcode", [dns.opcode.NOTIFY, dns.opcode.UPDATE, dns.opcode.STATUS])
@pytest.mark.parametrize("version", [0, 1])
def test_refusals_are_read_by_dnspython(
    answerer: Any, opcode: dns.opcode.Opcode, version: int
) -> None:
    query = dns.message.make_query("example.org", "SOA", use_edns=0, want_dnssec=True)
    query.use_edns(version, dns.flags.DO)
    query.set_opcode(opcode)
    answer = dns.message.from_wire(answerer.answer(query.to_wire()))
    assert query.is_response(answer)
    assert (answer.rcode(), answer.edns, answer.payload) == (dns.rcode.NOTIMP, 0, 1232)
    assert answer.ednsflags == dns.flags.DO


def test_recursion_desired_is_repeated_and_nothing_else(answerer: Any) -> None:
    for flags in range(0, 0x10000, 0x10):
        if not flags & 0xF800:
            query = dns.message.make_query("example.org", "A", flags=0, id=7)
            query.flags = dns.flags.Flag(flags)
            answer = asked(answerer, query.to_wire())
            assert answer.flags == 0x8400 | flags & 0x0100


@pytest.mark.parametrize(
    ("query", "kind", "has_opt"),
    [
        pytest.param(message(0, 0, 0, 0, rest=b""), "not one question", False, id="no question"),
        pytest.param(
            message(2, 0, 0, 0, rest=A * 2), "not one question", False, id="two questions"
        ),
        pytest.param(message(1, 0, 0, 0, rest=b""), "cut short", False, id="header alone"),
        pytest.param(message(1, 0, 0, 0, rest=A[:5]), "cut short", False, id="half a name"),
        pytest.param(message(1, 0, 0, 0, rest=A[:-1]), "cut short", False, id="half a class"),
        pytest.param(
            message(1, 0, 0, 0, rest=A + b"\0"), "trailing bytes", False, id="one byte more"
        ),
        pytest.param(
            message(1, 0, 0, 0, rest=b"\xc0\x0c\0\1\0\1"), "bad name", False, id="pointer"
        ),
        pytest.param(message(1, 0, 0, 0, rest=b"\x40" + A), "bad name", False, id="kind of label"),
        pytest.param(
            message(1, 0, 0, 0, rest=LONGEST * 4 + b"\0\0\1\0\1"),
            "bad name",
            False,
            id="257 bytes",
        ),
        pytest.param(message(1, 0, 0, 1, rest=A), "cut short", False, id="no OPT"),
        pytest.param(message(1, 0, 0, 1, rest=A + OPT[:-1]), "cut short", False, id="half an OPT"),
        pytest.param(
            message(1, 0, 0, 1, rest=A + OPT * 2), "trailing bytes", True, id="uncounted OPT"
        ),
        pytest.param(message(1, 0, 0, 2, rest=A + OPT * 2), "bad EDNS", True, id="two OPTs"),
        pytest.param(message(1, 1, 0, 0, rest=A + OPT), "bad EDNS", True, id="OPT as an answer"),
        pytest.param(
            message(1, 0, 0, 1, rest=A + b"\1x" + OPT), "bad EDNS", True, id="OPT has a name"
        ),
        pytest.param(
            message(1, 0, 0, 1, rest=A + OPT[:-1] + b"\5\0\n\0\2x"), "bad EDNS", True, id="option"
        ),
        pytest.param(
            message(1, 0, 0, 1, rest=A + OPT[:-1] + b"\3\0\n\0"),
            "cut short",
            True,
            id="half an option",
        ),
        pytest.param(
            message(1, 0, 0, 1, rest=A + b"\x40" + OPT),
            "bad name",
            False,
            id="record with a bad name",
        ),
        pytest.param(message(0, 0, 0, 1, rest=OPT), "not one question", True, id="only OPT"),
        pytest.param(
            message(2, 0, 0, 1, rest=A * 2 + OPT), "not one question", True, id="two, and OPT"
        ),
        pytest.param(
            message(1, 0, 0, 1, rest=A + OPT + b"\0"), "trailing bytes", True, id="OPT and more"
        ),
        pytest.param(
            message(1, 0, 0, 1, rest=b"\xc0\x0c\0\1\0\1" + OPT),
            "bad name",
            True,
            id="pointer, OPT",
        ),
        pytest.param(
            message(1, 0, 0, 1, rest=LONGEST * 4 + b"\0\0\1\0\1" + OPT),
            "bad name",
            True,
            id="257 bytes, and OPT",
        ),
        pytest.param(
            message(1, 0, 0, 2, rest=A + OPT), "cut short", True, id="a record less than it says"
        ),
    ],
)
def test_malformed_queries(answerer: Any, query: bytes, kind: str, has_opt: bool) -> None:
    assert answerer.answer(query) == refusal(query, FORMERR, has_opt)
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
        assert wire[3] in (FORMERR, NOTIMP)
        assert len(wire) == (12 if answer.edns < 0 else 23)


def names_made(answerer: Any, query: bytes) -> int:
    """Count the names that an answer takes: each costs as many steps as it has labels."""
    count = 0

    def look(frame: Any, event: str, argument: object) -> None:
        nonlocal count
        code = frame.f_code
        count += event == "call" and code.co_name == "__hash__" and "name.py" in code.co_filename

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        assert answerer.answer(query) is not None
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("where", [b"\7example", b"\3dyn\7example", b"\5child\7example"])
def test_many_labels_cost_no_more_names(answerer: Any, where: bytes) -> None:
    counts = [
        names_made(
            answerer,
            message(1, 0, 0, 0, rest=b"\1a" * labels + where + b"\3org\0\0\1\0\1"),
        )
        for labels in (12, 115)
    ]
    assert counts[0] == counts[1] > 0
