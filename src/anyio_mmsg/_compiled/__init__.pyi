# What the C files give to the Python ones. What each name promises is said in its plain twin.

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, SupportsIndex, final
from weakref import ref

from typing_extensions import Self, disjoint_base

from .._packets.batch import PacketBatch
from .._packets.packet import Packet as Packet
from .._packets.slots import Slots as Slots
from .._receive.engine import Engine
from .._receive.outlook import Outlook
from .._send.result import SendResult
from .._stream.loans import LentBatch, Loan
from .._stream.lost import Holder
from .._stream.pool import PacketBatchPool

sources: str  # the fingerprint of the C files, for _load.py

def again(
    cls: type[PacketBatch], sock: socket.socket, batch: PacketBatch, limit: SupportsIndex, /
) -> int | None: ...
def ready(
    cls: type[PacketBatch], sock: socket.socket, batch: PacketBatch, limit: SupportsIndex, /
) -> Outlook | None: ...
def datagrams(
    outlook: Outlook | None, sock: socket.socket, limit: int, most: int, record: list[Any], /
) -> tuple[Slots, Recvmmsg] | bool | None: ...
def refill(slots: Slots, sock: socket.socket, limit: int, /) -> int | None: ...

@disjoint_base
class OutlookFields:
    sock: ref[socket.socket]
    more: bool
    woken: bool
    reports_errors: bool
    struck: bool
    options: object
    receive_calls: int
    unreturned: list[Any]
    spares: list[Any] | None
    _error: OSError | None

@disjoint_base
class FillerFields:
    task: Awaitable[None] | None
    engine: Engine | None
    checked: object
    known: Outlook | None

@final
class Wake(asyncio.Future[None]):  # has what a task asks for, and derives from nothing
    def __new__(cls, loop: object, /) -> Wake: ...
    def resume(self) -> None: ...

@disjoint_base
class LoanFields:
    pool: ref[PacketBatchPool]
    dropped: Counter[str] | None
    holder: Holder | None
    lost: bool
    over: bool
    def __new__(cls, batch: PacketBatch, /) -> Self: ...
    def end(self, slots: Slots, /) -> None: ...

@disjoint_base
class LentFields:
    _slots: Slots
    _lease: Loan | None
    def close(self) -> None: ...
    def __enter__(self) -> LentBatch: ...
    def __exit__(self, *exc_info: object) -> None: ...

def lend(
    pool: PacketBatchPool, batch: type[LentBatch], loan: type[Loan], /
) -> LentBatch | None: ...

@final
class Recvmmsg:
    error: OSError | None
    @property
    def cut(self) -> bool: ...
    @property
    def dry(self) -> bool: ...
    @property
    def refused(self) -> bool: ...
    def __new__(
        cls,
        slots: Slots,
        decode: Mapping[bytes, Any],
        families: frozenset[Any],
        ancillary: bool,
    ) -> Recvmmsg: ...
    def takes(self, family: int, /) -> bool: ...
    def fill(self, slots: Slots, sock: socket.socket, limit: int, /) -> int: ...
    def datagrams(
        self, slots: Slots, sock: socket.socket, limit: int, most: int, record: list[Any], /
    ) -> None: ...
    def busy(self) -> bool: ...
    def settle(self, slots: Slots, /) -> None: ...

@final
class Sendmmsg:
    @property
    def count(self) -> int: ...
    @property
    def handled(self) -> int: ...
    @property
    def failures(self) -> list[Any]: ...
    @property
    def refused(self) -> bool: ...
    @property
    def code(self) -> int: ...
    @property
    def controls(self) -> bytes | tuple[bytes, ...] | None: ...
    def __new__(
        cls,
        failure: type[tuple[int, OSError]],
        items: Slots | list[Any],
        sockaddrs: Mapping[Any, bytes],
        family: int,
        most: int,
        flags: int,
        data: Any = None,
        controls: bytes | tuple[bytes, ...] | None = None,
        /,
    ) -> Sendmmsg: ...  # or None, if packets have options
    @property
    def progress(self) -> Sendmmsg: ...
    def send(self, sock: socket.socket, result: SendResult | None, keep: bool, /) -> int: ...
    def rest(self) -> tuple[Sequence[Any], list[bytes]]: ...
    def release(self) -> None: ...

@final
class Shortcut:
    def __new__(
        cls,
        result: type[SendResult],
        failure: type[tuple[int, OSError]],
        kind: type[socket.socket],
        batch: type[PacketBatch],
        course: type[Any],
        refused: Any,
        known: dict[int, Any],
        asked: dict[int, Any],
        learn: Callable[[socket.socket], object],
        refuse: Callable[..., NoReturn],
        conclude: Callable[..., SendResult],
        nothing: object,
        /,
    ) -> Shortcut: ...
    def usable(self, /, *arguments: Any) -> bool: ...
    def send(self, /, *arguments: Any) -> SendResult | Sendmmsg | None: ...
    def fan(
        self, sock: socket.socket, data: Any, addresses: Any, result: SendResult | None, /
    ) -> SendResult | Sendmmsg | None: ...
    def nowait(self, /, *arguments: Any, **named: Any) -> Any: ...

@final
class Entry:
    def __new__(cls, function: Callable[..., Any], step: Callable[..., Any], /) -> Entry: ...
    def __call__(self, /, *arguments: Any, **named: Any) -> Any: ...
    def __get__(self, owner: Any, kind: type[Any] | None = None, /) -> Any: ...
    def __reduce__(self) -> str: ...
