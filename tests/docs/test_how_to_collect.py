"""docs/how-to: collectors, and what they send on."""

from __future__ import annotations

import signal
import socket
import struct
import sys
from typing import Any

import anyio
import pytest
from anyio.abc import ByteSendStream, SocketAttribute, SocketStream
from anyio.lowlevel import checkpoint

from anyio_mmsg import PacketBatchPool, PacketReceiver

from ..helpers import Family
from .blocks import as_module, python_blocks, runs
from .opening import Opening, until

PARSE, COLLECT = python_blocks("docs/how-to/syslog.md")
METRICS, SERVE_METRICS = python_blocks("docs/how-to/metrics.md")
TO_TCP, TO_TCP_FRESH = python_blocks("docs/how-to/udp-to-tcp.md")

pytestmark = pytest.mark.anyio
needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the page asks Linux what is not acknowledged"
)


# Syslog


@runs(PARSE, COLLECT)
async def test_a_syslog_collector(capsys: pytest.CaptureFixture[str]) -> None:
    page = as_module(PARSE, COLLECT)
    opens = Opening(
        b"<165>1 2003-10-11T22:14:15.003Z host.example.com app 12 ID47 - It works\n",
        b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed\x1b[31m",
        b"<13>" + 9000 * b"a",
        b"no priority",
        b"<192>out of range",
    )
    page["open_udp_socket"] = opens
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(page["serve"], "127.0.0.1", 5514)
            await until(lambda: page["counts"]["malformed"] == 2)
            nursery.cancel_scope.cancel()
    assert page["counts"] == {
        "notice": 2,
        "crit": 1,
        "malformed": 2,
        "truncated": 1,
    }
    first, second, long = capsys.readouterr().out.splitlines()
    assert first == "notice host.example.com 'app 12 ID47 - It works'"
    assert second.startswith("crit 127.0.0.1 \"Oct 11 22:14:15 mymachine su: 'su root' failed")
    assert second.endswith('\\x1b[31m"')
    assert long == f"notice 127.0.0.1 '{(8192 - 4) * 'a'}'"


@runs(PARSE)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<0>", (0, "emerg", "1.2.3.4", "")),
        (b"<191>x", (23, "debug", "1.2.3.4", "x")),
        (b"<14>1 - - app - - - text", (1, "info", "1.2.3.4", "app - - - text")),
        (b"<14>1 - host", (1, "info", "host", "")),
        (b"<14>1 ", (1, "info", "1.2.3.4", "")),
        (b"<14>\xff", (1, "info", "1.2.3.4", "\\xff")),
        (b"<01>x", None),
        (b"<>x", None),
        (b"", None),
    ],
)
async def test_syslog_messages(data: bytes, message: Any) -> None:
    assert as_module(PARSE)["parse"](data, "1.2.3.4") == message


# Metrics


@runs(METRICS, SERVE_METRICS)
async def test_a_collector_of_metrics() -> None:
    page = as_module(METRICS, SERVE_METRICS)
    made: list[Any] = []

    def new() -> Any:
        made.append(real())
        return made[0]

    real, page["Metrics"] = page["Metrics"], new
    page["open_udp_socket"] = Opening(
        b"hits:1|c\nhits:2|c\r\nload:0.5|g\n",
        b"hits:1|c|@0.1|#b,a\nhits:1|c|#a,b\nload:+0.25|g",
        b"nan:nan|c\ninf:1e999|c\nkind:1|x\nrate:1|c|@0\nname\n:\nx:1\n:1|c\n:1|c|#a",
        b"hits:1e308|c|@1e-9\nhits:1|c|@5e-324\nload:9e299|g\nload:+9e299|g\nload:0.75|g",
        b"long:7|c\n" + 9000 * b"1",
    )
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(page["serve"], "127.0.0.1", 8125)
            await until(lambda: made and made[0].truncated)
            nursery.cancel_scope.cancel()
    (metrics,) = made
    assert metrics.refused == 12
    counters = {"hits": 3, "hits{a,b}": 11, "long": 7}
    assert metrics.flush() == {"counters": counters, "gauges": {"load": 0.75}}
    assert metrics.flush() == {"counters": {}, "gauges": {"load": 0.75}}


@runs(METRICS)
async def test_kinds_of_one_name_are_two_metrics() -> None:
    metrics = as_module(METRICS)["Metrics"]()
    assert metrics.add("a:1|c")
    assert metrics.add("a:2|g")
    assert metrics.flush() == {"counters": {"a": 1}, "gauges": {"a": 2}}


@runs(METRICS)
async def test_gauges_without_news_end() -> None:
    page = as_module(METRICS)
    page["KEEP"] = 2
    metrics = page["Metrics"]()
    found = []
    for line in ("old:1|g", "new:2|g", "new:3|g", "new:4|g"):
        assert metrics.add(line)
        found.append(metrics.flush()["gauges"])
    assert found == [{"old": 1}, {"old": 1, "new": 2}, {"new": 3}, {"new": 4}]
    assert metrics.last_set.keys() == metrics.gauges.keys()


@runs(METRICS, SERVE_METRICS)
async def test_metrics_are_flushed(capsys: pytest.CaptureFixture[str]) -> None:
    page = as_module(METRICS, SERVE_METRICS)
    metrics = page["Metrics"]()
    assert metrics.add("a:1|c")
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            ended = anyio.Event()
            nursery.start_soon(page["flush_every"], 0, metrics, ended)
            await until(lambda: not metrics.counters)
            assert metrics.add("a:2|c")
            ended.set()
    out = capsys.readouterr().out
    assert out.startswith("{'counters': {'a': 1.0}, 'gauges': {}}\n")
    assert out.count("{'a': 2.0}") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")
@runs(METRICS, SERVE_METRICS)
async def test_a_signal_flushes_what_has_arrived(capsys: pytest.CaptureFixture[str]) -> None:
    page = as_module(METRICS, SERVE_METRICS)
    real = page["collect"]

    async def collect(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        await real(*arguments)

    page["collect"] = collect
    page["open_udp_socket"] = Opening(b"a:1|c", b"a:2|c")
    with anyio.fail_after(60):
        await page["serve"]("127.0.0.1", 8125)
    assert capsys.readouterr().out == "{'counters': {'a': 3.0}, 'gauges': {}}\n"


@runs(METRICS)
async def test_names_of_metrics_are_bounded() -> None:
    page = as_module(METRICS)
    page["MAX_NAMES"] = 1
    metrics = page["Metrics"]()
    lines = ["a:1|c", "b:1|c", "a:1|c", "a:1|g", "b:1|g"]
    assert list(map(metrics.add, lines)) == [True, False, True, True, False]
    metrics, most = page["Metrics"](), page["MAX_LENGTH"]
    assert metrics.add(f"{most * 'n'}:1|c")
    assert not metrics.add(f"{most * 'n'}n:1|g")
    assert not metrics.add(f"n:1|g|#{most * 't'}")


# To a TCP stream


def frame(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


class Listening:
    """A TCP server that keeps the frames that it reads."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.ended = anyio.Event()

    async def handle(self, stream: SocketStream) -> None:
        async with stream:
            data = b""
            async for part in stream:
                data += part
                while len(data) >= 2 and len(data) >= 2 + int.from_bytes(data[:2], "big"):
                    end = 2 + int.from_bytes(data[:2], "big")
                    self.frames.append(data[2:end])
                    data = data[end:]
            assert not data
        self.ended.set()


class ClosingTheFirst(Listening):
    """Closes its first connection once it has read something."""

    connections = 0

    async def handle(self, stream: SocketStream) -> None:
        self.connections += 1
        if self.connections == 1:
            await stream.receive()
            await stream.aclose()
        else:
            await super().handle(stream)


@needs_linux
@runs(TO_TCP)
async def test_udp_to_tcp() -> None:
    """All packets arrive in order, and at the end nothing is missing."""
    sent = [b"one", b"", b"three" * 1000]
    receivers: list[PacketReceiver] = []
    server = Listening()

    def receiver(*arguments: Any) -> PacketReceiver:
        receivers.append(PacketReceiver(*arguments))
        return receivers[0]

    with anyio.fail_after(60):
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            page = as_module(TO_TCP.replace(6514, listener.extra(SocketAttribute.local_port)))
            page |= {"open_udp_socket": Opening(*sent), "PacketReceiver": receiver}
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(listener.serve, server.handle)
                async with anyio.create_task_group() as program:
                    program.start_soon(page["main"])
                    await until(lambda: server.frames == sent)
                    receivers[0].stop()
                await server.ended.wait()
                nursery.cancel_scope.cancel()
    assert server.frames == sent


@needs_linux
@runs(TO_TCP)
async def test_a_peer_that_closes(inet: Family, capsys: pytest.CaptureFixture[str]) -> None:
    """It is noticed before anything is sent to it in vain."""
    page, server = as_module(TO_TCP), ClosingTheFirst()
    sock, sender = inet.pair()
    sent = [b"%d" % number for number in range(5)]

    async with PacketReceiver(sock) as receiver:
        with anyio.fail_after(60):
            async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
                port = listener.extra(SocketAttribute.local_port)
                async with anyio.create_task_group() as nursery:
                    nursery.start_soon(listener.serve, server.handle)
                    async with anyio.create_task_group() as program:
                        program.start_soon(page["Relay"](receiver).run, "127.0.0.1", port)
                        sender.send(b"to the first")
                        await until(lambda: server.connections == 2)
                        for data in sent:
                            sender.send(data)
                        receiver.stop()
                    await server.ended.wait()
                    nursery.cancel_scope.cancel()
    assert server.frames == sent
    printed = "ConnectionResetError('the other end has closed'); 0 to send again; next in 0.1 s\n"
    assert capsys.readouterr().out == printed


@needs_linux
@runs(TO_TCP)
async def test_a_stream_that_breaks(inet: Family, capsys: pytest.CaptureFixture[str]) -> None:
    """The next connection carries what comes then."""
    page, server = as_module(TO_TCP), ClosingTheFirst()
    sock, sender = inet.pair()

    async with PacketReceiver(sock) as receiver:
        with anyio.fail_after(60):
            async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
                port = listener.extra(SocketAttribute.local_port)
                async with anyio.create_task_group() as nursery:
                    nursery.start_soon(listener.serve, server.handle)
                    async with anyio.create_task_group() as program:
                        program.start_soon(page["Relay"](receiver).run, "127.0.0.1", port)
                        sent = 0
                        while not server.frames:
                            sender.send(b"again")
                            sent += 1
                            while receiver.statistics().packets < sent:
                                await checkpoint()
                        sender.send(b"last")
                        receiver.stop()
                    await server.ended.wait()
                    nursery.cancel_scope.cancel()
    assert server.connections == 2
    assert set(server.frames[:-1]) == {b"again"}
    assert server.frames[-1] == b"last"
    assert capsys.readouterr().out.endswith("; next in 0.1 s\n")


class SlowStream(ByteSendStream):
    """Takes what is sent, one piece for each permission."""

    def __init__(self) -> None:
        self.data = b""
        self.permissions = anyio.Semaphore(0)

    async def send(self, item: bytes) -> None:
        assert type(item) is bytes
        await self.permissions.acquire()
        self.data += item

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError

    def frames(self) -> list[bytes]:
        found, data = [], self.data
        while data:
            end = 2 + struct.unpack("!H", data[:2])[0]
            found.append(data[2:end])
            data = data[end:]
        return found


@needs_linux
@runs(TO_TCP)
async def test_what_a_reset_leaves_unacknowledged_is_sent_again(
    inet: Family, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it, from the first byte on that the other end's kernel has not got."""
    sock, sender = inet.pair()
    sent: list[bytes] = []
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        listener.settimeout(60)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        async with PacketReceiver(sock, PacketBatchPool(2, 1, 8192)) as receiver:
            relay = as_module(TO_TCP)["Relay"](receiver)

            def stuck() -> bool:
                return bool(relay.unconfirmed() > 30)

            room, data = 0, b""
            with anyio.fail_after(60):
                async with anyio.create_task_group() as nursery:
                    nursery.start_soon(relay.run, *listener.getsockname())
                    while not stuck():
                        sent.append(b"%8d" % len(sent) * 1000)
                        sender.send(sent[-1])
                        await until(lambda: receiver.statistics().packets == len(sent) or stuck())
                    with listener.accept()[0] as first:
                        # More may come until it is closed, as much as it has room for.
                        room = first.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
                    with (await anyio.to_thread.run_sync(listener.accept))[0] as second:
                        receiver.stop()
                        data = await anyio.to_thread.run_sync(second.makefile("rb").read)
    everything = b"".join(map(frame, sent))
    assert everything.endswith(data)
    assert room >= len(everything) - len(data)
    assert relay.unconfirmed() == 0
    assert f"; {len(data) // 8002} to send again; " in capsys.readouterr().out


@needs_linux
@runs(TO_TCP)
async def test_what_is_acknowledged_is_forgotten(inet: Family) -> None:
    """Whole batches, and none that was not sent yet."""
    sock, _ = inet.pair()
    async with PacketReceiver(sock) as receiver:
        relay = as_module(TO_TCP)["Relay"](receiver)
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as tcp:
            tcp.connect(listener.getsockname())
            relay.kept.extend([(2, b"aaaa"), (3, b"bbbbbb"), (1, b"c")])
            tcp.sendall(b"aaaabbbbbb")
            relay.sent = 2
            with anyio.fail_after(60):
                while relay.sent:
                    relay.forget(tcp.fileno())
                    await checkpoint()
    assert list(relay.kept) == [(1, b"c")]
    assert relay.unconfirmed() == 1


@needs_linux
@runs(TO_TCP)
async def test_a_slow_stream_holds_the_receiver_up(inet: Family) -> None:
    page, stream = as_module(TO_TCP), SlowStream()
    sock, sender = inet.pair()
    tcp = inet.open()  # where nothing waits to be acknowledged
    async with PacketReceiver(sock, PacketBatchPool(2, capacity=1)) as receiver:
        for number in range(5):
            sender.send(b"%d" % number)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(page["Relay"](receiver).forward, stream, tcp.fileno())
                await until(lambda: stream.permissions.statistics().tasks_waiting)
                assert receiver.statistics().packets == 1
                receiver.stop()
                for _ in range(5):
                    stream.permissions.release()
        assert stream.frames() == [b"0", b"1", b"2", b"3", b"4"]
        assert receiver.pool.free == 2


@needs_linux
@runs(TO_TCP, TO_TCP_FRESH)
async def test_a_slow_stream_loses_the_oldest(inet: Family) -> None:
    page, stream = as_module(TO_TCP, TO_TCP_FRESH), SlowStream()
    sock, sender = inet.pair()
    async with PacketReceiver(sock, PacketBatchPool(7, capacity=1)) as receiver:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(page["forward_fresh"], receiver, stream)
                sender.send(b"0")
                await until(lambda: stream.permissions.statistics().tasks_waiting)
                for number in range(1, 10):
                    sender.send(b"%d" % number)
                await until(lambda: receiver.statistics().packets == 10)
                await until(lambda: receiver.statistics().dropped == 5)
                receiver.stop()
                for _ in range(5):
                    stream.permissions.release()
        assert stream.frames() == [b"0", b"6", b"7", b"8", b"9"]
        assert receiver.statistics().dropped == 5
