"""What must not grow: memory, descriptors, threads, tasks."""

from __future__ import annotations

import gc
import os
import statistics
import sys
import threading
from array import array
from dataclasses import dataclass
from pathlib import Path

import anyio

from .ledger import FaultError

WARM_UP = 1 / 3
"""The share of rounds that is not judged: modules are imported, pools and caches fill."""

LEAST_ROUNDS = 9
"""So that there are two rounds at each end to compare."""

# The interpreter caches lookups of attributes, by the name that was looked up: thousands of
# strings, where C code makes a new one each time.
_clear_caches = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """A process between two rounds, when all receivers are closed."""

    rss: int  # bytes in memory
    blocks: int  # sys.getallocatedblocks(), after a collection of garbage
    descriptors: int
    threads: int
    tasks: int


def sample() -> Sample:
    """Look at this process."""
    _clear_caches()
    gc.collect()
    return Sample(
        rss=int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE,
        blocks=sys.getallocatedblocks(),
        descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 its own is in each count
        threads=threading.active_count(),
        tasks=len(anyio.get_running_tasks()),
    )


ALLOWED = {
    # Nothing is open between rounds but what is open all the time.
    "descriptors": 0,
    "tasks": 0,
    # Those in which host names are looked up: asyncio keeps as many as processors, and 4; Trio as
    # many as there were lookups at a time.
    "threads": 6,
    # A thread that Trio keeps for a while has some 200, otherwise it is two or three up and down.
    # An object that each receiver leaves behind is 6 a round, one for each packet is far more.
    "blocks": 300,
    # malloc keeps what was freed, as it likes: some MiB up and down. A leak of a byte for each
    # packet is more than that in ten minutes.
    "rss": 8 << 20,
}
"""How much more the median of the last third may be than that of the first, after warming up."""


class History:
    """Samples of one process. In arrays, so that to keep them is no growth that shows."""

    def __init__(self) -> None:
        self._columns = {name: array("q") for name in ALLOWED}

    def add(self, sample: Sample) -> None:
        """Add the next sample."""
        for name, column in self._columns.items():
            column.append(getattr(sample, name))

    def thirds(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return medians of the first and the last third of the samples that are judged."""
        first, last = {}, {}
        for name, column in self._columns.items():
            judged = column[int(len(column) * WARM_UP) :]
            third = max(1, len(judged) // 3)
            first[name] = statistics.median(judged[:third])
            last[name] = statistics.median(judged[-third:])
        return first, last

    def judge(self, who: str, slack: int = 1) -> None:
        """See that nothing grew.

        By medians, since a single sample may catch the allocator or the interpreter at anything.

        Args:
            who: Whose samples these are.
            slack: So many times the usual growth is allowed, where a few seconds don't show
                whether something was made once or would be made again and again.

        Raises:
            FaultError: Something did.
        """
        first, last = self.thirds()
        for name, allowed in ALLOWED.items():
            if last[name] > first[name] + slack * allowed:
                raise FaultError(
                    f"{who}: {name} grew from {first[name]:,.0f} to {last[name]:,.0f}; "
                    f"{slack * allowed} more are allowed: {self._columns[name].tolist()}"
                )
