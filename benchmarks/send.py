"""Nanoseconds a packet to send, on the loopback interface.

Each sender's process makes a list of (data, address) pairs, no two payloads of which are one
object, and opens the sockets that they go to. The clock runs while they are sent; with the clock
stopped they are received and counted, so that no buffer runs over and all have arrived. The floor
does the same in C, from memory that it has written to. A visit to a process does that a few times
over and drops the first; its median is a round's value.

On the loopback interface a send is a receive too: what the kernel does until the packet is in the
queue of its destination is in the figures of all.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import NamedTuple

from .report import Bar, Context, Goal, Result, identity, name, spread, times
from .senders import FLOOR, FLOOR_GSO, FLOORS, GSO, LOOP, MANY, OURS, PEERS, ours_key
from .spec import LOOPS, AnySpec
from .stats import Summary, ratio, summarize
from .trial import rotated

PAYLOADS = (1232, 100)
MAIN_PAYLOAD = 1232
DESTINATIONS = (1, 1_000)
CALLS = (64, MANY)
"""Packets a call, for those that take more than one."""

COUNT = 1024  # datagrams in a time by the clock; a whole number of calls
BUFFER = 16 * 2**20
"""Bytes of receive buffer to ask for: several times what `COUNT` datagrams take at one socket."""

ROUNDS = 11  # and one more before, uncounted
OTHER_ROUNDS = 5  # for the payload that no goal speaks of
QUICK_ROUNDS = 1
TIMES = 5  # in a visit


class Cell(NamedTuple):
    """What is measured of one sender."""

    key: str
    payload: int = MAIN_PAYLOAD
    destinations: int = 1
    call: int = CALLS[0]


class Measurements:
    """Nanoseconds a packet, by cell and round."""

    def __init__(self) -> None:
        self.ns: defaultdict[Cell, list[float | None]] = defaultdict(list)
        self.lost: defaultdict[Cell, int] = defaultdict(int)

    def ratio(self, cell: Cell, base: Cell) -> Summary | None:
        """Compare two cells, round by round."""
        return ratio(self.ns.get(cell), self.ns.get(base))

    def to_floor(self, cell: Cell) -> Summary | None:
        """Compare a cell with C that cuts nothing, with as many a call."""
        return self.ratio(cell, cell._replace(key=FLOOR))

    def text(self, cell: Cell) -> str:
        """Write a cell for the table."""
        if cell not in self.ns:
            return ""
        if self.lost[cell]:
            return f"loses {self.lost[cell]}"
        return f"{spread(summarize(self.ns[cell]))} {times(self.to_floor(cell))}"


def calls(spec: AnySpec, destinations: int) -> tuple[int, ...]:
    """Return the packets a call to measure: one column for those that take one at a time."""
    if destinations > 1 and spec.key in (FLOOR_GSO, *(ours_key(GSO, loop) for loop in LOOPS)):
        return ()  # nothing goes to one destination in a row
    return CALLS if spec.limit > 1 else CALLS[:1]


def visit(context: Context, cell: Cell, found: Measurements) -> float | None:
    """Have a sender send some times; return nanoseconds a packet, or None if any was lost."""
    done = context.children[cell.key].ask("send", *cell[1:], COUNT, 2 if context.quick else TIMES)
    if done["lost"]:
        found.lost[cell] += done["lost"]
        return None
    return float(statistics.median(done["ns"][1:])) / COUNT


def measure(context: Context, specs: list[AnySpec]) -> Measurements:
    """Run the rounds."""
    plan = [
        (
            payload,
            destinations,
            context.steps(ROUNDS if payload == MAIN_PAYLOAD else OTHER_ROUNDS, QUICK_ROUNDS),
        )
        for payload in PAYLOADS
        for destinations in DESTINATIONS
        if not context.quick or payload == MAIN_PAYLOAD
    ]
    found = Measurements()
    total = sum(rounds + 1 for *_, rounds in plan)
    done = 0
    for payload, destinations, rounds in plan:
        for turn in range(rounds + 1):
            for spec in rotated(specs, turn):
                for call in calls(spec, destinations):
                    cell = Cell(spec.key, payload, destinations, call)
                    value = visit(context, cell, found)
                    if turn:
                        found.ns[cell].append(value)
            done += 1
            context.progress(done, total)
    return found


def plural(destinations: int) -> str:
    """Write how many."""
    return f"{destinations:,} destination{'s' if destinations > 1 else ''}"


def goals(found: Measurements) -> list[Goal]:
    """Compare with what the project promises itself, at 1232 bytes and 64 a call."""
    listed = []
    for what, text, destinations in (
        ("pairs-sendmmsg", "send_mmsg(pairs)", DESTINATIONS[0]),
        ("pairs-sendmmsg", "send_mmsg(pairs)", DESTINATIONS[1]),
        ("batch-sendmmsg", "send_mmsg(batch)", DESTINATIONS[0]),
        ("fan-sendmmsg", "multi_target_send", DESTINATIONS[1]),
    ):
        for loop in LOOPS:
            base = Cell(LOOP, destinations=destinations)
            measured = found.ratio(base, base._replace(key=ours_key(what, loop)))
            text_to = f"sendto loop to {text}, {plural(destinations)}: {loop}"
            listed.append(Goal(text_to, measured, 1.3, at_most=False))
    for what, text, bound in (
        ("pairs-sendmmsg", "send_mmsg(pairs)", 1.25),
        ("batch-sendmmsg", "send_mmsg(batch)", 1.25),
        (GSO, "send_mmsg(pairs, gso=True)", 0.35),
    ):
        for loop in LOOPS:
            measured = found.to_floor(Cell(ours_key(what, loop)))
            listed.append(Goal(f"{text} to the C floor without GSO: {loop}", measured, bound))
    return listed


def run(context: Context) -> Result:
    """Measure all senders."""
    specs = context.children.available(FLOORS + OURS + PEERS)
    granted = context.children.start(specs, BUFFER)
    found = measure(context, specs)
    result = Result("send", "Sending", "nanoseconds a packet")
    result.notes = [
        f"{COUNT:,} packets by the clock; receive buffers of {granted:,} bytes (SO_RCVBUF).",
        "Ratios, in x, are medians of each round's ratio to C sendmmsg(2) with as many a call, "
        f"without GSO; with {CALLS[0]} a call for those that take one packet a call.",
        "The sendto loop runs without an event loop, and gives no other task a turn.",
        "multi_target_send sends one payload, which the processor's cache then has, the others "
        "a payload for each packet. send_mmsg(batch) sends back what was just received, as an "
        "echo server does, so that its payloads and addresses are in the cache too.",
    ]
    for payload in sorted({cell.payload for cell in found.ns}, reverse=True):
        columns = [(destinations, call) for destinations in DESTINATIONS for call in CALLS]
        rows = [
            [name(spec), *(found.text(Cell(spec.key, payload, *column)) for column in columns)]
            for spec in specs
        ]
        header = ["sender", *(f"to {n:,}, {call:,} a call" for n, call in columns)]
        result.tables.append((f"ns a packet of {payload} bytes", header, rows))
    by_key = {spec.key: spec for spec in specs}
    for cell, rounds in found.ns.items():
        summary, to_floor = summarize(rounds), found.to_floor(cell)
        result.rows.append(
            {
                **identity(by_key[cell.key], "sender"),
                "payload": cell.payload,
                "destinations": cell.destinations,
                "call": min(cell.call, by_key[cell.key].limit),
                "ns": summary.as_json() if summary else None,
                "to_floor": to_floor.as_json() if to_floor else None,
                "lost": found.lost[cell],
            }
        )
    for destinations in DESTINATIONS:
        cells = {spec.key: Cell(spec.key, destinations=destinations) for spec in specs}
        result.bars[f"{MAIN_PAYLOAD} bytes, {CALLS[0]} a call, to {plural(destinations)}"] = [
            Bar(name(spec), spec.kind, summarize(found.ns[cells[spec.key]]))
            for spec in specs
            if cells[spec.key] in found.ns
        ]
    result.goals = goals(found)
    return result
