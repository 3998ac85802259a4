"""`create_datagram_endpoint` of event loops, with our transport."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .._packets.packet import Address
from .._system.failures import named
from .making import SERVED, Way, transport_for
from .transport import BatchTransport

if TYPE_CHECKING:
    _Loop = asyncio.AbstractEventLoop
else:
    _Loop = object

_Waiter: TypeAlias = "asyncio.Future[None] | None"


# What asyncio's code, which does not say which call has failed, got it from.
_BIND_ALONE = {errno.EADDRINUSE, errno.EADDRNOTAVAIL}
_BIND_OR_CONNECT = {errno.EACCES, errno.EPERM, errno.ENETUNREACH, errno.EHOSTUNREACH}


class AsyncioEndpoints(_Loop):
    """For asyncio's own loops, which look at the arguments and open the socket."""

    _way: Way

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        local_addr: Any = None,
        remote_addr: Any = None,
        **options: Any,
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """See `asyncio.loop.create_datagram_endpoint`. An address that is refused is named."""
        opened = False

        def protocol() -> asyncio.BaseProtocol:
            nonlocal opened
            opened = True  # what is raised from here on is not about the addresses
            return protocol_factory()

        own: Any = super()
        try:
            made: tuple[asyncio.BaseTransport, asyncio.BaseProtocol]
            made = await own.create_datagram_endpoint(protocol, local_addr, remote_addr, **options)
            return made
        except OSError as error:
            if not opened and local_addr and error.errno in _BIND_ALONE:
                raise named(error, "binding to", local_addr) from error
            if not opened and error.errno in _BIND_OR_CONNECT:
                if not remote_addr:
                    raise named(error, "binding to", local_addr) from error
                if not local_addr:
                    raise named(error, "connecting to", remote_addr) from error
            raise

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Address = None,
        waiter: _Waiter = None,
        extra: Any = None,
    ) -> asyncio.BaseTransport:
        if not issubclass(type(sock), socket.socket):  # but a mock of one, say
            own: Any = super()
            made: asyncio.BaseTransport = own._make_datagram_transport(
                sock, protocol, address, waiter, extra
            )
            return made
        return start(self, sock, protocol, self._way, address, waiter)


class OtherEndpoints(_Loop):
    """For loops that have the whole endpoint in one piece, such as uvloop's."""

    _way: Way

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        local_addr: Any = None,
        remote_addr: Any = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket.socket | None = None,
    ) -> tuple[BatchTransport, asyncio.BaseProtocol]:
        """See `asyncio.loop.create_datagram_endpoint`."""
        if reuse_address:
            raise ValueError(
                "reuse_address=True would let another socket take the datagrams; asyncio has "
                "stopped taking it too (bpo-37228)"
            )
        options: dict[str, Any] = {"reuse_port": reuse_port, "allow_broadcast": allow_broadcast}
        only: Address = None
        with contextlib.ExitStack() as at_error:
            if sock is None:
                found = await _addresses(self, local_addr, remote_addr, family, proto, flags)
                sock, only = _first_open(found, **options)
                at_error.callback(sock.close)
            else:
                options |= {"local_addr": local_addr, "remote_addr": remote_addr}
                options |= {"family": family, "proto": proto, "flags": flags}
                _check_given(sock, [name for name, value in options.items() if value])
            protocol = protocol_factory()
            waiter: asyncio.Future[None] = self.create_future()
            transport = start(self, sock, protocol, self._way, only, waiter)
            at_error.pop_all()
        with contextlib.ExitStack() as at_error:
            at_error.callback(transport.close)
            await waiter
            at_error.pop_all()
        return transport, protocol


def start(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    way: Way,
    only: Address,
    waiter: _Waiter,
) -> BatchTransport:
    """Make a transport that begins in the loop's next turn, as asyncio's do.

    Args:
        loop: The running loop.
        sock: A nonblocking datagram socket.
        protocol: Whose methods are to be called.
        way: How to receive and send.
        only: The one address that `sendto` takes, beside None; None if it takes any.
        waiter: Gets a result when `connection_made` was called.

    Raises:
        RuntimeError: The socket has a transport.
    """
    if sock in SERVED:
        raise RuntimeError(f"{sock!r} has a transport")
    loop.remove_reader(sock)  # raises RuntimeError if it has one of the loop's own

    def end(error: BaseException | None) -> None:
        SERVED.discard(sock)
        if error is not None and not isinstance(error, OSError):  # as asyncio does
            loop.call_exception_handler(
                {
                    "message": "Fatal error on datagram transport",
                    "exception": error,
                    "transport": transport,
                    "protocol": protocol,
                }
            )

    transport = transport_for(loop, sock, protocol, way, only, end)
    SERVED.add(sock)
    loop.call_soon(transport.begin)
    loop.call_soon(transport.start_reading)  # so that `connection_made` comes first
    if waiter is not None:
        loop.call_soon(_let_go, waiter)
    return transport


def _let_go(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


_Found: TypeAlias = "list[tuple[int, int, Any, Any]]"
"""Family, protocol, and where to bind and to connect; None to do neither."""


def _check_given(sock: socket.socket, names: list[str]) -> None:
    """Refuse a socket that is not for datagrams, and arguments for opening one beside it."""
    if sock.type == socket.SOCK_STREAM:
        raise ValueError(f"A datagram socket was expected, got {sock!r}")
    if names:
        raise ValueError(
            f"sock is given, which has its options already; leave out {', '.join(names)}"
        )
    sock.setblocking(False)


async def _addresses(
    loop: asyncio.AbstractEventLoop, local: Any, remote: Any, family: int, proto: int, flags: int
) -> _Found:
    """Return the families and addresses to try, in order."""
    if not (local or remote):
        if not family:
            raise ValueError("unexpected address family: give one, or an address")
        return [(family, proto, None, None)]
    if family == getattr(socket, "AF_UNIX", None):
        for address in (local, remote):
            if address is not None and not isinstance(address, str):
                raise TypeError(f"string is expected for a unix socket, not {address!r}")
        if local and local[0] != "\0":
            _remove_left_behind(Path(local))
        return [(family, proto, local, remote)]
    sides: list[dict[tuple[int, int], Any]] = []
    for address in (local, remote):
        if address is None:
            continue
        if not isinstance(address, (tuple, list)) or len(address) != 2:
            raise TypeError(f"2-tuple is expected: (host, port), not {address!r}")
        if isinstance(address[1], int) and not 0 <= address[1] <= 65535:
            # uvloop would take the last 16 bits of it.
            raise OverflowError(f"port must be 0-65535, and is {address[1]}")
        infos = await loop.getaddrinfo(
            *address, family=family, type=socket.SOCK_DGRAM, proto=proto, flags=flags
        )
        found: dict[tuple[int, int], Any] = {}
        for kind, _, number, _, resolved in infos:
            found.setdefault((kind, number), resolved)
        sides.append(found)
    both = [key for key in sides[0] if key in sides[-1]]
    if not both:
        raise ValueError("can not get address information: no family has both addresses")
    return [
        (*key, sides[0][key] if local else None, sides[-1][key] if remote else None)
        for key in both
    ]


def _remove_left_behind(path: Path) -> None:
    """Remove a socket that a program before this one has left there, as asyncio does."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()


def _first_open(
    found: _Found, reuse_port: bool | None, allow_broadcast: bool | None
) -> tuple[socket.socket, Address]:
    """Open the first socket that can be, and return it with the address that it may send to.

    Raises:
        OSError: The first socket's error, if none can be opened.
    """
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("reuse_port not supported by socket module")
    errors: list[OSError] = []
    for family, proto, local, remote in found:
        doing, address = "", None
        with contextlib.ExitStack() as opened:
            try:
                sock = opened.enter_context(socket.socket(family, socket.SOCK_DGRAM, proto))
                sock.setblocking(False)
                if reuse_port:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if allow_broadcast:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                if local is not None:
                    doing, address = "binding to", local
                    sock.bind(local)
                if remote is not None and not allow_broadcast:
                    doing, address = "connecting to", remote
                    sock.connect(remote)  # of datagrams, so that it never waits
            except OSError as error:
                errors.append(named(error, doing, address) if address else error)
                continue
            opened.pop_all()
            return sock, remote
    raise errors[0]
