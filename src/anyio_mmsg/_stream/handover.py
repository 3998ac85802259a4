"""Sending one item into a memory object stream, knowing at the end who has the item."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Generator
from typing import Any, Generic, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectSendStream

_T = TypeVar("_T")


class Handover(Generic[_T]):
    """One send into a memory object stream.

    A cancelled send does not report whether a receiver has taken the item: that may have happened
    after the cancellation, before the sending task ran again. So the send is driven step by step.
    Nobody else runs during a step, so the number of waiting senders before and after it says
    whether the item joined their queue, and whether it was still there when the send left.

    What a step awaits has to reach the event loop: Trio has already noted that the task waits. So
    if a signal handler raises between two steps, the wait is first ended by a cancel scope.

    Attributes:
        taken: Whether a receiver or the stream's buffer has the item, once `send` is over.
    """

    def __init__(self, stream: MemoryObjectSendStream[_T]) -> None:
        self._stream = stream
        self._queued = False
        self.taken = False

    async def send(self, item: _T) -> None:
        """Do what `MemoryObjectSendStream.send` does."""
        sending = self._stream.send(item)
        del item  # an exception keeps this frame, which must not keep the item
        # At most one. In a queue, since an interrupt may come before a result is stored.
        awaited: deque[object] = deque()
        try:
            await self._steps(sending, awaited)
        except BaseException as error:
            if not awaited:
                raise
            interrupt = error
        else:
            return
        try:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await self._steps(sending, awaited)
            raise interrupt
        finally:
            del interrupt

    @types.coroutine
    def _steps(self, sending: Any, awaited: deque[object]) -> Generator[Any, Any, None]:
        value = None
        while True:
            before = self._waiting()
            if not awaited:
                try:
                    awaited.extend(map(sending.send, (value,)))
                except BaseException:
                    self.taken = self._queued and self._waiting() == before
                    raise
                if not awaited:  # the send is over
                    self.taken = True
                    return
                self._queued = self._queued or self._waiting() > before
            try:
                value = yield awaited[0]
                awaited.clear()
            except BaseException:
                awaited.clear()
                # asyncio throws a cancellation in. It stays out of the frames of the send, which
                # has nothing to do but to leave the queue.
                before = self._waiting()
                sending.close()
                self.taken = self._queued and self._waiting() == before
                raise

    def _waiting(self) -> int:
        return self._stream.statistics().tasks_waiting_send
