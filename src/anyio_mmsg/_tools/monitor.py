"""What `top` counts: the packets of a receiver, by sender, since the last look and in all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .. import PacketReceiver
from .interval import Interval, Messages
from .senders import TopSenders


@dataclass
class Monitor:
    """The receiver, and the senders of its packets: since the last look, and in all."""

    receiver: PacketReceiver
    limit: int
    by_port: bool
    how_to_quit: str
    messages: Messages | None = None  # with --gro
    recent: TopSenders = field(init=False)
    total: TopSenders = field(init=False)

    def __post_init__(self) -> None:
        self.recent, self.total = TopSenders(self.limit), TopSenders(self.limit)
        self._start = self._last = self.receiver.statistics()

    async def receive(self) -> None:
        """Count what arrives."""
        async for batch in self.receiver:
            with batch:
                if self.messages is not None:
                    count = batch.capacity - batch.free  # each message fills one slot
                    self.messages.recent += count
                    self.messages.total += count
                if self.by_port:
                    senders = [f"{address[0]} {address[1]}" for address in batch.addresses()]
                else:
                    senders = [address[0] for address in batch.addresses()]
                self.recent.add(senders)
                self.total.add(senders)

    def look(self) -> Interval:
        """Return what happened since the last look."""
        before, self._last = self._last, self.receiver.statistics()
        senders, self.recent = self.recent, TopSenders(self.limit)
        messages = None
        if self.messages is not None:
            messages = replace(self.messages)
            self.messages.recent = 0
        return Interval(before, self._last, senders, self.how_to_quit, messages)

    def whole(self) -> Interval:
        """Return what happened since the start."""
        messages = self.messages and Messages(self.messages.total, self.messages.total)
        seen = self.receiver.statistics()
        return Interval(self._start, seen, self.total, self.how_to_quit, messages)
