"""What `latency` counts: datagrams and their times, since the last look and in all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import anyio

from .. import ReceiverStatistics
from .probes import read_probe
from .sequence_numbers import SequenceNumbers
from .showing import losses
from .spread import Spread, text_of

if TYPE_CHECKING:
    from rich.table import Table

NAMES = "one-way delay", "then in the socket"


@dataclass(frozen=True)
class Counts:
    """How many datagrams came, were lost, were not of `latency`, or had no timestamp."""

    packets: int = 0
    lost: int = 0
    foreign: int = 0
    unstamped: int = 0

    def __sub__(self, other: Counts) -> Counts:
        """Return what came since. A late datagram makes up for one that was lost before."""
        return Counts(
            self.packets - other.packets,
            self.lost - other.lost,
            self.foreign - other.foreign,
            self.unstamped - other.unstamped,
        )


@dataclass
class Look:
    """What is shown: of an interval, and in all."""

    seconds: float
    recent: Counts
    total: Counts
    recent_times: tuple[Spread, Spread]
    total_times: tuple[Spread, Spread]

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self.recent.packets / max(self.seconds, 1e-9)

    def line(self) -> str:
        """Return it for a log."""
        texts = [f"{self.rate:,.0f} packets/s"]
        for name, spread in zip(NAMES, self.recent_times, strict=True):
            least, median, high, most = spread.texts()
            texts.append(f"{name} min {least} p50 {median} p99 {high} max {most}")
        in_all = f"in all {self.total.packets:,} packets, {self.total.lost:,} lost"
        return f"{', '.join(texts)}; {in_all}"

    def table(self) -> Table:
        """Return it for a terminal, of 40 columns or more."""
        from rich.table import Table

        screen = Table.grid()
        packets, lost = f"[bold]{self.total.packets:,}[/]", f"[bold]{self.total.lost:,}[/]"
        screen.add_row(f"[bold]{self.rate:,.0f}[/] packets/s, {packets} in all, {lost} lost")
        for name, recent, total in zip(NAMES, self.recent_times, self.total_times, strict=True):
            times = Table(title=name, title_justify="left", box=None, padding=(0, 1, 0, 0))
            times.add_column("")
            for figure in ("min", "p50", "p99", "max"):
                times.add_column(figure, justify="right", no_wrap=True, min_width=8)
            times.add_row("now", *recent.texts())
            times.add_row("all", *total.texts())
            screen.add_row(times)
        screen.add_row("[dim]Ctrl-C quits")
        return screen

    def fields(self) -> dict[str, Any]:
        """Return it for programs. Counts and times are those of the interval."""
        delay, wait = (spread.figures() for spread in self.recent_times)
        return {
            "seconds": round(self.seconds, 6),
            "packets_per_second": round(self.rate, 3),
            **asdict(self.recent),
            "delay_ns": delay,
            "in_socket_ns": wait,
        }

    def summary(self, seen: ReceiverStatistics) -> str:
        """Return it for the end of a run; `seen` has what the kernel dropped."""
        total = self.total
        lines = [f"{total.packets:,} packets, {total.lost:,} lost, {losses(seen)}"]
        if total.foreign or total.unstamped:
            lines.append(
                f"not of this program: {total.foreign:,}, no timestamp: {total.unstamped:,}"
            )
        lines.append(f"{'':<18}" + "".join(f"{name:>12}" for name in ("min", "p50", "p99", "max")))
        for name, spread in zip(NAMES, self.total_times, strict=True):
            lines.append(f"{name:<18}" + "".join(f"{text:>12}" for text in spread.texts()))
        if self.total_times[0].least < 0:
            behind = text_of(-self.total_times[0].least)
            lines.append(f"arrived before it was sent: the clocks differ by {behind} or more")
        return "\n".join(lines)


class Meter:
    """Counts datagrams, and their times: since the last look, and in all."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.packets = self.foreign = self.unstamped = 0
        self.numbers = SequenceNumbers()
        self.recent, self.total = (Spread(), Spread()), (Spread(), Spread())
        self._last = started, Counts()

    def count(self, datagrams: Iterable[tuple[memoryview, int | None]], now: int) -> None:
        """Count datagrams with the kernel's timestamps; `now` is when they were read."""
        delays: list[int] = []
        waits: list[int] = []
        for data, arrived in datagrams:
            probe = read_probe(data)
            if probe is None:
                self.foreign += 1
                continue
            self.packets += 1
            self.numbers.add(probe.sender, probe.number)
            if arrived is None:
                self.unstamped += 1
                continue
            delays.append(arrived - probe.sent)
            waits.append(now - arrived)
        self.recent[0].add(delays)
        self.recent[1].add(waits)

    def counts(self) -> Counts:
        """Return how many came so far."""
        return Counts(self.packets, self.numbers.missing(), self.foreign, self.unstamped)

    def look(self) -> Look:
        """Return what to show now."""
        times, self.recent = self.recent, (Spread(), Spread())
        for total, spread in zip(self.total, times, strict=True):
            total.merge(spread)
        (then, before), self._last = (
            self._last,
            (anyio.current_time(), self.counts()),
        )
        now, counts = self._last
        return Look(now - then, counts - before, counts, times, self.total)

    def whole(self) -> Look:
        """Return what came since the start."""
        total = self.look().total
        seconds = anyio.current_time() - self.started
        return Look(seconds, total, total, self.total, self.total)
