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

Packets: TypeAlias = PacketBatch | Iterable[Packet] | Iterable[tuple[Data, Address]]
"""What can be sent. An address may be a `Packet`, for its sender, or None, for the peer of a
connected socket."""

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
_GIVE = "give (data, address) pairs, or Packets, or a PacketBatch"


class Outgoing(ABC):
    """Packets to send, each of which can be.

    Attributes:
        sizes: Bytes of each payload.
        sockaddrs: Where each goes, encoded; empty ones for the peer of a connected socket.
    """

    sizes: list[int]
    sockaddrs: list[bytes]
    _datagrams: list[tuple[Data, Address]] | None = None

    def datagrams(self, start: int) -> list[tuple[Data, Address]]:
        """Return payloads and addresses of packets from `start` on, for `socket.sendto`."""
        if self._datagrams is None:  # the first time, before others may release any of them
            addresses = map(ADDRESSES.__getitem__, self.sockaddrs)
            self._datagrams = list(zip(self._payloads(), addresses))  # noqa: B905
        return self._datagrams[start:]

    @abstractmethod
    def _payloads(self) -> Iterable[Data]:
        """Return the payloads; for one alone, without end."""

    @abstractmethod
    def gather(self, start: int, stop: int) -> tuple[bytearray, int, Place]:
        """Have payloads in one memory: from `start` on, as far as they go, before `stop`.

        Returns:
            The memory, how many lie in it, and where.
        """

    @contextmanager
    def pinned(self, start: int) -> Iterator[None]:
        """Keep payloads from `start` on as they are: to release or resize one is a BufferError."""
        # An export of each. A memoryview of a memoryview is none: it would outlive its release.
        pins = [PickleBuffer(data) for data, _ in self.datagrams(start)]
        try:
            yield
        finally:
            for pin in pins:
                pin.release()


class _Pairs(Outgoing):
    """(data, address) pairs."""

    def __init__(self, family: int, pairs: list[tuple[Data, Address]]) -> None:
        try:
            self._datas, addresses = zip(*pairs, strict=True)
            self.sizes = _sizes(family, self._datas)
            self.sockaddrs = _encoded(family, addresses)
        except (TypeError, ValueError) as error:
            _refuse(family, pairs, error)

    def _payloads(self) -> Iterable[Data]:
        return self._datas

    def gather(self, start: int, stop: int) -> tuple[bytearray, int, Place]:
        sizes = self.sizes[start:stop]
        total = sum(sizes)
        if total > COPY_SIZE:
            sizes = sizes[: bisect(list(accumulate(sizes)), COPY_SIZE) or 1]
            total = sum(sizes)
        memory = bytearray().join(self._datas[start : start + len(sizes)])
        if len(memory) != total:
            # The kernel would read beyond it. Another thread did that, as the wait pins them.
            raise RuntimeError("a payload changed its size while it was being sent")
        count, size = len(sizes), sizes[0]
        if size and sizes.count(size) == count:
            return memory, count, lambda base: range(base, base + count * size, size)
        return memory, count, lambda base: accumulate(sizes[:-1], initial=base)


class _Batch(Outgoing):
    """All packets that a batch holds now."""

    def __init__(self, family: int, batch: PacketBatch) -> None:
        self._batch = batch
        self._ring = batch._ring
        self._runs = batch._held_runs()
        self.sizes = batch.sizes()
        read = self._ring.read_sockaddrs
        cache = sockaddrs_of(family)
        try:
            if read is None:
                self.sockaddrs = _encoded(family, batch.addresses())
            else:
                self.sockaddrs = []
                for run in self._runs:
                    self.sockaddrs += read(run.start, len(run))
                cache.check(self.sockaddrs)
        except (TypeError, ValueError) as error:
            _refuse(family, [(b"", packet) for packet in batch], error)

    def _payloads(self) -> Iterable[Data]:
        return self._batch.payloads()

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
        try:
            self.sizes = [packet.size for packet in packets]
            self.sockaddrs = sockaddrs_of(family).senders(packets)
        except (TypeError, ValueError) as error:
            _refuse(family, [(b"", packet) for packet in packets], error)

    def _payloads(self) -> Iterable[Data]:
        return [packet.data for packet in self._packets]

    def gather(self, start: int, stop: int) -> tuple[bytearray, int, Place]:
        packets = self._packets[start:stop]
        ring = packets[0]._ring
        memory, size = ring.memory, ring.slot_size
        slots = [p._slot for p in takewhile(lambda p: p._ring.memory is memory, packets)]
        return memory, len(slots), lambda base: [base + slot * size for slot in slots]


class _Fan(Outgoing):
    """One payload to many addresses."""

    def __init__(self, family: int, data: Data, addresses: list[Address]) -> None:
        try:
            size = _size(family, data)
        except (TypeError, ValueError) as error:
            raise type(error)(f"the {error}") from None
        self._memory = bytearray(data)
        self.sizes = [size] * len(addresses)
        try:
            self.sockaddrs = _encoded(family, addresses)
        except (TypeError, ValueError) as error:
            _refuse(family, [(b"", address) for address in addresses], error)

    def _payloads(self) -> Iterable[Data]:
        return repeat(self._memory)

    def gather(self, start: int, stop: int) -> tuple[bytearray, int, Place]:
        count = min(stop, len(self.sizes)) - start
        return self._memory, count, lambda base: repeat(base, count)


def outgoing(family: int, packets: Packets) -> Outgoing:
    """Return what `send_mmsg` was given, checked.

    Raises:
        TypeError: Something is not of its kind.
        ValueError: A payload is too long or not contiguous, an address of another family, out of
            range or a name, a packet or the batch is released.
    """
    if isinstance(packets, PacketBatch):
        return _Batch(family, packets)
    items: list[Any] = _listed("packets", packets, _GIVE)
    if not items:
        return _Fan(family, b"", [])
    if isinstance(items[0], Packet) and _are_packets(items):
        return _Packets(family, items)
    return _Pairs(family, items)


def fan(family: int, data: Data, addresses: Iterable[Address]) -> Outgoing:
    """Return what `multi_target_send` was given, checked.

    Raises:
        TypeError: As for `outgoing`.
        ValueError: As for `outgoing`.
    """
    if isinstance(addresses, (str, bytes)):
        raise TypeError(f"addresses is {addresses!r}; give a list of them")
    return _Fan(family, data, _listed("addresses", addresses, "give a list of them"))


def _listed(name: str, things: Iterable[Any], fix: str) -> list[Any]:
    try:
        iterator = iter(things)
    except TypeError:
        raise TypeError(f"{name} is {things!r}; {fix}") from None
    return list(iterator)


def _are_packets(things: Sequence[object]) -> bool:
    return all(issubclass(kind, Packet) for kind in set(map(type, things)))


def _sizes(family: int, datas: Sequence[Data]) -> list[int]:
    if set(map(type, datas)) <= _PLAIN:
        sizes = list(map(len, datas))  # type: ignore[arg-type]
        kinds = set(sizes)
        if max(kinds) <= MAX_PAYLOAD.get(family, UNLIMITED):
            # If they are of one size, then as one object: that is faster to compare later.
            return sizes if len(kinds) > 1 else [*kinds] * len(sizes)
    return [_size(family, data) for data in datas]


def _size(family: int, data: Data) -> int:
    try:
        view = memoryview(data)
    except TypeError:
        hint = "; encode it" if isinstance(data, str) else ""
        raise TypeError(f"data is a {type(data).__name__}, not bytes-like{hint}") from None
    if not view.c_contiguous:
        raise ValueError("data is not contiguous; give bytes(data)")
    most = MAX_PAYLOAD.get(family, UNLIMITED)
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


def _refuse(family: int, pairs: Sequence[Any], error: Exception) -> NoReturn:
    """Raise `error`, which came from one of `pairs`, with the index of that one."""
    for index, pair in enumerate(pairs):
        try:
            try:
                data, address = pair
            except (TypeError, ValueError):
                raise TypeError(f"{pair!r} is no pair; {_GIVE}") from None
            _size(family, data)
            if isinstance(address, Packet):
                sockaddrs_of(family).sender(address)
            else:
                encode_sockaddr(family, address)
        except (TypeError, ValueError) as culprit:
            raise type(culprit)(f"packet {index}: {culprit}") from None
    raise error
