"""Sending one item into a memory object stream, knowing at the end who has it."""

from __future__ import annotations

import types
from collections.abc import Generator
from typing import Any, Generic, TypeVar

from anyio.streams.memory import MemoryObjectSendStream

_T = TypeVar("_T")


class Handover(Generic[_T]):
    """One send into a memory object stream.

    A cancelled send does not report whether a receiver has taken the item: it may have
    done so after the cancellation, before the sending task ran again. So the send is driven step
    by step. Nobody else runs during a step, so the number of waiting senders, looked at before
    and after it, says whether the item joined their queue, and whether it was still there when
    the send left.

    Attributes:
        taken: Whether a receiver or the stream's buffer has the item, once `send` is over.
    """

    def __init__(self, stream: MemoryObjectSendStream[_T]) -> None:
        self._stream = stream
        self._queued = False
        self.taken = False

    @types.coroutine
    def send(self, item: _T) -> Generator[Any, Any, None]:
        """Do what `MemoryObjectSendStream.send` does."""
        sending = self._stream.send(item)
        del item  # an exception keeps this frame, which must not keep the item
        value = None
        while True:
            before = self._waiting()
            try:
                awaited = sending.send(value)
            except StopIteration:
                self.taken = True
                return
            except BaseException:
                self.taken = self._queued and self._waiting() == before
                raise
            self._queued = self._queued or self._waiting() > before
            try:
                value = yield awaited
            except BaseException:
                # asyncio throws a cancellation in. It stays out of the frames of the send, which
                # has nothing to do but to leave the queue.
                before = self._waiting()
                sending.close()
                self.taken = self._queued and self._waiting() == before
                raise

    def _waiting(self) -> int:
        return self._stream.statistics().tasks_waiting_send
