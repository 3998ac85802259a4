"""From UDP into a log that survives: each packet becomes a message in NATS JetStream.

    python -m pip install -e . "nats-py>=2.6"
    python examples/programs/to_jetstream.py --port 9999 --servers nats://127.0.0.1 --stream udp
    python examples/programs/to_jetstream.py --port 9999 --pack --batch 256 --in-flight 32

It needs a server with JetStream, such as `nats-server -js`, and makes the stream if there is none
of that name. Watch it from other terminals, the second one with the `nats` command line:

    echo hello | nc -u -w1 127.0.0.1 9999
    nats stream view udp

A packet's sender is the message's header "Udp-Source". With `--pack` a message holds a whole
batch, which takes a small part of the time per packet; `unpack` below takes it apart again.

A batch keeps its place in the pool until the server has acknowledged all of its packets. So the
pool bounds how many acknowledgements are open (`--in-flight` batches), and when it is used up,
nothing is read: packets wait in the kernel, which drops and counts what finds no room.

If an acknowledgement doesn't come, because the server was killed, say, the message is sent again
until it does. Its id is the same each time ("Nats-Msg-Id"), so the server stores it once, if it
comes again within the stream's duplicate window, two minutes by default. Messages that are sent
again come after later ones.

A line at each `--interval`, with its time, says what became of the packets. Whenever the
connection comes, goes or can't be had, a line says so at once, with the reason: no server, a wrong
password, no JetStream. Until then packets wait in the kernel. With `--json` each line is a JSON
object.

On Ctrl-C or SIGTERM what has arrived is still sent and acknowledged, for `--grace` seconds at
most; a second signal ends it at once. Then it prints what became of each packet. The exit status
is 0, or 1 if some packets that arrived are not stored, or 2 if the server's limits are too small,
the stream can't be made, or its subject belongs to another stream.

nats-py needs asyncio, so this program runs on asyncio and uvloop, not on Trio.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import anyio

from anyio_mmsg import PacketBatch, PacketBatchPool, PacketReceiver, open_udp_socket
from shared import (
    OneLineErrors,
    announce,
    left,
    losses,
    print_at_intervals,
    run_on,
    stop_on_signal,
)

with OneLineErrors():
    import nats.errors
    from nats.aio.client import Client
    from nats.js import JetStreamContext
    from nats.js.api import PubAck
    from nats.js.errors import APIError, BadRequestError, NotFoundError, ServerError

SLOT_SIZE = 1472  # what fits into an Ethernet frame; longer packets are cut, and counted
ACKNOWLEDGED_WITHIN = 2.0  # seconds; then a message is sent again
RETRY = 0.2  # seconds from a refusal, or a lost connection, to the next attempt
# What may go better at the next attempt: no answer, no JetStream yet, no room, no connection.
NOT_YET = (nats.errors.Error, asyncio.TimeoutError, OSError)
FORBIDDEN = " \t.*>/\\"  # in a stream's name
BAD_REQUEST = 400  # code of answers that would be the same the next time
PACKED = struct.Struct("!HH")  # before each packet of a packed message: bytes of source, of data
LONGEST_SOURCE = 64  # bytes: an IPv6 address with a scope, brackets and a port


@dataclass
class Message:
    """What is sent to the server, as often as it takes."""

    payload: bytes
    headers: dict[str, str]
    packets: int


def source_of(address: object) -> str:
    """Return a sender as text, HOST:PORT or [HOST]:PORT."""
    if not isinstance(address, tuple):
        return ""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def one_by_one(batch: PacketBatch) -> Iterator[Message]:
    """Make a message of each packet."""
    for packet in batch:
        yield Message(bytes(packet.data), {"Udp-Source": source_of(packet.address)}, 1)


def packed(batch: PacketBatch) -> Iterator[Message]:
    """Make one message of a batch."""
    parts: list[bytes | memoryview] = []
    for packet in batch:
        source = source_of(packet.address).encode()
        parts += [PACKED.pack(len(source), packet.size), source, packet.data]
    yield Message(b"".join(parts), {}, len(batch))


def unpack(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield source and data of each packet in a packed message."""
    at = 0
    while at < len(payload):
        source, data = PACKED.unpack_from(payload, at)
        at += PACKED.size
        yield payload[at : at + source].decode(), payload[at + source : at + source + data]
        at += source + data


class Outbox:
    """Sends batches, and holds each until all of it is acknowledged or refused for good."""

    def __init__(self, receiver: PacketReceiver, options: argparse.Namespace) -> None:
        self.receiver = receiver
        self.name: str = options.stream
        self.subject: str = options.subject or options.stream
        self.json: bool = options.json
        self.messages_of = packed if options.pack else one_by_one
        packets = options.batch if options.pack else 1
        self._largest_message = packets * (PACKED.size + LONGEST_SOURCE + SLOT_SIZE)
        # Ids must differ from those of an earlier run, which the server may still remember.
        self._run = secrets.token_hex(8)
        self._numbered = 0
        self.client = Client()
        self._connected = anyio.Event()
        self.stored = 0  # packets
        self.sent_again = 0  # messages
        self.stored_before = 0  # messages sent again that the server had already
        self.refused: Counter[str] = Counter()  # packets, by the server's reason
        self.state = ""  # of the connection
        self.trouble = ""  # the newest reason why something is sent again

    def now(self, state: str) -> None:
        """Print the state of the connection, if it is another one than before."""
        if state != self.state:
            self.state = state
            print(self.dated({"state": state}, state), flush=True)

    def dated(self, fields: dict[str, object], text: str) -> str:
        """Return a line of output with its time, as JSON or as text."""
        time = datetime.now().astimezone().isoformat(timespec="seconds")
        return json.dumps({"time": time, **fields}) if self.json else f"{time} {text}"

    async def connect(self, servers: list[str]) -> str:
        """Connect, as often as it takes, and make the stream if it isn't there.

        Returns "", or the reason why nothing can be sent.
        """

        async def note(error: Exception) -> None:
            self.trouble = reason_of(error)
            if not self.client.is_connected:
                self.now(f"not connected: {self.trouble}")

        async def disconnected() -> None:
            self._connected = anyio.Event()
            if not self.client.is_closed:
                self.now("not connected: the connection was lost")

        async def reconnected() -> None:
            self._connected.set()
            self.now("connected")

        await self.client.connect(
            servers,
            error_cb=note,
            disconnected_cb=disconnected,
            reconnected_cb=reconnected,
            max_reconnect_attempts=-1,  # for ever
            reconnect_time_wait=1,
            # A message is sent only on a connection, and what the client buffers if that is lost
            # meanwhile is bounded by the pool: so this is never reached.
            pending_size=2**40,
        )
        self._connected.set()
        if self.client.max_payload < self._largest_message:
            return (
                f"a message may have {self._largest_message:,} bytes, and the server takes "
                f"{self.client.max_payload:,}: give a smaller --batch, or raise its max_payload"
            )
        self.stream: JetStreamContext = self.client.jetstream()
        while True:
            try:
                problem = await self._make_stream()
            except (ValueError, BadRequestError, ServerError) as error:
                return (
                    f"there can't be a stream {self.name!r} of the subject {self.subject!r}: "
                    f"{reason_of(error)}"
                )
            except NOT_YET as error:
                self.now(f"connected, but JetStream does not answer: {reason_of(error)}")
                await anyio.sleep(RETRY)  # it may start later than the server
            else:
                self.now("connected")
                return problem

    async def _make_stream(self) -> str:
        """Have the stream take the subject; return "", or why it doesn't."""
        if set(self.name) & set(FORBIDDEN):  # nats-py itself looks since 2.15
            raise ValueError(f"invalid stream name: {self.name!r}")
        try:
            await self.stream.stream_info(self.name)
        except NotFoundError:
            await self.stream.add_stream(name=self.name, subjects=[self.subject])
        try:
            owner = await self.stream.find_stream_name_by_subject(self.subject)
        except NotFoundError:
            return f"the stream {self.name!r} is there, but does not take {self.subject!r}"
        if owner != self.name:
            return f"the subject {self.subject!r} belongs to the stream {owner!r}"
        return ""

    async def publish(self, batch: PacketBatch) -> None:
        """Send a batch, and send again what is not acknowledged."""
        with batch:
            unstored = list(self.messages_of(batch))
            for message in unstored:
                message.headers["Nats-Msg-Id"] = f"{self._run}-{self._numbered}"
                self._numbered += 1
            while unstored := await self._attempt(unstored):
                self.sent_again += len(unstored)
                await anyio.sleep(RETRY)

    async def _attempt(self, messages: list[Message]) -> list[Message]:
        """Send messages together; return those that have to be sent again."""
        await self._connected.wait()
        answers = await asyncio.gather(
            *[
                self.stream.publish(
                    self.subject,
                    message.payload,
                    headers=message.headers,
                    timeout=ACKNOWLEDGED_WITHIN,
                    stream=self.name,  # another stream that has the subject by now is refused
                )
                for message in messages
            ],
            return_exceptions=True,
        )
        pairs = zip(messages, answers, strict=True)
        return [message for message, answer in pairs if not self._settled(message, answer)]

    def _settled(self, message: Message, answer: PubAck | BaseException) -> bool:
        """Count an answer; return whether it would be the same the next time."""
        if isinstance(answer, PubAck):
            self.stored += message.packets
            self.stored_before += bool(answer.duplicate)
            return True
        if isinstance(answer, APIError) and answer.code == BAD_REQUEST:
            self.refused[answer.description or str(answer)] += message.packets
            return True
        if isinstance(answer, NOT_YET):
            self.trouble = reason_of(answer)
            return False
        raise answer

    @property
    def unstored(self) -> int:
        """How many packets were received that are neither stored nor refused."""
        return self.receiver.statistics().packets - self.stored - self.refused.total()

    def line(self) -> str:
        """Return what became of the packets until now."""
        seen = self.receiver.statistics()
        fields: dict[str, object] = {
            "state": self.state,
            "received": seen.packets,
            "stored": self.stored,
            "refused": self.refused.total(),
            "unacknowledged": self.unstored,
            "sent_again": self.sent_again,
            "stored_before": self.stored_before,
            "truncated": seen.truncated,
            "dropped_by_kernel": seen.dropped_by_kernel,
            "left": left(seen),
            "trouble": self.trouble if self.unstored else "",
        }
        parts = [
            f"received {seen.packets:,} = stored {self.stored:,} + refused "
            f"{self.refused.total():,} + unacknowledged {self.unstored:,}",
            f"messages sent again {self.sent_again:,}, of these stored before "
            f"{self.stored_before:,}",
            f"truncated {seen.truncated:,}",
            losses(seen),
        ]
        if not self._connected.is_set():
            parts.append(self.state)
        elif self.unstored and self.trouble:
            parts.append(self.trouble)
        return self.dated(fields, "; ".join(parts))


def reason_of(error: Exception) -> str:
    """Return an error in words, also one that has none."""
    if isinstance(error, APIError):
        return error.description or type(error).__name__
    return str(error) or type(error).__name__


async def run(options: argparse.Namespace) -> int:
    """Receive and send until Ctrl-C; return the exit status."""
    sock = await open_udp_socket(options.host, options.port, receive_buffer_size=options.buffer)
    pool = PacketBatchPool(options.in_flight, options.batch, SLOT_SIZE)
    async with PacketReceiver(sock, pool, limit=options.batch) as receiver:
        outbox = Outbox(receiver, options)
        problem, began = "", False
        try:
            async with anyio.create_task_group() as nursery:

                def stop() -> None:
                    receiver.stop()
                    nursery.cancel_scope.deadline = anyio.current_time() + options.grace

                await nursery.start(stop_on_signal, stop, nursery.cancel_scope.cancel)
                if options.json:
                    print(outbox.dated({"listening": sock.getsockname()[:2]}, ""), flush=True)
                else:
                    announce(sock)
                outbox.now(f"connecting to {len(options.servers)} server(s)")
                nursery.start_soon(print_at_intervals, options.interval, outbox.line)
                began = True
                problem = await outbox.connect(options.servers)
                async with anyio.create_task_group() as publishing:
                    if not problem:
                        async for batch in receiver:  # which waits while the pool is used up
                            publishing.start_soon(outbox.publish, batch)
                nursery.cancel_scope.cancel()
        finally:
            if began:
                # Of a lost connection; its writelines fails as the latter two say (gh-136234).
                with contextlib.suppress(OSError, AttributeError, TypeError):
                    await outbox.client.close()
    if problem:
        print(problem, file=sys.stderr)
        return 2
    print(outbox.line())
    for reason, packets in outbox.refused.items():
        print(outbox.dated({"refused": packets, "reason": reason}, f"refused: {reason} {packets}"))
    seen = receiver.statistics()
    return int(outbox.stored < seen.packets + seen.unread)


def main() -> int:
    """Read the command line, run, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=9999, help="0 for any free one")
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "uvloop"])
    parser.add_argument("--servers", nargs="+", default=["nats://127.0.0.1:4222"], metavar="URL")
    parser.add_argument("--stream", default="udp", help="the stream's name")
    parser.add_argument("--subject", help="what messages are published as; default: the stream")
    parser.add_argument("--pack", action="store_true", help="one message for each batch")
    parser.add_argument("--batch", type=int, default=64, help="packets of a batch, at most")
    parser.add_argument("--in-flight", type=int, default=16, help="batches in use, at most")
    parser.add_argument("--buffer", type=int, help="bytes of the kernel's buffer to ask for")
    parser.add_argument("--interval", type=float, default=10, help="seconds between reports")
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")
    parser.add_argument("--grace", type=float, default=10, help="seconds to send the rest")
    options = parser.parse_args()
    if min(options.batch, options.in_flight) < 1:
        parser.error("--batch and --in-flight have to be at least 1")
    return run_on(options.backend, run, options)


if __name__ == "__main__":
    with OneLineErrors():
        sys.exit(main())
