"""Batches that are dropped without being closed: who had them, and the warning about it.

A loan knows its holder from the moment in which a caller gets the batch. A batch that was lost
before, by an interrupt or a cancellation, had none, and nobody is warned.
"""

from __future__ import annotations

import sys
import warnings
from types import FrameType
from typing import Any, TypeAlias

Place: TypeAlias = tuple[str, int]
"""A file and a line."""

Holder: TypeAlias = list["Place | str | None"]
"""Who has got a batch: one item, a place in a program, a name, or None if that is unknown. Empty:
nobody, or nobody any more who is to be warned."""

NOBODY: Holder = []

SOMEBODY: Holder = NOBODY if sys.flags.dev_mode else [None]
"""Use it as ``SOMEBODY or caller()``. To find a caller takes longer than to receive a packet, so
that places are known in development mode alone."""

_LIBRARIES = {"anyio_mmsg", "anyio", "asyncio", "trio", "uvloop"}
_seen: dict[Any, Any] = {}  # by `warnings`: each place once, unless its filters say otherwise


def caller() -> Holder:
    """Return the place in the program that called the library, as the holder of a batch."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("anyio_mmsg"):
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        return [None]  # a task of its own
    return [(frame.f_code.co_filename, frame.f_lineno)]


def name(holder: Holder) -> str:
    """Return who has got a batch, for a message."""
    who = holder[0] if holder else None
    if isinstance(who, tuple):
        return f"{who[0]}:{who[1]}"
    return who or "an unknown place"


def warn(holder: Holder, batch: object) -> None:
    """Warn that a batch was dropped; called by its finalizer."""
    who = holder[0]
    how = "without being closed; its packets count as dropped. Use it in `with batch:`"
    if isinstance(who, tuple):
        message = f"a batch that was received at {name(holder)} was dropped {how}"
        warnings.warn_explicit(message, ResourceWarning, *who, registry=_seen, source=batch)
        return
    if who is None:
        message = f"a batch of a pool was dropped {how}"
        if not sys.flags.dev_mode:
            message += ". `python -X dev` shows where it was received"
    else:
        message = f"a batch from {who} was dropped {how}"
    warnings.warn(message, ResourceWarning, stacklevel=3, source=batch)
