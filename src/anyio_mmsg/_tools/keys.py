"""Keys that a user presses while a command runs on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import anyio

from .._system.platform import ON_WINDOWS

_wait_readable = getattr(anyio, "wait_readable", None)  # takes what is not a socket since 4.7


@contextlib.contextmanager
def single_keys() -> Iterator[bool]:
    """Let the terminal give each key at once, without Enter; False where that is unavailable."""
    possible = _wait_readable is not None and sys.stdin.isatty() and sys.stdout.isatty()
    if ON_WINDOWS or not possible or in_background():
        yield False
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def in_background() -> bool:
    """Return whether this is a background job, which the terminal would stop for using it."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp()
    except OSError:  # it is not the terminal that controls this process
        return False


async def stop_on_q(stop: Callable[[], object]) -> None:
    """Call `stop` when the key q is pressed."""
    while _wait_readable is not None:
        await _wait_readable(sys.stdin.fileno())
        keys = os.read(sys.stdin.fileno(), 64)
        if b"q" in keys.lower():
            stop()
        if not keys:  # the terminal was closed
            return
