"""Fill slots by `recvfrom_into`, a call for a packet. The reference: it runs everywhere."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Generator
from functools import partial
from itertools import repeat
from types import GeneratorType
from typing import Any, TypeAlias, cast

from anyio import BusyResourceError

from .._packets import Slots
from .._packets.packet import UNKNOWN_WIRE_SIZE, Address

WSAEMSGSIZE = 10040
"""Windows' error for a datagram that is longer than the buffer, which it has filled. Elsewhere
no errno is that large; EMSGSIZE itself is a real error there (a path MTU, ip(7))."""

_Got: TypeAlias = tuple[int, Address]  # a datagram's length as sent, and its sender

_ZEROS = repeat(0)


class RecvfromInto:
    """Fills the slots of one ring, a `recvfrom_into` for each packet.

    What the kernel handed over is recorded by the C-level step that read it: a list that is
    extended by ``map(sock.recvfrom_into, ...)`` keeps what came before an exception, whatever
    raises. `settle` commits the record, now or, after an interrupt, at the next use of the batch.

    Args:
        slots: The ring.
        flags: For each call.
        ask_for_flags: Read by `recvmsg_into`, which reports that a datagram was cut, but not
            its length.

    Attributes:
        error: What ended the last fill, if it was an error.
        refused: Whether the system refuses the call; never.
    """

    refused = False

    def __init__(self, slots: Slots, flags: int = 0, ask_for_flags: bool = False) -> None:
        view = memoryview(slots.memory)
        starts = range(0, len(view), slots.slot_size)
        self._memory = [view[start : start + slots.slot_size] for start in starts]
        self._addresses: list[Address] = [None] * slots.capacity  # by slot
        self._flags = repeat(flags)
        self._ask_for_flags = ask_for_flags
        self._turns = _start()
        self.error: OSError | None = None

    def takes(self, family: int) -> bool:
        """See `anyio_mmsg._receive.engine.Engine`."""
        return True

    def fill(self, slots: Slots, sock: socket.socket, limit: int) -> int:
        """See `anyio_mmsg._receive.engine.Engine`."""
        taken: int = self._alone(self._fill, slots, sock, limit)
        return taken

    def settle(self, slots: Slots) -> None:
        """See `anyio_mmsg._receive.engine.Engine`."""
        with contextlib.suppress(BusyResourceError):  # a signal's handler asks, during a fill
            self._alone(self._settle, slots)

    def addresses(self, first: int, count: int) -> list[Address]:
        """See `anyio_mmsg._packets.slots.Source`."""
        return self._addresses[first : first + count]

    def _alone(self, step: Callable[..., Any], *args: Any) -> Any:
        """Do a step, unless another one is being done: by a thread, or beneath a signal's handler.

        A generator can't be entered twice, whatever raises where: the interpreter sees to it.
        """
        while True:
            try:
                return self._turns.send((step, args))
            except StopIteration:  # an exception ended it
                self._turns = _start()
            except ValueError as error:
                if not self._turns.gi_running:
                    raise
                raise BusyResourceError("receiving into") from error

    def _fill(self, slots: Slots, sock: socket.socket, limit: int) -> int:
        self.error = None
        if slots.record is not None:
            self._settle(slots)
        taken = 0
        while taken < limit:
            first, count = slots.free_run(limit - taken)
            if not count:
                break
            got: list[_Got] = []
            slots.record = slots.tail, first, got
            self._read(sock, first, count, got)
            if got:
                self._settle(slots)
                taken += len(got)
            if len(got) < count:
                break
        return taken

    def _read(self, sock: socket.socket, first: int, count: int, got: list[_Got]) -> None:
        """Read into a run of free slots until all are filled, or nothing more can be read."""
        read = partial(_with_flags, sock) if self._ask_for_flags else sock.recvfrom_into
        while len(got) < count:
            memory = self._memory[first + len(got) : first + count]
            try:
                got.extend(map(read, memory, _ZEROS, self._flags))
            except BlockingIOError:
                return
            except InterruptedError:
                continue
            except OSError as error:
                if WSAEMSGSIZE in (error.errno, getattr(error, "winerror", None)):
                    got.append((UNKNOWN_WIRE_SIZE, None))
                    continue
                self.error = error.with_traceback(None)  # whose frames hold the socket
                return

    def _settle(self, slots: Slots) -> None:
        """Commit what was recorded."""
        if slots.record is not None:
            tail, first, got = slots.record
            if got and tail == slots.tail:  # else an interrupt came after the commit
                sizes, self._addresses[first : first + len(got)] = zip(*got)  # noqa: B905
                slots.commit(list(sizes))
            slots.record = None


def _with_flags(sock: socket.socket, memory: memoryview, nbytes: int, flags: int) -> _Got:
    size, _, seen, address = sock.recvmsg_into([memory], 0, flags)
    return UNKNOWN_WIRE_SIZE if seen & socket.MSG_TRUNC else size, address


def _turns() -> Generator[Any, tuple[Callable[..., Any], tuple[Any, ...]], None]:
    result = None
    while True:
        step, args = yield result
        result = step(*args)
        del step, args  # or they would live until the next step


def _start() -> GeneratorType[Any, Any, None]:
    turns = cast("GeneratorType[Any, Any, None]", _turns())
    next(turns)
    return turns
