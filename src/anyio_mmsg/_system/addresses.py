"""The two caches of addresses, by sockaddr and by address: bounded, as senders are forged."""

from __future__ import annotations

import struct
from collections.abc import Callable

from .._packets.packet import Address
from .sockaddr import FAMILIES, decode_sockaddr, encode_sockaddr, has_zone

ADDRESS_CACHE_SIZE = 4096
"""Peers whose addresses are remembered, each way. Arbitrary: a large collector's share of busy
senders, in about 1 MB (tracemalloc). More peers, or forged ones, cost a conversion each, not
memory."""

_FAMILY = struct.Struct("=H")


class AddressCache(dict[bytes, Address]):
    """Decoded addresses by sockaddr: ``cache[raw]`` decodes what it does not have.

    A dict, since a hit then costs no call into Python. It is emptied when it is full; busy senders
    are back with their next packet.
    """

    def __missing__(self, raw: bytes) -> Address:
        if len(self) >= ADDRESS_CACHE_SIZE:
            self.clear()
        address = self[raw] = decode_sockaddr(raw)
        if address is not None:
            (family,) = _FAMILY.unpack_from(raw)
            if family in FAMILIES:
                sockaddrs_of(family).remember(address, raw)  # a reply need not encode it
        return address


class SockaddrCache(dict[Address, bytes]):
    """Sockaddrs of one family by address: ``cache[address]`` encodes what it does not have.

    Addresses that are equal are one: a port of 9.0 passes for 9, once that is known. Bounded as
    `AddressCache` is.

    Raises:
        TypeError: See `encode_sockaddr`.
        ValueError: See `encode_sockaddr`.
    """

    def __init__(self, family: int) -> None:
        super().__init__()
        self.family = family

    def __missing__(self, address: Address) -> bytes:
        raw = encode_sockaddr(self.family, address)
        if not has_zone(address):  # an interface may come back with another index
            self.remember(address, raw)
        return raw

    def remember(self, address: Address, raw: bytes) -> None:
        """Take `raw` as what `address` is encoded to."""
        if len(self) >= ADDRESS_CACHE_SIZE:
            self.clear()
        self[address] = raw


class _Families(dict[int, SockaddrCache]):
    def __missing__(self, family: int) -> SockaddrCache:
        cache = self[family] = SockaddrCache(family)
        return cache


# For all sockets and batches, since a peer does not care which one it meets.
ADDRESSES = AddressCache()

sockaddrs_of: Callable[[int], SockaddrCache] = _Families().__getitem__
"""Returns the cache of a family's sockaddrs; costs no call into Python."""
