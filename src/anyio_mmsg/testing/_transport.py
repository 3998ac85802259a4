"""`ScriptedTransport`: what a protocol of asyncio sees of a network, written down by a test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex

from .._arguments import whole_number
from .._compat import checkpoint
from .._packets.packet import Address
from .._protocol.driven import DrivenTransport
from ._datagrams import DatagramLike, Sender, datagrams
from ._steps import Arrival, Dropped, Step, checked, wait_for

_HERE = ("192.0.2.2", 9999)
"""Where the protocol is: beside the default sender of packets, see `Datagram`."""


class ScriptedTransport(DrivenTransport):
    """The transport of an `asyncio.DatagramProtocol` that is tested without a socket.

    It is the one that `serve_protocol` gives, so the order of calls, flow control, closing and
    errors are the same; the test takes the place of the socket and the network. No event loop is
    needed, unless the protocol needs one::

        class Capitals(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, data, addr):
                self.transport.sendto(data.upper(), addr)

        def test_capitals():
            transport = ScriptedTransport(Capitals())  # its connection_made was called
            transport.receive([b"one", (b"two", ("198.51.100.7", 53))])
            assert transport.sent == [
                (b"ONE", ("192.0.2.1", 50000)),
                (b"TWO", ("198.51.100.7", 53)),
            ]

    *In:* `receive`, `receive_error`, and `play`, which takes a whole script. *Out:* `sent`.
    *Flow control:* `block`, `unblock`; ``set_write_buffer_limits(0)`` has the protocol paused by a
    single datagram that finds no room. *Errors:* `refuse` for what is sent next, `lose` for one
    that ends the transport.

    Each of these methods does all that follows from it before it returns: answers are in `sent`,
    `connection_lost` was called. What the protocol raised meanwhile, which under asyncio would be
    logged, is raised then. Where an event loop is running, what the protocol does by itself, from
    a task or a timer, takes effect in the loop's next turn, as it does with sockets; without one
    at once.

    Args:
        protocol: The protocol. Its `connection_made` is called.
        sockname: What ``get_extra_info("sockname")`` returns.
        peername: The peer of a connected socket. Packets without a sender come from there, and
            `sendto` takes no other address. None: it is not connected.
        extra: More for `get_extra_info`, such as a socket of your own, by name.

    Attributes:
        sent: What the protocol has sent, ``(data, address)`` pairs in order. The test may clear
            the list.

    Raises:
        TypeError: `protocol` is not a datagram protocol.
        Exception: What `connection_made` has raised.
    """

    def __init__(
        self,
        protocol: asyncio.DatagramProtocol,
        *,
        sockname: Sender = _HERE,
        peername: Sender = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        methods = "datagram_received", "datagrams_received"
        if isinstance(protocol, type) or not any(hasattr(protocol, name) for name in methods):
            raise TypeError(
                f"protocol is {protocol!r}; give an asyncio.DatagramProtocol, not what makes one"
            )
        self.sent: list[tuple[bytes, Address]] = []
        names = {"socket": None, "sockname": sockname, "peername": peername}
        super().__init__(protocol, self.sent, names | dict(extra or {}))

    @property
    def closed(self) -> bool:
        """Whether `connection_lost` was called, and the transport is closed."""
        return self.state == "closed"

    def __repr__(self) -> str:
        return f"<ScriptedTransport {self.state}, sent {len(self.sent)}, {len(self.room)} to send>"

    # What a test does

    def receive(self, packets: Iterable[DatagramLike]) -> None:
        """Have packets arrive together.

        While reading is paused they wait; after the end nobody gets them.

        Args:
            packets: What `make_batch` takes. Of a `Datagram` a protocol sees data and sender; a
                train comes as its packets.

        Raises:
            TypeError: A packet has the wrong type; with its index.
            ValueError: One can't be a datagram; likewise.
            Exception: What the protocol has raised; an ExceptionGroup if it did more than once.
        """
        self.script.waiting.append(_pairs(Arrival(datagrams(self._from_peer(packets)))))
        self.drive()

    def receive_error(self, error: OSError | type[OSError]) -> None:
        """Have the socket report an error, as after an ICMP message: `error_received` is called.

        Args:
            error: The error, or its class.

        Raises:
            TypeError: It is not an OSError; use `lose`.
            Exception: What the protocol has raised; as for `receive`.
        """
        error = error() if isinstance(error, type) else error
        if not isinstance(error, OSError):
            raise TypeError(f"error is {error!r}; give an OSError, or have lose() end all by it")
        self.script.waiting.append(error)
        self.drive()

    def refuse(self, *errors: OSError) -> None:
        """Have the system refuse the next datagrams that are sent, one for each error.

        Args:
            errors: What `error_received` will get.
        """
        self.room.refusals.extend(errors)

    def block(self) -> None:
        """Let there be no room: what is sent waits, and above the high-water mark is paused."""
        self.room.room = 0

    def unblock(self, count: SupportsIndex | None = None) -> None:
        """Let there be room: what waits is sent, and `resume_writing` called if it was paused.

        Args:
            count: For how many datagrams; None for all.

        Raises:
            TypeError: `count` is not an int.
            ValueError: It is below 1.
            Exception: What the protocol has raised; as for `receive`.
        """
        if count is not None:
            count = whole_number("count", count, 1, "give at least 1, or call block()")
        self.room.room = count
        self.drive()

    def lose(self, error: Exception) -> None:
        """End the transport by an error that leaves nothing to serve.

        Args:
            error: What `connection_lost` gets.

        Raises:
            Exception: What the protocol has raised; as for `receive`.
        """
        self.end(error)

    async def play(self, script: Iterable[Step]) -> None:
        """Play a script, as `ScriptedReceiver` does.

        Its steps: packets that arrive together; `Dropped`, of which a protocol sees nothing; an
        OSError that the socket reports, or a class of
        one; any other exception ends the transport, as `lose` does; an event to wait for; a
        function, async or not, that is called. Other tasks, and callbacks of the loop, run before
        each step and after the last one. The transport stays open.

        A checkpoint, always.

        Args:
            script: The steps.

        Raises:
            TypeError: A step is none of these, or a packet in it has the wrong type; the message
                has its index. Nothing was played.
            ValueError: A packet can't be a datagram; likewise.
            Exception: What the protocol, or a function, has raised. The rest is not played.
        """
        steps = checked(script)
        for step in steps:
            await checkpoint()
            if isinstance(step, Arrival):
                self.receive(step.packets)
            elif isinstance(step, Dropped):
                pass
            elif isinstance(step, (BaseException, type)):
                error = step() if isinstance(step, type) else step
                if isinstance(error, OSError):
                    self.receive_error(error)
                elif isinstance(error, Exception):
                    self.lose(error)
                else:
                    raise error
            else:
                await wait_for(step)
        await checkpoint()

    def _from_peer(self, packets: Iterable[DatagramLike]) -> Iterable[DatagramLike]:
        peer = self.get_extra_info("peername")
        if peer is None or isinstance(packets, (str, bytes, bytearray, memoryview)):
            return packets
        plain = (bytes, bytearray, memoryview)
        return [(one, peer) if isinstance(one, plain) else one for one in packets]


def _pairs(arrival: Arrival) -> list[tuple[bytes, Address]]:
    """Return what a protocol sees of packets."""
    pairs: list[tuple[bytes, Address]] = []
    for datagram in arrival.packets:
        data = bytes(datagram.data)
        size = datagram.segment_size or len(data)
        cuts = range(0, len(data), size) if size else [0]
        pairs += [(data[cut : cut + size], datagram.address) for cut in cuts]
    return pairs
