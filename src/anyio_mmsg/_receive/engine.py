"""What every engine promises, which one a batch gets, and what is kept with a batch's slots."""

from __future__ import annotations

import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

from anyio import BusyResourceError

from .._load import module
from .._packets import Slots
from .._system.addresses import ADDRESSES
from .._system.platform import (
    ASK_FOR_FLAGS,
    RECEIVE_FLAGS,
    Recvmmsg,
    Refused,
    family_of,
    why_no_batch_calls,
)
from .outlook import Outlook
from .recvfrom_into import RecvfromInto


class Reader(Protocol):
    """What reads datagrams from a socket, and does not wait.

    Attributes:
        error: The error that ended the last read, or None. EINTR does not count, the call is
            made again. The code that raises it sets this to None, or its frames would live on.
        dry: Whether the last read ended because there were no more packets, or by an error.
    """

    error: OSError | None
    dry: bool


class Engine(Reader, Protocol):
    """Moves datagrams from a socket into one ring's slots. It does not wait.

    Every engine gives the same bytes, lengths, addresses, order and errors.

    Attributes:
        cut: Whether the last `fill` brought a message that is longer than a slot.
        refused: Whether the system refuses the engine's call: it did so twice.
    """

    cut: bool
    refused: bool

    def takes(self, family: int) -> bool:
        """Return whether the engine knows the addresses of a socket's family."""
        ...

    def fill(self, slots: Slots, sock: socket.socket, limit: int) -> int:
        """Read datagrams into free slots, and commit them.

        What the kernel handed over is recorded by the same C-level step, so that no interrupt
        can come between.

        Args:
            slots: The ring; always the same.
            sock: An open datagram socket; it is not waited for, even if it is a blocking one.
            limit: How many messages at most. The free slots are a limit too.

        Returns:
            How many packets were read.

        Raises:
            RuntimeError: Another thread is receiving into the same slots.
            anyio.BusyResourceError: A signal handler called this, and interrupted such a fill.
        """
        ...

    def busy(self) -> bool:
        """Return whether the caller is a signal handler that has interrupted a fill."""
        ...

    def settle(self, slots: Slots) -> None:
        """Commit what an interrupted fill has recorded, if it has."""
        ...


class DatagramReader(Reader, Protocol):
    """What copies datagrams out of a socket, by way of slots that nobody else uses.

    `anyio_mmsg._receive.datagrams._Recvfrom` takes its place where it is unavailable.
    """

    def datagrams(
        self, slots: Slots, sock: socket.socket, limit: int, most: int, record: list[Any]
    ) -> None:
        """Put the datagrams that are there at the end of `record`, and free the slots.

        What was read is in `record` when this returns or raises. Without the memory to copy it,
        it is held.

        Args:
            slots: As for `fill`; nothing is held in them, nor handed out.
            sock: As for `fill`.
            limit: How many messages at most.
            most: Bytes at which a datagram is cut.
            record: Gets ``(bytes, address)`` of each.

        Raises:
            MemoryError: There is not enough memory.
        """
        ...


class FillerFields:
    """What C reads of a `Filler`; the twin is in _compiled/kept.c."""

    __slots__ = ("checked", "engine", "known", "task")

    task: Awaitable[None] | None
    engine: Engine | None
    checked: object
    known: Outlook | None


_Fields = FillerFields
if not TYPE_CHECKING:
    _Fields = getattr(module, "FillerFields", FillerFields)


class Filler(_Fields):
    """What the receive functions keep with the slots of one ring, as `Slots.filler`.

    Attributes:
        task: The coroutine that a task awaits while it receives into them, or None.
        engine: The engine that fills them, None before the first fill.
        engines: The one engine of each kind.
        checked: The last socket that was checked for them, by its `Outlook.options`.
        known: The `Outlook` of the socket that `engine` filled them from last, if nothing was
            amiss; or None. The compiled module need not ask again, see _compiled/again.c.
    """

    __slots__ = ("engines",)

    def __init__(self) -> None:
        self.task = self.engine = self.checked = self.known = None
        self.engines: dict[object, Engine] = {}

    def busy(self, slots: Slots) -> bool:
        """See `anyio_mmsg._packets.batch.Filler`.

        The interpreter knows it: a task's coroutine is running, or suspended in an await. A flag
        could stay set after an interrupt.
        """
        task: Any = self.task
        if task is not None and (task.cr_running or task.cr_await is not None):
            return True
        return self.engine is not None and self.engine.busy()

    def settle(self, slots: Slots) -> None:
        """See `anyio_mmsg._packets.batch.Filler`."""
        if self.engine is not None:
            self.engine.settle(slots)


def filler_of(slots: Slots) -> Filler:
    """Return what is kept with `slots`."""
    if slots.filler is None:
        slots.filler = Filler()
    filler: Filler = slots.filler
    return filler


# Families whose addresses we decode as CPython does; other sockets are left to `recvfrom_into`.
_DECODED = frozenset({socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", None)})


def engine_for(slots: Slots, sock: socket.socket) -> Engine:
    """Give `slots` the engine for `sock`, and return it.

    Raises:
        ValueError: The batch asks for recvmmsg, and it is unavailable.
        anyio.BusyResourceError: Another engine is filling them; a signal handler interrupted it.
    """
    check_engine(slots.engine)
    portable = slots.engine == "recvfrom_into" or Refused.recvmmsg
    engine: Engine
    kind: object = RecvfromInto
    if portable or Recvmmsg is None or family_of(sock) not in _DECODED:
        engine = RecvfromInto(slots, RECEIVE_FLAGS, ASK_FOR_FLAGS)
    else:
        kind, engine = Recvmmsg, batch_engine(slots)
    return adopt(slots, kind, engine)


def batch_engine(slots: Slots) -> Any:
    """Return a new engine for `slots` that calls recvmmsg(2); only where there is `Recvmmsg`."""
    return Recvmmsg(slots, ADDRESSES, _DECODED, slots.ancillary)


def adopt(slots: Slots, kind: object, engine: Engine) -> Engine:
    """Have an engine fill `slots` from now on: the one of its kind that they have, or this one.

    Raises:
        anyio.BusyResourceError: As for `engine_for`.
    """
    filler = filler_of(slots)
    if filler.engine is not None:
        if filler.engine.busy():
            raise BusyResourceError("receiving into")
        filler.engine.settle(slots)
    filler.known = None
    filler.engine = engine = filler.engines.setdefault(kind, engine)
    return engine


def check_engine(name: str) -> None:
    """Raise ValueError if the engine of that name is unavailable."""
    if name == "recvmmsg" and Recvmmsg is None:
        raise ValueError(
            f'engine="recvmmsg" {why_no_batch_calls()}; make the batch with engine="auto", which '
            f"takes the best there is"
        )
