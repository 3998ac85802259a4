"""`ScriptedReceiver`: a receiver whose packets, errors and end are written down before."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Literal, cast

from anyio import CancelScope, WouldBlock

from .._compat import checkpoint
from .._packets import Slots
from .._packets.batch import settle
from .._stream.pool import PacketBatchPool
from .._stream.receiver import PacketReceiver
from .._system.memory import Discarded, SocketMemory
from ._batches import play
from ._datagrams import messages_for
from ._steps import (
    READY,
    Arrival,
    Dropped,
    Event,
    Ready,
    Step,
    checked,
    is_event,
    step_named,
    wait_for,
)


class ScriptedReceiver(PacketReceiver):
    """A `PacketReceiver` without a socket, which plays a script.

    All that a receiver promises holds here too, since it is one: batches come from its pool and
    go back to it, `receive` is a checkpoint, errors that pass are counted, `stop` and `aclose`
    end it, `statistics` says what became of each packet. `feed` takes it, and so does code that
    asks for a `PacketReceiver`::

        async def count(receiver: PacketReceiver) -> int:
            packets = 0
            async for batch in receiver:
                with batch:
                    packets += len(batch)
            return packets

        async def main() -> None:
            ready = anyio.Event()
            receiver = ScriptedReceiver([[b"a", b"b"], ready, [b"c"]])
            ready.set()
            assert await count(receiver) == 3

    The steps of a script, one after the other:

    - An iterable of packets (see `DatagramLike`; a `PacketBatch` is one, and is copied): they
      arrive together, and `receive` returns them in one batch, or in several if there are more
      than `limit`, or than a batch has slots.
    - `Dropped`: packets that the kernel had no room for. They are only counted.
    - An exception, or a class of one. An OSError is what a socket may report: those of
      `TRANSIENT_ERRORS` are counted and given to `on_error`, unless ``errors="raise"``; all else
      is raised by `receive`.
    - An event, of AnyIO or of the event loop's own library: what follows arrives when it is set.
    - A function without arguments, async or not: what follows arrives when it has returned. So a
      test decides about the order, without sleeping. `anyio.sleep_forever` stands for a socket to
      which nothing more comes. If `receive` is cancelled meanwhile, the next one calls it again.

    After the last step the receiver ends as by `stop`: `receive` raises `anyio.EndOfStream`, and
    `stopped` is true. If `stop` is called earlier, what stands before the next step that waits has
    arrived, and is handed out; the rest never comes. An event that is not set waits, and so does
    each function, also the one that runs and calls `stop`: to have packets wait then, let the
    code that receives call it, or call it before the first `receive`.

    What only a kernel knows is None in its `ReceiverStatistics`: the buffer, and without a
    `Dropped` in the script `dropped_by_kernel`. It has no typed attributes.

    Args:
        script: The steps.
        pool: As for `PacketReceiver`. Packets with control data need one with ``ancillary=True``.
        limit: As for `PacketReceiver`.
        errors: As for `PacketReceiver`.
        on_error: As for `PacketReceiver`.
        count_unread: As for `PacketReceiver`.

    Raises:
        TypeError: A step is none of these, or a packet in it has the wrong type; the message has
            its index. Otherwise as for `PacketReceiver`.
        ValueError: A packet can't be a datagram, or the pool's batches have no room for its
            control data, or for trains; with its index. Otherwise as for `PacketReceiver`.
    """

    def __init__(
        self,
        script: Iterable[Step] = (),
        pool: PacketBatchPool | None = None,
        *,
        limit: int | None = None,
        errors: Literal["count", "raise"] = "count",
        on_error: Callable[[OSError], object] | None = None,
        count_unread: bool = True,
    ) -> None:
        port = _ScriptPort(script, self._read, self.stop)
        pool = PacketBatchPool(gro=port.has_trains()) if pool is None else pool
        self._begin(port, pool, limit, errors, on_error, count_unread)
        with contextlib.suppress(WouldBlock), pool.acquire_nowait() as batch:
            port.check(batch.gro, batch.ancillary)


class _Prospect:
    """See `anyio_mmsg._stream.port.Prospect`."""

    def __init__(self) -> None:
        self.more = self.woken = False
        self.receive_calls = self.empty_calls = 0


class _ScriptPort:
    """A script as a `Port`."""

    is_open = True

    def __init__(
        self, script: Iterable[Step], read: Callable[[], int], at_end: Callable[[], None]
    ) -> None:
        self.outlook = _Prospect()
        self._steps = deque(checked(script))
        self._take, self._at_end = read, at_end
        self._scope: CancelScope | None = None  # of the task that waits
        # What is read, and from where on: the ring says how much of it was committed, so an
        # interrupt neither loses nor doubles a packet.
        self._reading: tuple[Arrival, int, Slots, int] | None = None
        self._has_drops = any(isinstance(step, Dropped) for step in self._steps)
        self._dropped: set[Dropped] = set()  # of those steps the ones that are done

    def has_trains(self) -> bool:
        """Return whether some packets arrive in trains."""
        given = chain.from_iterable(step.left for step in self._arrivals())
        return any(datagram.segment_size is not None for datagram in given)

    def check(self, gro: bool, ancillary: bool) -> None:
        """Raise ValueError for packets that batches of a kind have no room for."""
        for index, step in enumerate(self._steps):
            if isinstance(step, Arrival):
                with step_named(index):
                    messages_for(step.packets, gro, ancillary)

    def _arrivals(self) -> list[Arrival]:
        return [step for step in self._steps if isinstance(step, Arrival)]

    def _arrived(self) -> list[Ready | Dropped]:
        """Return the steps up to the next that has to be waited for. In any thread."""
        arrived: list[Ready | Dropped] = []
        for step in tuple(self._steps):  # of which another thread may take some meanwhile
            if issubclass(type(step), (*READY, Dropped)):
                arrived.append(cast(Ready, step))
            elif not is_event(step) or not cast(Event, step).is_set():
                break
        return [step for step in arrived if not isinstance(step, Arrival) or step.left]

    def _first(self) -> Ready | None:
        """Return what has arrived and is first, if there is something."""
        self._settle()
        steps = self._steps  # from which `stop`, in another thread, makes others
        while steps:
            step = steps[0]
            if isinstance(step, Arrival):
                if step.left:
                    return step
            elif issubclass(type(step), READY):
                return cast(Ready, step)
            elif isinstance(step, Dropped):
                self._dropped.add(step)
            elif not is_event(step) or not cast(Event, step).is_set():
                return None
            steps.popleft()
        return None

    def _settle(self) -> None:
        """Take as read what was committed to a ring."""
        if self._reading is not None:
            arrival, read, slots, tail = self._reading
            settle(slots)  # commits what an interrupted read has recorded
            arrival.read = read + slots.tail - tail
            self._reading = None

    def drain(self, slots: Slots, limit: int, /) -> int:
        self.outlook.receive_calls += 1
        step = self._first()
        if step is None:
            self.outlook.empty_calls += 1
            return 0
        if not isinstance(step, Arrival):
            self._steps.popleft()
            raise step
        count = min(limit, slots.free)
        given = step.packets[step.read : step.read + count]
        messages = messages_for(given, slots.gro, slots.ancillary)
        self._reading = step, step.read, slots, slots.tail
        taken = play(slots, messages)
        self._settle()
        return taken

    async def wait(self) -> None:
        try:
            with CancelScope() as self._scope:
                await self._until_ready()
        finally:
            self._scope = None

    async def _until_ready(self) -> None:
        await checkpoint()
        while self._first() is None:
            steps = self._steps
            if not steps:
                self._at_end()
                return
            step: Any = steps[0]
            try:
                await wait_for(step)
            except Exception:  # not a cancellation
                self._end_of(step)
                raise
            self._end_of(step)
        self._take()

    def wake(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    async def back_off(self, empty_waits: int) -> None:
        pass

    def _end_of(self, step: object) -> None:
        steps = self._steps
        if steps and steps[0] is step:  # else it was stopped meanwhile
            steps.popleft()

    def defer_error(self, error: OSError) -> None:
        self._steps.appendleft(error)

    def stop(self) -> int:
        arrived = self._arrived()
        self._dropped.update(step for step in arrived if isinstance(step, Dropped))
        steps = [step for step in arrived if not isinstance(step, Dropped)]
        self._steps = deque(steps)
        return sum(len(step.left) if isinstance(step, Arrival) else 1 for step in steps)

    def discard(self, discarded: list[Discarded]) -> None:
        self._settle()
        self.stop()
        given = chain.from_iterable(step.left for step in self._arrivals())
        for message in messages_for(given, gro=True, ancillary=True):
            discarded += [(len(message.data), message.control, 0, None)]

    def memory(self) -> SocketMemory | None:
        if not self._has_drops:
            return None
        drops = sum(step.packets for step in tuple(self._dropped))
        return SocketMemory(0, 0, drops)

    def close(self) -> None:
        self.is_open = False

    def attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {}
