"""What batches held, added up: what a receiver counts of them."""

from __future__ import annotations

from typing import TypeAlias

Sums: TypeAlias = tuple[int, int, int, int, int, int, list[int]]
"""Over batches: packets, bytes, batches, full batches, the packets of the largest batch, packets
that were cut. Replaced, not changed: one store counts all. Last, always the same list: how many
batches had packets of each `int.bit_length`."""


def nothing() -> Sums:
    """Return the sums over no batches."""
    return 0, 0, 0, 0, 0, 0, [0] * 64  # no memory holds a batch of 2**63 packets


def plus(sums: Sums, packets: int, octets: int, cut: int, full: bool) -> Sums:
    """Return the sums with one batch more.

    Args:
        sums: Those so far; their list is changed.
        packets: How many it has.
        octets: Their bytes.
        cut: How many of them were cut.
        full: Whether it has as many messages as there may be.
    """
    before, octets_before, batches, full_batches, largest, cut_before, fills = sums
    fills[packets.bit_length()] += 1
    return (
        before + packets,
        octets_before + octets,
        batches + 1,
        full_batches + full,
        packets if packets > largest else largest,
        cut_before + cut,
        fills,
    )
