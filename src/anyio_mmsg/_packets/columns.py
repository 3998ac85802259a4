"""`Columns`: all packets of a batch as arrays, for code that reads many at once."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from . import Slots
from .memory import paged
from .packet import Address

NO_TIME = -(2**63)
"""The timestamp of a packet that has none: what numpy reads as NaT, not a time."""

HOST_CACHE_SIZE = 4096
"""How many hosts are remembered as bytes: as many as each cache of addresses has."""

_NOWHERE = bytes(16)


@dataclass(frozen=True, eq=False, repr=False)
class Columns:
    """All packets that a batch held, as arrays with a row for each, oldest first.

    What `PacketBatch.columns` returns. Its attributes are memoryviews, C-contiguous and read-only,
    which numpy, pyarrow, polars, `array` and `struct` read without a copy. ``len(columns)`` is
    the number of packets, n.

    Attributes:
        data: Format "B", shape (n, width): row i begins with packet i. What follows its size in
            the row is undefined. A view, as `Packet.data` is: after a release of any of its
            packets it raises ValueError, but an array that was made of it (numpy) doesn't notice.
        sizes: Format "I", shape (n,): the bytes of each row that are the packet's.
        wire_sizes: Format "I", shape (n,): bytes of each packet as it was sent; above `sizes`
            where it was cut, equal where the platform does not report it.
        hosts: Format "B", shape (n, 16): the IPv6 address of each sender. An IPv4 one is mapped,
            ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2); zeros for other families.
        ports: Format "H", shape (n,), in the machine's byte order; 0 for other families.
        timestamps: Format "q", shape (n,): when the kernel took each packet in, in nanoseconds
            since the epoch; -2**63, numpy's NaT, for one without. None unless the batch was made
            with ``ancillary=True``.
    """

    data: memoryview
    sizes: memoryview
    wire_sizes: memoryview
    hosts: memoryview
    ports: memoryview
    timestamps: memoryview | None

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        return f"<Columns of {len(self)} packets>"


def columns_of(slots: Slots) -> Columns:
    """Return all that is held as `Columns`, for `PacketBatch.columns`, and with its errors."""
    while True:
        if not slots.held:
            raise ValueError(
                "the batch holds no packets, and arrays of no rows can't be made; receive first, "
                "or look at len(batch)"
            )
        data, sizes, wire_sizes, hosts, ports, timestamps = slots.columns(paged)
        count = len(sizes)
        if hosts is None or ports is None:
            hosts, ports = _senders(slots.addresses(0))
        if timestamps is None and slots.ancillary:
            timestamps = _times(slots.timestamps())
        # A signal handler may have released some meanwhile.
        if len(ports) == count and (timestamps is None or len(timestamps) == count):
            return Columns(data, sizes, wire_sizes, hosts, ports, timestamps)


def _senders(addresses: Iterable[Address]) -> tuple[memoryview, memoryview]:
    """Return the hosts and the ports of senders; see `Columns`."""
    hosts, ports = bytearray(), array("H")
    for address in addresses:
        host, port = _NOWHERE, 0
        if isinstance(address, tuple) and len(address) in (2, 4) and isinstance(address[0], str):
            host = (_mapped if len(address) == 2 else _ipv6)(address[0])
            port = address[1] if host is not _NOWHERE else 0
        hosts += host
        ports.append(port)
    rows = memoryview(bytes(hosts)).cast("B", (len(ports), 16))
    return rows, memoryview(ports).toreadonly()


def _times(timestamps: Iterable[int | None]) -> memoryview:
    """Return timestamps; see `Columns`. A time of more than 64 bits counts as no timestamp."""
    known = (NO_TIME if time is None or abs(time) >= 2**63 else time for time in timestamps)
    return memoryview(array("q", known)).toreadonly()


@lru_cache(HOST_CACHE_SIZE)
def _mapped(host: str) -> bytes:
    """Return a numeric IPv4 address, mapped; `_NOWHERE` for anything else."""
    try:
        packed = bytes(map(int, host.split(".")))
    except ValueError:
        return _NOWHERE
    return b"\0" * 10 + b"\xff\xff" + packed if len(packed) == 4 else _NOWHERE


@lru_cache(HOST_CACHE_SIZE)
def _ipv6(host: str) -> bytes:
    """Return a numeric IPv6 address, without its scope; `_NOWHERE` if it isn't one."""
    from ipaddress import IPv6Address  # here, since most programs never need it

    try:
        return IPv6Address(host.partition("%")[0]).packed
    except ValueError:
        return _NOWHERE
