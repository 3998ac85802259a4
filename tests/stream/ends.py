"""How the use of a batch may end; each takes the last one off a list."""

from __future__ import annotations

import gc
from typing import Any

from anyio_mmsg import PacketBatch


def close(held: list[PacketBatch]) -> None:
    held.pop().close()


def leak(held: list[PacketBatch]) -> None:
    held.pop()


def leak_in_a_cycle(held: list[PacketBatch]) -> None:
    cycle: list[Any] = [held.pop()]
    cycle.append(cycle)
    del cycle
    gc.collect(0)


ENDS = [close, leak, leak_in_a_cycle]
