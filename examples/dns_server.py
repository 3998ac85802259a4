"""A DNS server: answers for one zone, from a zone file, over UDP in batches.

    python -m pip install -e '.[examples]'
    python examples/dns_server.py --port 5353
    python examples/dns_server.py --host ::1 --port 5353 --zone my.zone --backend trio

Ask it from another terminal:

    dig -p 5353 @127.0.0.1 www.example.org
    dnsperf -p 5353 -s 127.0.0.1 -d queries.txt     (lines like "www.example.org A")

Without `--zone` it serves example.zone, which lies beside it. `--port 0` listens on any free port,
`--backend` is asyncio, trio or uvloop. Ctrl-C stops it, and it prints what it did in all; the exit
status is 0 then. Give `--host` one address: bound to all of a machine that has several, the
kernel would choose the one that an answer comes from, and clients believe only the one they asked.

Each wait brings a batch of queries, and one call sends all of their answers. `Answerer` makes an
answer of a query, and knows no socket and no event loop. A question that was asked before costs it
a slice, a look into a dict and a concatenation; others are looked up in the zone, by dnspython.

It serves data, no more: no TCP (an answer that does not fit says so, by TC, and the client has
nowhere to go), no zone transfers, no updates, no DNSSEC (signatures are records like any other),
no response rate limiting. Do not put it on the Internet.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import anyio
from anyio.abc import TaskStatus

from anyio_mmsg import (
    PACKET_DATA_SIZE,
    PacketBatchPool,
    PacketReceiver,
    open_udp_socket,
    send_mmsg,
)

if TYPE_CHECKING or importlib.util.find_spec("dns"):  # without it there is --help
    import dns.exception
    import dns.name
    import dns.rcode
    import dns.rdataset
    import dns.rdatatype
    import dns.zone

BATCH = (
    256  # queries; some waits fewer than by 64, and what the kernel's usual buffer holds of them
)
SAMPLE = Path(__file__).with_name("example.zone")

# RFC 1035 section 4.1: ID, flags, and how many records each of four sections has. Then those, each
# a name; in the question type and class, elsewhere type, class, TTL and the length of the rest.
HEADER = struct.Struct("!HHHHHH")
TYPE_AND_CLASS = struct.Struct("!HH")
RECORD = struct.Struct("!HHIH")
QR, OPCODE, AA, TC, RD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100
NOERROR, FORMERR, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 3, 4, 5, 16
IN, OPT, ANY = 1, 41, 255

# EDNS (RFC 6891 section 6.1): a record whose class is a size, and whose TTL is the upper bits of
# the rcode, the version and flags. Of the flags there is DO, which an answer repeats (RFC 3225).
OPTION = struct.Struct("!HH")
DO = 0x8000
PLAIN_SIZE = 512  # of an answer without EDNS, at most (RFC 1035 section 4.2.1)
# With EDNS: what goes through any network in one piece. It is what resolvers settled on in 2020
# too, on the "DNS flag day".
LARGEST_SIZE = PACKET_DATA_SIZE

MAX_CHAIN = 11  # aliases that one answer follows; arbitrary, more than anybody needs
# Questions that are remembered, each twice: as it came, and as it was understood. One with its
# answer takes some 650 bytes in both together, at the longest 3,200 (tracemalloc), so the bound
# is 13 MB; the number is arbitrary beside that. Who is full forgets all: a client that asks for
# names at random costs others one slow answer each, once in so many of its own.
MAX_REMEMBERED = 4096

Records: TypeAlias = "list[tuple[dns.name.Name, dns.rdataset.Rdataset]]"


class MalformedError(Exception):
    """A query that is answered with FORMERR. Its text is the kind that is counted."""


class Query(NamedTuple):
    """What a query asks, and how long its answer may be."""

    name: bytes  # as on the wire, in lower case
    rdtype: int
    rdclass: int
    recursion: int  # RD, which an answer repeats
    end: int  # of the question
    size: int  # of the answer, at most
    version: int  # of EDNS; -1: none
    flags: int  # of EDNS: DO or 0


def read_query(wire: bytes) -> Query:
    """Read a query with a whole header; `MalformedError` if that can't be done.

    It reads the question and the OPT record, and walks over others (as a client with a TSIG key
    sends them). Unknown options are to be ignored (RFC 6891 section 6.1.2), and that is all of
    them here; a client that sent a cookie learns from its absence that we know none.
    """
    _, header_flags, questions, *others = HEADER.unpack_from(wire)
    if questions != 1:
        raise MalformedError("not one question")
    try:
        end = HEADER.size
        while length := wire[end]:
            if length > 63:  # a pointer, with nothing before it to point at, or unknown
                raise MalformedError("bad name")
            end += 1 + length
        end += 1
        if end - HEADER.size > 255:
            raise MalformedError("bad name")
        name = wire[HEADER.size : end].lower()  # lengths are below "A", which is 65
        rdtype, rdclass = TYPE_AND_CLASS.unpack_from(wire, end)
        end += TYPE_AND_CLASS.size
        size, version, flags = PLAIN_SIZE, -1, 0
        at = end
        for number in range(sum(others)):
            start = at
            while length := wire[at]:
                if length >= 0xC0:  # a pointer, and the name's end
                    at += 1
                    break
                if length > 63:
                    raise MalformedError("bad name")
                at += 1 + length
            at += 1
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


@dataclass
class Reply:
    """What an answer says: its rcode, and records by section, each set with its owner."""

    rcode: int = NOERROR
    authoritative: bool = True
    answer: Records = field(default_factory=list)
    authority: Records = field(default_factory=list)
    additional: Records = field(default_factory=list)


class Lookup:
    """A zone in which names are looked up, as RFC 1034 section 4.3.2 tells.

    Args:
        zone: Read with ``relativize=False``, of class IN. It is looked at once, here.

    Raises:
        ValueError: It is not, or it holds what is not served: a DNAME, or a wildcard delegation.
    """

    def __init__(self, zone: dns.zone.Zone) -> None:
        if zone.relativize or zone.origin is None or zone.rdclass != IN:
            raise ValueError("the zone has to be of class IN, and read with relativize=False")
        self.origin = zone.origin
        self._nodes = {name: list(node.rdatasets) for name, node in zone.nodes.items()}
        self._cuts: set[dns.name.Name] = set()  # where a delegation begins
        for owner, node in list(self._nodes.items()):
            types = {rdataset.rdtype for rdataset in node}
            if dns.rdatatype.DNAME in types:
                raise ValueError(f"{owner} has a DNAME, which is not served here; leave it out")
            if dns.rdatatype.NS in types and owner != self.origin:
                if owner.is_wild():  # it means nothing: RFC 4592 section 4.2
                    raise ValueError(f"{owner} is a wildcard with an NS; write the names out")
                self._cuts.add(owner)
            while owner != self.origin:  # what lies between exists too, and holds nothing
                owner = owner.parent()
                self._nodes.setdefault(owner, [])
        (soa,) = self._of_type(self.origin, dns.rdatatype.SOA)
        data: Any = next(iter(soa))
        self._soa = dns.rdataset.from_rdata_list(min(soa.ttl, data.minimum), [data])

    def reply(self, name: dns.name.Name, rdtype: int, rdclass: int = IN) -> Reply:
        """Return what is to be said of a name. Follow its aliases while they are in the zone."""
        reply = Reply()
        # Of the types that are none (RFC 6895 section 3.1) ANY is answered, transfers are not.
        meta = rdtype == OPT or 128 <= rdtype < ANY
        if rdclass != IN or meta or not name.is_subdomain(self.origin):
            return Reply(REFUSED, authoritative=False)
        seen: set[dns.name.Name] = set()
        while name.is_subdomain(self.origin) and name not in seen and len(seen) <= MAX_CHAIN:
            seen.add(name)
            cut = self._cut_above(name, rdtype)
            if cut is not None:
                reply.authoritative = bool(reply.answer)  # it speaks of the first name
                self._refer(reply, cut)
                return reply
            node = self._node(name)
            if node is None:
                reply.rcode = NXDOMAIN
                break
            if rdtype == ANY:  # one set will do: RFC 8482 section 4.1
                found = node[:1]
            else:
                found = [rdataset for rdataset in node if rdataset.rdtype == rdtype]
            if found:
                reply.answer += [(name, rdataset) for rdataset in found]
                return reply
            aliases = [rdataset for rdataset in node if rdataset.rdtype == dns.rdatatype.CNAME]
            if not aliases:
                break
            reply.answer.append((name, aliases[0]))
            name = next(iter(aliases[0])).target
        else:
            return reply  # the alias leads out of the zone, or in a circle: that is all we know
        reply.authority.append((self.origin, self._soa))
        return reply

    def _node(self, name: dns.name.Name) -> list[dns.rdataset.Rdataset] | None:
        """Return the sets of a name, or of the wildcard that stands for it; None without both."""
        if name in self._nodes:
            return self._nodes[name]
        while name not in self._nodes:
            name = name.parent()
        return self._nodes.get(dns.name.Name((b"*", *name.labels)))  # RFC 4592 section 3.3.1

    def _cut_above(self, name: dns.name.Name, rdtype: int) -> dns.name.Name | None:
        """Return the highest delegation at or above a name."""
        if self._cuts:
            for depth in range(len(self.origin) + 1, len(name) + 1):
                above = name.split(depth)[1]
                if above in self._cuts:
                    # Its DS is the parent's to tell: RFC 4035 section 3.1.4.1.
                    return None if above == name and rdtype == dns.rdatatype.DS else above
        return None

    def _refer(self, reply: Reply, cut: dns.name.Name) -> None:
        """Name the servers of a delegation, and their addresses as far as the zone has them."""
        for rdataset in self._of_type(cut, dns.rdatatype.NS):
            reply.authority.append((cut, rdataset))
            for server in rdataset:
                for rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                    addresses = self._of_type(server.target, rdtype)
                    reply.additional += [(server.target, found) for found in addresses]

    def _of_type(self, name: dns.name.Name, rdtype: int) -> list[dns.rdataset.Rdataset]:
        return [found for found in self._nodes.get(name, ()) if found.rdtype == rdtype]


def render(query: Query, reply: Reply) -> bytes:
    """Return the answer on the wire, with ID 0 and its question in lower case.

    What does not fit is left out, all of it, and TC says so: RFC 2181 section 9.
    """
    flags = QR | query.recursion | (AA if reply.authoritative else 0) | reply.rcode & 0xF
    edns = b""
    if query.version >= 0:
        ttl = (reply.rcode >> 4) << 24 | query.flags  # and the version that we speak: 0
        edns = b"\0" + RECORD.pack(OPT, LARGEST_SIZE, ttl, 0)
    for sections in ((reply.answer, reply.authority, reply.additional), ()):
        output = BytesIO(bytes(HEADER.size))
        output.seek(HEADER.size)
        compress: dict[dns.name.Name, int] = {}
        dns.name.from_wire(query.name, 0)[0].to_wire(output, compress)
        output.write(TYPE_AND_CLASS.pack(query.rdtype, query.rdclass))
        counts = [0, 0, bool(edns)]
        for number, section in enumerate(sections):
            for name, records in section:
                # Not shuffled: the answer is remembered, so one order would stay anyway.
                counts[number] += records.to_wire(name, output, compress, want_shuffle=False)
        output.write(edns)
        output.seek(0)
        output.write(HEADER.pack(0, flags, 1, *counts))
        if len(wire := output.getvalue()) <= query.size:
            break
        flags |= TC
    return wire


class Remembered:
    """An answer without its ID, and how often it was given as it is."""

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
        malformed: Of those with FORMERR, how many of each kind.
        dropped: Datagrams that got no answer, by kind.
        looked_up: Answers that were not remembered, but looked up in the zone.
    """

    answers: Mapping[str, int]
    malformed: Mapping[str, int]
    dropped: Mapping[str, int]
    looked_up: int

    @property
    def queries(self) -> int:
        """Datagrams that came, whatever they were."""
        return sum(self.answers.values()) + sum(self.dropped.values())


class Answerer:
    """Makes answers of queries: bytes to bytes, no socket, no clock, no waiting.

    Answers are remembered twice, each time up to `MAX_REMEMBERED`. By the query as it came,
    without its ID: that is fast, and serves who asks in the same words. And by what the query was
    understood to ask: that takes some reading first, but serves those who never use the same
    words twice, who spell a name in random case (0x20) or add a cookie, and they do not fill the
    first memory with what nobody will ask again.

    Args:
        zone: As for `Lookup`.

    Raises:
        ValueError: As for `Lookup`.
    """

    def __init__(self, zone: dns.zone.Zone) -> None:
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
        number, flags, *_ = HEADER.unpack_from(wire)
        if flags & QR:  # never answered, or two servers would go on for ever
            self._dropped["response"] += 1
            return None
        if flags & OPCODE:
            return self._refuse(number, flags, NOTIMP)
        try:
            query = read_query(wire)
        except MalformedError as error:
            self._malformed[str(error)] += 1
            return self._refuse(number, flags, FORMERR)
        # All but the end of the question, where OPT and the rest begin: it has no say.
        key = query[:4] + query[5:]
        question = wire[HEADER.size : query.end]
        understood = self._understood.get(key)
        if understood is None:
            understood = self._look_up(query)
            if len(self._understood) >= MAX_REMEMBERED:
                self._understood.clear()
            self._understood[key] = understood
        # The question goes back as it was spelled. The rest points at it, where it has its name.
        answer = understood.wire[: HEADER.size - 2] + question + understood.wire[query.end - 2 :]
        plain = query.end + (1 + RECORD.size if query.version >= 0 else 0)
        if len(wire) == plain and question.startswith(query.name):
            if len(self._verbatim) >= MAX_REMEMBERED:
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

    def _refuse(self, number: int, flags: int, rcode: int) -> bytes:
        """Return a header alone, for a query of which no more was understood."""
        self._answers[rcode] += 1
        return HEADER.pack(number, QR | flags & (OPCODE | RD) | rcode, 0, 0, 0, 0)

    def _settle(self) -> None:
        """Count what was counted in the memory: there it costs least."""
        for remembered in self._verbatim.values():
            self._answers[remembered.rcode] += remembered.hits
            remembered.hits = 0

    def statistics(self) -> Statistics:
        """Return what was done so far."""
        self._settle()
        return Statistics(
            answers={dns.rcode.Rcode(code).name: count for code, count in self._answers.items()},
            malformed=dict(self._malformed),
            dropped=dict(self._dropped),
            looked_up=self._looked_up,
        )


@dataclass
class Report:
    """Says how it goes, as totals and the rate since it said so last."""

    answerer: Answerer
    receiver: PacketReceiver
    started: float
    send_failures: Counter[int] = field(default_factory=Counter)
    _queries: int = 0
    _since: float = 0.0

    def line(self, now: float, *, last: bool = False) -> str:
        """Return a line; the last one has the rate of the whole time."""
        seen, kernel = self.answerer.statistics(), self.receiver.statistics().dropped_by_kernel
        since, before = (self.started, 0) if last else (self._since or self.started, self._queries)
        rate = (seen.queries - before) / max(now - since, 1e-9)
        self._queries, self._since = seen.queries, now
        failures = {errno.errorcode.get(n, str(n)): c for n, c in self.send_failures.items()}
        answers = [f"{count:,} {rcode}" for rcode, count in sorted(seen.answers.items())]
        return (
            f"{'in all' if last else '--'} {seen.queries:,} queries ({rate:,.0f}/s): "
            f"{', '.join(answers) or 'no answers'}; malformed {told(seen.malformed)}, "
            f"dropped {told(seen.dropped)}, send failures {told(failures)}, "
            f"dropped by kernel {'unknown' if kernel is None else f'{kernel:,}'}"
        )


def told(counts: Mapping[str, int]) -> str:
    """Return a sum, and what it is made of."""
    parts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
    return f"{sum(counts.values()):,}" + (f" ({parts})" if parts else "")


async def answer_all(sock: socket.socket, report: Report) -> None:
    """Answer what arrives: one wait, a batch of queries, one call for all of their answers."""
    answer = report.answerer.answer
    async for batch in report.receiver:
        with batch:
            # By columns, which is quicker than packet by packet.
            replies = [
                (reply, address)
                for data, address in zip(batch.payloads(), batch.addresses(), strict=True)
                if (reply := answer(data)) is not None
            ]
            if replies:
                result = await send_mmsg(sock, replies)
                report.send_failures.update(result.errors)


async def show(report: Report, interval: float) -> None:
    """Print a line at each interval."""
    while True:
        await anyio.sleep(interval)
        print(report.line(anyio.current_time()), flush=True)


async def stop_on_signal(
    scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Cancel the scope when Ctrl-C is pressed."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        scope.cancel()


async def serve(
    sock: socket.socket,
    answerer: Answerer,
    *,
    interval: float = 10,
    batch: int = BATCH,
) -> None:
    """Answer what comes to a socket until Ctrl-C, then print what was done; close the socket.

    Queries that wait in the kernel at that moment get no answer. Their clients will ask again,
    and should ask another server.

    Args:
        sock: As `open_udp_socket` gives it.
        answerer: Makes the answers.
        interval: Seconds between two lines of statistics.
        batch: Queries of a batch, at most.
    """
    # One batch is enough: nothing is received while it is answered.
    receiver = PacketReceiver(sock, PacketBatchPool(1, batch), limit=batch)
    report = Report(answerer, receiver, anyio.current_time())
    async with receiver:
        async with anyio.create_task_group() as nursery:
            if sys.platform != "win32":  # asyncio has no signal handlers there
                await nursery.start(stop_on_signal, nursery.cancel_scope)
            host, port = sock.getsockname()[:2]
            print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", flush=True)
            nursery.start_soon(show, report, interval)
            nursery.start_soon(answer_all, sock, report)
        print(report.line(anyio.current_time(), last=True), flush=True)


async def run(options: argparse.Namespace, answerer: Answerer) -> None:
    """Open the socket and serve."""
    sock = await open_udp_socket(options.host, options.port, receive_buffer_size=options.buffer)
    await serve(sock, answerer, interval=options.interval, batch=options.batch)


def load(path: Path) -> Answerer:
    """Read a zone file.

    Raises:
        ValueError: It can't be read, or not be served; the text says why.
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


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=5353, help="0 for any free one")
    parser.add_argument("--zone", type=Path, default=SAMPLE, help="the zone file")
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio", "uvloop"])
    parser.add_argument("--interval", type=float, default=10, help="seconds between reports")
    parser.add_argument("--batch", type=int, default=BATCH, help="queries, at most")
    parser.add_argument("--buffer", type=int, help="bytes of the kernel's buffer to ask for")
    options = parser.parse_args()
    if importlib.util.find_spec("dns") is None:
        parser.error("dnspython is not installed; the extra 'examples' has it")
    if options.batch < 1:
        parser.error("--batch has to be at least 1")
    try:
        answerer = load(options.zone)
    except ValueError as error:
        parser.error(str(error))
    anyio.run(
        run,
        options,
        answerer,
        backend="trio" if options.backend == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if options.backend == "uvloop" else {},
    )


if __name__ == "__main__":
    main()
