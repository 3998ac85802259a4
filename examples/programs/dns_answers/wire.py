"""DNS messages as bytes: queries read, answers written (RFC 1035 section 4, RFC 6891)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from io import BytesIO
from typing import NamedTuple, TypeAlias

import dns.name
import dns.rdataset

from anyio_mmsg import PACKET_DATA_SIZE

# RFC 1035 section 4.1: ID, flags, and the number of records in each of four sections. Then the
# records, each with its name first. In the question section type and class follow, in the others
# type, class, TTL and the length of the rest.
HEADER = struct.Struct("!HHHHHH")
TYPE_AND_CLASS = struct.Struct("!HH")
RECORD = struct.Struct("!HHIH")
QR, OPCODE, AA, TC, RD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100
NOERROR, FORMERR, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 3, 4, 5, 16
IN, OPT, ANY = 1, 41, 255

# EDNS (RFC 6891 section 6.1) is a record whose class is a size, and whose TTL is the upper bits of
# the rcode, the version and flags. The only flag is DO, which an answer repeats (RFC 3225).
OPTION = struct.Struct("!HH")
DO = 0x8000
PLAIN_SIZE = 512  # the longest answer without EDNS (RFC 1035 section 4.2.1)
# The longest answer with EDNS: what every network carries in one piece. Resolvers settled on the
# same number in 2020, on the "DNS flag day".
LARGEST_SIZE = PACKET_DATA_SIZE

MOST_LABELS = 12  # with the root, of names that are compressed; arbitrary, more than zones have

Records: TypeAlias = "list[tuple[dns.name.Name, dns.rdataset.Rdataset]]"


class MalformedError(Exception):
    """A query that gets FORMERR. The text is the kind that is counted."""


class Query(NamedTuple):
    """What a query asks, and how long its answer may be."""

    name: bytes  # as on the wire, in lower case
    rdtype: int
    rdclass: int
    recursion: int  # RD, which an answer repeats
    end: int  # of the question
    size: int  # of the longest answer
    version: int  # of EDNS; -1: none
    flags: int  # of EDNS: DO or 0


@dataclass
class Reply:
    """What an answer says: its rcode, and records by section, each set with its owner."""

    rcode: int = NOERROR
    authoritative: bool = True
    answer: Records = field(default_factory=list)
    authority: Records = field(default_factory=list)
    additional: Records = field(default_factory=list)


def end_of_name(wire: bytes, at: int, *, compressed: bool = True) -> int:
    """Return where a name ends that begins at `at`.

    Raises:
        MalformedError: A label is of no known kind, or a pointer where there must be none.
        IndexError: The message ends before the name does.
    """
    while length := wire[at]:
        if length >= 0xC0 and compressed:
            return at + 2  # a pointer is the end of the name
        if length > 63:
            raise MalformedError("bad name")
        at += 1 + length
    return at + 1


def read_query(wire: bytes) -> Query:
    """Read a query that has at least a whole header.

    It reads the question and the OPT record, and skips others (clients with a TSIG key send one).
    RFC 6891 section 6.1.2 wants unknown options to be ignored. All are unknown here; a client that
    sent a cookie learns that from an answer without one.

    Raises:
        MalformedError: It is malformed.
    """
    _, header_flags, questions, *others = HEADER.unpack_from(wire)
    if questions != 1:
        raise MalformedError("not one question")
    try:
        # Nothing precedes the first name that a pointer could point at.
        end = end_of_name(wire, HEADER.size, compressed=False)
        if end - HEADER.size > 255:
            raise MalformedError("bad name")
        name = wire[HEADER.size : end].lower()  # a length is below 64, and "A" is 65
        rdtype, rdclass = TYPE_AND_CLASS.unpack_from(wire, end)
        end += TYPE_AND_CLASS.size
        size, version, flags = PLAIN_SIZE, -1, 0
        at = end
        for number in range(sum(others)):
            start = at
            at = end_of_name(wire, at)
            kind, kind_class, ttl, length = RECORD.unpack_from(wire, at)
            at += RECORD.size + length
            if kind == OPT:
                if wire[start] or number < others[0] + others[1] or version >= 0:
                    raise MalformedError("bad EDNS")
                size = min(max(kind_class, PLAIN_SIZE), LARGEST_SIZE)
                version, flags = ttl >> 16 & 0xFF, ttl & DO
                option = at - length
                while option < at:
                    option += OPTION.size + OPTION.unpack_from(wire, option)[1]
                if option > at:
                    raise MalformedError("bad EDNS")
    except (IndexError, struct.error):
        raise MalformedError("cut short") from None
    if at != len(wire):
        raise MalformedError("cut short" if at > len(wire) else "trailing bytes")
    return Query(name, rdtype, rdclass, header_flags & RD, end, size, version, flags)


def edns_flags(wire: bytes) -> int | None:
    """Return the flags of a query's first OPT record (DO or 0), None if there is none.

    For queries that can't be answered: it goes as far as the message can be read.
    """
    _, _, questions, *others = HEADER.unpack_from(wire)
    at = HEADER.size
    try:
        for _ in range(questions):
            at = end_of_name(wire, at) + TYPE_AND_CLASS.size
        for _ in range(sum(others)):
            at = end_of_name(wire, at)
            kind, _, ttl, length = RECORD.unpack_from(wire, at)
            if kind == OPT:
                return int(ttl & DO)
            at += RECORD.size + length
    except (MalformedError, IndexError, struct.error):
        pass
    return None


def opt_record(rcode: int, flags: int) -> bytes:
    """Return the OPT record of an answer; its version is the one that is known here, 0."""
    return b"\0" + RECORD.pack(OPT, LARGEST_SIZE, (rcode >> 4) << 24 | flags, 0)


def refuse(wire: bytes, rcode: int) -> bytes:
    """Return the answer to a query that was not understood: a header, and OPT if the query had it.

    A query with OPT gets OPT back, whatever the answer is (RFC 6891 section 6.1.1), or clients
    conclude that the server doesn't know EDNS.
    """
    number, flags, *_ = HEADER.unpack_from(wire)
    edns = edns_flags(wire)
    opt = b"" if edns is None else opt_record(rcode, edns)
    return HEADER.pack(number, QR | flags & (OPCODE | RD) | rcode, 0, 0, 0, bool(opt)) + opt


def places_in(question: bytes) -> dict[dns.name.Name, int]:
    """Return where pointers can point at: a question's name, and what it ends in.

    Of at most `MOST_LABELS`. To find all of a name with 127 would cost a hundred lookups.
    """
    name = dns.name.from_wire(question, 0)[0]
    places, end = {name: HEADER.size}, HEADER.size + len(question)
    for depth in range(2, min(len(name), MOST_LABELS) + 1):  # 1 is the root, no shorter than that
        part = name.split(depth)[1]
        places[part] = end - sum(len(label) + 1 for label in part.labels)
    return places


def render(query: Query, reply: Reply) -> bytes:
    """Return the answer on the wire, with ID 0 and the question in lower case.

    If it doesn't fit, no records are sent, and TC says so (RFC 2181 section 9).
    """
    flags = QR | query.recursion | (AA if reply.authoritative else 0) | reply.rcode & 0xF
    opt = opt_record(reply.rcode, query.flags) if query.version >= 0 else b""
    for sections in ((reply.answer, reply.authority, reply.additional), ()):
        output = BytesIO(bytes(HEADER.size))
        output.seek(HEADER.size)
        compress = places_in(query.name)
        output.write(query.name)
        output.write(TYPE_AND_CLASS.pack(query.rdtype, query.rdclass))
        counts = [0, 0, bool(opt)]
        for number, section in enumerate(sections):
            for name, records in section:
                # Not shuffled: the answer is remembered, so it would keep one order anyway.
                counts[number] += records.to_wire(name, output, compress, want_shuffle=False)
        output.write(opt)
        output.seek(0)
        output.write(HEADER.pack(0, flags, 1, *counts))
        if len(wire := output.getvalue()) <= query.size:
            break
        flags |= TC
    return wire
