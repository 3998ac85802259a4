"""What a receiver has seen: the counting, the frozen form of it, and the difference of two."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import count, zip_longest

from .._packets.sums import Sums
from .._system import memory
from .port import Port


@dataclass(frozen=True)
class ReceiverStatistics:
    """What a `PacketReceiver` has seen up to one moment.

    Packets count when their batch is handed out; a train counts as its packets. Each packet that
    the kernel had room for is in exactly one place: in `packets`, in `unread`, still in the
    kernel, or in a batch that is being filled.

    ``later - earlier`` is a `StatisticsDelta`: what happened between two of them, and the rates.
    What came before the first of them is in no difference, so take that one where the receiver is
    made. ``later == earlier`` compares all but `time` and `receiver`.

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
            to throw away for a bad checksum), since the receiver was made, which may be later
            than the socket. None where the system does not report it; Linux does (SO_MEMINFO).
        buffer_used: Bytes in the socket's buffer now, as the kernel counts them, or None.
        buffer_size: Bytes that fit into it, as the kernel counts them: on Linux a packet of 1232
            bytes counts some 2,300. None where the system does not report it.
        batch_fills: How full batches were, in powers of 2: item n counts those that had 2**n to
            2**(n + 1) - 1 packets. As long as it has to be. A signal handler that raises may
            leave a batch more in here than in `batches`.
        time: When this was, by `time.monotonic`, in seconds.
        receiver: The number of the receiver, which no other one of the process has.
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
    batch_fills: tuple[int, ...] = ()
    time: float = field(default=0.0, compare=False)
    receiver: int = field(default=0, compare=False)

    def __sub__(self, earlier: ReceiverStatistics) -> StatisticsDelta:
        """Return what happened since `earlier`.

        Raises:
            ValueError: `earlier` is of another receiver, or is the later one.
        """
        if not isinstance(earlier, ReceiverStatistics):
            return NotImplemented
        if earlier.receiver != self.receiver:
            raise ValueError(
                f"these are statistics of two receivers, {self.receiver} and {earlier.receiver}; "
                f"keep the last ones of each receiver"
            )
        if earlier.time > self.time:
            raise ValueError("the statistics on the right are the later ones; swap them")
        errors = Counter(self.transient_errors)
        errors.subtract(earlier.transient_errors)
        fills = zip_longest(self.batch_fills, earlier.batch_fills, fillvalue=0)
        drops = None
        if self.dropped_by_kernel is not None and earlier.dropped_by_kernel is not None:
            drops = self.dropped_by_kernel - earlier.dropped_by_kernel
        return StatisticsDelta(
            **{name: getattr(self, name) - getattr(earlier, name) for name in _COUNTS},
            seconds=self.time - earlier.time,
            transient_errors={number: n for number, n in errors.items() if n},
            dropped_by_kernel=drops,
            batch_fills=tuple([now - then for now, then in fills]),
        )


@dataclass(frozen=True)
class StatisticsDelta:
    """What a `PacketReceiver` has seen between two moments: ``later - earlier``.

    Attributes:
        packets: How many more there were than before, as in `ReceiverStatistics`. The same holds
            for the other counts.
        transient_errors: How many of each were new, by errno.
        dropped_by_kernel: None where the system does not report it.
        seconds: The time between the two.
    """

    packets: int
    bytes: int
    batches: int
    full_batches: int
    truncated: int
    receive_calls: int
    empty_calls: int
    dropped: int
    unread: int
    transient_errors: Mapping[int, int]
    dropped_by_kernel: int | None
    batch_fills: tuple[int, ...]
    seconds: float

    def per_second(self) -> dict[str, float]:
        """Return the rate of each count that is known, by its name.

        Of `transient_errors` all together. 0.0 each, if no time has passed.
        """
        counts = {name: getattr(self, name) for name in _COUNTS}
        counts["transient_errors"] = sum(self.transient_errors.values())
        if self.dropped_by_kernel is not None:
            counts["dropped_by_kernel"] = self.dropped_by_kernel
        return {name: n / self.seconds if self.seconds else 0.0 for name, n in counts.items()}

    @property
    def packets_per_batch(self) -> float:
        """The mean; 0.0 without batches."""
        return self.packets / self.batches if self.batches else 0.0


# The plain counts: they are numbers in both, and always known.
_COUNTS = [each.name for each in fields(StatisticsDelta) if each.type == "int"]


_numbers = count(1)


class Counters:
    """What a receiver counts apart from its batches, to be frozen by `freeze`.

    Signal handlers, finalizers and other threads may interrupt it between any two bytecodes, and
    may count too: each change is one store, or one step in C.

    Attributes:
        discarded: What `discard_waiting` read, and threw away.
        dropped: "packets" that were received and that no consumer got. Batches count there by
            themselves, see `anyio_mmsg._stream.loans.Loan`.
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
        self._number = next(_numbers)

    def error(self, number: int) -> None:
        """Count an error that passes, by its errno."""
        self._errors.update((number,))

    def ask_the_kernel(self) -> None:
        """Bring the kernel's numbers up to date, while the socket is open."""
        last, drops = self._kernel
        now = None if last is None else self._port.memory()
        if last is not None and now is not None:
            self._kernel = (now, drops + (now.drops - last.drops) % 2**32)

    def freeze(self, received: Sums) -> ReceiverStatistics:
        """Return all counts as they are, with the sums over batches."""
        kernel, drops = self._kernel
        receive_calls, empty_calls = self._calls_before
        packets, octets, batches, full_batches, largest, truncated, fills = received
        return ReceiverStatistics(
            packets,
            octets,
            batches,
            full_batches,
            largest,
            truncated,
            receive_calls=self._outlook.receive_calls - receive_calls,
            empty_calls=self._outlook.empty_calls - empty_calls,
            dropped=self.dropped["packets"],
            unread=sum(map(memory.packets_in, tuple(self.discarded))),
            transient_errors=dict(self._errors),
            dropped_by_kernel=None if kernel is None else drops,
            buffer_used=kernel.used if kernel and kernel.size else None,
            buffer_size=kernel.size if kernel and kernel.size else None,
            batch_fills=tuple(fills[1 : largest.bit_length() + 1]),
            time=time.monotonic(),
            receiver=self._number,
        )
