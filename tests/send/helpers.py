"""What several tests of sending need."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest
from anyio import WouldBlock

from anyio_mmsg import PacketBatch, SendResult, multi_target_send, send_mmsg, send_mmsg_nowait

from ..helpers import drain


def arrived(sock: socket.socket) -> list[tuple[bytes, Any]]:
    """Return what has arrived, with the senders."""
    got = []
    while True:
        try:
            got.append(sock.recvfrom(70_000))
        except BlockingIOError:
            return got


def received(sock: socket.socket) -> list[bytes]:
    """Return what has arrived."""
    return [data for data, _ in arrived(sock)]


def failures(result: SendResult) -> list[tuple[int, int | None]]:
    return [(index, error.errno) for index, error in result.failures]


def fill(batch: PacketBatch, receiver: socket.socket, *sent: tuple[socket.socket, bytes]) -> None:
    """Have a batch hold what `receiver` got from these senders."""
    for sender, data in sent:
        sender.sendto(data, receiver.getsockname())
    drain(receiver, batch, len(sent))


def fill_from_peer(
    batch: PacketBatch, sock: socket.socket, peer: socket.socket, *datas: bytes
) -> None:
    """Have a batch hold what `sock` got from the socket that it is connected to."""
    for data in datas:
        peer.send(data)
    drain(sock, batch, len(datas))


def fill_buffer(sender: socket.socket) -> int:
    """Send until there is no room; return how many packets that took."""
    filled = 0
    while True:
        try:
            filled += send_mmsg_nowait(sender, [(b"filler", None)]).sent
        except WouldBlock:
            return filled


Send: TypeAlias = Callable[..., Awaitable[SendResult]]


async def send_pairs(sock: socket.socket, datas: list[bytes], to: Any, **how: Any) -> SendResult:
    return await send_mmsg(sock, [(data, to) for data in datas], **how)


async def send_fan(sock: socket.socket, datas: list[bytes], to: Any, **how: Any) -> SendResult:
    return await multi_target_send(sock, datas[0], [to] * len(datas), **how)


both = pytest.mark.parametrize("send", [send_pairs, send_fan])
