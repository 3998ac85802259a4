"""Which errors of a datagram socket pass, and what a receiver does about them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Literal

_ICMP = (
    "ECONNREFUSED EHOSTUNREACH ENETUNREACH EHOSTDOWN ENONET ENOPROTOOPT EOPNOTSUPP EMSGSIZE EPROTO"
)
_LOCAL = "ENETDOWN EACCES ENOBUFS ENOMEM"
_WINDOWS = "ECONNRESET WSAECONNRESET WSAENETRESET"
TRANSIENT_ERRORS: frozenset[int] = frozenset(
    getattr(errno, name) for name in f"{_ICMP} {_LOCAL} {_WINDOWS}".split() if hasattr(errno, name)
)
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
        ValueError: `errors` is unknown.
    """
    if errors not in ("count", "raise"):
        raise ValueError(f'errors is {errors!r}; give "count" or "raise"')
    passing = TRANSIENT_ERRORS if errors == "count" else frozenset()

    def handle(error: OSError) -> None:
        if error.errno is None or error.errno not in passing:
            raise error
        count(error.errno)
        if on_error is not None:
            on_error(error)

    return handle
