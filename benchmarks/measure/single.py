"""One packet received, one pair sent: what a call costs that has nothing to batch.

Each call takes one packet that is there, or sends one that there is room for. The calls that
don't wait need no event loop; those that do are measured on each.
"""

from __future__ import annotations

import statistics

from benchmarks.candidates.singles import AWAITED, SINGLES
from benchmarks.result import Context, Figures, Goal, Result, Table

from .trial import rotated

COUNT = 256  # calls by the clock
TIMES = 5  # in a visit, of which the first does not count
ROUNDS = 11
BUFFER = 8 * 2**20


def run(context: Context) -> Result:
    """Measure all calls, round after round."""
    children = context.children
    specs = children.start(SINGLES + AWAITED, BUFFER)
    rounds = context.steps(ROUNDS)
    found = Figures()
    for turn in context.turns(rounds):
        if turn == 1:
            found = Figures()
        for spec in rotated(specs, turn):
            done = children[spec.key].ask("call", COUNT, 2 if context.quick else TIMES)
            found.add(statistics.median(done["ns"][1:]) / COUNT, spec.key)
        context.progress(turn + 1, rounds + 1)
    left_out = children.left_out(SINGLES + AWAITED)
    result = Result("single", "One packet a call", left_out=left_out)
    ways = {"recv": "received", "send": "sent"}
    nowait = Table("nowait", "Without waiting", "ns a packet", "lower", list(ways.values()))
    awaited = Table("awaited", "Awaited, with the packet there", "ns a call", "lower", ["ns"])
    for spec in specs:
        if spec in AWAITED:
            awaited.add(spec, {"ns": found.summary(spec.key)})
        else:
            nowait.add(spec, {ways[spec.key.partition("-")[0]]: found.summary(spec.key)})
    result.tables = [nowait, awaited]
    for way, what, to in (
        ("recv", "one packet received (nowait), data and address read", "`recvfrom`"),
        ("send", "one pair sent (nowait)", "`sendto`"),
    ):
        measured = found.ratio((f"{way}-ours",), (f"{way}-plain-socket",))
        result.goals.append(Goal(what, to, "", 2.0, measured))
    result.notes = [
        f"{COUNT} calls by the clock, each with a packet of 1,232 bytes. The figures of "
        "`recv_mmsg` include reading the packet and clearing the batch.",
        "An awaited call includes a checkpoint, which has a row of its own.",
    ]
    return result
