"""What AnyIO renamed or lacks in older versions: the only place that asks.

The floor is AnyIO 4.4.
"""

from __future__ import annotations

import anyio

# Renamed in AnyIO 4.7; since then each call by the old names warns.
wait_socket_readable = (
    anyio.wait_readable if hasattr(anyio, "wait_readable") else anyio.wait_socket_readable
)
wait_socket_writable = (
    anyio.wait_writable if hasattr(anyio, "wait_writable") else anyio.wait_socket_writable
)
