"""Packets already in the kernel: nanoseconds a packet until the application has them all.

Each receiver's process fills its own socket with blocking sends, starts its clock, receives,
stops it. The clock is CLOCK_MONOTONIC, the event loop runs for the receiving alone, and the floor
does the same in C. A visit to a process does that a few times over and drops the first, so that
it shows a busy receiver, its code in the processor's caches; a visit's median is a round's value.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TypeAlias

from .receivers import FLOORS, OURS, PEERS, STREAMS, Use, floor_key, ours_key
from .report import Bar, Context, Goal, Result, identity, name, spread, times
from .spec import LOOPS, LUCKY_NOTE, AnySpec
from .stats import Summary, ratio, summarize
from .trial import rotated

QUEUED = (64, 512, 8192)
PAYLOADS = (1232, 512, 64)
MAIN_PAYLOAD = 1232
MAIN_QUEUED = 512

BUFFER = 64 * 2**20
"""Bytes of receive buffer to ask for. 8192 datagrams of 1232 bytes need 18 MiB: Linux charges
2304 bytes each, for the page fragment and its own struct (skb->truesize)."""

ROUNDS = {64: 7, 512: 11, 8192: 5}  # by packets queued; one more comes before, uncounted
OTHER_ROUNDS = 3  # for payloads that no goal speaks of: the total has to stay below minutes
QUICK_ROUNDS = 1
TIMES = {64: 21, 512: 6, 8192: 2}  # fills in a visit, by packets queued

Cell: TypeAlias = tuple[str, int, int, Use]
"""Receiver, packets queued, payload, use."""


class Measurements:
    """Nanoseconds a packet, by cell and round; None for a round in which packets were lost."""

    def __init__(self) -> None:
        self.ns: defaultdict[Cell, list[float | None]] = defaultdict(list)
        self.lost: defaultdict[Cell, int] = defaultdict(int)
        self.fit: dict[tuple[int, int], int] = {}

    def summary(self, cell: Cell) -> Summary | None:
        """Summarize a cell."""
        return summarize(self.ns.get(cell, []))

    def to_floor(self, spec: AnySpec, queued: int, payload: int, use: Use) -> Summary | None:
        """Compare a cell with the floor, of the same vlen for ours, else of 64."""
        floor = floor_key(max(spec.limit, 64))
        return self.ratio(spec.key, floor, queued, use, payload=payload)

    def text(self, spec: AnySpec, queued: int, payload: int, use: Use) -> str:
        """Write a cell for the table."""
        cell = (spec.key, queued, payload, use)
        if self.lost[cell]:
            return f"loses {self.lost[cell]}"
        if cell not in self.ns:
            return ""
        to_floor = times(self.to_floor(spec, queued, payload, use))
        return f"{spread(self.summary(cell))} {to_floor}"

    def ratio(
        self, key: str, base: str, queued: int, use: Use = "received", payload: int = MAIN_PAYLOAD
    ) -> Summary | None:
        """Compare a cell with another receiver's, which has just received, round by round."""
        base_use: Use = "received" if base.startswith("floor") else use
        return ratio(
            self.ns.get((key, queued, payload, use)),
            self.ns.get((base, queued, payload, base_use)),
        )


def uses(spec: AnySpec, queued: int, payload: int) -> list[Use]:
    """Return what is measured of a receiver: `packets` once, since only ours has them."""
    if spec.kind == "floor":
        return ["received"]
    if spec in OURS and (queued, payload) == (MAIN_QUEUED, MAIN_PAYLOAD):
        return ["received", "read", "packets"]
    return ["received", "read"]


def visit(context: Context, cell: Cell, found: Measurements) -> float | None:
    """Have a receiver drain some times; return nanoseconds a packet, or None if it lost any."""
    key, queued, payload, use = cell
    fills = 2 if context.quick else TIMES[queued]
    answer = context.children[key].ask("drain", queued, payload, use, fills)
    fit = answer["queued"]
    found.fit[queued, payload] = min(found.fit.get((queued, payload), queued), fit)
    if not fit:
        return None
    if answer["lost"]:
        found.lost[cell] += max(1, round(answer["lost"] / fills))
        return None
    return float(statistics.median(answer["ns"][1:])) / int(fit)


def measure(context: Context, specs: list[AnySpec]) -> Measurements:
    """Run the rounds."""
    plan = [
        (
            queued,
            payload,
            context.steps(
                ROUNDS[queued] if payload == MAIN_PAYLOAD else OTHER_ROUNDS, QUICK_ROUNDS
            ),
        )
        for payload in PAYLOADS
        for queued in QUEUED
        if not context.quick or (payload == MAIN_PAYLOAD and queued < max(QUEUED))
    ]
    found = Measurements()
    total = sum(rounds + 1 for _, _, rounds in plan)
    done = 0
    for queued, payload, rounds in plan:
        for turn in range(rounds + 1):
            for spec in rotated(specs, turn):
                for use in uses(spec, queued, payload):
                    cell: Cell = (spec.key, queued, payload, use)
                    # Who loses packets in the round for warming up always does: AnyIO's queue.
                    value = None if found.lost[cell] else visit(context, cell, found)
                    if turn:
                        found.ns[cell].append(value)
            done += 1
            context.progress(done, total)
    return found


def goals(found: Measurements) -> list[Goal]:
    """Compare with what the project promises itself, at 1232 bytes and 512 queued."""
    listed = []
    for limit, queued, use, what, bounds in (
        (64, MAIN_QUEUED, "received", "", (1.5, 1.4, 1.4)),
        (1024, 8192, "received", "", (1.2, 1.15, 1.15)),
        (64, MAIN_QUEUED, "read", ", data and address read", (2.1, 2.0, 2.0)),
    ):
        for loop, bound in zip(LOOPS, bounds, strict=True):
            ours = ours_key("recvmmsg", limit, loop)
            measured = found.ratio(ours, floor_key(limit), queued, use)  # type: ignore[arg-type]
            text = f"drain, limit {limit}, {queued} queued{what}, to the C floor: {loop}"
            listed.append(Goal(text, measured, bound))
    for loop in LOOPS:
        slow, fast = ours_key("recvfrom_into", 64, loop), ours_key("recvmmsg", 64, loop)
        text = f"recvfrom_into engine to recvmmsg engine, limit 64: {loop}"
        listed.append(Goal(text, found.ratio(slow, fast, MAIN_QUEUED), 2.0, at_most=False))
    for loop in LOOPS:
        stream, bare = f"stream-recvmmsg-64-{loop}", ours_key("recvmmsg", 64, loop)
        text = f"PacketReceiver with a pool to bare recv_mmsg, limit 64: {loop}"
        listed.append(Goal(text, found.ratio(stream, bare, MAIN_QUEUED), 1.05))
    for peer, loop, bound in (
        ("anyio-asyncio", "asyncio", 35.0),
        ("protocol-asyncio", "asyncio", 25.0),
        ("socket-trio", "trio", 12.0),
        ("protocol-uvloop", "uvloop", 2.5),
    ):
        measured = found.ratio(peer, ours_key("recvmmsg", 64, loop), MAIN_QUEUED)
        listed.append(Goal(f"{peer} to ours, limit 64: {loop}", measured, bound, at_most=False))
    return listed


def run(context: Context) -> Result:
    """Measure all receivers."""
    specs = context.children.available(FLOORS + OURS + STREAMS + PEERS)
    granted = context.children.start(specs, BUFFER)
    found = measure(context, specs)
    result = Result("drain", "Draining a queue", "nanoseconds a packet")
    result.notes = [
        f"Receive buffers: {granted:,} bytes (SO_RCVBUF).",
        "Ratios, in x, are medians of each round's ratio to C at vlen 64, or 1024 for ours with "
        "that limit, which has received and not read.",
        LUCKY_NOTE,
        "uvloop has no sock_recvfrom_into. AnyIO's UDPSocket on asyncio and uvloop has a queue of "
        "100 datagrams and drops the rest; uvloop reads faster than it takes them.",
    ]
    for (queued, payload), there in found.fit.items():
        if there < queued:
            result.notes.append(
                f"Of {queued} datagrams of {payload} bytes only {there} fit into the buffer."
            )
    payloads = sorted({payload for _, payload in found.fit}, reverse=True)
    for payload in payloads:
        columns: list[tuple[Use, int]] = sorted(
            {(use, queued) for _, queued, size, use in found.ns if size == payload},
            key=lambda column: (("received", "read", "packets").index(column[0]), column[1]),
        )
        header = ["receiver", *(f"{use}, {queued}" for use, queued in columns)]
        rows = [
            [name(spec), *(found.text(spec, queued, payload, use) for use, queued in columns)]
            for spec in specs
        ]
        result.tables.append((f"ns a packet of {payload} bytes", header, rows))
    for (key, queued, payload, use), rounds in found.ns.items():
        spec = next(spec for spec in specs if spec.key == key)
        cell = (key, queued, payload, use)
        summary, to_floor = summarize(rounds), found.to_floor(spec, queued, payload, use)
        result.rows.append(
            {
                **identity(spec),
                "queued": queued,
                "fit": found.fit[queued, payload],
                "payload": payload,
                "use": use,
                "ns": summary.as_json() if summary else None,
                "to_floor": to_floor.as_json() if to_floor else None,
                "lost": found.lost[cell],
            }
        )
    panels: tuple[tuple[Use, str], ...] = (("received", "received"), ("read", "received and read"))
    for use, text in panels:
        result.bars[f"{MAIN_QUEUED} of {MAIN_PAYLOAD} bytes, {text}"] = [
            Bar(name(spec), spec.kind, found.summary((spec.key, MAIN_QUEUED, MAIN_PAYLOAD, use)))
            for spec in specs
            if (spec.key, MAIN_QUEUED, MAIN_PAYLOAD, use) in found.ns
        ]
    result.goals = goals(found)
    return result
