"""A transport without a loop and without a socket, which is driven by hand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .._compat import ExceptionGroup
from .._packets.packet import Address
from .inbox import Inbox
from .outbox import HEADER, Outbox
from .transport import BatchTransport
from .watch import Watch


class DrivenTransport(BatchTransport):
    """Does what follows from a step of a test, before that step returns.

    Attributes:
        script: The input: ``script.waiting`` takes lists of datagrams, and errors.
        room: Takes what is sent, and knows for how many datagrams there is room.

    Args:
        protocol: Whose methods are called.
        sent: Gets what is sent.
        extra: What `get_extra_info` returns, by name.
    """

    def __init__(
        self,
        protocol: asyncio.BaseProtocol,
        sent: list[tuple[bytes, Address]],
        extra: dict[str, Any],
    ) -> None:
        peer = extra["peername"]
        self.driven: bool = False  # by a call of the test
        self._hand = _Hand(self._soon)
        self.script: _ScriptedInbox = _ScriptedInbox()
        self.room: _ScriptedOutbox = _ScriptedOutbox(sent, peer)
        super().__init__(protocol, self._hand, self.script, self.room, extra, peer, id)
        self._hand.begin()
        self.drive(self.begin)

    # What a protocol does

    def sendto(self, data: bytes | bytearray | memoryview, addr: Address = None) -> None:
        """Send a datagram: what the protocol calls."""
        super().sendto(data, addr)
        self._settle()

    def sendto_many(self, datagrams: Iterable[tuple[Any, Address]]) -> None:
        """Send datagrams: what a protocol that knows of batches calls."""
        super().sendto_many(datagrams)
        self._settle()

    def resume_reading(self) -> None:
        """Receive again what waits: what the protocol calls."""
        super().resume_reading()
        self._settle()

    def close(self) -> None:
        """Close, when what waits is sent."""
        super().close()
        self._settle()

    def abort(self) -> None:
        """Close, and drop what waits."""
        super().abort()
        self._settle()

    @property
    def state(self) -> str:
        """Whether it is "open", "closing" or, when all is done, "closed"."""
        return "closed" if self._over else "closing" if self._closing else "open"

    # In place of a loop

    def end(self, error: BaseException) -> None:
        """End the transport by an error."""
        self.drive(lambda: self._end(error))

    def drive(self, step: Callable[[], None] | None = None) -> None:
        """Do a step, and all that follows from it."""
        outer, self.driven = self.driven, True
        try:
            if step is not None:
                step()
            while self._follow():
                pass
        finally:
            self.driven = outer
        raised = self._hand.raised
        if raised and not outer:
            self._hand.raised = []
            if len(raised) == 1:
                raise raised[0]
            raise ExceptionGroup("a protocol has raised more than once", raised)

    def _follow(self) -> bool:
        """Do one thing that a loop would do now; return whether there was one."""
        if self._hand.soon_calls:
            self._hand.soon_calls.popleft()()
        elif self._hand.reads and (self.script.waiting or self.script.arrived is not None):
            self._read()
        elif self._hand.writes and self.room.room != 0:
            self._write_on()
        else:
            return False
        return True

    def _settle(self) -> None:
        """Let calls that came from outside the test's own calls take effect."""
        if not self.driven and not _loop_runs():
            self.drive()

    def _soon(self) -> None:
        if not self.driven and _loop_runs():
            asyncio.get_running_loop().call_soon(self.drive)


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Hand(Watch):
    """A `Watch` that calls nothing itself."""

    def __init__(self, soon: Callable[[], None]) -> None:
        self.soon_calls: deque[Callable[[], None]] = deque()
        self.raised: list[Any] = []
        self.reads = self.writes = False
        self._notify = soon

    def begin(self) -> None:
        self.reads = True

    def read(self, wanted: bool) -> None:
        self.reads = wanted

    def write(self, wanted: bool) -> None:
        self.writes = wanted

    def note_event(self, brought_something: bool) -> None:
        pass

    def soon(self, function: Callable[[], None]) -> None:
        self.soon_calls.append(function)
        self._notify()

    def run(self, function: Callable[[], None]) -> None:
        function()

    def report(self, context: dict[str, Any]) -> None:
        self.raised.append(context["exception"])

    def is_over(self) -> bool:
        return False

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


class _ScriptedInbox(Inbox):
    def __init__(self) -> None:
        self.arrived = None
        self.rest: Iterator[tuple[bytes, Address]] = iter(())
        self.more = False
        self.waiting: deque[list[tuple[bytes, Address]] | OSError] = deque()

    def receive(self) -> bool:
        if not self.waiting:
            return False
        step = self.waiting.popleft()
        if isinstance(step, OSError):
            raise step
        self.arrived, self.rest = step, iter(step)
        return True


class _ScriptedOutbox(Outbox):
    """Sends into a list.

    Attributes:
        room: For how many datagrams there is room; None for all.
        refusals: The errors of the next datagrams.
    """

    size: int
    full: bool

    def __init__(self, sent: list[tuple[bytes, Address]], peer: Address) -> None:
        self.room: int | None = None
        self.refusals: deque[OSError] = deque()
        self.errors: list[OSError] = []
        self.clear()
        self._sent = sent
        self._peer = peer

    def send(self) -> None:
        self.full = False
        while self._waiting:
            if self.room == 0:
                self.full = True
                return
            data, address = self._waiting.pop(0)
            self.size -= len(data) + HEADER
            if self.refusals:
                self.errors.append(self.refusals.popleft())
                continue
            if self.room is not None:
                self.room -= 1
            self._sent.append((data, self._peer if address is None else address))
