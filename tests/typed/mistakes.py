# pyright: basic, reportUnnecessaryTypeIgnoreComment=true
"""What must not check: each line says which error mypy finds there, and pyright finds one too.

Nothing here is run. If a line checks after all, that is an error: of a comment that ignores none.
"""

from __future__ import annotations

import asyncio
import socket

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from anyio_mmsg import (
    Packet,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    SendResult,
    feed,
    multi_target_send,
    open_udp_socket,
    recv_datagrams,
    recv_mmsg,
    recv_mmsg_nowait,
    send_mmsg,
    send_mmsg_nowait,
    serve_protocol,
)
from anyio_mmsg.testing import Datagram, ScriptedReceiver, fill_batch, make_batch


async def receiving(sock: socket.socket, batch: PacketBatch) -> None:
    await recv_mmsg(batch, sock)  # type: ignore[arg-type]
    await recv_mmsg(sock, bytearray(1232))  # type: ignore[arg-type]
    await recv_mmsg(sock, batch, limit="64")  # type: ignore[arg-type]
    received: list[Packet] = await recv_mmsg(sock, batch)  # type: ignore[assignment]
    print(recv_mmsg(sock, batch) + 1)  # type: ignore[operator]
    for packet in recv_mmsg_nowait(sock, batch):  # type: ignore[attr-defined]
        print(packet)
    PacketBatch(size=64)  # type: ignore[call-arg]
    PacketBatch(memory=1232)  # type: ignore[arg-type]
    await recv_datagrams(sock, batch)  # type: ignore[arg-type]
    await recv_datagrams(sock, 64, 2048)  # type: ignore[call-arg]
    batch.columns().data = memoryview(b"")  # type: ignore[misc]
    PacketBatch(slot_size="1472")  # type: ignore[arg-type]
    PacketBatch(engine="recvmsg")  # type: ignore[arg-type]
    PacketBatchPool(engine="sendmmsg")  # type: ignore[arg-type]
    print(received)


def packets(packet: Packet, batch: PacketBatch) -> None:
    packet.data = memoryview(b"x")  # type: ignore[misc]
    packet.address = ("127.0.0.1", 1)  # type: ignore[misc]
    packet.size = 1  # type: ignore[misc]
    print(packet.addr)  # type: ignore[attr-defined]
    text: str = packet.data  # type: ignore[assignment]
    print(packet.data.decode())  # type: ignore[attr-defined]
    print(packet.address.host)  # type: ignore[attr-defined]
    print(packet.address[1].upper())  # type: ignore[attr-defined]
    print(packet.wire_size + 1)  # type: ignore[operator]
    print(packet.timestamp / 1e9)  # type: ignore[operator]
    print(batch["first"])  # type: ignore[call-overload]
    batch.release("all")  # type: ignore[arg-type]
    batch.free = 3  # type: ignore[misc]
    Packet(b"x", ("127.0.0.1", 1))  # type: ignore[call-arg]
    print(text)


class Better(Packet):  # type: ignore[misc]
    pass


async def sending(sock: socket.socket, batch: PacketBatch, result: SendResult) -> None:
    await send_mmsg(sock, b"x")  # type: ignore[arg-type]
    await send_mmsg(sock, (b"x", ("127.0.0.1", 1)))  # type: ignore[arg-type]
    await send_mmsg(sock, [("text", ("127.0.0.1", 1))])  # type: ignore[list-item]
    await send_mmsg(sock, [(b"x", ("127.0.0.1", "1"))])  # type: ignore[list-item]
    await send_mmsg(sock, [(b"x", 9999)])  # type: ignore[list-item]
    await send_mmsg(sock, [(b"x", "127.0.0.1", 9999)])  # type: ignore[list-item]
    await send_mmsg(sock, batch, engine="recvmmsg")  # type: ignore[arg-type]
    await multi_target_send(sock, b"x", [], engine="")  # type: ignore[arg-type]
    await send_mmsg(sock, batch, True)  # type: ignore[call-arg]
    await multi_target_send(sock, [b"x"], [("127.0.0.1", 1)])  # type: ignore[arg-type]
    await multi_target_send(sock, b"x", ("127.0.0.1", 1))  # type: ignore[arg-type]
    send_mmsg_nowait(sock, batch, result=0)  # type: ignore[arg-type]
    result.sent = 3  # type: ignore[misc]
    print({result})  # pyright: ignore[reportUnhashable]


async def streams(
    sock: socket.socket, stream: MemoryObjectReceiveStream[PacketBatch], numbers: list[int]
) -> None:
    await open_udp_socket("127.0.0.1", "9999")  # type: ignore[arg-type]
    await open_udp_socket("127.0.0.1", 9999, rcvbuf=1)  # type: ignore[call-arg]
    PacketReceiver(sock, errors="ignore")  # type: ignore[arg-type]
    PacketReceiver(await anyio.create_udp_socket())  # type: ignore[arg-type]
    receiver = PacketReceiver(sock)
    for batch in receiver:  # type: ignore[attr-defined]
        print(batch)
    await receiver.stop()  # type: ignore[func-returns-value, misc]
    receiver.statistics().packets = 0  # type: ignore[misc]
    send, _ = anyio.create_memory_object_stream[Packet](16)
    await feed(receiver, send)  # type: ignore[arg-type]
    await feed(receiver, stream)  # type: ignore[arg-type]
    batches, _ = anyio.create_memory_object_stream[PacketBatch](16)
    await feed(receiver, batches, "drop")  # type: ignore[arg-type]
    print(numbers)


async def protocols(sock: socket.socket) -> None:
    await serve_protocol(sock, asyncio.DatagramProtocol)  # type: ignore[arg-type]
    await serve_protocol(sock, asyncio.Protocol())  # type: ignore[arg-type]
    await serve_protocol(sock, asyncio.DatagramProtocol(), send_engine="recvmmsg")  # type: ignore[arg-type]
    await serve_protocol(sock, asyncio.DatagramProtocol(), 64)  # type: ignore[call-arg]
    (await serve_protocol(sock, asyncio.DatagramProtocol())).close()  # type: ignore[attr-defined, func-returns-value]


def tests_of_users(batch: PacketBatch) -> None:
    make_batch(b"x")  # type: ignore[arg-type]
    make_batch(["x"])  # type: ignore[list-item]
    make_batch([(b"x", ("127.0.0.1", "1"))])  # type: ignore[list-item]
    fill_batch([], [b"x"])  # type: ignore[arg-type]
    Datagram(b"x", 9999)  # type: ignore[arg-type]
    Datagram(b"x", ("127.0.0.1", 1), 5)  # type: ignore[call-arg]
    Datagram(b"x", ecn="1")  # type: ignore[arg-type]
    ScriptedReceiver([b"x"])  # type: ignore[list-item]
    ScriptedReceiver([["x"]])  # type: ignore[list-item]
    ScriptedReceiver([batch], linger=1)  # type: ignore[call-arg]
