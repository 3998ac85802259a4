"""What is to be sent, as columns. All that can be refused is refused here, before the first send.

Where the payloads lie in memory is told by `Outgoing.gather`: those of packets that a batch
holds stay where they are, others are copied into one piece.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, repeat, takewhile
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from ._batch import Address, Packet, PacketBatch
from ._sockaddr import ADDRESSES, encode_sockaddr, sockaddrs_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    Data: TypeAlias = ReadableBuffer
    """A payload: bytes or any object with a contiguous buffer."""
else:
    Data = Any

Packets: TypeAlias = Iterable[Packet | tuple[Data, Address]]
"""What can be sent; a `PacketBatch` is one too. An address may be a `Packet`, for its sender, or
None, for the peer of a connected socket."""

MAX_PAYLOAD = {int(socket.AF_INET): 65507, int(socket.AF_INET6): 65527}
"""Bytes that a datagram can carry, by family: 65,535 less 8 for the UDP header, and for IPv4 less
20 for its own (RFC 768, 791, 8200; IPv6's payload length does not count its header). Those of
other families have the socket's own limits."""

UNLIMITED = 2**31 - 1

COPY_SIZE = 2**20
"""Bytes of payloads that are copied at a time, or one payload: about as many as 1,024 packets of
the usual size, so that they are still near when the kernel copies them again. Arbitrary."""

Place: TypeAlias = Callable[[int], Iterable[int]]
"""Given a memory's address, tells those of the payloads in it."""

_PLAIN = {bytes, bytearray}  # of which len tells the bytes
_NOTHING: list[int] = []
_GIVE = "give (data, address) pairs, Packets, or a PacketBatch"


class Outgoing(ABC):
    """Packets to send, each of which can be.

    Attributes:
        sizes: Bytes of each payload.
        sockaddrs: Where each goes, encoded; empty ones for the peer of a connected socket.
        handled: How many were sent or refused: what a `SendResult` says too, but that is in the
            hands of others.
        gso: Whether to use segmentation offload, where it can be had.
    """

    sizes: list[int]
    sockaddrs: list[bytes]
    handled = 0
    gso = False

    def datagrams(self, start: int, stop: int) -> Iterable[tuple[Data, Address]]:
        """Return payloads and addresses of packets `start` to `stop`, for `socket.sendto`."""
        addresses = map(ADDRESSES.__getitem__, self.sockaddrs[start:stop])
        return zip(self._payloads()[start:stop], addresses)  # noqa: B905

    @abstractmethod
    def _payloads(self) -> Sequence[Data]:
        """Return the payloads."""

    @abstractmethod
    def gather(self, start: int, stop: int) -> tuple[bytearray, int, Place]:
        """Have payloads in one memory: from `start` on, as far as they go, before `stop`.

        Returns:
            The memory, how many lie in it, and where.
        """

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep the payloads as they are: to release or resize one is a BufferError."""
        # An export of each. A memoryview of a memoryview is none: it would outlive its release.
        pins = [PickleBuffer(data) for data in self._payloads()]
        try:
            yield
        finally:
            for pin in pins:
                pin.release()


class _Pairs(Outgoing):
    """(data, address) pairs; also `Packet`s among them, each of which is its own pair."""

    _datas: Sequence[Data]
    _copy: bytearray

    def __init__(self, family: int, most: int, pairs: list[Any]) -> None:
        try:
            self._datas, addresses = zip(*pairs, strict=True)
        except TypeError:
            pairs = [(item.data, item) if isinstance(item, Packet) else item for item in pairs]
            self._datas, addresses = zip(*pairs, strict=True)
        self.sizes = _sizes(most, self._datas)
        self.sockaddrs = _encoded(family, addresses)
        # The last copy: of which packet it begins with, what it is, and their sizes.
        self._start, self._copied = 0, _NOTHING

    def _payloads(self) -> Sequence[Data]:
        return self._datas

    def gather(self, start: int, stop: int) -> tuple[bytearray, int, Place]:
        done = start - self._start
        if not 0 <= done < len(self._copied):
            self._copy_from(start, stop)
            done = 0
        sizes, before = self._copied, 0
        if done:  # of the last copy there is some left to send
            sizes, before = sizes[done:], sum(sizes[:done])
        count, size = len(sizes), sizes[0]

        def place(base: int) -> Iterable[int]:
            first = base + before
            if size and sizes.count(size) == count:
                return range(first, first + count * size, size)
            return accumulate(sizes[:-1], initial=first)

        return self._copy, count, place

    def _copy_from(self, start: int, stop: int) -> None:
        sizes = self.sizes[start:stop]
        total = sum(sizes)
        if total > COPY_SIZE:
            sizes = sizes[: bisect(list(accumulate(sizes)), COPY_SIZE) or 1]
            total = sum(sizes)
        self._copy = bytearray().join(self._datas[start : start + len(sizes)])
        if len(self._copy) != total:
            # The kernel would read beyond it. Another thread did that: waits pin them.
            raise RuntimeError("a payload changed its size while it was being sent")
        self._start, self._copied = start, sizes


class _Batch(Outgoing):
    """All packets that a batch holds now."""

    def __init__(self, family: int, batch: PacketBatch) -> None:
        self._batch = batch
        self._datas: Sequence[Data] | None = None
        self._ring = batch._ring
        self._runs = batch._held_runs()
        self.sizes = batch.sizes()
        read = self._ring.read_sockaddrs
        if read is None:
            self.sockaddrs = _encoded(family, batch.addresses())
        else:
            self.sockaddrs = []
            for run in self._runs:
                self.sockaddrs += read(run.start, len(run))
            sockaddrs_of(family).check(self.sockaddrs)

    def _payloads(self) -> Sequence[Data]:
        if self._datas is None:  # at the first time, before others may release any
            self._datas = self._batch.payloads()
        return self._datas

    def gather(self, start: int, stop: int) -> tuple[bytearray, int, Place]:
        run, past = self._runs[0], 0
        if start >= len(run):  # beyond the ring's end
            run, past = self._runs[1], len(run)
        slots = run[start - past : stop - past]
        size = self._ring.slot_size

        def place(base: int) -> Iterable[int]:
            return range(base + slots.start * size, base + slots.stop * size, size)

        return self._ring.memory, len(slots), place


class _Packets(Outgoing):
    """Packets, perhaps of several batches, each back to its sender."""

    def __init__(self, family: int, packets: list[Packet]) -> None:
        self._packets = packets
        self._datas: Sequence[Data] | None = None
        self.sockaddrs = sockaddrs_of(family).senders(packets)
        self.sizes = [packet.size for packet in packets]

    def _payloads(self) -> Sequence[Data]:
        if self._datas is None:
            self._datas = [packet.data for packet in self._packets]
        return self._datas

    def gather(self, start: int, stop: int) -> tuple[bytearray, int, Place]:
        packets = self._packets[start:stop]
        ring = packets[0]._ring
        memory, size = ring.memory, ring.slot_size
        slots = [p._slot for p in takewhile(lambda p: p._ring.memory is memory, packets)]
        return memory, len(slots), lambda base: [base + slot * size for slot in slots]


class _Fan(Outgoing):
    """One payload to many addresses, or to none."""

    def __init__(self, family: int, most: int, data: Data, addresses: list[Address]) -> None:
        try:
            _size(most, data)
        except (TypeError, ValueError) as error:
            raise type(error)(f"the {error}") from None
        # Its sizes are those of the copy: whatever happens to `data`, they are right.
        self._copy = bytearray().join((data,))
        self.sizes = [len(self._copy)] * len(addresses)
        try:
            self.sockaddrs = _encoded(family, addresses)
        except (TypeError, ValueError) as error:
            _refuse(family, most, [(b"", address) for address in addresses], error)

    def _payloads(self) -> Sequence[Data]:
        return [self._copy] * len(self.sizes)

    def gather(self, start: int, stop: int) -> tuple[bytearray, int, Place]:
        count = min(stop, len(self.sizes)) - start
        return self._copy, count, lambda base: repeat(base, count)


def outgoing(family: int, most: int, packets: Packets) -> Outgoing:
    """Return what `send_mmsg` was given, checked.

    Args:
        family: The socket's.
        most: The bytes that a payload can have.
        packets: As for `send_mmsg`.

    Raises:
        TypeError: Something is not of its kind.
        ValueError: A payload is too long or not contiguous, an address of another family, out of
            range or a name, a packet or the batch is released.
    """
    items: Any = packets
    try:
        if isinstance(packets, PacketBatch):
            return _Batch(family, packets)
        items = _listed("packets", packets, _GIVE)
        if not items:
            return _Fan(family, most, b"", [])
        if isinstance(items[0], Packet) and _are_packets(items):
            return _Packets(family, items)
        return _Pairs(family, most, items)
    except (TypeError, ValueError) as error:
        if items is packets and not isinstance(packets, PacketBatch):
            raise  # they could not be read
        _refuse(family, most, items, error)


def fan(family: int, most: int, data: Data, addresses: Iterable[Address]) -> Outgoing:
    """Return what `multi_target_send` was given, checked.

    Raises:
        TypeError: As for `outgoing`.
        ValueError: As for `outgoing`.
    """
    if isinstance(addresses, (str, bytes)):
        raise TypeError(f"addresses is {addresses!r}; give a list of them")
    return _Fan(family, most, data, _listed("addresses", addresses, "give a list of them"))


def _listed(name: str, things: Iterable[Any], fix: str) -> list[Any]:
    try:
        iterator = iter(things)
    except TypeError:
        raise TypeError(f"{name} is {things!r}; {fix}") from None
    return list(iterator)


def _are_packets(things: Sequence[object]) -> bool:
    return all(issubclass(kind, Packet) for kind in set(map(type, things)))


def _sizes(most: int, datas: Sequence[Data]) -> list[int]:
    if set(map(type, datas)) <= _PLAIN:
        sizes = list(map(len, datas))  # type: ignore[arg-type]
        kinds = set(sizes)
        if max(kinds) <= most:
            # If they are of one size, then as one object: that is faster to compare later.
            return sizes if len(kinds) > 1 else [*kinds] * len(sizes)
    return [_size(most, data) for data in datas]


def _size(most: int, data: Data) -> int:
    try:
        view = memoryview(data)
    except TypeError:
        hint = "; encode it" if isinstance(data, str) else ""
        raise TypeError(f"data is a {type(data).__name__}, not bytes-like{hint}") from None
    if not view.c_contiguous:
        raise ValueError("data is not contiguous; give bytes(data)")
    if view.nbytes > most:
        raise ValueError(f"data has {view.nbytes} bytes; a datagram carries {most} at most")
    return view.nbytes


def _encoded(family: int, addresses: Sequence[Address]) -> list[bytes]:
    cache = sockaddrs_of(family)
    if addresses:
        first = addresses[0]
        if first == addresses[-1] and addresses.count(first) == len(addresses):
            return [cache[first]] * len(addresses)
        if isinstance(first, Packet) and _are_packets(addresses):
            return cache.senders(addresses)
    return list(map(cache.__getitem__, addresses))


def _refuse(family: int, most: int, items: Iterable[Any], error: Exception) -> NoReturn:
    """Raise `error`, which came from one of `items`, with the index of that one."""
    cache = sockaddrs_of(family)
    for index, item in enumerate(items):
        try:
            if isinstance(item, Packet):
                cache.sender(item)
                _size(most, item.data)
                continue
            try:
                data, address = item
            except (TypeError, ValueError):
                raise TypeError(f"{item!r} is no pair; {_GIVE}") from None
            _size(most, data)
            if isinstance(address, Packet):
                cache.sender(address)
            else:
                encode_sockaddr(family, address)
        except (TypeError, ValueError) as culprit:
            raise type(culprit)(f"packet {index}: {culprit}") from None
    raise error
