"""Targets: sockaddrs, addresses and control messages, one at a time."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from ipaddress import IPv6Address, ip_address
from typing import Any

from anyio_mmsg._packets.packet import Control
from anyio_mmsg._send.ancillary import pack
from anyio_mmsg._system import addresses, control, stamps

# The modules, not their functions: a test puts faults into them.
from anyio_mmsg._system import sockaddr as subject
from anyio_mmsg._system.addresses import ADDRESS_CACHE_SIZE, AddressCache
from anyio_mmsg._system.control import Ancillary

from .reader import Reader

INET, INET6 = int(socket.AF_INET), int(socket.AF_INET6)
UNIX = int(getattr(socket, "AF_UNIX", 1))
SIZES = {INET: 16, INET6: 28}  # of sockaddr_in and sockaddr_in6 (ip(7), ipv6(7))
_INT = struct.Struct("=i")


def expected_address(raw: bytes) -> Any:
    """Decode a sockaddr as the manual pages describe it, with `ipaddress`."""
    if len(raw) < 2:
        return None
    family = int.from_bytes(raw[:2], "little" if struct.pack("=H", 1)[0] else "big")
    if len(raw) < SIZES.get(family, 0):
        return None
    port = int.from_bytes(raw[2:4], "big")
    if family == INET:
        return str(ip_address(raw[4:8])), port
    if family == INET6:
        flowinfo, scope = struct.unpack("!I", raw[4:8])[0], struct.unpack("=I", raw[24:28])[0]
        return IPv6Address(raw[8:24]), port, flowinfo, scope
    if family == UNIX:
        return raw[2:] if raw[2:3] == b"\0" else os.fsdecode(raw[2:].split(b"\0")[0])
    return family, raw[2:]


def sockaddr(data: bytes) -> None:
    """Any bytes as a sockaddr: they have an address, and it leads back to them."""
    raw = data[:128]
    for family in (INET, INET6, UNIX):
        addresses.sockaddrs_of(family).clear()
    address: Any = subject.decode_sockaddr(raw)
    hash(address)  # it is a key of caches
    shown: Any = address
    if type(address) is tuple and len(address) == 4:
        assert socket.inet_pton(INET6, address[0]) == raw[8:24]
        shown = IPv6Address(address[0]), *address[1:]
    assert shown == expected_address(raw), address
    assert AddressCache()[raw] == address
    family = struct.unpack_from("=H", raw)[0] if len(raw) >= 2 else 0
    if family not in (INET, INET6, UNIX):
        return
    known = addresses.sockaddrs_of(family)
    assert known[None] == b""
    with contextlib.suppress(ValueError):  # a flow label of more than 20 bits, a path too long
        encoded = subject.encode_sockaddr(family, address)
        assert subject.decode_sockaddr(encoded) == address
        if family in SIZES and address is not None:
            kept = 8 if family == INET else 28  # padding may be anything
            assert encoded[:kept] == raw[:kept]
            assert len(encoded) == SIZES[family]
    if address is not None:  # whatever is remembered for an answer
        remembered = known[address]
        assert subject.decode_sockaddr(remembered) == address
        assert len(remembered) >= SIZES.get(family, 2)


def bounded(data: bytes) -> None:
    """Many sockaddrs: the caches keep their size."""
    reader, cache = Reader(data), AddressCache()
    cache.update((b"%300d" % number, None) for number in range(ADDRESS_CACHE_SIZE - 3))
    while reader.left:
        raw = reader.block()
        cache[raw]
        assert len(cache) <= ADDRESS_CACHE_SIZE
        assert cache[raw] == subject.decode_sockaddr(raw)
    for family in (INET, INET6, UNIX):
        assert len(addresses.sockaddrs_of(family)) <= ADDRESS_CACHE_SIZE


def address(data: bytes) -> None:
    """Any address that a program may give: it is encoded, or refused in words."""
    reader = Reader(data)
    family = (INET, INET6, UNIX, 200)[reader.below(4)]
    kind, numbers = reader.below(8), [reader.number(4) - 2**31 for _ in range(3)]
    if reader.below(2):
        numbers = [number % 2**16 for number in numbers]
    raw = reader.take(200)
    text = raw.decode("utf-8", "surrogateescape")
    given: Any = (text, *numbers[: kind % 4]) if kind < 6 else (text, raw)[kind - 6]
    encoded, refusal = b"", None
    try:
        encoded = subject.encode_sockaddr(family, given)
    except (TypeError, ValueError) as error:
        refusal = error.with_traceback(None)
    if refusal is not None:
        assert str(refusal)
        assert not isinstance(refusal, UnicodeError), "these are not our words"
        return
    shown: Any = subject.decode_sockaddr(encoded)
    assert len(encoded) <= SIZES.get(family, 2 + 108)  # sockaddr_un (unix(7))
    if family in SIZES:
        host, zone = given[0].partition("%")[::2]
        assert ip_address(shown[0]) == ip_address(host), shown
        assert zone or shown[1:] == (*given[1:], 0, 0)[: len(shown) - 1]
        assert subject.encode_sockaddr(family, shown) == encoded
    else:
        name = os.fsencode(raw if kind == 7 else text)
        assert os.fsencode(shown) == (name if name[:1] == b"\0" else name.split(b"\0")[0])


def expected_messages(raw: bytes) -> list[Ancillary]:
    """Take control data apart as cmsg(3) says."""
    found, rest = [], raw
    while len(rest) >= struct.calcsize("@nii"):
        length, level, kind = struct.unpack_from("@nii", rest)
        if length < 16 or length > len(rest):
            break
        found.append((level, kind, rest[16:length]))
        rest = rest[(length + 7) // 8 * 8 :]
    return found


def expected_control(messages: list[Ancillary]) -> tuple[Control, int]:
    """Return what control messages say, and a segment size, by other means than the library."""
    said: dict[str, Any] = {}
    spec, segment = None, None
    for level, kind, data in messages:
        number = _INT.unpack_from(data)[0] if len(data) >= 4 else data[0] if data else None
        name = {(0, 1): "ecn", (41, 67): "ecn", (0, 2): "hop_limit", (41, 52): "hop_limit"}.get(
            (level, kind)
        )
        if name:
            said[name] = number if name == "hop_limit" or number is None else number % 4
        if (level, kind) == (17, 104) and len(data) >= 4 and segment is None:
            segment = number if 0 < (number or 0) < 65536 else 0
        if (level, kind) == (0, 8) and len(data) >= 12:
            spec = socket.inet_ntoa(data[4:8])
            said["interface"] = said.get("interface") or number
            said["destination"] = said.get("destination") or socket.inet_ntoa(data[8:12])
            said["local"] = spec
        if (level, kind) == (41, 50) and len(data) >= 20:
            said["destination"] = socket.inet_ntop(INET6, data[:16])
            said["interface"] = struct.unpack("=I", data[16:20])[0]
            said["local"] = said.get("local") or said["destination"]
    return Control(**said), segment or 0


def control_data(data: bytes) -> None:
    """Any bytes as control data, and any messages."""
    messages = control.split(data)
    if struct.calcsize("@n") == 8:
        assert messages == expected_messages(data)
    assert control.split(pack(tuple(messages))) == messages
    said, segment = expected_control(messages)
    assert control.decode(messages) == said
    assert control.segment_of(messages) == segment
    # A timestamp says nothing else, and a part of another message can't be one.
    assert control.control_of(messages) == said
    for level, kind, content in messages:
        stamp = stamps.timestamp_of((level, kind, content))
        if level == socket.SOL_SOCKET and kind in (29, 35, 63, 64) and len(content) in (8, 16):
            half = len(content) // 2
            parts = [
                int.from_bytes(content[at : at + half], "little", signed=True) for at in (0, half)
            ]
            if struct.pack("=H", 1)[0]:
                scale = 1 if kind in (35, 64) else 1000
                assert stamp == parts[0] * 10**9 + parts[1] * scale
        else:
            assert stamp is None
    every = [messages[at:] for at in range(len(messages) + 1)]
    assert stamps.arrivals_of(every) == [stamps.arrival_of(some) for some in every]


TARGETS = {
    "sockaddr": sockaddr,
    "bounded": bounded,
    "address": address,
    "control": control_data,
}
