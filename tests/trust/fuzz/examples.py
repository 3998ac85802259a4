"""Targets: what the examples and the commands read from the network."""

from __future__ import annotations

import functools
import importlib.util
import math
import re
from collections.abc import Callable
from typing import Any

from anyio_mmsg._tools.meter import Meter
from anyio_mmsg._tools.probes import read_probe
from anyio_mmsg._tools.spread import Spread

from ...examples.helpers import load

# Text of these letters alone can't control a terminal.
SOURCE = "192.0.2.7"


def syslog(data: bytes) -> None:
    """Any datagram: a message or none, and a line that a terminal only shows."""
    example = load("syslog_messages")
    message = example.parse(data, SOURCE)
    text = data.decode("utf-8", "backslashreplace").rstrip("\r\n\0")
    if message is None:
        # Any text with a known PRI is a BSD message, but for one that says to be of RFC 5424.
        found = re.match(r"<(0|[1-9][0-9]{0,2})>(1 )?", text, re.ASCII)
        assert not found or int(found[1]) >= 192 or found[2]
        return
    line = str(message)
    assert line.isprintable()
    number = int(text[1 : text.index(">")])
    severity = example.SEVERITIES[number % 8]
    assert line.startswith(f"{example.FACILITIES[number // 8]}.{severity} ")
    assert message.host
    assert text.endswith(message.text)
    for field in (message.timestamp, message.app, message.procid, message.msgid):
        assert field == "-" or (field and field in text)
    for name, parameters in message.structured.items():
        assert f"[{name}" in text
        assert all(f" {key}=" in text for key, _ in parameters)
    # Line ends and NULs behind it say nothing.
    assert example.parse(data + b"\r\n\0", SOURCE) == message


def statsd(data: bytes) -> None:
    """Any datagrams, cut or not: all that is counted is finite, and fits in its room."""
    example = load("statsd_metrics")
    first, *packets = data.split(b"\xff\xfe")
    room = 1000 + 50 * len(first[:100])
    metrics, apart = example.Metrics(room=room), example.Metrics(room=room)
    count = 0
    for packet in (first, *packets):
        metrics.add_packet(memoryview(packet))
        for line in packet.split(b"\n"):  # as good as a packet for each line
            count += 1
            apart.add_packet(memoryview(line))
    apart.packets, apart.since = metrics.packets, metrics.since
    assert metrics == apart
    check_metrics(example, metrics)
    assert metrics.metrics + metrics.refused + metrics.bad_lines <= len(data) + count
    report = metrics.flush().split("\n")
    assert all(line.isprintable() for line in report), report
    assert metrics.used == 0
    # The last line of a cut packet is not counted.
    metrics, whole = example.Metrics(), example.Metrics()
    metrics.add_packet(memoryview(data), truncated=True)
    whole.add_packet(memoryview(data[: data.rfind(b"\n") + 1]))
    assert (metrics.metrics, metrics.counters) == (whole.metrics, whole.counters)


def check_metrics(example: Any, metrics: Any) -> None:
    names = [metrics.counters, metrics.timers, metrics.sets]
    cost = sum(example.NAME_COST for table in names for _ in table)
    cost += sum(example.MEMBER_COST * len(members) for members in metrics.sets.values())
    cost += sum(example.VALUE_COST * len(values) for values in metrics.timers.values())
    assert cost <= metrics.used <= metrics.room
    assert len(metrics.gauges) * example.NAME_COST <= metrics.used_by_gauges <= metrics.room
    assert set(metrics.timers) == set(metrics.timer_counts)
    counts = (*metrics.counters.values(), *metrics.gauges.values())
    counts += (*metrics.timer_counts.values(), *(v for t in metrics.timers.values() for v in t))
    assert all(math.isfinite(value) and abs(value) <= example.LARGEST for value in counts)
    for table in (*names, metrics.gauges):
        assert all(name and name.isprintable() for name in table)


@functools.cache
def _answerers() -> list[Any]:
    dns_server = load("dns_server")
    return [dns_server.load(dns_server.SAMPLE) for _ in range(2)]


def dns(data: bytes) -> None:
    """Any datagram: an answer that dnspython reads as one to that query, or none."""
    import dns.exception
    import dns.flags
    import dns.message
    import dns.rcode

    answerers = _answerers()
    for answerer in answerers:  # forget all, so that an input fails alone or not at all
        answerer._verbatim.clear()
        answerer._understood.clear()
    answerers[1].answer(data[:12] + data[12:].swapcase())  # which has the same answer, or none
    wire, *others = [answerer.answer(data) for answerer in answerers]
    others += [answerer.answer(memoryview(data)) for answerer in answerers]
    assert others == [wire] * 3, "the answer depends on what was asked before"
    if len(data) < 12 or data[2] & 0x80:
        assert wire is None
        return
    assert wire is not None
    answer = dns.message.from_wire(wire)
    flags = int.from_bytes(data[2:4], "big")
    assert answer.id == int.from_bytes(data[:2], "big")
    assert answer.flags & dns.flags.QR
    assert answer.opcode() == flags >> 11 & 15
    assert answer.flags & dns.flags.RD == flags & dns.flags.RD
    assert len(wire) <= (1232 if answer.edns >= 0 else 512)
    for query in query_of(data):
        refused = answer.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP)
        assert (answer.edns >= 0) == (query.edns >= 0)
        assert (answer.rcode() == dns.rcode.NOTIMP) == bool(query.opcode())
        if query.opcode() or len(query.question) != 1:
            assert refused
            continue
        assert answer.ednsflags & 0x8000 == (query.ednsflags & 0x8000 if query.edns >= 0 else 0)
        if refused:  # only for what dnspython is not strict about
            assert any(byte >= 0xC0 for byte in data[12:]), "dnspython reads it"
            continue
        assert query.is_response(answer)
        assert len(wire) <= max(512, min(query.payload, 1232) if query.edns >= 0 else 0)
        assert (answer.rcode() == dns.rcode.BADVERS) == (query.edns > 0)
        end = len(query.question[0].name.to_wire() or b"") + 16
        assert wire[12:end] == data[12:end], "the question is as it was spelled"


def query_of(data: bytes) -> list[Any]:
    """Return what dnspython reads in a query, or nothing if it is malformed."""
    import dns.exception
    import dns.message

    try:
        return [dns.message.from_wire(data)]
    except (dns.exception.DNSException, ValueError, NotImplementedError):
        return []


def latency(data: bytes) -> None:
    """Any datagrams, of 28 bytes or others, with any timestamps: counted, and shown."""
    meter = Meter(0.0)
    datagrams: list[tuple[memoryview, int | None]] = []
    at = 0
    while at < len(data):
        size, stamp = data[at] % 40, int.from_bytes(data[at + 1 : at + 6], "big")
        body = data[at + 6 : at + 6 + size]
        if size & 1:  # of ours
            body = b"lat1" + body
        datagrams.append((memoryview(body), stamp << 20 if stamp % 4 else None))
        at += 6 + size
    known = [datagram for datagram, _ in datagrams if len(datagram) >= 28]
    known = [datagram for datagram in known if datagram[:4] == b"lat1"]
    meter.count(datagrams, 2**60)
    assert meter.packets == len(known)
    assert meter.packets + meter.foreign == len(datagrams)
    probes = [probe for datagram in known if (probe := read_probe(datagram))]
    for probe, datagram in zip(probes, known, strict=True):
        assert probe.pack(28) == datagram[:28]
    numbers: dict[int, set[int]] = {}
    for probe in probes:
        numbers.setdefault(probe.sender, set()).add(probe.number)
    if len({(probe.sender, probe.number) for probe in probes}) == len(probes):
        missing = sum(max(seen) - min(seen) + 1 - len(seen) for seen in numbers.values())
        assert meter.numbers.missing() == missing
    assert len(meter.numbers._senders) <= 64
    total = Spread()
    for spread in meter.recent:
        total.merge(spread)
        texts = spread.texts()
        assert len(texts) == 4
        assert all(text.isprintable() for text in texts)
        if spread.counts:
            shares = [spread.least, spread.quantile(0.5), spread.quantile(0.99), spread.most]
            assert shares == sorted(shares)
            assert all(map(math.isfinite, shares))
    # 7 bits of a number of up to 65, of either sign
    assert len(total.counts) <= 2 * 64 * 65


def loopback(data: bytes) -> None:
    """Any datagram: the number of one that `make_packet` made, or None."""
    example = load("loopback")
    number = example.read_packet(memoryview(data))
    if number is not None:
        packet = example.make_packet(number)
        assert example.read_packet(memoryview(packet)) == number
        changed = bytearray(packet)
        changed[data[-1] % len(packet)] ^= 1
        assert example.read_packet(memoryview(changed)) is None
    for size in range(min(len(data), 14)):
        example.read_packet(memoryview(data)[:size])


NEEDS = {"syslog": "trio", "dns": "dns"}

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (syslog, statsd, dns, latency, loopback)
    if importlib.util.find_spec(NEEDS.get(target.__name__, "anyio"))
}
