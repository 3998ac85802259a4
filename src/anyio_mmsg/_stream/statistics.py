"""What a receiver has seen: the counting, and the frozen form of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from .._system import memory
from .port import Port


@dataclass(frozen=True)
class ReceiverStatistics:
    """What a `PacketReceiver` has seen up to one moment.

    Packets count when their batch is handed out; a train counts as its packets. Each packet that
    the kernel had room for is in exactly one place: in `packets`, in `unread`, still in the
    kernel, or in a batch that is being filled.

    Attributes:
        packets: Packets received.
        bytes: Their bytes, without what was cut off.
        batches: Batches that packets were received into.
        full_batches: Batches that were as full as they may be (with ``gro=True`` a train fills
            one slot). Many of them mean that the application does not keep up, or that the
            batches are small for the load.
        largest_batch: Packets of the largest batch.
        truncated: Packets longer than a slot.
        receive_calls: How often the socket was read.
        empty_calls: How often there was nothing to read.
        dropped: How many of `packets` no consumer got: they were dropped by the policy of `feed`,
            held by the receiver at its end, or in a batch that was dropped without being closed.
        unread: Packets that `PacketReceiver.aclose` found in the kernel and threw away. They are
            not in `packets`. 0 with ``count_unread=False``.
        transient_errors: How many errors of each kind were counted, by errno.
        dropped_by_kernel: Packets, or with ``gro=True`` whole trains (so at least as many
            packets), that the kernel had no room for in the socket's buffer (or had
            to throw away for a bad checksum), since the receiver was made. None where the system
            does not report it; Linux does (SO_MEMINFO).
        buffer_used: Bytes in the socket's buffer now, as the kernel counts them, or None.
        buffer_size: Bytes that fit into it, as the kernel counts them: on Linux a packet of 1232
            bytes counts some 2,300. None where the system does not report it.
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
    unread: int
    transient_errors: Mapping[int, int]
    dropped_by_kernel: int | None
    buffer_used: int | None
    buffer_size: int | None


Received: TypeAlias = tuple[int, int, int, int, int, int]
"""Sums over the batches that were handed out: packets, bytes, batches, full batches, the largest
batch, truncated packets. Replaced, not changed: one store counts all."""

NOTHING: Received = (0, 0, 0, 0, 0, 0)


def plus(sums: Received, tally: tuple[int, int, int], full: bool) -> Received:
    """Return the sums with one batch more.

    Args:
        sums: Those so far.
        tally: How many packets it has, their bytes, and how many were cut.
        full: Whether it has as many messages as there may be.
    """
    packets, octets, truncated = tally
    before, octets_before, batches, full_batches, largest, truncated_before = sums
    return (
        before + packets,
        octets_before + octets,
        batches + 1,
        full_batches + full,
        packets if packets > largest else largest,
        truncated_before + truncated,
    )


class Counters:
    """What a receiver counts apart from its batches, to be frozen by `freeze`.

    Signal handlers, finalizers and other threads may interrupt it between any two bytecodes, and
    may count too: each change is one store, or one step in C.

    Attributes:
        discarded: What `discard_waiting` read, and threw away.
        dropped: "packets" that were received and that no consumer got. Batches count there by
            themselves, see `anyio_mmsg._stream.pool.watch`.
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        self._outlook = outlook = port.outlook  # which counts reads, perhaps for long
        self._calls_before = outlook.receive_calls, outlook.empty_calls
        self.discarded: list[memory.Discarded] = []
        self.dropped: Counter[str] = Counter()
        self._errors: Counter[int] = Counter()
        # The kernel's count has 32 bits, and started before ours. So keep its last value, and how
        # many drops we had counted until then.
        self._kernel = (port.memory(), 0)

    def error(self, number: int) -> None:
        """Count an error that passes, by its errno."""
        self._errors.update((number,))

    def ask_the_kernel(self) -> None:
        """Bring the kernel's numbers up to date, while the socket is open."""
        last, drops = self._kernel
        now = None if last is None else self._port.memory()
        if last is not None and now is not None:
            self._kernel = (now, drops + (now.drops - last.drops) % 2**32)

    def freeze(self, received: Received) -> ReceiverStatistics:
        """Return all counts as they are, with the sums over batches."""
        kernel, drops = self._kernel
        receive_calls, empty_calls = self._calls_before
        return ReceiverStatistics(
            *received,
            receive_calls=self._outlook.receive_calls - receive_calls,
            empty_calls=self._outlook.empty_calls - empty_calls,
            dropped=self.dropped["packets"],
            unread=sum(map(memory.packets_in, tuple(self.discarded))),
            transient_errors=dict(self._errors),
            dropped_by_kernel=None if kernel is None else drops,
            buffer_used=None if kernel is None else kernel.used,
            buffer_size=None if kernel is None else kernel.size,
        )
