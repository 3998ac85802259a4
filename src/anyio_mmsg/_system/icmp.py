"""`IcmpError`: what the network, or this machine, reports about a packet that was sent."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from .._packets.packet import Address

_NAMES = (
    "ECONNREFUSED EHOSTUNREACH ENETUNREACH EHOSTDOWN ENONET ENOPROTOOPT EOPNOTSUPP EMSGSIZE "
    "EPROTO EACCES"
)
ICMP_ERRORS: frozenset[int] = frozenset(
    getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name)
)
"""What ICMP leaves on a socket (Linux's icmp_err_convert and icmpv6_err_convert)."""


class IcmpError(OSError):
    """A packet that was sent did not arrive, as a router, its destination or this machine reports.

    The errno is the kernel's: ECONNREFUSED for a port where nobody listens, EMSGSIZE for a packet
    that is too long for the path, EHOSTUNREACH, ENETUNREACH and so on. With ECONNREFUSED it is a
    ConnectionRefusedError too, with EACCES a PermissionError.

    Attributes:
        destination: Where the packet was sent to, in the form of the socket's addresses. The port
            is 0 for a local IPv4 error.
        offender: The numeric address of the machine that reports the error, or None.
        icmp_type: The type of the ICMP or ICMPv6 message; 0 for a local error.
        icmp_code: Its code; 0 for a local error.
        mtu: The longest IP packet in bytes, with its headers, that passes where this one was too
            long; for EMSGSIZE, otherwise None.
        local: Whether this machine's kernel reports it, before anything was sent.
        data: The beginning of the packet's payload, as far as the report quotes it.
    """

    destination: Address
    offender: str | None
    icmp_type: int
    icmp_code: int
    mtu: int | None
    local: bool
    data: bytes

    def __new__(
        cls,
        code: int,
        destination: Address = None,
        offender: str | None = None,
        icmp_type: int = 0,
        icmp_code: int = 0,
        mtu: int | None = None,
        local: bool = False,
        data: bytes = b"",
    ) -> IcmpError:
        """Make one of the class that the errno asks for."""
        text = os.strerror(code)
        if isinstance(destination, tuple):
            text += f": to {destination[0]}" + (
                f" port {destination[1]}" if destination[1] else ""
            )
        if mtu is not None:
            text += f", where {mtu} bytes pass"
        if local:
            text += ", reported by this machine"
        else:
            text += f", reported by {'the network' if offender is None else offender}"
            text += f" (ICMP type {icmp_type}, code {icmp_code})"
        kind: Any = _CLASSES.get(code, cls)
        self: IcmpError = OSError.__new__(kind, code, text)
        self.destination = destination
        self.offender = offender
        self.icmp_type = icmp_type
        self.icmp_code = icmp_code
        self.mtu = mtu
        self.local = local
        self.data = data
        return self

    def __init__(self, code: int, *details: Any, **named: Any) -> None:
        """Take what `__new__` takes, which has set it: OSError sets its own there too."""

    def __reduce__(self) -> tuple[Callable[..., IcmpError], tuple[Any, ...]]:
        """Have copies and pickles keep all that is known."""
        return IcmpError, (
            self.errno,
            self.destination,
            self.offender,
            self.icmp_type,
            self.icmp_code,
            self.mtu,
            self.local,
            self.data,
        )


class _RefusedError(IcmpError, ConnectionRefusedError):
    pass


class _ForbiddenError(IcmpError, PermissionError):
    pass


for _class in (_RefusedError, _ForbiddenError):
    _class.__name__ = _class.__qualname__ = IcmpError.__name__  # as users know it

_CLASSES: dict[int, type[IcmpError]] = {
    errno.ECONNREFUSED: _RefusedError,
    errno.EACCES: _ForbiddenError,
}
