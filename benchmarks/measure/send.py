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
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.candidates.senders import (
    BATCH,
    FLOOR,
    FLOOR_GSO,
    FLOORS,
    GSO,
    LOOP,
    MANY,
    OURS,
    PAIRS,
    PEERS,
    QH3,
    ours_key,
)
from benchmarks.result import Context, Figures, Goal, Result, Table, per_loop
from benchmarks.spec import LOOPS, AnySpec
from benchmarks.stats import Summary

from .trial import rotated

PAYLOAD = 1232
CALL = 64
"""Packets a call, for those that take more than one."""

COUNT = 1024  # datagrams in a time by the clock; a whole number of calls
BUFFER = 16 * 2**20
"""Bytes of receive buffer to ask for: several times what `COUNT` datagrams take at one socket."""

ROUNDS = 11  # and one more before, uncounted
TIMES = 5  # in a visit, of which the first does not count


class Scene(NamedTuple):
    """To how many, and how many a call."""

    text: str
    destinations: int = 1
    call: int = CALL


ONE = Scene("one destination")
CROWD = Scene("1,000 destinations", 1_000)
LARGE = Scene(f"one destination, {MANY:,} a call", call=MANY)
SCENES = (ONE, CROWD, LARGE)
ALL = FLOORS + OURS + PEERS


def measured(spec: AnySpec, scene: Scene) -> bool:
    """Whether a sender is measured in a scene."""
    if scene is CROWD:  # nothing goes to one destination in a row: no GSO
        return spec.key not in (FLOOR_GSO, QH3, *(ours_key(GSO, loop) for loop in LOOPS))
    return scene is ONE or spec.limit > 1


def visit(context: Context, spec: AnySpec, scene: Scene) -> float | None:
    """Have a sender send some times; return nanoseconds a packet, or None if any was lost."""
    times = 2 if context.quick else TIMES
    done = context.children[spec.key].ask(
        "send", PAYLOAD, scene.destinations, scene.call, COUNT, times
    )
    return None if done["lost"] else float(statistics.median(done["ns"][1:])) / COUNT


def measure(context: Context, specs: Sequence[AnySpec]) -> Figures:
    """Run the rounds."""
    rounds = context.steps(ROUNDS)
    found = Figures()
    for turn in context.turns(rounds):
        if turn == 1:
            found = Figures()
        for scene in SCENES:
            for spec in rotated(specs, turn):
                if measured(spec, scene):
                    found.add(visit(context, spec, scene), spec.key, scene)
        context.progress(turn + 1, rounds + 1)
    return found


def goals(found: Figures) -> list[Goal]:
    """Compare with what the project promises itself."""

    def compared(what: str, base: str, scene: Scene) -> Callable[[str], Summary | None]:
        return lambda loop: found.ratio((ours_key(what, loop), scene), (base, scene))

    listed: list[Goal] = []
    for scene, bound in ((ONE, 0.8), (CROWD, 0.9)):
        listed += per_loop(
            f"`send_mmsg(pairs)`, {CALL} a call, {scene.text}",
            "`sendto` loop",
            bound,
            compared(PAIRS, LOOP, scene),
        )
    listed += per_loop(
        f"`send_mmsg(pairs, gso=True)`, {CALL} a call",
        "C, `sendmmsg(2)`, without GSO",
        0.6,
        compared(GSO, FLOOR, ONE),
    )
    listed += per_loop(
        f"`send_mmsg(pairs, gso=True)`, {CALL} a call",
        "qh3's `UdpSocketState.send` (internal there)",
        0.95,
        compared(GSO, QH3, ONE),
    )
    return listed


def run(context: Context) -> Result:
    """Measure all senders."""
    children = context.children
    specs = children.start(ALL, BUFFER)
    found = measure(context, specs)
    result = Result("send", "Sending", left_out=children.left_out(ALL))
    table = Table("send", "Sending", "ns a packet", "lower", [scene.text for scene in SCENES])
    for spec in specs:
        table.add(spec, {scene.text: found.summary(spec.key, scene) for scene in SCENES})
    result.tables.append(table)
    result.goals = goals(found)
    batch = next(spec.label for spec in OURS if BATCH in spec.key)
    result.notes = [
        f"{PAYLOAD:,} bytes a packet, {COUNT:,} by the clock, {CALL} a call unless a column says "
        "otherwise (peers: one a call, but for qh3, which takes a list to one destination).",
        "The sendto loop needs no event loop, and gives no other task a turn.",
        f"multi_target_send sends one payload, which stays in the processor's cache. {batch} "
        "sends back what was just received, as an echo server does, so its payloads and "
        "addresses are in the cache too. The others send a different payload with each packet.",
    ]
    return result
