"""Waking asyncio's loop when a signal comes.

Python runs a handler between two bytecodes of the main thread. A signal ends the system call in
which that thread sleeps. But one that comes just before the call, or that the system gives to
another thread, ends none. Then its handler waits until something else wakes the loop, on a quiet
socket for ever. `signal.set_wakeup_fd` is there for that. Trio and uvloop set such a descriptor
when they start, asyncio's selector loop only for its own `add_signal_handler`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

from .._compat import asyncio_loop

if TYPE_CHECKING:
    import asyncio


_ours: list[int] = []  # the descriptors that blocks of `stop_on` have set


class SignalWakeup:
    """Has each signal wake the running event loop, if nothing else does. In the main thread.

    Whatever a signal's handler interrupts here, `end` undoes, called once more if need be.
    """

    def __init__(self) -> None:
        # Where signals are read and written, and whose reader that is.
        self._ends: tuple[socket.socket, socket.socket, asyncio.AbstractEventLoop] | None = None

    def begin(self) -> None:
        """Wake the loop from now on.

        Raises:
            OSError: The system has no descriptor left.
        """
        loop = asyncio_loop()
        if loop is None or not isinstance(loop, sys.modules["asyncio"].SelectorEventLoop):
            return
        reads, writes = socket.socketpair()
        self._ends = reads, writes, loop
        reads.setblocking(False)
        writes.setblocking(False)
        loop.add_reader(reads, self._read)
        _ours.append(writes.fileno())
        before = _set(writes.fileno())
        if before not in (-1, *_ours):  # the loop's own, or somebody's
            self._give_back(before)

    def end(self) -> None:
        """Wake the loop no more."""
        if self._ends is None:
            return
        reads, writes, loop = self._ends
        mine = writes.fileno()
        if mine in _ours:
            others = [number for number in _ours if number != mine]
            now = _set(mine)
            if now == mine:
                _set(others[-1] if others else -1)
            else:
                self._give_back(now)
            _ours[:] = others
        if reads.fileno() != -1:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.remove_reader(reads)
        reads.close()
        writes.close()
        self._ends = None

    def _give_back(self, number: int) -> None:
        """Set the descriptor that ours has replaced, and write to it what has come meanwhile."""
        _set(number)
        signals = self._read()
        if signals and number != -1:
            with contextlib.suppress(OSError):
                os.write(number, signals)

    def _read(self) -> bytes:
        """Take the numbers of signals that came. Their handlers run by themselves."""
        assert self._ends is not None
        try:
            return self._ends[0].recv(4096)
        except BlockingIOError:
            return b""


def _set(number: int) -> int:
    """Have the number of each signal written to a descriptor; return the one before, or -1."""
    return signal.set_wakeup_fd(number, warn_on_full_buffer=False)
