"""DNS queries and answers for tests, read and written by dnspython."""

from __future__ import annotations

import struct
from typing import Any

import pytest

pytest.importorskip("dns", reason="dnspython is not installed; the group 'test' has it")

import dns.flags
import dns.message
import dns.rrset
import dns.zone

SOA = "ns1.example.org. hostmaster.example.org. 2024010100 7200 900 1209600 300"
NOTHING = f"example.org. 300 IN SOA {SOA}"  # what a negative answer has as its authority
HEAD = "$ORIGIN z.\n$TTL 60\n@ SOA m r 1 2 3 4 30\n@ NS m\nm A 192.0.2.1\n"
TO_WWW = "www.example.org. 3600 IN CNAME example.org."
APEX = "example.org. 3600 IN A 192.0.2.1"
NAMES = ["www.example.org", "gone.example.org", "a.dyn.example.org", "b.child.example.org"]

A = b"\7example\3org\0\0\1\0\1"
OPT = b"\0" + struct.pack("!HHIH", 41, 4096, 0, 0)
LONGEST = b"\77" + b"x" * 63


def message(*counts: int, rest: bytes, flags: int = 0x0100) -> bytes:
    return struct.pack("!HHHHHH", 0xBEEF, flags, *counts) + rest


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
