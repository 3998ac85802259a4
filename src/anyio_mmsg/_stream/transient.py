"""Which errors of a datagram socket pass, and what a receiver does about them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Literal

from .._system.icmp import ICMP_ERRORS

_LOCAL = "ENETDOWN EACCES ENOBUFS ENOMEM"
_WINDOWS = "ECONNRESET WSAECONNRESET WSAENETRESET"
TRANSIENT_ERRORS: frozenset[int] = ICMP_ERRORS | {
    getattr(errno, name) for name in f"{_LOCAL} {_WINDOWS}".split() if hasattr(errno, name)
}
"""Errors that pass, so that a receiver goes on: those that ICMP leaves on a socket (Linux's
icmp_err_convert and icmpv6_err_convert), a link that is down, the kernel's own shortages, and what
Windows makes of a port unreachable."""


def pass_over(
    errors: Literal["count", "raise"],
    count: Callable[[int], object],
    on_error: Callable[[OSError], object] | None,
) -> Callable[[OSError], None]:
    """Return a function that counts an error that passes, or else raises it.

    Args:
        errors: "count" or "raise", the latter for all errors.
        count: Called with the errno of each error that is not raised.
        on_error: Called with each error that is not raised.

    Raises:
        TypeError: `on_error` is not a function.
        ValueError: `errors` is unknown.
    """
    if on_error is not None and not callable(on_error):
        raise TypeError(
            f"on_error is a {type(on_error).__name__}, and has to be a function of one error"
        )
    if errors not in ("count", "raise"):
        raise ValueError(f'errors is {errors!r}; give "count" or "raise"')
    passing = TRANSIENT_ERRORS if errors == "count" else frozenset()

    def handle(error: OSError) -> None:
        if error.errno is None or error.errno not in passing:
            raise error
        count(error.errno)
        error = error.with_traceback(None)  # whose frames hold a batch, for whoever keeps it
        if on_error is not None:
            on_error(error)

    return handle
