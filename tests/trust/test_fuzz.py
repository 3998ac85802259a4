"""What parses bytes that a peer, a kernel or a bug may choose, under bytes that Hypothesis makes.

They look like what is expected more often than a fuzzer's first ones do. The same targets have a
corpus (test_corpus.py), and a coverage-guided fuzzer: ``python -m tests.trust.fuzz``.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_mmsg._system.sockaddr import FAMILIES

from .fuzz.library import TARGETS
from .fuzz.rings import KINDS, receive, trains

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
few = settings(deadline=None, max_examples=30)
many = settings(deadline=None, max_examples=150)


@given(sockaddrs)
@many
def test_any_sockaddr_has_an_address(raw: bytes) -> None:
    TARGETS["sockaddr"](raw)


@given(st.lists(sockaddrs, max_size=30))
@few
def test_a_cache_of_any_sockaddrs_is_bounded(raws: list[bytes]) -> None:
    TARGETS["bounded"](b"".join(bytes([len(raw)]) + raw for raw in raws))


hosts = st.one_of(
    st.ip_addresses().map(str), st.text(max_size=20), st.sampled_from(["fe80::1%lo", "::%1", ""])
)


@given(st.binary(min_size=15, max_size=15), hosts)
@many
def test_any_address_is_encoded_or_refused(choices: bytes, host: str) -> None:
    TARGETS["address"](choices + host.encode("utf-8", "surrogatepass"))


messages = st.tuples(
    st.sampled_from([*KINDS, (200, 1)]), st.one_of(st.binary(max_size=40), st.binary(max_size=16))
)


@given(st.lists(messages, max_size=6), st.integers(0, 20))
@many
def test_any_control_messages_say_something(found: list[Any], cut: int) -> None:
    raw = b""
    for (level, kind), data in found:
        raw += struct.pack("@nii", struct.calcsize("@nii") + len(data), level, kind) + data
        raw += bytes(-len(raw) % struct.calcsize("@n"))
    TARGETS["control"](raw)
    TARGETS["control"](raw[: len(raw) - cut])


@given(st.binary(max_size=256))
@many
def test_any_control_data_is_split(raw: bytes) -> None:
    TARGETS["control"](raw)


@given(st.binary(max_size=400))
@few
def test_any_messages_in_rings(data: bytes) -> None:
    trains(data)
    receive(data)


@pytest.mark.parametrize("length", [0, 1, 11, 15, 16, 17, 2**31, 2**32, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("rest", [0, 1, 16, 200])
def test_lengths_of_control_messages_that_lie(length: int, rest: int) -> None:
    raw = struct.pack("=QII", length, int(socket.SOL_SOCKET), 35) + bytes(rest)
    for cut in range(len(raw)):
        TARGETS["control"](raw[:cut])
