"""Errors of the system, with what they are about in their message."""

from __future__ import annotations

from typing import Any


def named(error: OSError, doing: str, address: Any) -> OSError:
    """Return the same error, of the same errno, with the address in its message."""
    if error.errno is None:
        return error
    where = repr(address)  # of a unix socket
    if isinstance(address, (tuple, list)):
        where = f"{address[0] or 'all addresses'} port {address[1]}"
    return OSError(error.errno, f"{doing} {where}: {error.strerror}")
