"""Metrics of statsd and DogStatsD: a parser of lines, and sums in bounded memory."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

ROOM = 2**25  # bytes for what senders name; arbitrary: some 70,000 metrics, or a million timings
LARGEST = 1e300  # of a number or a sum; so no sum, mean or rate of a report overflows

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
NAME = re.compile(r"[^:|\s]+")
KINDS = {"c": "counter", "g": "gauge", "ms": "timer", "h": "timer", "d": "timer", "s": "set"}
IGNORED = re.compile(r"(?:c|e|card):.+|T[0-9]+")  # sections of a metric
# CPython's cost of an entry: room in two dicts, two floats, and an empty list or set.
NAME_COST, MEMBER_COST, VALUE_COST = 400, 64, 36


class Metric(NamedTuple):
    """One value of a metric."""

    kind: str
    name: str  # with its tags
    text: str
    rate: float = 1.0

    @property
    def number(self) -> float:
        """The value as a number."""
        return float(self.text)


class MalformedError(ValueError):
    """A line that is not a metric."""


def parse(line: str) -> Iterator[Metric]:
    """Split a line into metrics.

    A line is NAME:GROUP:GROUP..., a group is VALUE:VALUE...|KIND|SECTION|SECTION.... The colon of
    the next group stands behind a kind or a sample rate; in other sections it is a part of them.

    Raises:
        MalformedError: Some part of it is malformed.
    """
    name, _, rest = line.partition(":")
    if not NAME.fullmatch(name) or not line.isprintable():
        raise MalformedError
    values, *sections = rest.split("|")
    another = ":"
    while another:
        if not sections:
            raise MalformedError  # values without a kind
        kind, another, following = sections.pop(0).partition(":")
        rate, tags = None, ""
        while sections and not another:
            section = sections.pop(0)
            if section.startswith("@") and rate is None:
                rate, another, following = section[1:].partition(":")
            elif section.startswith("#") and not tags:
                tags = ",".join(sorted(filter(None, section[1:].split(","))))
            elif not IGNORED.fullmatch(section):
                raise MalformedError
        tagged = f"{name}{{{tags}}}" if tags else name
        yield from group(tagged, kind, values, "1" if rate is None else rate)
        values = following


def group(name: str, kind: str, values: str, rate: str) -> Iterator[Metric]:
    """Return the metrics of one group.

    Raises:
        MalformedError: One of them is malformed.
    """
    if kind not in KINDS or not NUMBER.fullmatch(rate) or not 0 < float(rate) <= 1:
        raise MalformedError
    for text in [values] if kind == "s" else values.split(":"):
        if not text:
            raise MalformedError
        if kind != "s" and not (NUMBER.fullmatch(text) and abs(float(text)) <= LARGEST):
            raise MalformedError
        yield Metric(KINDS[kind], name, text, float(rate))


@dataclass
class Metrics:
    """What came since the last report, and all gauges.

    Attributes:
        room: The most bytes for what senders name, once for gauges, which stay, and once for
            all others, which end with each report.
        packets, metrics: How many came.
        truncated: Packets that were longer than a slot.
        refused: Metrics that found no room, or would have made a sum larger than `LARGEST`.
        bad_lines, last_bad_line: Lines that are not metrics.
    """

    room: int = ROOM
    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    timers: dict[str, list[float]] = field(default_factory=dict)
    timer_counts: dict[str, float] = field(default_factory=dict)  # with what sampling left out
    sets: dict[str, set[str]] = field(default_factory=dict)
    packets: int = 0
    metrics: int = 0
    truncated: int = 0
    refused: int = 0
    bad_lines: int = 0
    last_bad_line: str = ""
    since: float = field(default_factory=time.monotonic)
    used: int = 0  # bytes, by all but gauges
    used_by_gauges: int = 0

    def add_packet(self, data: memoryview, truncated: bool = False) -> None:
        """Add the metrics of a packet, at least one on each line."""
        self.packets += 1
        lines = str(data, "utf-8", "backslashreplace").split("\n")
        if truncated:
            self.truncated += 1
            del lines[-1]  # its end is unknown
        for line in map(str.strip, lines):
            if line:
                self.add_line(line)

    def add_line(self, line: str) -> None:
        """Add the metrics of a line: all of them, or none if the line is malformed."""
        try:
            metrics = list(parse(line))
        except MalformedError:
            self.bad_lines += 1
            self.last_bad_line = line
            return
        for metric in metrics:
            if self.add(metric):
                self.metrics += 1
            else:
                self.refused += 1

    def add(self, metric: Metric) -> bool:
        """Add a metric; return False if there is no room for it, or its sum grows too large."""
        name = metric.name
        if metric.kind == "set":
            members = self.sets.get(name, set())
            cost = 0 if metric.text in members else MEMBER_COST + sys.getsizeof(metric.text)
            if not self.take_room(name, self.sets, cost):
                return False
            self.sets.setdefault(name, members).add(metric.text)
        elif metric.kind == "counter":
            count = self.counters.get(name, 0.0) + metric.number / metric.rate
            if not abs(count) <= LARGEST or not self.take_room(name, self.counters):
                return False
            self.counters[name] = count
        elif metric.kind == "gauge":
            change = metric.text[0] in "+-"
            level = metric.number + (self.gauges.get(name, 0.0) if change else 0.0)
            if not abs(level) <= LARGEST or not self.take_room(name, self.gauges):
                return False
            self.gauges[name] = level
        else:
            times = self.timer_counts.get(name, 0.0) + 1 / metric.rate
            if not times <= LARGEST or not self.take_room(name, self.timers, VALUE_COST):
                return False
            self.timers.setdefault(name, []).append(metric.number)
            self.timer_counts[name] = times
        return True

    def take_room(self, name: str, table: Mapping[str, object], cost: int = 0) -> bool:
        """Take `cost` bytes, and what a name costs that the table lacks, if there is room."""
        if name not in table:
            cost += NAME_COST + sys.getsizeof(name)
        if table is self.gauges:
            if self.used_by_gauges + cost > self.room:
                return False
            self.used_by_gauges += cost
        else:
            if self.used + cost > self.room:
                return False
            self.used += cost
        return True

    def flush(self) -> str:
        """Return the report of the time since the last one, and start again. Gauges stay."""
        now = time.monotonic()
        seconds = max(now - self.since, 1e-3)
        report = [self.heading(seconds)]
        for name, value in sorted(self.counters.items()):
            report.append(f"counter {name} {value:.10g} ({value / seconds:.4g}/s)")
        for name, value in sorted(self.gauges.items()):
            report.append(f"gauge   {name} {value:.10g}")
        for name, values in sorted(self.timers.items()):
            values.sort()
            report.append(
                f"timer   {name} {self.timer_counts[name]:.10g} times, min {values[0]:.6g}, "
                f"mean {sum(values) / len(values):.6g}, median {percentile(values, 50):.6g}, "
                f"90 % {percentile(values, 90):.6g}, 99 % {percentile(values, 99):.6g}, "
                f"max {values[-1]:.6g} ms"
            )
        for name, members in sorted(self.sets.items()):
            report.append(f"set     {name} {len(members)} different")
        for table in (self.counters, self.timers, self.timer_counts, self.sets):
            table.clear()
        self.packets = self.metrics = self.truncated = self.refused = self.bad_lines = 0
        self.used = 0
        self.since = now
        return "\n".join(report)

    def heading(self, seconds: float) -> str:
        """Return the first line of a report."""
        text = f"-- {seconds:.1f} s: {self.metrics} metrics in {self.packets} packets"
        if self.truncated:
            text += f", {self.truncated} truncated packets without their last line"
        if self.refused:
            text += f", {self.refused} metrics refused for lack of room or too large a sum"
        if self.bad_lines:
            text += f", {self.bad_lines} bad lines, the last {self.last_bad_line[:200]!a}"
        return text


def percentile(ordered: list[float], percent: int) -> float:
    """Return the smallest value that `percent` of all are at or below (nearest rank)."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]
