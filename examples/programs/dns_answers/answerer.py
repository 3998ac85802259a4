"""What makes answers of queries, and remembers them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.name
import dns.rcode
import dns.zone

from .wire import (
    BADVERS,
    FORMERR,
    HEADER,
    NOTIMP,
    OPCODE,
    QR,
    RECORD,
    MalformedError,
    Query,
    Reply,
    read_query,
    refuse,
    render,
)
from .zone import Lookup

# The most questions that are remembered, each twice: as it came, and as it was understood. One
# with its answer takes about 650 bytes in both together, and 3,200 at most (tracemalloc), so the
# bound is 13 MB; the number is arbitrary. A full memory forgets everything: a client that asks for
# random names costs the others one slow answer each, once for every 4096 of its own.
MAX_REMEMBERED = 4096


class Remembered:
    """An answer without its ID, and how often it was given unchanged."""

    __slots__ = ("hits", "rcode", "wire")

    def __init__(self, wire: bytes, rcode: int) -> None:
        self.wire = wire
        self.rcode = rcode
        self.hits = 0


@dataclass(frozen=True)
class Statistics:
    """What an `Answerer` did up to one moment.

    Attributes:
        answers: Answers by rcode.
        malformed: Malformed queries by kind; each got FORMERR.
        dropped: Datagrams that got no answer, by kind.
        looked_up: Answers that were looked up in the zone, since they were not remembered.
    """

    answers: Mapping[str, int]
    malformed: Mapping[str, int]
    dropped: Mapping[str, int]
    looked_up: int

    @property
    def queries(self) -> int:
        """All datagrams that came."""
        return sum(self.answers.values()) + sum(self.dropped.values())


class Answerer:
    """Makes answers of queries: bytes to bytes, no socket, no clock, no waiting.

    Answers are remembered in two ways. By the bytes of the query, without its ID: that is fast,
    and serves clients that repeat a query. And by what the query asks: that takes some parsing
    first, but serves clients whose queries always differ, since they spell a name in random case
    (0x20) or add a cookie. Such queries don't go into the first memory, where nobody would ask for
    them again.

    Args:
        zone: As for `Lookup`.
        max_remembered: The most questions to remember in each way.

    Raises:
        ValueError: As for `Lookup`.
    """

    def __init__(self, zone: dns.zone.Zone, *, max_remembered: int = MAX_REMEMBERED) -> None:
        self._max_remembered = max_remembered
        self._lookup = Lookup(zone)
        self._verbatim: dict[bytes, Remembered] = {}
        self._understood: dict[tuple[object, ...], Remembered] = {}
        self._answers: Counter[int] = Counter()
        self._malformed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._looked_up = 0

    def answer(self, query: bytes | memoryview) -> bytes | None:
        """Return the answer to a query, or None if there must not be one."""
        wire = bytes(query)
        try:
            remembered = self._verbatim[wire[2:]]
        except KeyError:
            return self._answer_new(wire)
        remembered.hits += 1
        return wire[:2] + remembered.wire

    def _answer_new(self, wire: bytes) -> bytes | None:
        if len(wire) < HEADER.size:
            self._dropped["too short"] += 1
            return None
        flags: int = HEADER.unpack_from(wire)[1]
        if flags & QR:  # two servers that answer answers would go on for ever
            self._dropped["response"] += 1
            return None
        if flags & OPCODE:
            return self._refuse(wire, NOTIMP)
        try:
            query = read_query(wire)
        except MalformedError as error:
            self._malformed[str(error)] += 1
            return self._refuse(wire, FORMERR)
        # All but `end`: the answer doesn't depend on where the question ends.
        key = query[:4] + query[5:]
        question = wire[HEADER.size : query.end]
        understood = self._understood.get(key)
        if understood is None:
            understood = self._look_up(query)
            if len(self._understood) >= self._max_remembered:
                self._understood.clear()
            self._understood[key] = understood
        # The question goes back as it was spelled; names in the rest are pointers into it.
        answer = understood.wire[: HEADER.size - 2] + question + understood.wire[query.end - 2 :]
        plain = query.end + (1 + RECORD.size if query.version >= 0 else 0)
        if len(wire) == plain and question.startswith(query.name):
            if len(self._verbatim) >= self._max_remembered:
                self._settle()
                self._verbatim.clear()
            self._verbatim[wire[2:]] = Remembered(answer, understood.rcode)
        self._answers[understood.rcode] += 1
        return wire[:2] + answer

    def _look_up(self, query: Query) -> Remembered:
        self._looked_up += 1
        if query.version > 0:
            reply = Reply(BADVERS, authoritative=False)
        else:
            name = dns.name.from_wire(query.name, 0)[0]
            reply = self._lookup.reply(name, query.rdtype, query.rdclass)
        return Remembered(render(query, reply)[2:], reply.rcode)

    def _refuse(self, wire: bytes, rcode: int) -> bytes:
        self._answers[rcode] += 1
        return refuse(wire, rcode)

    def _settle(self) -> None:
        """Add up the counts of remembered answers. They are counted there since it costs least."""
        for remembered in self._verbatim.values():
            self._answers[remembered.rcode] += remembered.hits
            remembered.hits = 0

    def statistics(self) -> Statistics:
        """Return the counts so far."""
        self._settle()
        return Statistics(
            answers={dns.rcode.Rcode(code).name: count for code, count in self._answers.items()},
            malformed=dict(self._malformed),
            dropped=dict(self._dropped),
            looked_up=self._looked_up,
        )


def load(path: Path) -> Answerer:
    """Read a zone file.

    Raises:
        ValueError: It can't be read, or can't be served; the text says why.
    """
    try:
        with path.open(encoding="utf-8") as file:
            zone = dns.zone.from_file(
                file, relativize=False, filename=str(path), check_origin=False
            )
        if zone.origin is None:
            raise dns.zone.UnknownOrigin
        zone.check_origin()
        return Answerer(zone)
    except dns.zone.UnknownOrigin:
        raise ValueError(f"{path}: begin it with $ORIGIN and the name of the zone") from None
    except (dns.exception.DNSException, OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(reason if str(path) in reason else f"{path}: {reason}") from error
