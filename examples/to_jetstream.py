"""From UDP into a log that survives: each packet becomes a message in NATS JetStream.

    python -m pip install -e . "nats-py>=2.6"
    python examples/to_jetstream.py --port 9999 --servers nats://127.0.0.1:4222 --stream udp
    python examples/to_jetstream.py --port 9999 --pack --batch 256 --in-flight 32

It needs a server with JetStream, such as `nats-server -js`, and makes the stream if there is none
of that name. Watch it from other terminals, the second one with the `nats` command line:

    echo hello | nc -u -w0 127.0.0.1 9999
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

On Ctrl-C or SIGTERM what has arrived is still sent and acknowledged, for `--grace` seconds at
most; a second signal ends it at once. Then it prints what became of each packet. The exit status
is 0, or 1 if the server did not store all that was received, or 2 if its limits are too small.

nats-py needs asyncio, so this program runs on asyncio and uvloop, not on Trio.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import anyio
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import PubAck
from nats.js.errors import APIError, NotFoundError

from anyio_mmsg import PacketBatch, PacketBatchPool, PacketReceiver, open_udp_socket
from shared import announce, losses, print_at_intervals, run_on, stop_on_signal

SLOT_SIZE = 1472  # what fits into an Ethernet frame; longer packets are cut, and counted
ACKNOWLEDGED_WITHIN = 2.0  # seconds; then a message is sent again
RETRY = 0.2  # seconds from a refusal, or a lost connection, to the next attempt
# What may go better at the next attempt: no answer, no JetStream yet, no room, no connection.
NOT_YET = (nats.errors.Error, asyncio.TimeoutError, OSError)
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
        self.subject: str = options.subject or options.stream
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
        self.trouble = ""  # the newest reason why something is sent again

    async def connect(self, servers: list[str], stream: str) -> str:
        """Connect, as often as it takes, and make the stream if it isn't there.

        Returns "", or the reason why nothing can be sent.
        """

        async def note(error: Exception) -> None:
            self.trouble = str(error) or type(error).__name__

        async def disconnected() -> None:
            self._connected = anyio.Event()

        async def reconnected() -> None:
            self._connected.set()

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
                await self.stream.stream_info(stream)
                return ""
            except NotFoundError:
                await self.stream.add_stream(name=stream, subjects=[self.subject])
            except NOT_YET as error:
                await note(error)  # JetStream starts later than the server
                await anyio.sleep(RETRY)

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
            self.trouble = str(answer) or type(answer).__name__
            return False
        raise answer

    @property
    def unstored(self) -> int:
        """How many packets were received that are neither stored nor refused."""
        return self.receiver.statistics().packets - self.stored - self.refused.total()

    def line(self) -> str:
        """Return what became of the packets until now."""
        seen = self.receiver.statistics()
        parts = [
            f"received {seen.packets:,} = stored {self.stored:,} + refused "
            f"{self.refused.total():,} + unacknowledged {self.unstored:,}",
            f"messages sent again {self.sent_again:,}, of these stored before "
            f"{self.stored_before:,}",
            f"truncated {seen.truncated:,}",
            losses(seen),
        ]
        if self.unstored and self.trouble:
            parts.append(self.trouble)
        return "; ".join(parts)


async def run(options: argparse.Namespace) -> int:
    """Receive and send until Ctrl-C; return the exit status."""
    sock = await open_udp_socket(options.host, options.port, receive_buffer_size=options.buffer)
    pool = PacketBatchPool(options.in_flight, options.batch, SLOT_SIZE)
    async with PacketReceiver(sock, pool, limit=options.batch) as receiver:
        outbox = Outbox(receiver, options)
        problem = ""
        try:
            async with anyio.create_task_group() as nursery:

                def stop() -> None:
                    receiver.stop()
                    nursery.cancel_scope.deadline = anyio.current_time() + options.grace

                await nursery.start(stop_on_signal, stop, nursery.cancel_scope.cancel)
                announce(sock)
                nursery.start_soon(print_at_intervals, options.interval, outbox.line)
                problem = await outbox.connect(options.servers, options.stream)
                async with anyio.create_task_group() as publishing:
                    if not problem:
                        async for batch in receiver:  # which waits while the pool is used up
                            publishing.start_soon(outbox.publish, batch)
                nursery.cancel_scope.cancel()
        finally:
            with contextlib.suppress(OSError):  # of a connection that is lost anyway
                await outbox.client.close()
    if problem:
        print(problem, file=sys.stderr)
        return 2
    print(outbox.line(), *map("refused: %s %d".__mod__, outbox.refused.items()), sep="\n")
    return int(outbox.stored < receiver.statistics().packets)


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
    parser.add_argument("--grace", type=float, default=10, help="seconds to send the rest")
    options = parser.parse_args()
    if min(options.batch, options.in_flight) < 1:
        parser.error("--batch and --in-flight have to be at least 1")
    return run_on(options.backend, run, options)


if __name__ == "__main__":
    sys.exit(main())
