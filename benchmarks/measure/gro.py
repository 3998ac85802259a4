"""Trains (GRO) by their length and between namespaces, and what control data costs."""

from __future__ import annotations

import statistics

from benchmarks.candidates.trains import CONTROL, TRAINS
from benchmarks.result import Context, Figures, Goal, Result, Table
from benchmarks.spec import UnavailableError

from .trial import rotated
from .veth import Veth

LENGTHS = (1, 2, 8, 52)
"""Packets of a train. 52 of 1,232 bytes are the most that fit into one message of 65,507."""

COUNT = 8 * 52  # packets by the clock: all lengths divide it
TIMES = 5  # in a visit, of which the first does not count
ROUNDS = 11
BUFFER = 8 * 2**20
QH3 = "qh3's `UdpSocketState.recv` (internal there)"


def run(context: Context) -> Result:
    """Measure all, round after round."""
    children = context.children
    specs = children.start(TRAINS + CONTROL, BUFFER)
    rounds = context.steps(ROUNDS)
    if not specs:
        raise UnavailableError("nobody can be measured here")
    found = Figures()
    veth = Veth(context)
    for turn in context.turns(rounds):
        if turn == 1:
            found = Figures()
        for spec in rotated(specs, turn):
            for train in LENGTHS if spec in TRAINS else (1,):
                done = children[spec.key].ask("drain", COUNT, train, 2 if context.quick else TIMES)
                cost = None if done["lost"] else statistics.median(done["ns"][1:]) / COUNT
                found.add(cost, spec.key, train)
        veth.visit(turn)
        context.progress(turn + 1, rounds + 1)
    left_out = children.left_out(TRAINS + CONTROL)
    result = Result("gro", "Trains, and control data", left_out=left_out)
    columns = {f"in trains of {train}" if train > 1 else "alone": train for train in LENGTHS}
    trains = Table("trains", "Taken in trains", "ns a packet", "lower", list(columns))
    control = Table("control", "With control data", "ns a packet", "lower", ["ns"])
    for spec in specs:
        if spec in TRAINS:
            trains.add(
                spec, {name: found.summary(spec.key, train) for name, train in columns.items()}
            )
        if spec in CONTROL or spec.key in ("recvfrom", "ours-batch", "plain-batch"):
            control.add(spec, {"ns": found.summary(spec.key, 1)})
    result.tables = [trains, control]
    plain, qh3 = ("ours-batch", 1), ("qh3", 52)
    for what, to, bound, cell, base in (
        ("trains of 52, read", "`recvfrom`", 0.20, ("ours-gro", 52), ("recvfrom", 1)),
        ("trains of 52, bytes and address, by `datagrams()`", QH3, 0.75, ("ours-lists", 52), qh3),
        ("trains of 52, by `recv_datagrams_nowait`", QH3, 0.75, ("ours-datagrams", 52), qh3),
        ("gro=True without trains", "a batch without", 1.05, ("ours-gro", 1), plain),
        ("timestamps asked for, not read", "none", 1.10, ("ours-stamps", 1), plain),
        ("destinations asked for, not read", "none", 1.10, ("ours-destinations", 1), plain),
        ("all control data asked for, not read", "none", 1.10, ("ours-everything", 1), plain),
    ):
        result.goals.append(Goal(what, to, "", bound, found.ratio(cell, base)))
    result.notes = [
        f"{COUNT} packets of 1,232 bytes by the clock, all there already; nobody waits. Data and "
        "address of each are read, but in C. Trains are sent by GSO (UDP_SEGMENT), and a socket "
        "without UDP_GRO has the kernel take them apart.",
        "What control data costs when it is not read is the kernel's to write it.",
    ]
    veth.report(result)
    return result
