"""What can be measured: its name, and how its process is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypeVar

LOOPS = ("asyncio", "uvloop", "trio")

Kind: TypeAlias = Literal["ours", "plain", "peer", "floor"]
"""Whose a candidate is: "ours" is the library as it was built and chose, "plain" the same
library with its compiled module switched off."""

PLAIN = {"ANYIO_MMSG_COMPILED": "0"}
"""Switches the compiled module off, at import."""

FRESH = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
WARM = {"MALLOC_MMAP_THRESHOLD_": str(4 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(8 * 2**20)}
"""The two states of glibc's malloc that datagram transports of asyncio and aiofastnet meet.

They allocate 256 KiB for each datagram (`max_size` of asyncio.selector_events). From 128 KiB on
malloc maps fresh memory for each block, with page faults (mallopt(3), M_MMAP_THRESHOLD), which
makes a packet some three times dearer. A program that has just started is in that state until it
happens to free a larger block, which raises the threshold. Either is set here and stays, so that
no import decides. "Warm" is the one to compare with: long-running programs tend to reach it."""

WARM_NOTE = (
    "Transports of asyncio and aiofastnet allocate 256 KiB for each datagram. They are measured "
    "with warm buffers, which the allocator keeps. In a 'fresh process' the allocator maps new "
    "memory for each datagram, as it does after the start (`benchmarks/spec.py`)."
)

Open = TypeVar("Open")


@dataclass(frozen=True)
class Spec(Generic[Open]):
    """A candidate: a receiver, a sender, a server or a single call that can be measured.

    Attributes:
        key: Its name on the command line of its process, and in the JSON.
        label: Its name in tables and pictures.
        loop: "asyncio", "uvloop" or "trio"; "" for what needs none.
        kind: Whose it is.
        open: What its worker calls to get it; None for the floors, which are programs of their
            own.
        worker: The module of `workers` that its process runs, or the C file of a floor.
        limit: The most packets that one of its calls takes.
        environment: Variables that its process runs with.
        needs: Modules without which it is left out.
        arguments: Of a floor's command line.
    """

    key: str
    label: str
    loop: str
    kind: Kind
    open: Open | None
    worker: str
    limit: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """What has to be installed for it."""
        return (*self.needs, *((self.loop,) if self.loop in ("uvloop", "trio") else ()))


AnySpec: TypeAlias = Spec[Any]


class UnavailableError(Exception):
    """Something can't be measured here; the text says why."""
