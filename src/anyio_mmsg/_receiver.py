"""A socket as a stream of batches, with the count of everything that happens to it."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import anyio
from anyio import BusyResourceError, ClosedResourceError
from anyio.abc import ObjectReceiveStream, SocketAttribute
from anyio.lowlevel import checkpoint

from ._batch import NUM_RCVMMSGS, PacketBatch, whole_number
from ._pool import PacketBatchPool
from ._recv import ensure_usable, receive_into, recv_mmsg_exact, recv_mmsg_nowait, remember
from ._sockets import SocketMemory, close_socket, socket_memory

_ICMP = (
    "ECONNREFUSED EHOSTUNREACH ENETUNREACH EHOSTDOWN ENONET ENOPROTOOPT EOPNOTSUPP EMSGSIZE EPROTO"
)
_LOCAL = "ENETDOWN EACCES ENOBUFS ENOMEM"
_WINDOWS = "ECONNRESET WSAECONNRESET WSAENETRESET"
TRANSIENT_ERRORS = frozenset(
    getattr(errno, name) for name in f"{_ICMP} {_LOCAL} {_WINDOWS}".split() if hasattr(errno, name)
)
"""Errors that pass, so that a receiver goes on: those that ICMP leaves on a socket (Linux's
icmp_err_convert and icmpv6_err_convert), a link that is down, the kernel's own shortages, and what
Windows makes of a port unreachable."""

# Since AnyIO 4.10 there is a way to tell those who wait for a socket that it closes.
_WAITERS_ARE_TOLD = hasattr(anyio, "notify_closing")

TIMER_RESOLUTION = 0.001
"""Seconds. The event loops wait with epoll_wait(2), which counts milliseconds and is given the
next whole one; to linger for less they are not asked to wait at all."""


@dataclass(frozen=True)
class ReceiverStatistics:
    """What a `PacketReceiver` has seen up to one moment.

    Packets and reads count when their batch is handed out.

    Attributes:
        packets: Packets received.
        bytes: Their bytes, without what was cut off.
        batches: Batches that packets were received into.
        full_batches: Those that were as full as they may be; many of them say that the
            application does not keep up, or that the batches are small for the load.
        largest_batch: Packets of the largest one.
        truncated: Packets longer than a slot.
        receive_calls: How often the socket was read.
        empty_calls: How often there was nothing to read.
        dropped: Of these packets, those that nobody got: dropped by the policy of `feed`, held by
            the receiver at its end, or in a batch that was dropped without being closed.
        transient_errors: How many of each, by errno.
        dropped_by_kernel: Packets that the kernel had no room for in the socket's buffer (or had
            to throw away for a bad checksum), since the receiver was made. None where the system
            does not tell; Linux does (SO_MEMINFO).
        buffer_used: Bytes in the socket's buffer now, as the kernel counts them, or None.
        buffer_size: Bytes that it takes, as the kernel counts them: on Linux packets of 1232
            bytes count some 2,300 each. None where the system does not tell.
    """

    packets: int
    bytes: int
    batches: int
    full_batches: int
    largest_batch: int
    truncated: int
    receive_calls: int
    empty_calls: int
    dropped: int
    transient_errors: Mapping[int, int]
    dropped_by_kernel: int | None
    buffer_used: int | None
    buffer_size: int | None


class PacketReceiver(ObjectReceiveStream[PacketBatch]):
    """A datagram socket as a stream of batches.

    ``async for batch in receiver`` gives a batch of at least one packet at a time. It belongs to
    the consumer until it is closed, by ``with batch:``; then it goes back to the pool. While all
    batches of the pool are with consumers, the receiver waits, and packets queue in the kernel.

    The receiver owns the socket: its end, by ``async with`` or `aclose`, closes it.

    Args:
        sock: A bound or connected datagram socket, nonblocking, as `open_udp_socket` gives it.
        pool: Where the batches come from. Without one the receiver makes its own, of 8 batches
            with 64 slots of 1232 bytes. One batch of it is always with the receiver.
        limit: The most packets of a batch, at least 1; the batches' capacity is a limit too.
        linger: Seconds to wait for a fuller batch after its first packet. A full batch is not
            held back. Below `TIMER_RESOLUTION` the waiting task does not sleep, so it is precise
            and costs CPU; from there on it may be a millisecond late.
        errors: "count": errors of `TRANSIENT_ERRORS` are counted, told to `on_error`, and
            receiving goes on. "raise": they are raised.
        on_error: Called with each transient error that is counted.

    Raises:
        TypeError: `sock` is no `socket.socket`, `limit` no int.
        ValueError: `sock` is no nonblocking datagram socket, `limit` below 1, `linger` negative,
            `errors` unknown.
        anyio.ClosedResourceError: `sock` is closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        pool: PacketBatchPool | None = None,
        *,
        limit: int = NUM_RCVMMSGS,
        linger: float = 0.0,
        errors: Literal["count", "raise"] = "count",
        on_error: Callable[[OSError], object] | None = None,
    ) -> None:
        ensure_usable(sock)
        if isinstance(linger, bool) or not isinstance(linger, (int, float)):
            raise TypeError(f"linger is a {type(linger).__name__}; give seconds")
        if not isinstance(pool, (PacketBatchPool, type(None))):
            raise TypeError(f"pool is a {type(pool).__name__}, and has to be a PacketBatchPool")
        if not linger >= 0:
            raise ValueError(f"linger is {linger}; give seconds, 0 for not at all")
        if errors not in ("count", "raise"):
            raise ValueError(f'errors is {errors!r}; give "count" or "raise"')
        self._sock = sock
        self.pool = PacketBatchPool() if pool is None else pool
        self._limit = min(
            whole_number("limit", limit, 1, "give the number of packets, at least 1"),
            self.pool.capacity,
        )
        self._linger = linger
        self._deadline = 0.0  # of lingering for the batch that is being filled
        self._raise_errors = errors == "raise"
        self._on_error = on_error
        # The batch that is being filled. It stays here if the filling is cancelled.
        self._batch: PacketBatch | None = None
        self._receiving = self._closed = False
        self._scope: anyio.CancelScope | None = None  # that wakes a task in receive
        self._packets = self._bytes = self._batches = self._full_batches = 0
        self._largest_batch = self._truncated = self._receive_calls = self._empty_calls = 0
        self._dropped = 0
        self._errors: Counter[int] = Counter()
        # The kernel's own count has 32 bits, and goes on from before us.
        self._kernel: SocketMemory | None = socket_memory(sock)
        self._dropped_by_kernel = 0

    async def receive(self) -> PacketBatch:
        """Return the next batch, of at least one packet.

        A checkpoint, always. If it is cancelled, no packet is lost: the next call returns it.

        Raises:
            anyio.BusyResourceError: Another task is receiving.
            anyio.ClosedResourceError: The receiver is closed, or was closed meanwhile.
            OSError: One that does not pass; with ``errors="raise"`` any. Receiving can go on.
        """
        if self._receiving:
            raise BusyResourceError("receiving from")
        if self._closed:
            raise ClosedResourceError
        self._receiving = True
        try:
            batch = self._batch
            if batch is None:
                batch = self._batch = await self._take_batch()
            if batch:  # from a call that was cancelled while it lingered
                await checkpoint()
            else:
                await self._fill(batch)
                if self._linger:
                    self._deadline = anyio.current_time() + self._linger
            if self._linger and len(batch) < self._limit:
                await self._fill_up(batch)
            self._batch = None
        finally:
            self._receiving = False
            if self._closed:
                self._drop_batch()
        self._count(batch)
        batch._on_loss = self.count_dropped
        return batch

    async def _take_batch(self) -> PacketBatch:
        try:
            return self.pool.acquire_nowait()
        except anyio.WouldBlock:
            with anyio.CancelScope() as self._scope:
                return await self.pool.acquire()
            raise ClosedResourceError from None  # only aclose cancels that scope

    async def _fill(self, batch: PacketBatch) -> None:
        while True:
            try:
                if _WAITERS_ARE_TOLD:
                    await receive_into(self._sock, batch, self._limit)
                    return
                with anyio.CancelScope() as self._scope:
                    await receive_into(self._sock, batch, self._limit)
                    return
                raise ClosedResourceError  # as above
            except OSError as error:
                number = error.errno
                if self._raise_errors or number is None or number not in TRANSIENT_ERRORS:
                    raise
                self._errors[number] += 1
                if self._on_error is not None:
                    self._on_error(error)

    async def _fill_up(self, batch: PacketBatch) -> None:
        try:
            if self._linger >= TIMER_RESOLUTION:
                with anyio.CancelScope(deadline=self._deadline) as self._scope:
                    await recv_mmsg_exact(self._sock, batch, self._limit - len(batch))
            else:
                while len(batch) < self._limit and anyio.current_time() < self._deadline:
                    with contextlib.suppress(anyio.WouldBlock):
                        recv_mmsg_nowait(self._sock, batch, self._limit - len(batch))
                    await checkpoint()
        except OSError as error:
            remember(self._sock, error)  # after packets: the next call's
        if self._closed:
            raise ClosedResourceError

    def _count(self, batch: PacketBatch) -> None:
        sizes = batch._wire_sizes_held()
        packets = len(sizes)
        sizes.sort()  # for the largest: faster than max, above all if they are all alike
        if sizes[-1] > batch._slot_size:
            self._truncated += sum(size > batch._slot_size for size in sizes)
            sizes = batch.sizes()
        self._packets += packets
        self._bytes += sum(sizes)
        self._batches += 1
        self._receive_calls += batch._reads
        self._empty_calls += batch._empty_reads
        batch._reads = batch._empty_reads = 0
        if packets >= self._limit:
            self._full_batches += 1
        if packets > self._largest_batch:
            self._largest_batch = packets

    def count_dropped(self, packets: int) -> None:
        """Count packets that were received, and that nobody got."""
        self._dropped += packets

    def statistics(self) -> ReceiverStatistics:
        """Return what was seen so far; after the end, what was seen until then.

        The kernel's count of drops has 32 bits: look at least once in so many drops.
        """
        self._ask_the_kernel()
        kernel = self._kernel
        return ReceiverStatistics(
            packets=self._packets,
            bytes=self._bytes,
            batches=self._batches,
            full_batches=self._full_batches,
            largest_batch=self._largest_batch,
            truncated=self._truncated,
            receive_calls=self._receive_calls,
            empty_calls=self._empty_calls,
            dropped=self._dropped,
            transient_errors=dict(self._errors),
            dropped_by_kernel=None if kernel is None else self._dropped_by_kernel,
            buffer_used=None if kernel is None else kernel.used,
            buffer_size=None if kernel is None else kernel.size,
        )

    def _ask_the_kernel(self) -> None:
        if self._kernel is not None and not self._closed:
            now = socket_memory(self._sock)
            if now is not None:
                self._dropped_by_kernel += (now.drops - self._kernel.drops) % 2**32
                self._kernel = now

    async def aclose(self) -> None:
        """Close the socket. A task that waits in `receive` gets `anyio.ClosedResourceError`.

        Packets of a batch that was not handed out are counted as dropped.
        """
        if not self._closed:
            self._ask_the_kernel()
            self._closed = True
            close_socket(self._sock)
            if self._scope is not None:
                self._scope.cancel()
            if not self._receiving:
                self._drop_batch()
        await checkpoint()

    def _drop_batch(self) -> None:
        if self._batch is not None:
            if self._batch:
                self._count(self._batch)
                self.count_dropped(len(self._batch))
            self._batch.close()
            self._batch = None

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The attributes of `anyio.abc.SocketAttribute` that the socket has."""
        sock = self._sock
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.family: lambda: sock.family,
            SocketAttribute.raw_socket: lambda: sock,
        }
        if self._closed:
            return attributes
        attributes[SocketAttribute.local_address] = lambda: _host_and_port(sock.getsockname())
        with contextlib.suppress(OSError):
            remote = _host_and_port(sock.getpeername())
            attributes[SocketAttribute.remote_address] = lambda: remote
            if sock.family != getattr(socket, "AF_UNIX", None):
                attributes[SocketAttribute.remote_port] = lambda: remote[1]
        if sock.family != getattr(socket, "AF_UNIX", None):
            attributes[SocketAttribute.local_port] = lambda: sock.getsockname()[1]
        return attributes


def _host_and_port(address: Any) -> Any:
    return address[:2] if isinstance(address, tuple) else address
