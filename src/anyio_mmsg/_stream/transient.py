"""Which errors of a datagram socket pass."""

from __future__ import annotations

import errno

_ICMP = (
    "ECONNREFUSED EHOSTUNREACH ENETUNREACH EHOSTDOWN ENONET ENOPROTOOPT EOPNOTSUPP EMSGSIZE EPROTO"
)
_LOCAL = "ENETDOWN EACCES ENOBUFS ENOMEM"
_WINDOWS = "ECONNRESET WSAECONNRESET WSAENETRESET"
TRANSIENT_ERRORS = frozenset(
    getattr(errno, name) for name in f"{_ICMP} {_LOCAL} {_WINDOWS}".split() if hasattr(errno, name)
)
"""Errors that pass, so that a receiver goes on: those that ICMP leaves on a socket (Linux's
icmp_err_convert and icmpv6_err_convert), a link that is down, the kernel's own shortages, and what
Windows makes of a port unreachable."""
