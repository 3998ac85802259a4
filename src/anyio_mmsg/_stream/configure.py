"""Options of a UDP socket, for one that is opened here and for one that exists."""

from __future__ import annotations

import socket
from dataclasses import dataclass, fields

from .._receive.outlook import outlook_for
from .._receive.usable import ensure_open, ensure_socket
from .._system.options import ask_for, check_asked
from .._system.platform import family_of, type_of
from .buffers import check_buffer_size, set_buffer_size


@dataclass(frozen=True)
class Options:
    """What can be set on a socket that exists; None leaves an option as it is.

    Attributes are the arguments of `configure_udp_socket`.
    """

    timestamps: bool | None = None
    destinations: bool | None = None
    ecn: bool | None = None
    hop_limits: bool | None = None
    gro: bool | None = None
    icmp_errors: bool | None = None
    dont_fragment: bool | None = None
    receive_buffer_size: int | None = None
    send_buffer_size: int | None = None

    def check(self) -> None:
        """Refuse impossible values, before anything is set.

        Raises:
            TypeError: A value is not of its type.
            ValueError: A size is out of range, or the platform can't do it.
        """
        check_buffer_size("receive", self.receive_buffer_size)
        check_buffer_size("send", self.send_buffer_size)
        asked = self._switches()
        for name, value in asked.items():
            if value is not None and not isinstance(value, bool):
                raise TypeError(f"{name} is a {type(value).__name__}; give True or False")
        check_asked(asked)

    def apply(self, sock: socket.socket) -> None:
        """Set them; a warning of a small buffer points to the caller of the caller.

        Raises:
            OSError: The kernel does not know an option, or the socket does not.
            ValueError: See `ask_for`.
        """
        ask_for(sock, **self._switches())
        if self.icmp_errors is not None:
            outlook_for(sock).reports_errors = self.icmp_errors
        if self.receive_buffer_size is not None:
            set_buffer_size(sock, "receive", self.receive_buffer_size)
        if self.send_buffer_size is not None:
            set_buffer_size(sock, "send", self.send_buffer_size)

    def _switches(self) -> dict[str, bool | None]:
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in every.items() if not name.endswith("_size")}


def configure_udp_socket(
    sock: socket.socket,
    *,
    gro: bool | None = None,
    timestamps: bool | None = None,
    destinations: bool | None = None,
    ecn: bool | None = None,
    hop_limits: bool | None = None,
    icmp_errors: bool | None = None,
    dont_fragment: bool | None = None,
    receive_buffer_size: int | None = None,
    send_buffer_size: int | None = None,
) -> None:
    """Set options of a UDP socket that exists: from systemd, a parent, another library.

    Each does what it does in `open_udp_socket`; None leaves it as it is, False switches it off.
    Set them before anything is received: a packet that is queued already comes without them. If
    one is refused by the system, those before it may have been set.

    Args:
        sock: A UDP socket of IPv4 or IPv6, in any state. The receive functions want it
            nonblocking, which this leaves to you: ``sock.setblocking(False)``.
        gro: As in `open_udp_socket`; but once it is on, it can't be switched off. Batches that
            were made without ``gro=True`` are refused from then on.
        timestamps: As in `open_udp_socket`.
        destinations: As in `open_udp_socket`.
        ecn: As in `open_udp_socket`.
        hop_limits: As in `open_udp_socket`.
        icmp_errors: As in `open_udp_socket`. Switched off, errors that nobody has read are lost.
        dont_fragment: As in `open_udp_socket`.
        receive_buffer_size: As in `open_udp_socket`.
        send_buffer_size: As in `open_udp_socket`.

    Raises:
        OSError: The system does not know an option, or the socket does not.
        TypeError: `sock` is not a `socket.socket`, a buffer's size not an int, or another
            argument not a bool.
        ValueError: `sock` is not a UDP socket; a size is out of range; this platform can't do
            what is asked; `gro` is False, and it is on; or `icmp_errors` is True, and the program
            reads something else from the socket's error queue, such as transmit timestamps.
        anyio.ClosedResourceError: The socket is closed.
    """
    ensure_socket(sock)
    ensure_open(sock)
    families = (socket.AF_INET, socket.AF_INET6)
    if type_of(sock) != socket.SOCK_DGRAM or family_of(sock) not in families:
        raise ValueError(
            "sock is not a UDP socket; give one of AF_INET or AF_INET6, made with "
            "socket.SOCK_DGRAM"
        )
    options = Options(
        timestamps=timestamps,
        destinations=destinations,
        ecn=ecn,
        hop_limits=hop_limits,
        gro=gro,
        icmp_errors=icmp_errors,
        dont_fragment=dont_fragment,
        receive_buffer_size=receive_buffer_size,
        send_buffer_size=send_buffer_size,
    )
    options.check()
    options.apply(sock)
    outlook_for(sock).options = object()  # batches that were used with it are checked again
