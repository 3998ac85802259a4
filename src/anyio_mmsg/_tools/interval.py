"""What `top` saw between two looks: as figures, a line, a table, JSON, and a summary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import ReceiverStatistics, StatisticsDelta
from .senders import TopSenders
from .showing import losses

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 10  # senders


@dataclass
class Messages:
    """How many messages of the kernel the packets came in: since the last look, and in all."""

    recent: int = 0
    total: int = 0


@dataclass
class Interval:
    """What happened between two looks, or in all."""

    before: ReceiverStatistics
    now: ReceiverStatistics
    senders: TopSenders
    how_to_quit: str
    messages: Messages | None = None  # with --gro

    @property
    def seen(self) -> StatisticsDelta:
        """What the receiver has seen in it."""
        return self.now - self.before

    def figures(self) -> dict[str, str]:
        """Return the figures to show, by name."""
        seen, used, size = self.seen, self.now.buffer_used, self.now.buffer_size
        rates = seen.per_second()
        figures = {
            "packets/s": f"{rates['packets']:,.0f}",
            "Mbit/s": f"{rates['bytes'] * 8 / 1e6:,.3f}",
            "dropped by kernel/s": f"{rates.get('dropped_by_kernel', 0):,.0f}",
            "packets a batch": f"{seen.packets_per_batch:.1f}",
            "full batches": f"{100 * seen.full_batches / max(1, seen.batches):.0f} %",
            "kernel's buffer": "-" if used is None or not size else f"{100 * used / size:.0f} %",
            "truncated": f"{self.now.truncated:,}",
        }
        if self.messages is not None:
            figures["packets a message"] = f"{seen.packets / max(1, self.messages.recent):.1f}"
        return figures

    def line(self) -> str:
        """Return it for a log."""
        first = self.senders.counts.most_common(1)
        top = f", top {first[0][0]}" if first else ""
        came = "" if self.messages is None else f" in {self.messages.total:,} messages"
        total = f"{self.now.packets:,} packets{came}, {self.dropped()} dropped by kernel"
        return ", ".join(f"{name} {value}" for name, value in self.figures().items()) + (
            f"{top}; in all {total}"
        )

    def dropped(self) -> str:
        """Return how many packets the kernel dropped, if the system counts them."""
        count = self.now.dropped_by_kernel
        if count is None:
            return "unknown"
        at_least = "at least " if count and self.messages is not None else ""
        return f"{at_least}{count:,}"  # it counts a train as one

    def table(self) -> Table:
        """Return it for a terminal, of 60 columns or more."""
        from rich.columns import Columns
        from rich.table import Table

        figures, senders = Table.grid(padding=(0, 1)), Table(box=None, padding=(0, 2, 0, 0))
        values = {**self.figures(), "packets in all": f"{self.now.packets:,}"}
        if self.messages is not None:
            values["messages in all"] = f"{self.messages.total:,}"
        values["dropped by kernel"] = self.dropped()
        for name, value in values.items():
            figures.add_row(f"[bold]{value}", name)
        figures.columns[0].justify = "right"
        figures.columns[0].no_wrap = figures.columns[1].no_wrap = True
        senders.add_column("top senders", overflow="fold")
        senders.add_column("packets/s", justify="right", no_wrap=True)
        senders.add_column("share", justify="right", no_wrap=True)
        seen = self.seen
        for who, count in self.senders.counts.most_common(SHOWN):
            share, rate = 100 * count / max(1, seen.packets), count / max(seen.seconds, 1e-9)
            senders.add_row(who, f"{rate:,.0f}", f"{share:.1f} %")
        screen = Table.grid()
        # Side by side if there is room, else one below the other.
        screen.add_row(Columns([figures, senders], padding=(1, 3)))
        screen.add_row(f"[dim]{self.how_to_quit}")
        return screen

    def fields(self) -> dict[str, Any]:
        """Return it for programs. Counts are those of the interval."""
        seen = self.seen
        rates = seen.per_second()
        return {
            "seconds": round(seen.seconds, 6),
            "packets": seen.packets,
            "bytes": seen.bytes,
            "packets_per_second": round(rates["packets"], 3),
            "bits_per_second": round(8 * rates["bytes"], 3),
            "messages": self.messages and self.messages.recent,
            "batches": seen.batches,
            "full_batches": seen.full_batches,
            "truncated": seen.truncated,
            "dropped_by_kernel": seen.dropped_by_kernel,
            "buffer_used": self.now.buffer_used,
            "buffer_size": self.now.buffer_size,
            "senders": list(self.top_senders()),
            "senders_too_low": self.senders.too_low,
        }

    def top_senders(self) -> Iterator[dict[str, Any]]:
        """Give the top senders for programs: a host, its port if ports count, its packets."""
        for who, count in self.senders.counts.most_common(SHOWN):
            host, _, port = who.partition(" ")
            yield {"host": host, **({"port": int(port)} if port else {}), "packets": count}

    def summary(self) -> str:
        """Return it for the end of a run; it has to be of all that was seen."""
        seen, rates = self.now, self.seen.per_second()
        lines = [
            f"{self.seen.seconds:.1f} s: {seen.packets:,} packets, {seen.bytes:,} bytes "
            f"({rates['packets']:,.0f} packets/s, {rates['bytes'] * 8 / 1e6:,.3f} Mbit/s)",
            f"{losses(seen)}, truncated {seen.truncated:,}, "
            f"packets a batch {seen.packets / max(1, seen.batches):.1f}, "
            f"the largest {seen.largest_batch}",
        ]
        if self.messages is not None:
            lines.append(
                f"came in {self.messages.total:,} messages, "
                f"{seen.packets / max(1, self.messages.total):.1f} packets each"
                + ("; a dropped train counts as one packet" if seen.dropped_by_kernel else "")
            )
        lines.append(
            f"top senders of {len(self.senders.counts):,} in the table; "
            f"each sent up to {self.senders.too_low:,} packets more than it says"
        )
        for who, count in self.senders.counts.most_common(SHOWN):
            lines.append(f"{count:>12,}  {100 * count / max(1, seen.packets):5.1f} %  {who}")
        return "\n".join(lines)
