"""Fill slots by `recvfrom_into`, one call for each packet. The reference: it runs everywhere."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from array import array
from collections.abc import Generator, Sequence
from itertools import repeat
from typing import Any, TypeAlias

from anyio import BusyResourceError

from .._packets import Slots
from .._packets.packet import UNKNOWN_WIRE_SIZE, Control
from .._packets.slots import LOST
from .._system.control import (
    CONTROL_SIZE,
    Ancillary,
    control_of,
    segment_of,
)
from .._system.platform import family_of, hides_cuts
from .._system.stamps import arrival_of, arrivals_of, hardware_of

WSAEMSGSIZE = 10040
"""Windows' error for a datagram that is longer than the buffer, which it has filled. Elsewhere
no errno is that large; there EMSGSIZE is a real error (a path MTU, ip(7))."""

_Got: TypeAlias = tuple[Any, ...]  # what `recvfrom_into` or `recvmsg_into` returned
_Control: TypeAlias = tuple[Any, list[Ancillary], int]  # `_DECODER`, of a message, and its flags

_ZEROS, _CONTROL_SIZES = repeat(0), repeat(CONTROL_SIZE)

# Not the flags of `socket`, enums: to combine one costs as much as all the rest of an attribute.
_MSG_CTRUNC = int(getattr(socket, "MSG_CTRUNC", 0))
_MSG_TRUNC = int(getattr(socket, "MSG_TRUNC", 0))

_UNIX = getattr(socket, "AF_UNIX", None)

_OF_A_MESSAGE = 4
"""Items of what `recvmsg_into` returns."""

_CONTROL_CUT = (
    f"the control data of this packet was cut: it had more than the {CONTROL_SIZE} bytes there "
    f"are; ask the socket for fewer options"
)
SEGMENT_SIZE_LOST = (
    "the segment size of coalesced packets was cut off: they came with more control data than "
    "there is room for; ask the socket for less"
)


class _Decoder:
    """See `anyio_mmsg._packets.packet.Decoder`."""

    def __init__(self) -> None:
        self._last: tuple[list[Ancillary], Control] = [], Control()  # decoded, and to what

    def timestamp(self, control: _Control) -> int | None:
        _, messages, flags = control
        if flags & _MSG_CTRUNC:
            raise ValueError(_CONTROL_CUT)
        return arrival_of(messages)

    def hardware_timestamp(self, control: _Control) -> int | None:
        _, messages, flags = control
        if flags & _MSG_CTRUNC:
            raise ValueError(_CONTROL_CUT)
        return hardware_of(messages)

    def timestamps(self, controls: Sequence[_Control]) -> list[int | None]:
        _, messages, flags = zip(*controls)  # noqa: B905
        if any(map(_MSG_CTRUNC.__and__, flags)):
            raise ValueError(_CONTROL_CUT)
        return arrivals_of(messages)

    def control(self, control: _Control) -> Control:
        _, messages, flags = control
        if flags & _MSG_CTRUNC:
            raise ValueError(_CONTROL_CUT)
        last = self._last  # of several attributes of a packet the first one decodes
        if last[0] is not messages:
            self._last = last = messages, control_of(messages)
        return last[1]


_DECODER = _Decoder()


class RecvfromInto:
    """Fills the slots of one ring, a `recvfrom_into` for each packet.

    What the kernel handed over is recorded by the C-level step that read it: a list that is
    extended by ``map(sock.recvfrom_into, ...)`` keeps what came before an exception, whatever
    raises. `settle` commits the record, now or, after an interrupt, at the next receive.

    Where more than sender and length is needed, the call is `recvmsg_into`.

    Args:
        slots: The ring.
        flags: For each call.
        ask_for_flags: Whether the system reports that a datagram was cut in flags that it
            returns, and not by its length.

    Attributes:
        by_message: Whether the slots want more than sender and length.
        error: What ended the last fill, if it was an error.
        cut: Whether it brought a message that is longer than a slot.
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
        self._flags = repeat(flags)
        self.by_message = ask_for_flags or slots.ancillary or slots.gro
        if self.by_message and not hasattr(socket.socket, "recvmsg_into"):
            raise ValueError(
                "this platform has no recvmsg_into; make the batch without gro and ancillary"
            )
        self._filling: Any = None  # the last call of `_fill`
        # The number of the first message that was read and not committed; and what was read.
        self._record: tuple[int, list[_Got]] = (0, [])
        self.error: OSError | None = None
        self.cut = self.dry = False

    def takes(self, family: int) -> bool:
        """See `anyio_mmsg._receive.engine.Engine`."""
        return True

    def fill(self, slots: Slots, sock: socket.socket, limit: int) -> int:
        """See `anyio_mmsg._receive.engine.Engine`."""
        if self.busy():
            raise BusyResourceError("receiving into")
        self._filling = filling = self._fill(slots, sock, limit)
        (taken,) = filling
        return taken

    def busy(self) -> bool:
        """See `anyio_mmsg._receive.engine.Engine`.

        The interpreter knows it: the generator is running. A flag could stay set.
        """
        return self._filling is not None and self._filling.gi_running

    def settle(self, slots: Slots) -> None:
        """See `anyio_mmsg._receive.engine.Engine`."""
        tail, got = self._record
        if got and tail == slots.tail:  # else an interrupt came after the commit
            if len(got[0]) == _OF_A_MESSAGE:
                self._commit_messages(slots, *zip(*got))  # noqa: B905
            else:
                sizes, addresses = zip(*got)  # noqa: B905
                slots.commit(list(sizes), addresses)
                self.cut = self.cut or max(sizes) > slots.slot_size
        self._record = 0, []

    def _fill(self, slots: Slots, sock: socket.socket, limit: int) -> Generator[int, None, None]:
        """Yield the result of `fill`: a generator, so that `busy` can ask the interpreter."""
        self.error, self.cut, self.dry = None, False, False
        if self._record[1]:
            self.settle(slots)
        by_message = self.asks_by_message(sock)
        taken, held = 0, slots.held if slots.gro else 0
        while taken < limit and not self.dry:
            first, count = slots.free_run(limit - taken)
            if not count:
                break
            got: list[_Got] = []
            self._record = slots.tail, got
            try:
                self._read(sock, first, count, got, by_message)
            finally:  # whatever was raised; if this is interrupted too, the next receive does it
                if by_message and isinstance(sock, socket.socket) and family_of(sock) == _UNIX:
                    _close_files(got)
                self.settle(slots)
            taken += len(got)
            self.dry = self.dry or len(got) < count
        yield slots.held - held if slots.gro else taken

    def asks_by_message(self, sock: socket.socket) -> bool:
        """Return whether a socket has to be read by `recvmsg_into`."""
        return self.by_message or hides_cuts(sock)

    def _read(
        self, sock: socket.socket, first: int, count: int, got: list[_Got], by_message: bool
    ) -> None:
        """Read into a run of free slots until all are filled, or nothing more can be read."""
        while len(got) < count:
            memory = self._memory[first + len(got) : first + count]
            try:
                if by_message:  # zip makes of each a list of one buffer
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
                    got.append(cut if by_message else cut[::3])
                    continue
                self.error = error.with_traceback(None)  # whose frames hold the socket
                return

    def _commit_messages(
        self, slots: Slots, sizes: Any, messages: Any, flags: Any, addresses: Any
    ) -> None:
        sizes = [
            UNKNOWN_WIRE_SIZE if seen & _MSG_TRUNC and size <= slots.slot_size else size
            for size, seen in zip(sizes, flags)  # noqa: B905
        ]
        self.cut = self.cut or max(sizes) > slots.slot_size
        controls = zip(repeat(_DECODER), messages, flags) if slots.ancillary else None
        if not slots.gro:
            slots.commit(sizes, addresses, controls)
            return
        found = [
            segment_of(control, bool(seen & _MSG_CTRUNC))
            for control, seen in zip(messages, flags)  # noqa: B905
        ]
        segments = [LOST if segment is None else segment for segment in found]
        if LOST in segments:
            self.dry, self.error = True, OSError(errno.EMSGSIZE, SEGMENT_SIZE_LOST)
        slots.commit(sizes, addresses, controls, segments)


def _close_files(got: list[_Got]) -> None:
    """Close the files that came with messages of a unix socket, once.

    Nobody here asks for them, and the system has opened them. An interrupt may leave one open.
    """
    for _, messages, *_ in got:
        for message in messages[:]:
            level, kind, data = message
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                messages.remove(message)
                files = array("i", data[: len(data) - len(data) % array("i").itemsize])
                for file in files:
                    with contextlib.suppress(OSError):
                        os.close(file)
