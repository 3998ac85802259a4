"""Trains between two network namespaces: who gets them, what they save, what is lost."""

from __future__ import annotations

from benchmarks.candidates.veth import VETH, WAYS, Way
from benchmarks.result import Context, Figures, Result, Table
from benchmarks.spec import AnySpec
from benchmarks.workers.protocol import Answer

from .trial import rotated

COUNT = 100 * 52  # packets of a measurement: a hundred trains
RATE = 100_000  # a second
BUFFER = 8 * 2**20
BURST = 10 * 52  # packets that come while the receiver is busy with something else
DEFAULT = 212_992 // 2
"""Linux's default buffer. It grants twice what one asks for."""

MESSAGE, CPU, LOST = "packets a message", "CPU, ns a packet", "lost, %"
BUSY = f"lost of {BURST} while it is busy, %"

NOTES = (
    "Between namespaces: a sender in one network namespace and a receiver in another, each on a "
    f"core of its own, with a veth pair between them. Packets of 1,232 bytes, {RATE:,} a second, "
    "in bursts of 52: one train (UDP_SEGMENT), or 52 sends. The receiver waits by `poll`, takes "
    "all that is there and reads data and address of each. The time is the CPU time of its "
    "process, with that of its waking up.",
    '"Cut up": the sending end takes no trains, as any network does in the end. "Device with '
    'GRO": the receiving end joins what comes in one go, as network cards do, for sockets that '
    f"asked for trains. The last column is of a burst of {BURST} packets that come while the "
    f"receiver does not look, into a buffer of Linux's default ({2 * DEFAULT:,} bytes).",
)


class Veth:
    """The measurements of all receivers, round after round.

    Args:
        context: The benchmark's.

    Attributes:
        found: Values by receiver, way and column.
    """

    def __init__(self, context: Context) -> None:
        self._children = context.children
        self._count = COUNT // 10 if context.quick else COUNT
        self._specs = self._children.start(VETH, BUFFER)
        self._left_out: dict[str, list[str]] = {}
        self.found = Figures()

    def visit(self, turn: int) -> None:
        """Measure everyone once."""
        if turn == 1:
            self.found = Figures()
        for spec in rotated(self._specs, turn):
            for way in WAYS:
                self._measure(spec, way)

    def _measure(self, spec: AnySpec, way: Way) -> None:
        child = self._children[spec.key]
        done = child.ask("cross", way.key, self._count, RATE)
        if reason := done.get("missing"):
            names = self._left_out.setdefault(reason, [])
            name = f"{spec.label}: {way.label}"
            if name not in names:
                names.append(name)
            return
        received = done["received"]
        child.ask("buffer", DEFAULT)
        burst = child.ask("burst", way.key, BURST)
        child.ask("buffer", BUFFER)
        for column, value in (
            (MESSAGE, received / done["messages"] if received else None),
            (CPU, done["ns"] / received if received else None),
            (LOST, _lost(done)),
            (BUSY, _lost(burst)),
        ):
            self.found.add(value, spec.key, way.key, column)

    def report(self, result: Result) -> None:
        """Add what was found to a result, and what could not be measured."""
        for found in (self._children.left_out(VETH), self._left_out):
            for reason, names in found.items():
                result.left_out.setdefault(reason, []).extend(names)
        columns = [MESSAGE, CPU, LOST, BUSY]
        table = Table("veth", "Between two network namespaces", "", "", columns)
        for way in WAYS:
            for spec in self._specs:
                cells = {name: self.found.summary(spec.key, way.key, name) for name in columns}
                label = f"{way.label}: {spec.label.removeprefix('veth: ')}"
                table.add(spec, cells, label)
        if table.rows:
            result.tables.append(table)
            result.notes += NOTES


def _lost(done: Answer) -> float:
    sent, received = int(done["sent"]), int(done["received"])
    return 100 * (sent - received) / sent
