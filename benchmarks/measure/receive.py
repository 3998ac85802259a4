"""Packets already in the kernel: nanoseconds a packet until the application has read them all.

Each receiver's process fills its own socket with blocking sends, starts its clock, receives,
stops it. The clock is CLOCK_MONOTONIC, the event loop runs for the receiving alone, and the floor
does the same in C. A visit to a process does that a few times over and drops the first, so that
it shows a busy receiver, its code in the processor's caches; a visit's median is a round's value.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from benchmarks.candidates.fields import FIELDS, summing_key, unpacking_key
from benchmarks.candidates.receivers import (
    DATAGRAMS,
    FLOORS,
    OURS,
    PLAINS,
    PORTABLE,
    STREAMS,
    Use,
    datagrams_key,
    floor_key,
    ours_key,
    plain_key,
    stream_key,
)
from benchmarks.candidates.receiving_peers import (
    COLD,
    NAIVE,
    PEERS,
    QH3,
    QH3_TRANSPORT,
    SERVED,
    SIX_LINES,
    naive64_key,
    naive_key,
    qh3_key,
)
from benchmarks.result import Context, Figures, Goal, Result, Table, per_loop
from benchmarks.spec import WARM_NOTE, AnySpec
from benchmarks.stats import Summary

from .trial import rotated

PAYLOAD = 1232
LEAST = 600  # of datagrams that leave a part of their slot empty
MANY = 1_000  # senders
QUEUED, DEEP = 512, 8192

BUFFER = 64 * 2**20
"""Bytes of receive buffer to ask for. 8192 datagrams of 1232 bytes need 18 MiB: Linux charges
2304 bytes each, for the page fragment and its own struct (skb->truesize)."""

ROUNDS = 9  # one more comes before, uncounted
TIMES = {QUEUED: 5, DEEP: 3}  # fills in a visit, by packets queued


class Scene(NamedTuple):
    """What lies in the kernel."""

    text: str
    queued: int = QUEUED
    least: int = PAYLOAD
    senders: int = 1


USUAL = Scene("one sender, whole slots")
CUT = Scene("one sender, cut slots", least=LEAST)
CROWD = Scene("1,000 senders, whole slots", senders=MANY)
CROWD_CUT = Scene("1,000 senders, cut slots", least=LEAST, senders=MANY)
LONG = Scene("8,192 queued", queued=DEEP)
SCENES = (USUAL, CUT, CROWD, CROWD_CUT, LONG)

ALL = [
    *(FLOORS + OURS + STREAMS + DATAGRAMS + FIELDS + PORTABLE + PLAINS),
    *(SERVED + PEERS + QH3 + QH3_TRANSPORT + COLD),
]

FAST_KERNEL = 400
"""Nanoseconds a packet of the C floor, 64 a call, between two sets of goals: where the kernel is
fast, the rest of a packet's cost is a larger part. The goals are of floors below 300 and above
500; between them the nearer set holds."""

READ_GOALS: dict[tuple[bool, str], tuple[float, ...]] = {
    (True, USUAL.text): (0.55, 0.55, 0.62),
    (False, USUAL.text): (0.50, 0.50, 0.53),
    (True, CROWD.text): (0.65, 0.65, 0.72),
    (False, CROWD.text): (0.55, 0.57, 0.60),
}
"""Of `for packet in batch`, 64 a call, to the six lines, by whether the kernel is fast."""


def uses(spec: AnySpec, scene: Scene) -> list[Use]:
    """Return what is measured of a receiver in a scene."""
    if scene is LONG or spec.limit > QUEUED:
        deep = scene is LONG and spec.limit > QUEUED
        return ["received"] if deep else []
    if spec.kind == "floor":
        return ["received"] if scene is USUAL else []
    if spec in COLD or spec in FIELDS or spec in QH3_TRANSPORT:
        return ["read"] if scene is USUAL else []
    if scene in (CUT, CROWD_CUT) and (spec in QH3 or spec in DATAGRAMS):
        return []
    if spec in OURS or spec in PLAINS or spec in PORTABLE:
        return ["read", "columns", "received"] if scene is USUAL else ["read"]
    return ["read"]


def visit(context: Context, spec: AnySpec, scene: Scene, use: Use) -> float | None:
    """Have a receiver drain some times; return nanoseconds a packet, or None if it lost any."""
    # The first does not count; of many senders, each is new until all had their turn.
    first = -(-scene.senders // scene.queued)
    times = first + (1 if context.quick else TIMES[scene.queued] - 1)
    done = context.children[spec.key].ask(
        "drain", scene.queued, PAYLOAD, scene.least, scene.senders, use, times
    )
    if done["lost"] or not done["queued"]:
        return None
    return float(statistics.median(done["ns"][first:])) / int(done["queued"])


def measure(context: Context, specs: Sequence[AnySpec]) -> Figures:
    """Run the rounds."""
    rounds = context.steps(ROUNDS)
    found = Figures()
    losing: set[tuple[object, ...]] = set()
    for turn in context.turns(rounds):
        if turn == 1:
            # Who loses packets in the round for warming up always does: AnyIO's queue.
            losing = {cell for cell, values in found.rounds.items() if values == [None]}
            found = Figures()
        for scene in SCENES:
            for spec in rotated(specs, turn):
                for use in uses(spec, scene):
                    lost = (spec.key, scene, use) in losing
                    value = None if lost else visit(context, spec, scene, use)
                    found.add(value, spec.key, scene, use)
        context.progress(turn + 1, rounds + 1)
    return found


def floor_of(limit: int, _loop: str) -> str:
    """Return the key of the floor, the same on every loop."""
    return floor_key(limit)


def goals(found: Figures) -> list[Goal]:
    """Compare with what the project promises itself."""

    def compared(
        ours: Callable[[str], str],
        base: Callable[[str], str],
        scene: Scene,
        use: Use = "read",
        base_use: Use = "read",
    ) -> Callable[[str], Summary | None]:
        """Return what compares two keys on a loop."""
        return lambda loop: found.ratio((ours(loop), scene, use), (base(loop), scene, base_use))

    listed: list[Goal] = []
    floor = found.summary(floor_key(64), USUAL, "received")
    fast = floor is not None and floor.median < FAST_KERNEL
    for scene, more, large in ((USUAL, "", 0.48), (CROWD, ", 1,000 senders", 0.55)):
        bounds: tuple[tuple[int, float | Sequence[float]], ...] = (
            (64, READ_GOALS[fast, scene.text]),
            (QUEUED, large),
        )
        for limit, bound in bounds:
            listed += per_loop(
                f"`for packet in batch`, data and address, limit {limit}{more}",
                f"{SIX_LINES}{more}",
                bound,
                compared(partial(ours_key, limit), naive_key, scene),
            )
    for base, to, bound in (
        (naive_key, SIX_LINES, (0.62, 0.62, 0.70)),
        (qh3_key, "qh3's `UdpSocketState.recv` behind the same wait (internal there)", 0.62),
    ):
        listed += per_loop(
            "`recv_datagrams`, data and address", to, bound, compared(datagrams_key, base, USUAL)
        )
    listed += per_loop(
        f"`columns()` and numpy's sum of a field, limit {QUEUED}",
        "`for packet in batch` and `struct.unpack_from`",
        0.55,
        compared(summing_key, unpacking_key, USUAL),
    )
    listed += per_loop(
        f"the same, ns a packet more, limit {QUEUED}",
        "received, not read",
        40,
        lambda loop: found.difference(
            (summing_key(loop), USUAL, "read"), (ours_key(QUEUED, loop), USUAL, "received")
        ),
    )
    ways: tuple[tuple[Use, str, float], ...] = (
        ("read", "`for packet in batch`", 1.15),
        ("columns", "columns", 1.0),
    )
    for use, text, bound in ways:
        listed += per_loop(
            f"plain Python (`recvfrom_into`), {text}, limit 64",
            f"{SIX_LINES}, 64 a wake",
            bound,
            compared(partial(plain_key, 64), naive64_key, USUAL, use),
        )
    for limit, scene, bound in ((64, USUAL, 1.4), (1024, LONG, 1.1)):
        listed += per_loop(
            f"received, limit {limit:,} of {scene.queued:,}",
            f"C, `recvmmsg(2)`, {limit:,} a call",
            bound,
            compared(
                partial(ours_key, limit),
                partial(floor_of, limit),
                scene,
                "received",
                "received",
            ),
        )
    listed += per_loop(
        "`PacketReceiver` with a pool, limit 64, read",
        "bare `recv_mmsg` loop",
        1.05,
        compared(stream_key, partial(ours_key, 64), USUAL),
    )
    return listed


def tables(specs: Sequence[AnySpec], found: Figures) -> list[Table]:
    """Lay out the figures."""
    unit = "ns a packet"
    read = Table("read", "Received and read, packet by packet", unit, "lower", ["ns"])
    scenes = Table(
        "scenes",
        "Received and read, by senders and slots",
        unit,
        "lower",
        [scene.text for scene in SCENES if scene is not LONG],
    )
    fields = Table("fields", "A field of each packet, summed", unit, "lower", ["ns"])
    received = Table("received", "Received, and not read", unit, "lower", [USUAL.text, LONG.text])
    columns = Table("columns", "Read by columns", unit, "lower", ["ns"])
    for spec in specs:
        use: Use = "received" if spec.kind == "floor" else "read"
        text = f"{spec.label}, not read" if spec.kind == "floor" else ""
        if spec in FIELDS:
            fields.add(spec, {"ns": found.summary(spec.key, USUAL, use)})
            continue
        read.add(spec, {"ns": found.summary(spec.key, USUAL, use)}, text)
        if spec in OURS or spec in PLAINS or spec in NAIVE:
            cells = {scene.text: found.summary(spec.key, scene, "read") for scene in SCENES}
            cells.pop(LONG.text)
            scenes.add(spec, cells)
        cells = {scene.text: found.summary(spec.key, scene, "received") for scene in (USUAL, LONG)}
        received.add(spec, cells)
        columns.add(spec, {"ns": found.summary(spec.key, USUAL, "columns")})
    return [read, scenes, columns, fields, received]


def run(context: Context) -> Result:
    """Measure all receivers."""
    children = context.children
    specs = children.start(ALL, BUFFER)
    found = measure(context, specs)
    result = Result("receive", "Receiving what is queued", left_out=children.left_out(ALL))
    result.notes = [
        f"{PAYLOAD:,} bytes a packet, {QUEUED} queued unless said otherwise; receive buffers of "
        f"{children.granted:,} bytes (SO_RCVBUF).",
        f"Whole slots: each packet fills its slot of {PAYLOAD:,} bytes. Cut slots: sizes from "
        f"{LEAST} to {PAYLOAD - 1:,} bytes, different from packet to packet.",
        f"A field: the first four bytes of each packet, {QUEUED} a call.",
        WARM_NOTE,
        "On asyncio and uvloop, AnyIO's UDPSocket has a queue of 100 datagrams and drops the "
        "rest. A receiver that lost packets has no figure.",
    ]
    result.tables = tables(specs, found)
    result.goals = goals(found)
    return result
