"""Fill slots by `recvfrom_into`, one call for each packet. The reference: it runs everywhere."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Generator
from itertools import repeat
from types import GeneratorType
from typing import Any, TypeAlias, cast

from anyio import BusyResourceError

from .._packets import Slots
from .._packets.packet import NO_CONTROL, UNKNOWN_WIRE_SIZE, Address, Control
from .._packets.trains import LOST, TrainSlots
from .._system.control import (
    CONTROL_SIZE,
    Ancillary,
    control_of,
    segment_of,
    timestamp_of,
    timestamps_of,
)

WSAEMSGSIZE = 10040
"""Windows' error for a datagram that is longer than the buffer, which it has filled. Elsewhere
no errno is that large; there EMSGSIZE is a real error (a path MTU, ip(7))."""

_Got: TypeAlias = tuple[Any, ...]  # what `recvfrom_into` or `recvmsg_into` returned
_Control: TypeAlias = tuple[list[Ancillary], int]  # of a message, and its flags

_ZEROS, _CONTROL_SIZES = repeat(0), repeat(CONTROL_SIZE)

# Not the flag of `socket`, an enum: to combine it costs as much as all the rest of an attribute.
_MSG_CTRUNC = int(getattr(socket, "MSG_CTRUNC", 0))

_CONTROL_CUT = (
    f"the control data of this packet was cut: it had more than the {CONTROL_SIZE} bytes there "
    f"are; ask the socket for fewer options"
)
_SEGMENT_SIZE_LOST = (
    "the segment size of coalesced packets was cut off: they came with more control data than "
    "there is room for; ask the socket for less"
)


class RecvfromInto:
    """Fills the slots of one ring, a `recvfrom_into` for each packet.

    What the kernel handed over is recorded by the C-level step that read it: a list that is
    extended by ``map(sock.recvfrom_into, ...)`` keeps what came before an exception, whatever
    raises. `settle` commits the record, now or, after an interrupt, at the next use of the batch.

    Where more than sender and length is needed, the call is `recvmsg_into`.

    Args:
        slots: The ring.
        flags: For each call.
        ask_for_flags: Whether the system reports that a datagram was cut in flags that it
            returns, and not by its length.

    Attributes:
        error: What ended the last fill, if it was an error.
        dry: Whether it ended because there were no more packets, or by an error.
        refused: Whether the system refuses the call; never.

    Raises:
        ValueError: The slots are for control data or trains, and the platform has no
            `recvmsg_into`.
    """

    refused = False

    def __init__(self, slots: Slots, flags: int = 0, ask_for_flags: bool = False) -> None:
        view = memoryview(slots.memory)
        starts = range(0, len(view), slots.slot_size)
        self._memory = [view[start : start + slots.slot_size] for start in starts]
        self._addresses: list[Address] = [None] * slots.capacity  # by slot
        self._controls: list[_Control] = [([], 0)] * slots.capacity  # by slot
        # By slot: what it was decoded to, beside what was decoded.
        self._decoded: list[tuple[list[Ancillary], Control]] = [([], Control())] * slots.capacity
        self._flags = repeat(flags)
        self._ask_for_flags = ask_for_flags
        self._ancillary, self._gro = slots.ancillary, slots.gro
        self._by_message = ask_for_flags or slots.ancillary or slots.gro
        if self._by_message and not hasattr(socket.socket, "recvmsg_into"):
            raise ValueError(
                "this platform has no recvmsg_into; make the batch without gro and ancillary"
            )
        self._guard = _Guard()
        self.error: OSError | None = None
        self.dry = False

    def takes(self, family: int) -> bool:
        """See `anyio_mmsg._receive.engine.Engine`."""
        return True

    def fill(self, slots: Slots, sock: socket.socket, limit: int) -> int:
        """See `anyio_mmsg._receive.engine.Engine`."""
        taken: int = self._alone(self._fill, slots, sock, limit)
        return taken

    def settle(self, slots: Slots) -> None:
        """See `anyio_mmsg._receive.engine.Engine`."""
        with contextlib.suppress(BusyResourceError):  # a signal handler asks, during a fill
            self._alone(self._settle, slots)

    @property
    def busy(self) -> bool:
        """Whether a fill is going on: in another thread, or interrupted by a signal handler."""
        return self._newest_guard().turns.gi_running

    def addresses(self, first: int, count: int) -> list[Address]:
        """See `anyio_mmsg._packets.source.Source`."""
        return self._addresses[first : first + count]

    def timestamp(self, slot: int) -> int | None:
        """See `anyio_mmsg._packets.source.Source`."""
        messages, flags = self._controls[slot]
        if not self._ancillary or flags & _MSG_CTRUNC:
            raise self._why_no_control()
        return timestamp_of(messages[0]) if messages else None

    def timestamps(self, first: int, count: int) -> list[int | None]:
        """See `anyio_mmsg._packets.source.Source`."""
        messages, flags = zip(*self._controls[first : first + count])  # noqa: B905
        if not self._ancillary or any(map(_MSG_CTRUNC.__and__, flags)):
            raise self._why_no_control()
        return timestamps_of(messages)

    def control(self, slot: int) -> Control:
        """See `anyio_mmsg._packets.source.Source`."""
        messages, flags = self._controls[slot]
        if not self._ancillary or flags & _MSG_CTRUNC:
            raise self._why_no_control()
        decoded = self._decoded[slot]
        if decoded[0] is not messages:
            self._decoded[slot] = decoded = messages, control_of(messages)
        return decoded[1]

    def _why_no_control(self) -> ValueError:
        return ValueError(_CONTROL_CUT if self._ancillary else NO_CONTROL)

    def _alone(self, step: Callable[..., Any], *args: Any) -> Any:
        """Do a step, unless another is going on: in a thread, or interrupted by a signal handler.

        A generator can't be entered twice, whatever raises: the interpreter prevents it.
        """
        while True:
            try:
                return self._guard.turns.send((step, args))
            except StopIteration:  # an exception has ended it
                self._guard = self._newest_guard()
            except ValueError as error:
                if str(error) != "generator already executing":
                    raise
                raise BusyResourceError("receiving into") from error

    def _newest_guard(self) -> _Guard:
        """Return the guard that has not ended. Threads that ask at once get the same one."""
        guard = self._guard
        while guard.turns.gi_frame is None:
            guard = guard.successor()
        return guard

    def _fill(self, slots: Slots, sock: socket.socket, limit: int) -> int:
        self.error, self.dry = None, False
        while True:
            slots.plug(self)  # again, if a signal handler has plugged another one
            if slots.record is not None:
                self._settle(slots)
            slots.record = slots.tail, 0, []  # while there is one, no other engine is plugged
            if slots.source is self:  # no thread has come in between
                break
            slots.record = None
        taken, held = 0, slots.held
        while taken < limit and not self.dry:
            first, count = slots.free_run(limit - taken)
            if not count:
                break
            got: list[_Got] = []
            slots.record = slots.tail, first, got
            self._read(sock, first, count, got)
            taken += len(got)
            self.dry = len(got) < count
            if got:
                self._settle(slots)
        return slots.held - held

    def _read(self, sock: socket.socket, first: int, count: int, got: list[_Got]) -> None:
        """Read into a run of free slots until all are filled, or nothing more can be read."""
        while len(got) < count:
            memory = self._memory[first + len(got) : first + count]
            try:
                if self._by_message:  # zip makes of each a list of one buffer
                    got.extend(map(sock.recvmsg_into, zip(memory), _CONTROL_SIZES, self._flags))
                else:
                    got.extend(map(sock.recvfrom_into, memory, _ZEROS, self._flags))
            except BlockingIOError:
                return
            except InterruptedError:
                continue
            except OSError as error:
                if WSAEMSGSIZE in (error.errno, getattr(error, "winerror", None)):
                    cut: _Got = (UNKNOWN_WIRE_SIZE, [], 0, None)
                    got.append(cut if self._by_message else cut[::3])
                    continue
                self.error = error.with_traceback(None)  # whose frames hold the socket
                return

    def _settle(self, slots: Slots) -> None:
        """Commit what was recorded."""
        if slots.record is not None:
            tail, first, got = slots.record
            if got and tail == slots.tail:  # else an interrupt came after the commit
                run = slice(first, first + len(got))
                if self._by_message:
                    self._settle_messages(slots, run, *zip(*got))  # noqa: B905
                else:
                    sizes, self._addresses[run] = zip(*got)  # noqa: B905
                    slots.commit(list(sizes))
            slots.record = None

    def _settle_messages(
        self, slots: Slots, run: slice, sizes: Any, messages: Any, flags: Any, addresses: Any
    ) -> None:
        sizes = list(sizes)
        if self._ask_for_flags:
            cut = [bool(seen & socket.MSG_TRUNC) for seen in flags]
            sizes = [UNKNOWN_WIRE_SIZE if c else size for c, size in zip(cut, sizes)]  # noqa: B905
        self._addresses[run] = addresses
        self._controls[run] = zip(messages, flags)  # noqa: B905
        if not self._gro:
            slots.commit(sizes)
            return
        found = [
            segment_of(control, bool(seen & _MSG_CTRUNC)) for control, seen in self._controls[run]
        ]
        segments = [LOST if segment is None else segment for segment in found]
        if LOST in segments:
            self.dry, self.error = True, OSError(errno.EMSGSIZE, _SEGMENT_SIZE_LOST)
        cast(TrainSlots, slots).commit(sizes, segments)


class _Guard:
    """What lets one in at a time: a generator, until an exception ends it.

    Attributes:
        turns: The generator.
    """

    __slots__ = ("_successors", "turns")

    def __init__(self) -> None:
        self.turns = cast("GeneratorType[Any, Any, None]", _turns())
        next(self.turns)
        self._successors: list[_Guard] = []

    def successor(self) -> _Guard:
        """Return the one guard that comes after this one.

        Threads may add several. The first one counts, for all of them, whenever they ask: even a
        thread that was stopped here while others went on finds its way to the newest one.
        """
        if not self._successors:
            self._successors.append(_Guard())
        return self._successors[0]


def _turns() -> Generator[Any, tuple[Callable[..., Any], tuple[Any, ...]], None]:
    result = None
    while True:
        step, args = yield result
        result = step(*args)
        del step, args  # or they would live until the next step
