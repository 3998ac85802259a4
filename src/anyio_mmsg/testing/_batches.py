"""Batches that hold given packets, as after a receive."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex, cast

from anyio import BusyResourceError

from .._packets import Slots
from .._packets.batch import NUM_RCVMMSGS, PACKET_DATA_SIZE, PacketBatch, is_busy, settle
from .._packets.packet import Address
from .._receive.engine import adopt, filler_of
from .._receive.recvfrom_into import RecvfromInto
from .._system.control import Ancillary
from .._system.platform import ASK_FOR_FLAGS
from ._datagrams import DatagramLike, Message, datagrams, messages_for

_MSG_TRUNC = int(getattr(socket, "MSG_TRUNC", 0))


def make_batch(
    packets: Iterable[DatagramLike] = (),
    *,
    capacity: SupportsIndex | None = None,
    slot_size: SupportsIndex = PACKET_DATA_SIZE,
    ancillary: bool = False,
    gro: bool = False,
) -> PacketBatch:
    """Return a `PacketBatch` that holds `packets`, as if they had just been received.

    It is a real one: what can be done with a batch from a socket can be done with it::

        batch = make_batch([b"one", (b"two", ("198.51.100.7", 53)), Datagram(b"", ecn=3)],
                           ancillary=True)
        assert [bytes(packet.data) for packet in batch] == [b"one", b"two", b""]
        assert batch.addresses()[1] == ("198.51.100.7", 53)
        assert batch.ecns() == [None, None, 3]
        batch.close()

    Args:
        packets: In order of arrival; see `DatagramLike`.
        capacity: As for `PacketBatch`; None for 64, or as many as there are packets.
        slot_size: As for `PacketBatch`. A longer datagram is cut.
        ancillary: As for `PacketBatch`: whether it has room for control data.
        gro: As for `PacketBatch`: a slot holds a message, which with `Datagram.segment_size` is
            a train of packets.

    Raises:
        TypeError: A packet is none of these, or a part of it has the wrong type; with its index.
            Otherwise as for `PacketBatch`.
        ValueError: A packet can't be a datagram, has control data without ``ancillary=True``, or
            is a train without ``gro=True``; with its index. There are more than fit into
            `capacity`. Otherwise as for `PacketBatch`.
    """
    given = datagrams(packets)
    batch = PacketBatch(
        max(NUM_RCVMMSGS, len(given)) if capacity is None else capacity,
        slot_size,
        gro=gro,
        ancillary=ancillary,
    )
    fill_batch(batch, given)
    return batch


def fill_batch(batch: PacketBatch, packets: Iterable[DatagramLike]) -> int:
    """Append `packets` to those in a batch, as a receive does.

    For batches that you have: one of a `PacketBatchPool`, or one that a test uses again. All of
    the packets go in, or none::

        pool = PacketBatchPool(1)
        with pool.acquire_nowait() as batch:
            assert fill_batch(batch, [b"one", b"two"]) == 2
        assert pool.free == 1  # it was given back

    Args:
        batch: Any `PacketBatch`.
        packets: In order of arrival; see `DatagramLike`.

    Returns:
        How many packets were added, each packet of a train.

    Raises:
        TypeError: As for `make_batch`; or `batch` is not a `PacketBatch`.
        ValueError: As for `make_batch`; or the batch is closed.
        anyio.BusyResourceError: A task is receiving into the batch.
    """
    if not isinstance(batch, PacketBatch):
        raise TypeError(f"batch is a {type(batch).__name__}, and has to be a PacketBatch")
    given = datagrams(packets)  # which may run anything, so it comes first
    slots = batch._slots
    messages = messages_for(given, slots.gro, slots.ancillary)
    if is_busy(slots):
        raise BusyResourceError("receiving into")
    settle(slots)
    if len(messages) > slots.free:
        raise ValueError(
            f"{len(messages)} packets, or trains, for a batch with {slots.free} free slots of "
            f"{slots.capacity}; give fewer, or make a larger one with capacity="
        )
    return play(slots, messages)


def play(slots: Slots, messages: Sequence[Message]) -> int:
    """Have messages arrive in free slots, of which there have to be as many.

    Returns:
        How many packets they were.

    Raises:
        anyio.BusyResourceError: The code that a signal handler has interrupted is receiving.
    """
    known = filler_of(slots).engines.get(_Playback)
    engine = adopt(slots, _Playback, known or _Playback(slots))
    taken: int = engine.fill(slots, cast(socket.socket, _Reads(messages)), len(messages))
    return taken


class _Playback(RecvfromInto):
    """The portable engine, reading from an object that is not a socket.

    So a test's packets take the same way as received ones: read, recorded, committed, decoded.
    """

    def __init__(self, slots: Slots) -> None:
        super().__init__(slots, 0, ASK_FOR_FLAGS)

    def takes(self, family: int) -> bool:
        """No: for a socket, `engine_for` finds another engine."""
        return False

    def asks_by_message(self, sock: socket.socket) -> bool:
        """Return what the slots want; no socket is asked."""
        return self.by_message


class _Reads:
    """What `RecvfromInto` reads from; of a socket it has these two methods."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._left = deque(messages)

    def recvfrom_into(self, buffer: memoryview, nbytes: int, flags: int) -> tuple[int, Address]:
        size, _, _, address = self.recvmsg_into([buffer], 0, flags)
        return size, address

    def recvmsg_into(
        self, buffers: Sequence[memoryview], ancbufsize: int, flags: int
    ) -> tuple[int, list[Ancillary], int, Any]:
        if not self._left:
            raise BlockingIOError
        message, buffer = self._left.popleft(), buffers[0]
        size = min(len(message.data), len(buffer))
        buffer[:size] = message.data[:size]
        cut = _MSG_TRUNC if len(message.data) > size else 0
        length = size if ASK_FOR_FLAGS else len(message.data)  # as such a platform reports it
        return length, message.control, cut, message.address
