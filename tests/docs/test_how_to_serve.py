"""docs/how-to: servers that answer, and a client that asks."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import dns.flags
import dns.message
import dns.rcode
import pytest

from anyio_mmsg import (
    PacketBatch,
    PacketReceiver,
    SendOptions,
    open_udp_socket,
    recv_mmsg,
    send_mmsg,
)

from ..helpers import Family, unheard
from .blocks import as_child, as_module, client, free_port, interrupt, python_blocks, runs
from .opening import Opening, until

(DNS,) = python_blocks("docs/how-to/dns-server.md")
CLIENT, ASK, RESOLVE = python_blocks("docs/how-to/request-answer.md")
REPLY, ANNOUNCE, LATER, SAME_CARD = python_blocks("docs/how-to/reply-address.md")

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="control data")


@contextlib.asynccontextmanager
async def running(function: Any, *arguments: Any) -> AsyncIterator[None]:
    """Run a program beside a test, for ten seconds at most."""
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(function, *arguments)
            yield
            nursery.cancel_scope.cancel()


async def ask(sock: socket.socket, *questions: bytes) -> list[bytes]:
    """Send questions by a connected socket; return as many answers."""
    for question in questions:
        sock.send(question)
    batch = PacketBatch(len(questions), 65_507)
    while len(batch) < len(questions):
        await recv_mmsg(sock, batch)
    return [bytes(data) for data in batch.payloads()]


# DNS


@pytest.mark.anyio
@runs(DNS)
async def test_a_dns_server(inet: Family) -> None:
    page = as_module(DNS)
    many = [f"192.0.2.{number}" for number in range(1, 70)]
    page["ADDRESSES"]["many.example.org."] = many
    server, sock = inet.pair()
    queries = [
        dns.message.make_query("WWW.example.org.", "A"),
        dns.message.make_query("www.example.org.", "AAAA"),
        dns.message.make_query("none.example.org.", "A"),
        dns.message.make_query("many.example.org.", "A"),
        dns.message.make_query("many.example.org.", "A", use_edns=0, payload=4096),
    ]
    response = dns.message.make_response(queries[0]).to_wire()
    async with running(page["serve"], server):
        for nothing in b"", b"short", response:  # get no answer
            sock.send(nothing)
        wires = await ask(sock, *[query.to_wire() for query in queries])
    answers = [dns.message.from_wire(wire) for wire in wires]
    assert all(map(dns.message.Message.is_response, queries, answers))
    assert all(answer.flags & dns.flags.AA for answer in answers)
    assert [len(answer.answer[0]) if answer.answer else 0 for answer in answers] == [
        2,
        0,
        0,
        0,
        69,
    ]
    assert [answer.rcode() for answer in answers] == [0, 0, dns.rcode.NXDOMAIN, 0, 0]
    assert [bool(answer.flags & dns.flags.TC) for answer in answers] == [0, 0, 0, 1, 0]
    assert all(len(wire) <= 512 for wire in wires[:4])
    assert 512 < len(wires[4]) <= 1232


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT can't be sent to one process there")
@runs(DNS)
def test_the_dns_server_as_a_program() -> None:
    port = free_port()
    query = dns.message.make_query("example.org.", "A")
    with as_child(DNS.replace(5353, port)) as child, client(port, child, query.to_wire()) as sock:
        assert query.is_response(dns.message.from_wire(sock.recv(1232)))
        assert interrupt(child).startswith("Traceback")  # of Ctrl-C, and no warning before it


# Requests and answers


class Server:
    """Answers each question in capitals, with what a test wants to go wrong.

    Attributes:
        seen: The questions, as they came.
    """

    def __init__(self, sock: socket.socket, *, deaf_to: int = 0, backwards: bool = False) -> None:
        self.sock = sock
        self.seen: list[bytes] = []
        self.deaf_to = deaf_to
        self.backwards = backwards

    async def run(self) -> None:
        async with PacketReceiver(self.sock) as receiver:
            async for batch in receiver:
                with batch:
                    answers = []
                    for packet in batch:
                        data = bytes(packet.data)
                        self.seen.append(data[4:])
                        if len(self.seen) > self.deaf_to:
                            answers.append((data[:4] + data[4:].upper(), packet))
                    noise = [(b"none of yours", packet) for packet in batch]
                    await send_mmsg(self.sock, noise + answers[:: -1 if self.backwards else 1])


@contextlib.asynccontextmanager
async def asking(inet: Family, server: Server | None, sock: socket.socket) -> AsyncIterator[Any]:
    page = as_module(CLIENT)
    made = page["Client"](sock)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(made.run)
            if server is not None:
                nursery.start_soon(server.run)
            yield made
            assert made._open == {}
            nursery.cancel_scope.cancel()


@pytest.mark.anyio
@runs(CLIENT)
async def test_answers_in_any_order(inet: Family) -> None:
    sock, sender = inet.pair()
    async with asking(inet, Server(sock, backwards=True), sender) as asker:
        questions = [b"%d a" % number for number in range(50)]
        answers: list[Any] = []
        async with anyio.create_task_group() as nursery:

            async def ask_some(some: list[bytes]) -> None:
                answers.append((some, await asker.ask(some, timeout=5)))

            for first in range(0, 50, 10):
                nursery.start_soon(ask_some, questions[first : first + 10])
    assert len(answers) == 5
    assert all(got == [question.upper() for question in some] for some, got in answers)


@pytest.mark.anyio
@runs(CLIENT)
async def test_another_try_for_what_is_missing(inet: Family) -> None:
    sock, sender = inet.pair()
    server = Server(sock, deaf_to=2)
    async with asking(inet, server, sender) as asker:
        got = await asker.ask([b"a", b"b", b"c"], timeout=0.01, tries=12)
    assert got == [b"A", b"B", b"C"]
    assert server.seen[:3] == [b"a", b"b", b"c"]
    assert {b"a", b"b"} <= set(server.seen[3:])


@pytest.mark.anyio
@runs(CLIENT)
async def test_no_answer_at_all(inet: Family) -> None:
    sock, sender = inet.pair()
    server = Server(sock, deaf_to=1000)
    async with asking(inet, server, sender) as asker:
        assert await asker.ask([b"a", b"b"], timeout=0.001, tries=2) == [None, None]
        assert await asker.ask([]) == []
        await until(lambda: len(server.seen) == 4)
    assert sorted(server.seen) == [b"a", b"a", b"b", b"b"]


@pytest.mark.anyio
@runs(CLIENT)
@pytest.mark.parametrize("count", [1, 3])
async def test_nobody_listens(inet: Family, count: int) -> None:
    """With one question the receiver hears of it, with more the send of the next one."""
    sock, sender = inet.pair()
    unheard(sock)
    async with asking(inet, None, sender) as asker:
        with pytest.raises(ConnectionRefusedError):
            await asker.ask(count * [b"a"], timeout=10)


@pytest.mark.anyio
@runs(CLIENT, ASK)
async def test_a_program_that_asks(inet: Family, capsys: pytest.CaptureFixture[str]) -> None:
    sock = inet.open()
    page = as_module(CLIENT, ASK)
    page["open_udp_socket"] = Opening(remote_port=sock.getsockname()[1])
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(Server(sock).run)
            await page["main"]()
            nursery.cancel_scope.cancel()
    assert capsys.readouterr().out == "[b'ONE', b'TWO', b'THREE']\n"


@pytest.mark.anyio
@needs_linux
@runs(CLIENT, RESOLVE)
async def test_a_resolver_goes_to_the_next_server_at_once() -> None:
    """The first refuses, the second never answers, and the third does, after a forger."""
    resolve = as_module(CLIENT, RESOLVE)["resolve"]
    inet = Family("inet", None)
    with inet:
        gone, deaf, good, forger = (inet.open() for _ in range(4))
        servers = [sock.getsockname() for sock in (gone, deaf, good)]
        unheard(gone)

        async def serve() -> None:
            batch = PacketBatch()
            await recv_mmsg(good, batch)
            [asker] = batch.addresses()
            for sender, answer in (forger, b"idforged"), (good, b"??other"), (good, b"idanswer"):
                sender.sendto(answer, asker)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(serve)
                assert await resolve(b"idquestion", servers, 0.1) == b"idanswer"
            # A refusal is not waited for: with this timeout the test would fail otherwise.
            with pytest.raises(TimeoutError, match="none of 2 servers"):
                await resolve(b"idquestion", [servers[0]] * 2, 1000.0)


# Replies from the right address


@needs_linux
@pytest.mark.anyio
@runs(REPLY)
async def test_replies_from_the_right_address(inet: Family) -> None:
    page = as_module(REPLY)
    page["open_udp_socket"] = opens = Opening()
    async with running(page["main"]):
        _, port = await opens.address()
        sock = inet.unbound()
        sock.connect(("127.0.0.2", port))  # so that it hears no other address
        assert await ask(sock, b"a", b"b") == [b"A", b"B"]


@needs_linux
@pytest.mark.anyio
async def test_replies_from_another_address_go_unheard(inet: Family) -> None:
    """What the page warns of; if it were not so, the test above would show nothing."""
    server, sock, other = inet.unbound(), inet.unbound(), inet.open()
    server.bind(("0.0.0.0", 0))
    sock.bind(("127.0.0.1", 0))
    sock.connect(("127.0.0.2", server.getsockname()[1]))
    sock.send(b"a")
    batch = PacketBatch()
    with anyio.fail_after(60):
        await recv_mmsg(server, batch)
        await send_mmsg(server, [(b"unheard", batch[0]), (b"heard", other.getsockname())])
        await recv_mmsg(other, batch)
        assert [bytes(data) for data in batch.payloads()] == [b"a", b"heard"]
    with pytest.raises(BlockingIOError):  # loopback delivers within the send
        sock.recv(100)


@needs_linux
@pytest.mark.anyio
@runs(REPLY)
@pytest.mark.parametrize("missing", ["destinations=True", "ancillary=True"])
async def test_a_missing_part_is_named(missing: str) -> None:
    page = as_module(REPLY.replace(missing, ""))
    page["open_udp_socket"] = Opening(b"question")
    with anyio.fail_after(60), pytest.raises(ValueError, match=missing):
        await page["main"]()


@needs_linux
@pytest.mark.anyio
@runs(REPLY, LATER)
async def test_a_tick_comes_from_where_the_peer_has_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = as_module(REPLY, LATER)
    with (
        await open_udp_socket("0.0.0.0", destinations=True) as server,
        await open_udp_socket("127.0.0.1") as one,
        await open_udp_socket("127.0.0.1") as other,
    ):
        port = server.getsockname()[1]
        peers = {"127.0.0.5": one, "127.0.0.6": other}
        with PacketBatch(ancillary=True) as batch:
            for place, sock in peers.items():
                sock.sendto(b"join", (place, port))
                await recv_mmsg(server, batch)
            page["hear"](batch)
        for state in (b"1", b"2"):
            await page["tick"](server, state)
            for place, sock in peers.items():
                assert sock.recvfrom(9) == (state, (place, port))
        assert capsys.readouterr().out == ""
        page["sessions"]["forged"] = page["Session"](("127.0.0.1", 0), SendOptions())
        await page["tick"](server, b"3")
        assert capsys.readouterr().out.startswith("packet 2 was not sent: ")
        assert one.recvfrom(9) == (b"3", ("127.0.0.5", port))


@needs_linux
@pytest.mark.anyio
@runs(SAME_CARD)
async def test_an_answer_by_the_same_card() -> None:
    same_card: Any = as_module(SAME_CARD)["same_card"]
    batch = PacketBatch(ancillary=True)
    with (
        await open_udp_socket("0.0.0.0", destinations=True) as server,
        await open_udp_socket("127.0.0.1") as asking,
    ):
        asking.sendto(b"?", ("127.0.0.5", server.getsockname()[1]))
        await recv_mmsg(server, batch)
        result = await send_mmsg(server, [(b"!", batch[0], same_card(batch[0]))])
        result.raise_for_failures()
        assert asking.recvfrom(9) == (b"!", ("127.0.0.5", server.getsockname()[1]))


@needs_linux
@pytest.mark.anyio
@runs(REPLY, ANNOUNCE)
async def test_a_source_that_is_named(inet: Family) -> None:
    announce = as_module(REPLY, ANNOUNCE)["announce"]
    sock, receiver, batch = inet.unbound(), inet.open(), PacketBatch()
    sock.bind(("0.0.0.0", 0))
    with anyio.fail_after(60):
        await announce(sock, "127.0.0.3", receiver.getsockname()[1])
        await recv_mmsg(receiver, batch)
        assert batch[0].address == ("127.0.0.3", sock.getsockname()[1])
        assert batch[0].data == b"here I am"
        with pytest.raises(OSError, match=r"unreachable|Invalid argument"):
            await announce(sock, "192.0.2.1", receiver.getsockname()[1])
