"""What parses bytes that a peer, a kernel or a bug may choose: any bytes give an answer.

An answer, and no exception: these are read after a packet was received, where none helps.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_mmsg._system import control
from anyio_mmsg._system.addresses import ADDRESS_CACHE_SIZE, AddressCache
from anyio_mmsg._system.sockaddr import FAMILIES, decode_sockaddr, encode_sockaddr

families = st.one_of(
    st.sampled_from(sorted(int(family) for family in FAMILIES if family is not None)),
    st.integers(0, 65_535),
)
sockaddrs = st.one_of(
    st.binary(max_size=128),
    st.builds(
        lambda family, rest: struct.pack("=H", family) + rest, families, st.binary(max_size=126)
    ),
)


@given(sockaddrs)
@settings(deadline=None, max_examples=150)
def test_any_sockaddr_has_an_address(raw: bytes) -> None:
    address = decode_sockaddr(raw)
    hash(address)  # it is a key of caches
    assert AddressCache()[raw] == address
    if len(raw) < 2:
        assert address is None
        return
    (family,) = struct.unpack_from("=H", raw)
    if family == socket.AF_INET:
        assert address is None if len(raw) < 8 else len(address) == 2
    elif family == socket.AF_INET6:
        assert address is None if len(raw) < 28 else len(address) == 4
    elif family not in FAMILIES:
        assert address == (family, raw[2:])
    if address is not None and family in (socket.AF_INET, socket.AF_INET6):
        size = 8 if family == socket.AF_INET else 28
        try:
            encoded = encode_sockaddr(family, address)
        except ValueError as error:  # a flow label of more than 20 bits
            assert "flowinfo" in str(error)  # noqa: PT017
        else:
            assert encoded[:size] == raw[:size]


@given(st.lists(sockaddrs, max_size=30))
@settings(deadline=None, max_examples=30)
def test_a_cache_of_any_sockaddrs_is_bounded(raws: list[bytes]) -> None:
    cache = AddressCache()
    cache.update((b"%d" % number, None) for number in range(ADDRESS_CACHE_SIZE - 10))
    for raw in raws:
        cache[raw]
    assert len(cache) <= ADDRESS_CACHE_SIZE


LEVELS = [socket.SOL_SOCKET, 0, 17, 41, 200]
messages = st.tuples(st.sampled_from(LEVELS), st.integers(0, 110), st.binary(max_size=40))


@given(st.lists(messages, max_size=6))
@settings(deadline=None, max_examples=150)
def test_any_control_messages_say_something(found: list[Any]) -> None:
    control.decode(found)
    control.control_of(found)
    segment = control.segment_of(found)
    assert segment in range(2**32)


@given(st.binary(max_size=256))
@settings(deadline=None, max_examples=150)
def test_any_control_data_is_split(raw: bytes) -> None:
    for level, kind, data in control.split(raw):
        assert isinstance(level, int)
        assert isinstance(kind, int)
        assert len(data) <= len(raw)
    control.decode(control.split(raw))


@pytest.mark.parametrize("length", [0, 1, 11, 15, 16, 17, 2**31, 2**32, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("rest", [0, 1, 16, 200])
def test_lengths_of_control_messages_that_lie(length: int, rest: int) -> None:
    raw = struct.pack("=QII", length, socket.SOL_SOCKET, 35) + bytes(rest)
    for cut in range(len(raw)):
        control.decode(control.split(raw[:cut]))
