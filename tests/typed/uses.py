# pyright: strict
"""How users write it: this has to check under mypy --strict and pyright's strict mode.

Nothing here is run. mistakes.py has what must not check.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ObjectReceiveStream, SocketAttribute
from anyio.streams.memory import MemoryObjectReceiveStream

from anyio_mmsg import (
    NUM_RCVMMSGS,
    PACKET_DATA_SIZE,
    TRANSIENT_ERRORS,
    Address,
    BatchFullError,
    Columns,
    Destination,
    IcmpError,
    MulticastGroup,
    OverloadPolicy,
    Packet,
    PacketBatch,
    PacketBatchPool,
    PacketReceiver,
    Packets,
    Payload,
    PoolStatistics,
    ReceiveEngine,
    ReceiverStatistics,
    SendEngine,
    SendFailure,
    SendOptions,
    SendResult,
    StatisticsDelta,
    UnusableSocketError,
    aclose_udp_socket,
    batched_loop_factory,
    compiled,
    configure_udp_socket,
    feed,
    multi_target_send,
    open_udp_socket,
    recv_datagrams,
    recv_datagrams_nowait,
    recv_errors_nowait,
    recv_mmsg,
    recv_mmsg_exact,
    recv_mmsg_nowait,
    send_mmsg,
    send_mmsg_nowait,
    serve_protocol,
)
from anyio_mmsg.testing import (
    Datagram,
    DatagramLike,
    Dropped,
    ScriptedReceiver,
    ScriptedTransport,
    Sender,
    Step,
    fill_batch,
    make_batch,
)

if TYPE_CHECKING:
    from typing_extensions import assert_type


async def sockets() -> None:
    plain = await open_udp_socket("127.0.0.1", 9999)
    assert_type(plain, socket.socket)
    configure_udp_socket(plain, timestamps=True, gro=None, icmp_errors=True)
    await aclose_udp_socket(plain)
    configure_udp_socket(plain, receive_buffer_size=1 << 20, dont_fragment=False)
    for error in recv_errors_nowait(plain, limit=8):
        assert_type(error, IcmpError)
        assert_type(error.destination, Address)
        assert_type(error.offender, str | None)
        assert_type(error.mtu, int | None)
        assert_type((error.icmp_type, error.icmp_code), tuple[int, int])
        assert_type((error.local, error.data), tuple[bool, bytes])
    group = MulticastGroup("ff02::1:3", interface="eth0", source="2001:db8::1")
    await open_udp_socket(None, 9999, family=socket.AF_INET6, multicast_groups=group)
    await open_udp_socket(None, 9999, multicast_groups=[MulticastGroup("239.1.2.3"), "239.1.2.4"])
    await open_udp_socket(
        multicast_groups="239.1.2.3", multicast_ttl=4, multicast_loop=False, multicast_interface=2
    )
    await open_udp_socket(
        "::",
        9999,
        reuse_port=True,
        receive_buffer_size=8 << 20,
        timestamps=True,
        destinations=True,
        ecn=True,
        hop_limits=True,
        gro=True,
    )
    await open_udp_socket(remote_host="192.0.2.1", remote_port=53, dont_fragment=True)


async def receiving(sock: socket.socket) -> None:
    batch = PacketBatch(NUM_RCVMMSGS, slot_size=PACKET_DATA_SIZE, engine="auto")
    assert_type(await recv_mmsg(sock, batch), int)
    assert_type(recv_mmsg_nowait(sock, batch, 16), int)
    try:
        assert_type(await recv_mmsg_exact(sock, batch, count=3), int)
    except (BatchFullError, anyio.WouldBlock, anyio.BusyResourceError):
        batch.clear()
    with batch:
        assert_type(batch[0], Packet)
        assert_type(batch[-3:], list[Packet])
        assert_type(iter(batch), Iterator[Packet])
        assert_type(batch.payloads(), list[memoryview])
        assert_type(batch.addresses(), list[Address])
        assert_type(batch.sizes(), list[int])
        assert_type(batch.truncated(), list[bool])
        assert_type(batch.wire_sizes(), list[int | None])
        assert_type(batch.buffer, memoryview)
        assert_type(
            (batch.capacity, batch.slot_size, batch.free, len(batch)), tuple[int, int, int, int]
        )
        assert_type((batch.closed, batch.gro, batch.ancillary), tuple[bool, bool, bool])
        batch.release()
        batch.release(len(batch))


async def datagrams(sock: socket.socket, batch: PacketBatch) -> None:
    for data, address in await recv_datagrams(sock):
        assert_type(data, bytes)
        assert_type(address, Address)
    assert_type(await recv_datagrams(sock, 8, max_size=2048), list[tuple[bytes, Address]])
    assert_type(recv_datagrams_nowait(sock, limit=8), list[tuple[bytes, Address]])
    assert_type(batch.datagrams(), list[tuple[bytes, Address]])


def arrays(batch: PacketBatch) -> int:
    columns = batch.columns()
    assert_type(columns, Columns)
    assert_type((columns.data, columns.sizes), tuple[memoryview, memoryview])
    assert_type((columns.wire_sizes, columns.hosts), tuple[memoryview, memoryview])
    assert_type(columns.ports, memoryview)
    assert_type(columns.timestamps, memoryview | None)
    own = PacketBatch(4, 1500, memory=bytearray(6000))
    own.close()
    return len(columns)


def packets(packet: Packet) -> tuple[str, int]:
    assert_type(packet.data, memoryview)
    assert_type((packet.size, packet.truncated), tuple[int, bool])
    assert_type(packet.wire_size, int | None)
    assert_type((packet.timestamp, packet.destination), tuple[int | None, str | None])
    assert_type((packet.interface, packet.ecn), tuple[int | None, int | None])
    assert_type(packet.hop_limit, int | None)
    assert_type(packet.hardware_timestamp, int | None)
    match packet:
        case Packet(data=data, address=("127.0.0.1", _)):
            print(bytes(data).decode())
        case _:
            return "", 0
    # Of IPv4; with a slice or a star it is right for IPv6 too.
    host, port = packet.address
    host, port = packet.address[:2]
    host, port, *_ = packet.address
    host = packet.address[0]
    print(f"{host.lower()}:{port:d}")
    return packet.address


def contents(packet: Packet, batch: PacketBatch, wanted: bytes) -> list[str]:
    if bytes(packet.data) == wanted or bytes(packet.data[:4]) in {b"ping", b"pong"}:
        return [str(packet.data, "utf-8")]
    if [bytes(data) for data in batch.payloads()] == [wanted]:
        return []
    if packet.timestamp is not None:
        return [f"{packet.timestamp / 1e9}"]
    return bytes(packet.data).decode().split()


def other_families(packet: Packet) -> str | bytes | None:
    inet6: Any = packet.address
    _, _, flowinfo, scope_id = inet6
    print(flowinfo, scope_id)
    if isinstance(packet.address, str):
        return packet.address.removeprefix("/run/")
    if isinstance(packet.address, bytes):
        return packet.address
    if packet.address is None:
        return None
    return ""


def peers(batch: PacketBatch) -> None:
    seen: dict[Address, int] = {}
    named: dict[tuple[str, int], int] = {}
    for packet in batch:
        seen[packet.address] = seen.get(packet.address, 0) + 1
        peer: tuple[str, int] = packet.address
        named[peer] = named.get(peer, 0) + packet.size
    for host, port in named:
        print(host, port)


def control_data(batch: PacketBatch) -> None:
    assert_type(batch.timestamps(), list[int | None])
    assert_type(batch.destinations(), list[str | None])
    assert_type(batch.interfaces(), list[int | None])
    assert_type(batch.ecns(), list[int | None])
    assert_type(batch.hop_limits(), list[int | None])


def answer(data: Payload) -> bytes:
    return bytes(data).upper()


async def sending(sock: socket.socket, batch: PacketBatch) -> None:
    await send_mmsg(sock, batch)
    await send_mmsg(sock, [(answer(packet.data), packet) for packet in batch])
    await send_mmsg(sock, [(packet.data, packet.address) for packet in batch], gso=True)
    await send_mmsg(sock, ((b"x", ("127.0.0.1", port)) for port in range(1, 3)), ecn=1)
    await send_mmsg(sock, [batch[0], (bytearray(b"y"), None)], reply_from_destination=True)
    own = SendOptions("192.0.2.9", interface=2, ecn=1, hop_limit=64)
    await send_mmsg(sock, [(b"x", ("192.0.2.1", 1), own), (b"y", None, None)], ecn=1)
    for packet in batch:
        same = SendOptions(source=packet.destination, interface=packet.interface)
        send_mmsg_nowait(sock, [(packet.data, packet, same)])
        assert_type(SendOptions.reply_to(packet), SendOptions)
    triples = [(b"x", ("192.0.2.1", 1), own if port else None) for port in range(2)]
    await send_mmsg(sock, triples)
    pairs = [(b"a", ("192.0.2.1", 1)), (b"b", ("192.0.2.1", 2))]
    result = SendResult()
    with anyio.move_on_after(1):
        await send_mmsg(sock, pairs, result=result, source="192.0.2.9")
    assert_type(pairs[result.handled :], list[tuple[bytes, tuple[str, int]]])
    try:
        assert_type(send_mmsg_nowait(sock, [(b"x", "/run/log")], engine="sendto"), SendResult)
    except UnusableSocketError as error:
        assert_type(error.result, SendResult)
        assert_type(error.errno, int | None)
    assert_type(result.sent, int)
    assert_type(result.failures, list[SendFailure])
    for index, failure in result.failures:
        assert_type((index, failure), tuple[int, OSError])
    assert_type(result.errors, Mapping[int, int])
    result.raise_for_failures()
    print(result == SendResult(2, [SendFailure(0, OSError())]))


async def fan_out(sock: socket.socket, clients: set[tuple[str, int]], group: str) -> None:
    await multi_target_send(sock, memoryview(b"x"), clients)
    await multi_target_send(sock, b"x", [(group, 9), (group, 9, 0, 2), (f"{group}%eth0", 9)])
    mixed: list[Destination] = [None, b"\0name", "/run/log", (group, 9, 0)]
    await multi_target_send(sock, b"x", mixed)


def send_later(sock: socket.socket, queue: list[tuple[bytes, Destination]]) -> int:
    def through(packets: Packets) -> int:
        return send_mmsg_nowait(sock, packets).handled

    return through(queue)


async def streams(sock: socket.socket, overload: OverloadPolicy) -> None:
    pool = PacketBatchPool(24, slot_size=1472, gro=False, ancillary=True)
    assert_type(pool.statistics(), PoolStatistics)
    assert_type((pool.size, pool.capacity, pool.free), tuple[int, int, int])
    with pool.acquire_nowait() as batch:
        assert_type(batch, PacketBatch)
    assert_type(await pool.acquire(), PacketBatch)
    errors: list[OSError] = []
    async with PacketReceiver(
        sock, pool, limit=16, linger=0.01, errors="count", on_error=errors.append
    ) as receiver:
        as_stream: ObjectReceiveStream[PacketBatch] = receiver
        assert_type(await as_stream.receive(), PacketBatch)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, receiver.stop)
        with receiver.stop_on(signal.SIGINT, signal.SIGTERM, grace=8) as scope:
            assert_type(scope, anyio.CancelScope)
        assert_type(receiver.pool, PacketBatchPool)
        assert_type(receiver.extra(SocketAttribute.local_port), int)
        async for batch in receiver:
            with batch:
                for packet in batch:
                    print(packet)
        send, receive = anyio.create_memory_object_stream[PacketBatch](16)
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(work, receive.clone())
            nursery.start_soon(feed, receiver, send.clone(), overload, receive)
            await nursery.start(feed, receiver, send)
        await feed(receiver, send, "drop_oldest", receive, on_drop=lambda batch: len(batch))
        statistics = receiver.statistics()
        delta = receiver.statistics() - statistics
        assert_type(delta, StatisticsDelta)
        assert_type(delta.per_second(), dict[str, float])
        assert_type((delta.seconds, delta.packets_per_batch), tuple[float, float])
        assert_type(delta.batch_fills, tuple[int, ...])
        assert_type(statistics, ReceiverStatistics)
        assert_type(statistics.dropped_by_kernel, int | None)
        print(sum(statistics.transient_errors.get(number, 0) for number in TRANSIENT_ERRORS))
    assert_type((receiver.stopped, receiver.closed, compiled), tuple[bool, bool, bool])


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # typeshed: BaseTransport
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


def engines(sock: socket.socket, receive: ReceiveEngine, send: SendEngine) -> None:
    batch = PacketBatch(engine=receive)
    assert_type(batch.engine, ReceiveEngine)
    PacketBatchPool(2, engine=batch.engine).acquire_nowait().close()
    send_mmsg_nowait(sock, [], engine=send)
    batched_loop_factory(engine=receive, send_engine=send)
    by_name: dict[str, ReceiveEngine] = {"portable": "recvfrom_into", "batch": "recvmmsg"}
    PacketBatch(engine=by_name["portable"]).close()


async def sleepless() -> None:
    pass


async def protocols(sock: socket.socket) -> None:
    await serve_protocol(sock, Echo(), limit=256, engine="auto", send_engine="sendto", gso=True)
    async with anyio.create_task_group() as tasks:
        transport: asyncio.DatagramTransport = await tasks.start(serve_protocol, sock, Echo())
        transport.close()
    factory: Callable[[], asyncio.AbstractEventLoop] = batched_loop_factory()
    batched_loop_factory(asyncio.SelectorEventLoop, limit=256, engine="auto", gso=True)
    anyio.run(sleepless, backend_options={"loop_factory": factory})
    task = asyncio.create_task(serve_protocol(sock, Echo()))
    assert_type(await task, None)


async def tests_of_users() -> None:
    transport = ScriptedTransport(Echo(), peername=("192.0.2.1", 9), extra={"cipher": None})
    transport.receive([b"x", Datagram(b"x")])
    transport.receive_error(ConnectionRefusedError)
    transport.refuse(OSError(1, "no"))
    transport.block()
    transport.unblock(3)
    await transport.play([[b"x"], OSError, anyio.Event(), anyio.sleep_forever])
    assert_type(transport.sent, list[tuple[bytes, Address]])
    assert_type(transport.closed, bool)
    batch = make_batch([b"x", bytearray(b"x"), (b"x", ("::1", 9)), Datagram(b"", None, ecn=1)])
    assert_type(batch, PacketBatch)
    assert_type(fill_batch(batch, batch), int)
    given: list[DatagramLike] = [b"x", (b"x", "/a/path"), Datagram.copy_of(batch[0])]
    make_batch(given, capacity=4, slot_size=9, ancillary=True, gro=False).close()
    sender: Sender = Datagram(b"x", ("192.0.2.1", 9), timestamp=0, segment_size=1).address
    script: list[Step] = [given, batch, Dropped(3), OSError(9, "x"), EOFError, anyio.Event()]
    script += [asyncio.Event(), anyio.sleep_forever, lambda: print(sender)]
    receiver = ScriptedReceiver(script, PacketBatchPool(2), limit=3, errors="raise")
    as_receiver: PacketReceiver = receiver
    send, _ = anyio.create_memory_object_stream[PacketBatch](16)
    await feed(as_receiver, send)
    ScriptedReceiver([[b"x"], [b"x", (b"x", None)], LookupError, print])


async def work(batches: MemoryObjectReceiveStream[PacketBatch]) -> None:
    async with batches:
        async for batch in batches:
            with batch:
                print(batch.sizes())
