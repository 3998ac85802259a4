"""A socket as a stream of batches, with the count of everything that happens to it."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from types import CoroutineType
from typing import Any, Literal

import anyio
from anyio import BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ObjectReceiveStream, SocketAttribute

from .._arguments import whole_number
from .._compat import RunSoon, checkpoint, run_soon
from .._packets.batch import PacketBatch, settle
from .._packets.sums import Sums, nothing
from .._receive.usable import ensure_usable
from .._system.options import has_control_data, has_gro
from .linger import Linger, check_linger
from .loans import count_dropped, hold
from .lost import NOBODY, SOMEBODY, caller
from .pool import PacketBatchPool
from .port import Port, SocketPort
from .reports import report_waiting
from .signals import check, stopping
from .statistics import Counters, ReceiverStatistics
from .transient import pass_over


class PacketReceiver(ObjectReceiveStream[PacketBatch]):
    """A datagram socket as a stream of batches.

    ``async for batch in receiver`` gives a batch of at least one packet at a time. It belongs to
    the consumer until it is closed, by ``with batch:``; then it goes back to the pool. While all
    batches of the pool are with consumers, the receiver waits, and packets queue in the kernel.

    There are two ways to end it. `stop` (and `stop_on`, by signals) ends the stream when what has
    arrived is handed out: the loop ends, and nothing is lost. `aclose`, or the end of the block,
    closes the socket at once: what had not been received counts as `ReceiverStatistics.unread`,
    and a loop in another task ends with `anyio.ClosedResourceError`.

    The receiver owns the socket, and belongs to one event loop. From its first wait on, until it
    is closed or collected, it has a descriptor of its own: on Linux an epoll instance, elsewhere a
    second one of the socket. It logs a packet that it has cut, and a long wait for a batch, once.

    Args:
        sock: A bound or connected datagram socket, nonblocking, as `open_udp_socket` gives it.
        pool: Where the batches come from. Without one the receiver makes its own, of 8 batches
            with 64 slots, of 1232 bytes or for trains, and with room for control data if the
            socket was asked for some. One of them is with the receiver while it receives.
        limit: The most packets of a batch, at least 1 and at most the capacity of the pool's
            batches; None: that capacity. With ``gro=True`` both count messages: trains, too.
        linger: Seconds to wait for a fuller batch after its first packet. The task sleeps for
            half of it at a time, 1 to 5 ms, then takes what has come, which saves CPU time
            (``python -m benchmarks.linger``); a full batch may be that late. Where packets come
            too fast for a sleep, or on a unix socket, it waits for each packet. Below 1 ms it
            never sleeps, so it is precise and costs CPU; above, it may be a millisecond late.
        errors: "count": errors of `TRANSIENT_ERRORS` are counted and given to `on_error`, and
            receiving goes on. "raise": they are raised.
        on_error: Called with each transient error, after it was counted, by the task that
            receives, before that goes on. So it may change what the program keeps, as the loop
            itself may. If it raises, the exception goes through `receive`, or the loop over the
            receiver; no packet is lost, and receiving can go on.
        count_unread: Whether `aclose` reads what is left in the socket, to count it, at up to a
            microsecond a packet. Give False where another process goes on reading the socket.

    Attributes:
        pool: Where the batches come from: the one that was given, or the receiver's own.
            ``receiver.pool.statistics()`` says how many of them consumers have.

    Raises:
        TypeError: `sock` is not a `socket.socket`, `limit` is not an int, or `on_error` is not
            callable.
        ValueError: `sock` is not a nonblocking datagram socket, `limit` is below 1, `linger` is
            negative, or `errors` is unknown.
        anyio.ClosedResourceError: `sock` is closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        pool: PacketBatchPool | None = None,
        *,
        limit: int | None = None,
        linger: float = 0.0,
        errors: Literal["count", "raise"] = "count",
        on_error: Callable[[OSError], object] | None = None,
        count_unread: bool = True,
    ) -> None:
        ensure_usable(sock)
        check_linger(linger)
        if pool is None:
            pool = PacketBatchPool(gro=has_gro(sock), ancillary=has_control_data(sock))
        self._begin(SocketPort(sock, self), pool, limit, errors, on_error, count_unread)
        self._linger: Linger | None = Linger(linger, sock) if linger else None

    def _begin(
        self,
        port: Port,
        pool: PacketBatchPool,
        limit: int | None,
        errors: Literal["count", "raise"],
        on_error: Callable[[OSError], object] | None,
        count_unread: bool,
    ) -> None:
        """Do what `__init__` does for any port."""
        if not isinstance(pool, PacketBatchPool):
            raise TypeError(f"pool is a {type(pool).__name__}, and has to be a PacketBatchPool")
        self.pool: PacketBatchPool = pool
        if limit is not None:
            limit = whole_number("limit", limit, 1, "give the number of packets, at least 1")
        self._limit = min(limit or pool.capacity, pool.capacity)
        self._spare = pool.capacity - self._limit  # slots of a batch that stay free
        self._port = port
        self._linger = None
        self._count_unread, self._outlook = count_unread, port.outlook
        self._counters = Counters(port)
        self._pass_over = pass_over(errors, self._counters.error, on_error)
        self._returned: deque[PacketBatch] = deque()
        # The coroutine in `receive`, which knows whether it is at work. A flag could stay set.
        self._active: Coroutine[Any, Any, PacketBatch] | None = None
        self._stopped = self._closed = False
        self._left = 0  # how many messages may still be read after a stop
        # The sums over batches, and the batch that is being filled, which stays here when a
        # `receive` is cancelled. One store both counts a batch and lets go of it.
        self._progress: tuple[Sums, PacketBatch | None] = (nothing(), None)
        self._wait_for_batch: anyio.CancelScope | None = None  # while a task waits for one
        self._reported = False  # that it waits long
        self._run_soon: RunSoon | None = None

    def __repr__(self) -> str:
        fields = vars(self)
        if "_run_soon" not in fields:  # the last field that `_begin` sets
            return "<PacketReceiver, not made yet>"
        state = "closed" if self._closed else "stopped" if self._stopped else "open"
        with contextlib.suppress(KeyError, OSError):  # it has no name, or none any more
            state += f" at {self._port.attributes()[SocketAttribute.local_address]()!r}"
        seen = self._progress[0]
        return f"<PacketReceiver, {state}: {seen[0]} packets in {seen[2]} batches>"

    async def receive(self) -> PacketBatch:
        """Return the next batch, of at least one packet.

        A checkpoint, always. If it is cancelled, no packet is lost: the next call returns it.

        Raises:
            anyio.BusyResourceError: Another task is receiving.
            anyio.EndOfStream: `stop` was called, and all that had arrived was handed out.
            anyio.ClosedResourceError: The receiver is closed, or was closed meanwhile.
            OSError: An error outside `TRANSIENT_ERRORS`; with ``errors="raise"`` any error.
                Receiving can go on.
            RuntimeError: It is called in another event loop than at its first wait.
        """
        active = None
        try:
            active = self._begin_to_receive(EndOfStream)
            batch = await active
        finally:
            if active is not None:
                active.close()  # or Python warns of one that an interrupt kept from starting
        loan: Any = batch._lease
        loan.holder = SOMEBODY or caller()
        return batch

    def __anext__(self) -> CoroutineType[Any, Any, PacketBatch]:
        receiving: Any
        if type(self).receive is not PacketReceiver.receive:  # a subclass has its own
            receiving = super().__anext__()
        else:
            receiving = self._begin_to_receive(StopAsyncIteration)
        return receiving  # type: ignore[no-any-return]

    def _begin_to_receive(self, end: type[Exception]) -> Coroutine[Any, Any, PacketBatch]:
        active: Any = self._active
        if active is not None and (active.cr_running or active.cr_await is not None):
            raise BusyResourceError("receiving from")
        if self._closed:
            raise ClosedResourceError
        if self._run_soon is None:
            self._run_soon = run_soon()
        self._active = receiving = self._receive(end)
        return receiving

    def _is_receiving(self) -> bool:
        active: Any = self._active
        return active is not None and (active.cr_running or active.cr_await is not None)

    async def _receive(self, end: type[Exception]) -> PacketBatch:
        """Do what `receive` does; raise `end` at the end of the stream."""
        empty_waits, is_counted = 0, False
        try:
            batch: PacketBatch | None
            while True:
                if self._returned:
                    await checkpoint()
                    if self._returned:
                        batch, is_counted = self._returned.popleft(), True
                        break
                batch = self._progress[1]
                if batch is None:
                    if self._stopped and not self._left:
                        await checkpoint()
                        raise end
                    batch = self.pool._acquire_nowait()
                    if batch is None:
                        batch = await self._wait_for_a_batch()
                        if batch is None:
                            continue
                    self._progress = self._progress[0], batch
                elif settle(batch._slots):  # of a call that was cancelled
                    await checkpoint()
                    break
                if self._stopped:
                    if not await self._read_the_rest(batch):
                        raise end
                else:
                    try:
                        if self._outlook.more:
                            await checkpoint()
                            self._read()
                        else:
                            await self._port.wait()
                    except OSError as error:
                        self._pass_over(error)
                        empty_waits = -1  # it brought something, so there is no pause after it
                        await checkpoint()
                    if self._closed:
                        raise ClosedResourceError
                if batch._slots.held:
                    break
                empty_waits += 1
                await self._port.back_off(empty_waits)
            if not is_counted:
                if self._linger and self._missing(batch) > 0 and not self._stopped:
                    await self._linger.fill_up(self, batch)
                    self._ensure_open()
                self._hand_out(batch)
            if end is StopAsyncIteration:  # `receive` does it itself, after its last step
                loan: Any = batch._lease
                loan.holder = SOMEBODY or caller()
            return batch
        finally:
            if self._closed:
                self._drop_batches()

    async def _wait_for_a_batch(self) -> PacketBatch | None:
        """Return a batch of the pool, or None after `_look`."""
        try:
            with anyio.CancelScope() as self._wait_for_batch:
                return await self.pool._acquire(None if self._reported else self._report)
        finally:
            self._wait_for_batch = None
        self._ensure_open()
        return None

    def _report(self) -> None:
        self._reported = True
        report_waiting(repr(self), self.pool.size, self.pool._holders())

    # What the port and its event loop ask for

    def _read(self, woken: bool = False) -> int:
        """Read into the batch that is being filled; see `anyio_mmsg._stream.readiness.Reads`."""
        if woken:
            self._outlook.woken = True
        batch = self._progress[1]
        if batch is None:
            return 0
        slots = batch._slots
        missing = slots.free - self._spare
        return self._port.drain(slots, missing) if missing > 0 else 0

    def _expect_more(self) -> None:
        self._outlook.more = True

    def _defer_error(self, error: OSError) -> None:
        self._port.defer_error(error)

    def _hand_out(self, batch: PacketBatch) -> PacketBatch:
        """Count a batch, and let go of it."""
        loan: Any = batch._lease
        loan.dropped = self._counters.dropped
        self._progress = batch._slots.tally(self._progress[0], self._spare), None
        return batch

    def _end_wait_for_batch(self) -> None:
        if self._wait_for_batch is not None:
            self._wait_for_batch.cancel()

    def _missing(self, batch: PacketBatch) -> int:
        """Return how many messages more a batch may have."""
        return batch._slots.free - self._spare

    # The end

    def stop(self) -> None:
        """End the stream when all that has arrived by now is handed out.

        From now on `receive` does not wait for the socket, and does not linger. It returns what
        the kernel holds already, then raises `anyio.EndOfStream`, so ``async for`` ends. It may
        still wait for a batch of the pool. A peer who goes on sending does not keep the stream
        alive. `feed` drops nothing after a stop, and returns at the end. Sending goes on.

        May be called from a task, a callback, a signal handler or another thread, and repeatedly.
        """
        if not self._stopped:
            self._left = self._port.stop()
            self._stopped = True
        if self._run_soon is not None:  # a task waits, or did
            self._run_soon(self._look)

    def stop_on(
        self, *signals: int, grace: float | None = None
    ) -> AbstractContextManager[anyio.CancelScope]:
        """Return a context manager in whose block the first of these signals calls `stop`.

        Put it around what receives, and what works on its packets. From the second signal on, and
        after the block, signals do what they did before: a second Ctrl-C raises KeyboardInterrupt.
        Blocks of several receivers may be nested: the first signal stops all of them.

        Args:
            signals: Such as `signal.SIGINT` and `signal.SIGTERM`.
            grace: Seconds from the signal on in which the block may end. Then it is cancelled, as
                by the `anyio.CancelScope` that the context manager returns. None: no limit.

        Raises:
            TypeError: One of `signals` is not an int, or `grace` not a number.
            ValueError: There is no signal, or `grace` is negative.
            RuntimeError: At the block: this is not the main thread, which alone handles signals;
                or a handler that is there is not Python's.
            OSError: Likewise: a signal that can't be handled, such as `signal.SIGKILL`; or no
                descriptor is left for what wakes asyncio's loop.
        """
        check(signals, grace)
        return stopping(self.stop, signals, grace)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def _look(self) -> None:
        """Wake a task in `receive`, so that it looks what has changed."""
        self._port.wake()
        if self._linger is not None:
            self._linger.end()
        if self._returned:
            self._end_wait_for_batch()

    async def _read_the_rest(self, batch: PacketBatch) -> bool:
        """Read what had arrived when `stop` was called; return whether there may be any."""
        await checkpoint()
        self._ensure_open()
        if settle(batch._slots):  # of a wait, or a read, that an interrupt has ended
            return True
        attempts = self._left + 1  # an end, should each of them meet an error
        while self._left > 0 and attempts:
            attempts -= 1
            try:
                before = batch._slots.tail
                if not self._port.drain(batch._slots, min(self._left, self._limit)):
                    break
                self._left -= batch._slots.tail - before  # messages, as the kernel holds them
                return True
            except OSError as error:
                self._pass_over(error)
        self._left, self._progress = 0, (self._progress[0], None)
        batch.close()
        return False

    def _take_back(self, batch: PacketBatch) -> None:
        """Take back a batch that `receive` returned, to return it again before all others.

        For a consumer that was cancelled before it could do anything with it, as `feed` may be.
        """
        if self._closed:
            self._drop(batch)
        else:
            hold(batch, NOBODY)
            self._returned.append(batch)
            self._look()

    def _drop(self, batch: PacketBatch) -> None:
        """Count the packets of a batch that `receive` returned as dropped, and close it.

        Raises:
            BufferError: As `PacketBatch.close`. They are counted all the same, and once.
        """
        count_dropped(batch, len(batch))
        batch.close()

    async def aclose(self) -> None:
        """Close the socket. A task that waits in `receive` gets `anyio.ClosedResourceError`.

        Reads what has arrived until now, without waiting, and counts it as
        `ReceiverStatistics.unread`; see `count_unread`. Packets of a batch that was not handed
        out count as dropped. To lose nothing call `stop` and receive until the end.
        """
        self._closed = True
        # Each step may be repeated, if an interrupt ends one and the caller closes it again.
        if self._port.is_open:
            if self._count_unread:
                self._port.discard(self._counters.discarded)
            self._counters.ask_the_kernel()
            self._port.close()
        self._look()
        self._end_wait_for_batch()
        if not self._is_receiving():
            self._drop_batches()
        await checkpoint()

    def _ensure_open(self) -> None:
        if self._closed:
            raise ClosedResourceError

    def _drop_batches(self) -> None:
        batch = self._progress[1]
        if batch is not None and settle(batch._slots):
            self._returned.append(self._hand_out(batch))
        elif batch is not None:
            self._progress = self._progress[0], None
            batch.close()
        while self._returned:
            with contextlib.suppress(BufferError):  # it goes back when nothing uses its memory
                self._drop(self._returned.popleft())

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed

    def statistics(self) -> ReceiverStatistics:
        """Return what was seen so far; after the end, what was seen until then.

        Any thread may ask.

        The kernel's counter wraps after 4,294,967,296 drops: call this at least once before.
        """
        if not self._closed:
            self._counters.ask_the_kernel()
        return self._counters.freeze(self._progress[0])

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The attributes of `anyio.abc.SocketAttribute` that the socket has."""
        return self._port.attributes()
