"""One payload to many addresses."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from anyio_mmsg import (
    PacketBatch,
    ReceiveEngine,
    SendEngine,
    SendResult,
    multi_target_send,
    recv_mmsg,
)

from ..helpers import Family, nowhere
from .helpers import received

pytestmark = pytest.mark.anyio


async def test_one_payload_to_many(sending: SendEngine, family: Family) -> None:
    sender, *receivers = (family.open() for _ in range(5))
    for data in (b"news", bytearray(b""), memoryview(b"x" * 3000)):
        addresses = [receiver.getsockname() for receiver in receivers]
        result = await multi_target_send(sender, data, iter(addresses), engine=sending)
        assert result == SendResult(4, [])
        assert [received(receiver) for receiver in receivers] == [[bytes(data)]] * 4
    assert await multi_target_send(sender, b"", [], engine=sending) == SendResult(0, [])


async def test_a_payload_that_is_a_number_too(sending: SendEngine, inet: Family) -> None:
    """Such as NumPy's: its buffer counts, nothing beyond it is sent."""

    class Number(bytes):
        def __index__(self) -> int:
            return 3

    sender, receiver = inet.open(), inet.open()
    data = Number(b"a" * 5000)
    await multi_target_send(sender, data, [receiver.getsockname()], engine=sending)
    assert received(receiver) == [b"a" * 5000]


async def test_a_packet_to_many_and_back(
    sending: SendEngine, engine: ReceiveEngine, family: Family
) -> None:
    """A relay: what came goes on to others, and to who sent it."""
    relay, client, *others = (family.open() for _ in range(4))
    batch = PacketBatch(engine=engine)
    client.sendto(b"news", relay.getsockname())
    with anyio.fail_after(60):
        await recv_mmsg(relay, batch)
        (packet,) = batch
        targets = [packet, *(other.getsockname() for other in others)]
        result = await multi_target_send(relay, packet.data, targets, engine=sending)
    assert result == SendResult(3, [])
    assert [received(sock) for sock in (client, *others)] == [[b"news"]] * 3


async def test_one_payload_to_bad_addresses(sending: SendEngine, family: Family) -> None:
    sender, receiver = family.open(), family.open()
    bad, number = nowhere(family)
    good = receiver.getsockname()
    result = await multi_target_send(sender, b"x", [good, bad, good, bad], engine=sending)
    assert [(index, error.errno) for index, error in result.failures] == [(1, number), (3, number)]
    assert result.sent == 2
    assert received(receiver) == [b"x", b"x"]


@pytest.mark.parametrize(
    ("data", "addresses", "error", "text"),
    [
        ("text", [], TypeError, "^the data is a str, not bytes-like; encode it"),
        (bytes(65_508), [], ValueError, "^the data has 65508 bytes"),
        (b"", ("127.0.0.1", 9), TypeError, "^packet 0: address is '127.0.0.1'"),
        (b"", "127.0.0.1", TypeError, "^addresses is '127.0.0.1'; give a list"),
        (b"", 9, TypeError, "^addresses is 9; give a list"),
        (b"", [("127.0.0.1", 9), ("name", 9)], ValueError, "^packet 1: host is 'name'"),
    ],
)
async def test_what_a_multi_target_send_refuses(
    data: Any, addresses: Any, error: type[Exception], text: str, inet: Family
) -> None:
    sender = inet.open()
    with pytest.raises(error, match=text):
        await multi_target_send(sender, data, addresses)
