"""What every engine promises, and which one a batch gets."""

from __future__ import annotations

import socket
from typing import Protocol

from anyio import BusyResourceError

from .._packets import Slots
from .._packets.source import Source
from .._system.addresses import ADDRESSES
from .._system.control import CONTROLS
from .._system.platform import (
    ASK_FOR_FLAGS,
    RECEIVE_FLAGS,
    Recvmmsg,
    Refused,
    family_of,
    why_no_batch_calls,
)
from .recvfrom_into import RecvfromInto


class Engine(Source, Protocol):
    """Moves datagrams from a socket into one ring's slots. It does not wait.

    Every engine gives the same bytes, lengths, addresses, order and errors.

    Attributes:
        error: The error that ended the last `fill`, or None. EINTR does not count, the call is
            made again. The code that raises it sets this to None, or its frames would live on.
        dry: Whether the last `fill` ended because there were no more packets, or by an error.
        refused: Whether the system refuses the engine's call, which it has been asked twice.
    """

    error: OSError | None
    dry: bool
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
            anyio.BusyResourceError: The code that a signal handler has interrupted is doing so.
        """
        ...

    def settle(self, slots: Slots) -> None:
        """Commit what an interrupted fill has recorded, if it has."""
        ...


# Families whose addresses we decode as CPython does; the others' are left to `recvfrom_into`.
_DECODED = frozenset({socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", None)})


def engine_for(slots: Slots, sock: socket.socket) -> Engine:
    """Give `slots` the engine for `sock`, and return it.

    Raises:
        ValueError: The batch asks for recvmmsg, and it is unavailable.
        anyio.BusyResourceError: Another engine is filling them; a signal handler interrupted it.
    """
    check_engine(slots.engine)
    ensure_settled(slots)
    portable = slots.engine == "recvfrom_into" or Refused.recvmmsg
    engine: Engine
    kind: object = RecvfromInto
    if portable or Recvmmsg is None or family_of(sock) not in _DECODED:
        engine = RecvfromInto(slots, RECEIVE_FLAGS, ASK_FOR_FLAGS)
    else:
        kind, engine = Recvmmsg, Recvmmsg(slots, ADDRESSES, _DECODED, CONTROLS, slots.ancillary)
    # Two threads may come here at once. An engine lets one of them in at a time, so there is one.
    engine = slots.engines.setdefault(kind, engine)
    slots.plug(engine)
    return engine


def ensure_settled(slots: Slots) -> None:
    """Commit what an interrupted fill has recorded, before another engine fills.

    Raises:
        anyio.BusyResourceError: An engine is filling them; a signal handler interrupted it.
    """
    if getattr(slots.source, "busy", False):
        raise BusyResourceError("receiving into")
    if slots.record is not None:
        slots.source.settle(slots)


def check_engine(name: str) -> None:
    """Raise ValueError if the engine of that name is unavailable."""
    if name == "recvmmsg" and Recvmmsg is None:
        raise ValueError(
            f'engine="recvmmsg" {why_no_batch_calls()}; make the batch with engine="auto", which '
            f"takes the best there is"
        )
