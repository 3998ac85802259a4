"""Socket addresses, from sockaddr to what Python shows, and back."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_mmsg._system.addresses import (
    ADDRESS_CACHE_SIZE,
    AddressCache,
    SockaddrCache,
    sockaddrs_of,
)
from anyio_mmsg._system.sockaddr import decode_sockaddr, encode_sockaddr


def sockaddr(family: int, rest: bytes) -> bytes:
    return struct.pack("=H", family) + rest


def test_decoding() -> None:
    inet = sockaddr(socket.AF_INET, b"\x12\x34" + bytes([192, 0, 2, 1]) + bytes(8))
    assert decode_sockaddr(inet) == ("192.0.2.1", 0x1234)
    host = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    rest = b"\x00\x35" + struct.pack("!I", 0x0ABCDEF1) + host + struct.pack("=I", 7)
    inet6 = sockaddr(socket.AF_INET6, rest)
    assert decode_sockaddr(inet6) == ("2001:db8::1", 53, 0x0ABCDEF1, 7)
    assert decode_sockaddr(b"") is None
    unix = socket.AF_UNIX if hasattr(socket, "AF_UNIX") else 1
    assert decode_sockaddr(inet6[:-1]) is decode_sockaddr(inet[:-1]) is None
    assert decode_sockaddr(sockaddr(unix, b"")) == ""
    assert decode_sockaddr(sockaddr(unix, b"/run/log\0")) == "/run/log"
    assert decode_sockaddr(sockaddr(unix, b"\xff")) == "\udcff"
    assert decode_sockaddr(sockaddr(unix, b"\0a\0b\0")) == b"\0a\0b\0"
    assert decode_sockaddr(sockaddr(250, b"???")) == (250, b"???")


def test_forged_senders_do_not_grow_memory() -> None:
    cache = AddressCache()
    for number in range(3 * ADDRESS_CACHE_SIZE):
        raw = sockaddr(socket.AF_INET, struct.pack("!HI8x", 9, number))
        assert cache[raw] == (socket.inet_ntoa(struct.pack("!I", number)), 9)
        assert cache[raw] is cache[raw]
        assert len(cache) <= ADDRESS_CACHE_SIZE


HOSTS = {socket.AF_INET: st.ip_addresses(v=4), socket.AF_INET6: st.ip_addresses(v=6)}


@given(HOSTS[socket.AF_INET], st.integers(0, 65_535))
def test_there_and_back(host: object, port: int) -> None:
    address = (str(host), port)
    raw = encode_sockaddr(socket.AF_INET, address)
    assert len(raw) == 16
    assert decode_sockaddr(raw) == address


@given(
    HOSTS[socket.AF_INET6],
    st.integers(0, 65_535),
    st.integers(0, 2**20 - 1),
    st.integers(0, 2**32 - 1),
)
def test_there_and_back_by_ipv6(host: object, port: int, flowinfo: int, scope_id: int) -> None:
    packed = socket.inet_pton(socket.AF_INET6, str(host).partition("%")[0])
    address = (socket.inet_ntop(socket.AF_INET6, packed), port, flowinfo, scope_id)
    raw = encode_sockaddr(socket.AF_INET6, address)
    assert len(raw) == 28
    assert decode_sockaddr(raw) == address
    assert encode_sockaddr(socket.AF_INET6, address[:2]) == encode_sockaddr(
        socket.AF_INET6, (*address[:2], 0, 0)
    )


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_there_and_back_by_path() -> None:
    for address in (
        "/run/log",
        "\udcff",
        b"\0abstract",
        b"\0a\0b\0",
        "x" * 107,
        b"\0" + b"x" * 107,
    ):
        assert decode_sockaddr(encode_sockaddr(socket.AF_UNIX, address)) == address
    assert encode_sockaddr(socket.AF_UNIX, b"/run/log") == encode_sockaddr(
        socket.AF_UNIX, "/run/log"
    )


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
def test_an_empty_path_stays_empty() -> None:
    """With a NUL behind it, it would be a name of the abstract namespace."""
    assert encode_sockaddr(socket.AF_UNIX, "") == sockaddr(socket.AF_UNIX, b"")


def test_no_address() -> None:
    for family in (socket.AF_INET, socket.AF_INET6, 250):
        assert encode_sockaddr(family, None) == b""


def test_encoded_addresses_have_a_bound() -> None:
    cache = SockaddrCache(socket.AF_INET)
    for number in range(3 * ADDRESS_CACHE_SIZE):
        address = (socket.inet_ntoa(struct.pack("!I", number)), 9)
        assert cache[address] is cache[address]
        assert decode_sockaddr(cache[address]) == address
        assert len(cache) <= ADDRESS_CACHE_SIZE


def test_interfaces_are_asked_for_each_time() -> None:
    """One that is made again has another index."""
    cache = SockaddrCache(socket.AF_INET6)
    index, name = socket.if_nameindex()[0]
    raw = cache[f"fe80::1%{name}", 9]
    assert decode_sockaddr(raw) == ("fe80::1", 9, 0, index)
    assert raw == encode_sockaddr(socket.AF_INET6, (f"fe80::1%{index}", 9))
    assert not cache


def test_one_family_is_not_taken_for_another() -> None:
    """What is right for one, and remembered, is still refused for the other."""
    address = ("192.0.2.1", 9)
    assert sockaddrs_of(socket.AF_INET)[address]
    with pytest.raises(ValueError, match="IPv4"):
        sockaddrs_of(socket.AF_INET6)[address]


@pytest.mark.parametrize("size", [2, 8, 15])
def test_a_sockaddr_that_was_cut_is_not_remembered(size: int) -> None:
    known = sockaddrs_of(socket.AF_INET)
    known.clear()
    raw = sockaddr(socket.AF_INET, struct.pack("!HI8x", 7, 0xC0000201))[:size]
    assert AddressCache()[raw] is None
    assert known == {}
    assert len(known["192.0.2.1", 7]) == 16


def test_what_was_decoded_is_known_when_it_is_to_be_encoded() -> None:
    for number in range(3 * ADDRESS_CACHE_SIZE):
        raw = sockaddr(socket.AF_INET, struct.pack("!HI8x", 7, number))
        address = AddressCache()[raw]
        known = sockaddrs_of(socket.AF_INET)
        assert dict.get(known, address) is raw
        assert len(known) <= ADDRESS_CACHE_SIZE
