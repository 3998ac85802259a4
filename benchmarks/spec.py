"""What can be measured: its name, and how its process is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypeVar

LOOPS = ("asyncio", "uvloop", "trio")

FRESH = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
LUCKY = {"MALLOC_MMAP_THRESHOLD_": str(4 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(8 * 2**20)}
"""The two states of glibc's malloc that asyncio's transports meet.

They allocate 256 KiB for each datagram (`max_size` of asyncio.selector_events). From 128 KiB on
malloc maps fresh memory for each block, with page faults (mallopt(3), M_MMAP_THRESHOLD), which
makes a packet some three times dearer. That is the state of a program that has just started, and
it lasts until the program happens to free a larger block, which raises the threshold. Either is
set here and stays, so that no import decides."""

LUCKY_NOTE = (
    "asyncio's transports allocate 256 KiB for each datagram, which a fresh process pays for with "
    "a memory mapping each; 'lucky malloc' is a process in which the allocator has learnt to keep "
    "them (spec.py, LUCKY)."
)

Open = TypeVar("Open")


@dataclass(frozen=True)
class Spec(Generic[Open]):
    """A candidate: a receiver, a sender or a server that can be measured.

    Attributes:
        key: Its name on the command line of its process, and in the JSON.
        label: Its name in tables and plots.
        loop: "asyncio", "uvloop" or "trio"; "" for what needs none.
        kind: Whose it is.
        open: Puts a bound, nonblocking socket into its hands, on the running loop; None for the
            floors, which are programs of their own.
        limit: The most packets that one of its calls takes.
        awaits: Whether the application awaits packets, rather than being called with them.
        environment: Variables that its process runs with.
        worker: The module that its process runs, or the C file of a floor.
        arguments: Of a floor's command line.
    """

    key: str
    label: str
    loop: str
    kind: Literal["ours", "peer", "floor"]
    open: Open | None
    limit: int = 1
    awaits: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    worker: str = "worker"
    arguments: tuple[str, ...] = ()


AnySpec: TypeAlias = Spec[Any]
