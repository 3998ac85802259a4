"""What is counted in instructions: a packet that wakes a task, 64 a call, one call, one answer.

The receivers and servers are those of the other benchmarks. Beside each kind there is the harness
alone, whose instructions are subtracted.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

import anyio
from anyio import lowlevel

from anyio_mmsg import (
    PACKET_DATA_SIZE,
    PacketBatch,
    recv_datagrams_nowait,
    recv_mmsg_nowait,
    send_mmsg,
    send_mmsg_nowait,
)
from benchmarks import example, udp
from benchmarks.spec import LOOPS, PLAIN, Kind, Spec

from . import qh3_sockets, servers
from .receivers import Datagrams, Ours, Receiver, Stream, opened
from .receiving_peers import (
    ROOM,
    SIX_LINES,
    FastnetReceiver,
    Naive,
    ProtocolReceiver,
    Qh3ProtocolReceiver,
    ServedReceiver,
)
from .servers import OurServer
from .serving_peers import FastnetServer, NaiveServer, ProtocolServer, Qh3Server, open_server

Run: TypeAlias = Callable[[int], Awaitable[None]]
"""Makes a number of turns, each with the packets that `Spec.limit` says."""

Counted: TypeAlias = Callable[[str, int], Awaitable[Run]]
"""Opens what is counted, on a loop, with so many packets a turn. Nothing is closed again: the
process ends without."""

CountedSpec: TypeAlias = Spec[Counted]

HARNESS_TURNS = 2
"""Turns of the loop that the harness alone takes for a packet. A task that a packet wakes needs
two or three, a callback one or two: what is above two is the receiver's cost, and a callback that
needs one can cost less than nothing here."""

PAUSE = 2
"""Turns between an answer and the next query: one for the sending, one until the server waits."""

BUFFER = 2**20  # bytes to ask for: 64 packets and to spare


def next_turn(loop: str) -> Callable[[], Awaitable[None]]:
    """Return what gives other tasks and the network a turn, and no more."""
    return lowlevel.checkpoint if loop == "trio" else partial(asyncio.sleep, 0)


def sender_to(sock: socket.socket, data: bytes) -> Callable[[int], None]:
    """Return what sends a number of packets to a socket."""
    send = udp.open_sender(sock.getsockname()[1]).send

    def send_all(count: int) -> None:
        for _ in range(count):
            send(data)

    return send_all


async def open_wake(loop: str, burst: int, make: Callable[[socket.socket], Receiver]) -> Run:
    """A receiver waits in a task; a task beside it sends, and yields until that was seen."""
    sock, turn = udp.open_socket(), next_turn(loop)
    udp.set_buffer(sock, BUFFER)
    receiver = await opened(sock, make)
    send = sender_to(sock, bytes(PACKET_DATA_SIZE))

    async def run(count: int) -> None:
        receiver.got = 0
        async with anyio.create_task_group() as group:
            group.start_soon(receiver.receive, count * burst, "read")
            for wanted in range(burst, count * burst + 1, burst):
                send(burst)
                while receiver.got < wanted:
                    await turn()

    return run


async def open_alone(
    loop: str, burst: int, data: bytes = bytes(PACKET_DATA_SIZE), turns: int = HARNESS_TURNS
) -> Run:
    """The sender alone. Nobody reads: a full buffer costs the sender no instruction."""
    sock, turn = udp.open_socket(), next_turn(loop)
    send = sender_to(sock, data)

    async def run(count: int, _kept: socket.socket = sock) -> None:
        async with anyio.create_task_group():
            for _ in range(count):
                send(burst)
                for _ in range(turns):
                    await turn()

    return run


async def open_dns(loop: str, burst: int, kind: type[servers.Server]) -> Run:
    """A DNS server in a task; a client beside it asks, and yields until that was answered.

    It yields a few times more, so that each query finds the server waiting. The client does not
    read the answers. They cost the server the same.
    """
    answer = example.load_answer()
    answered = 0

    def respond(query: bytes | memoryview) -> bytes | None:
        nonlocal answered
        answered += 1
        return answer(query)

    sock, turn = udp.open_socket(), next_turn(loop)
    server = await open_server(sock, kind, lambda: respond)
    ask = sender_to(sock, query())

    async def run(count: int) -> None:
        nonlocal answered
        answered = 0
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve)
            for wanted in range(burst, count * burst + 1, burst):
                ask(burst)
                while answered < wanted:
                    await turn()
                for _ in range(PAUSE):
                    await turn()
            group.cancel_scope.cancel()

    return run


def query() -> bytes:
    """Return a DNS query."""
    import dns.message

    return dns.message.make_query("www.example.org", "A", id=1).to_wire()


async def open_dns_alone(loop: str, burst: int) -> Run:
    """The client alone."""
    return await open_alone(loop, burst, query(), HARNESS_TURNS + PAUSE)


async def open_recvfrom(loop: str, burst: int) -> Run:
    """`socket.recvfrom`, which gives data and address."""
    sock = udp.open_socket()
    send, receive = sender_to(sock, bytes(PACKET_DATA_SIZE)), sock.recvfrom

    async def run(count: int) -> None:
        for _ in range(count):
            send(burst)
            for _ in range(burst):
                _data, _address = receive(ROOM)

    return run


async def open_receive(loop: str, burst: int) -> Run:
    """`recv_mmsg_nowait`, data and address read, and the batch cleared."""
    sock, batch = udp.open_socket(), PacketBatch()
    send = sender_to(sock, bytes(PACKET_DATA_SIZE))

    async def run(count: int) -> None:
        for _ in range(count):
            send(burst)
            for _ in range(burst):
                recv_mmsg_nowait(sock, batch, 1)
                for packet in batch:
                    _data, _address = packet.data, packet.address
                batch.clear()

    return run


async def open_datagrams(loop: str, burst: int) -> Run:
    """`recv_datagrams_nowait`."""
    sock = udp.open_socket()
    send = sender_to(sock, bytes(PACKET_DATA_SIZE))

    async def run(count: int) -> None:
        for _ in range(count):
            send(burst)
            for _ in range(burst):
                for _data, _address in recv_datagrams_nowait(sock, 1):
                    pass

    return run


async def open_filled(loop: str, burst: int) -> Run:
    """What fills the socket for these, alone."""
    sock = udp.open_socket()
    send = sender_to(sock, bytes(PACKET_DATA_SIZE))

    async def run(count: int, _kept: socket.socket = sock) -> None:
        for _ in range(count):
            send(burst)
            for _ in range(burst):
                pass

    return run


async def open_sendto(loop: str, burst: int) -> Run:
    """`socket.sendto`."""
    sock = udp.open_socket()
    data, address, send = bytes(PACKET_DATA_SIZE), sock.getsockname(), sock.sendto

    async def run(count: int) -> None:
        for _ in range(count * burst):
            send(data, address)

    return run


async def open_send(loop: str, burst: int) -> Run:
    """`send_mmsg_nowait` of one pair."""
    sock = udp.open_socket()
    data, address = bytes(PACKET_DATA_SIZE), sock.getsockname()

    async def run(count: int) -> None:
        for _ in range(count * burst):
            send_mmsg_nowait(sock, [(data, address)])

    return run


async def open_sendto_turn(loop: str, burst: int) -> Run:
    """`socket.sendto`, and a checkpoint."""
    sock = udp.open_socket()
    data, address, send = bytes(PACKET_DATA_SIZE), sock.getsockname(), sock.sendto
    checkpoint = lowlevel.checkpoint

    async def run(count: int) -> None:
        for _ in range(count * burst):
            await checkpoint()
            send(data, address)

    return run


async def open_send_turn(loop: str, burst: int) -> Run:
    """`send_mmsg` of one pair."""
    sock = udp.open_socket()
    data, address = bytes(PACKET_DATA_SIZE), sock.getsockname()

    async def run(count: int) -> None:
        for _ in range(count * burst):
            await send_mmsg(sock, [(data, address)])

    return run


async def open_unsent(loop: str, burst: int) -> Run:
    """A loop that sends nothing."""

    async def run(count: int) -> None:
        for _ in range(count * burst):
            pass

    return run


BOTH = ("asyncio", "uvloop")
FULL, CALLS = 64, 16
"""Packets a turn: of a batch, and of single calls, whose packets any buffer holds."""

ALONE = "alone"


def key(what: str, kind: str, loop: str = "") -> str:
    """Return the key of a row, such as "wake-stream-trio"."""
    return "-".join(filter(None, (what, kind, loop)))


def alone(spec: CountedSpec) -> str:
    """Return the key of the harness that belongs to a row."""
    return key(spec.key.partition("-")[0], ALONE, spec.loop)


def _spec(
    what: str,
    kind: str,
    label: str,
    whose: Kind,
    count: Counted,
    limit: int,
    loop: str = "",
    needs: Sequence[str] = (),
) -> CountedSpec:
    environment = PLAIN if whose == "plain" else {}
    names = (*needs, *((kind,) if kind in ("aiofastnet", "qh3") else ()))
    return Spec(
        key(what, kind, loop),
        label,
        loop,
        whose,
        count,
        "instructions",
        limit,
        environment=environment,
        needs=names,
    )


_mine = partial(Ours, engine="auto", limit=FULL)
_stream = partial(Stream, engine="auto", limit=FULL)
_RECEIVERS: dict[str, tuple[str, Callable[[socket.socket], Receiver], Sequence[str], Kind]] = {
    "naive": (SIX_LINES, Naive, LOOPS, "peer"),
    "ours": ("recv_mmsg", _mine, LOOPS, "ours"),
    "stream": ("PacketReceiver, a pool", _stream, LOOPS, "ours"),
    "datagrams": ("recv_datagrams", Datagrams, LOOPS, "ours"),
    "served": ("DatagramProtocol by serve_protocol", ServedReceiver, BOTH, "ours"),
    "plain": ("recv_mmsg, plain Python", _mine, LOOPS, "plain"),
    "protocol": ("DatagramProtocol", ProtocolReceiver, BOTH, "peer"),
    "aiofastnet": ("aiofastnet DatagramProtocol", FastnetReceiver, BOTH, "peer"),
    "qh3": (qh3_sockets.TRANSPORT, Qh3ProtocolReceiver, BOTH, "peer"),
}
_SERVERS: dict[str, tuple[str, type[servers.Server], Sequence[str], Kind]] = {
    "naive": (SIX_LINES, NaiveServer, LOOPS, "peer"),
    "ours": ("anyio-mmsg, PacketReceiver", OurServer, LOOPS, "ours"),
    "protocol": ("DatagramProtocol", ProtocolServer, BOTH, "peer"),
    "aiofastnet": ("aiofastnet DatagramProtocol", FastnetServer, BOTH, "peer"),
    "qh3": (qh3_sockets.TRANSPORT, Qh3Server, BOTH, "peer"),
}

_ANSWERS: dict[str, tuple[str, Counted, Kind]] = {
    "sendto": ("socket.sendto and a checkpoint", open_sendto_turn, "peer"),
    "ours": ("send_mmsg of a pair", open_send_turn, "ours"),
}

ROWS: list[CountedSpec] = [
    *(
        _spec(what, kind, label, whose, partial(open_wake, make=make), limit, loop)
        for what, limit in (("wake", 1), ("full", FULL))
        for kind, (label, make, loops, whose) in _RECEIVERS.items()
        for loop in loops
    ),
    *(
        _spec("dns", kind, label, whose, partial(open_dns, kind=server), 1, loop, ("dns",))
        for kind, (label, server, loops, whose) in _SERVERS.items()
        for loop in loops
    ),
    _spec("recv", "recvfrom", "socket.recvfrom", "peer", open_recvfrom, CALLS),
    _spec("recv", "ours", "recv_mmsg_nowait, read", "ours", open_receive, CALLS),
    _spec("recv", "datagrams", "recv_datagrams_nowait", "ours", open_datagrams, CALLS),
    _spec("recv", "plain", "recv_mmsg_nowait, read, plain Python", "plain", open_receive, CALLS),
    _spec("send", "sendto", "socket.sendto", "peer", open_sendto, CALLS),
    _spec("send", "ours", "send_mmsg_nowait of a pair", "ours", open_send, CALLS),
    _spec("send", "plain", "send_mmsg_nowait of a pair, plain Python", "plain", open_send, CALLS),
    *(
        _spec("answer", kind, label, whose, count, CALLS, loop)
        for kind, (label, count, whose) in _ANSWERS.items()
        for loop in LOOPS
    ),
]
HARNESS: list[CountedSpec] = [
    *(
        _spec(what, ALONE, "the harness alone", "peer", count, limit, loop, needs)
        for what, count, limit, needs in (
            ("wake", open_alone, 1, ()),
            ("full", open_alone, FULL, ()),
            ("dns", open_dns_alone, 1, ("dns",)),
            ("answer", open_unsent, CALLS, ()),
        )
        for loop in LOOPS
    ),
    _spec("recv", ALONE, "the harness alone", "peer", open_filled, CALLS),
    _spec("send", ALONE, "the harness alone", "peer", open_unsent, CALLS),
]
SPECS = {spec.key: spec for spec in ROWS + HARNESS}
