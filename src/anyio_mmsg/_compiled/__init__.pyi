# What the C files give to the Python ones. What each name promises is said in its plain twin.

import socket
from collections.abc import Mapping, Sequence
from typing import Any, final

from typing_extensions import disjoint_base

from .._packets.packet import Control
from .._packets.packet import Packet as Packet
from .._packets.slots import Slots as Slots

@final
class Recvmmsg:
    error: OSError | None
    @property
    def dry(self) -> bool: ...
    @property
    def refused(self) -> bool: ...
    def __new__(
        cls,
        slots: Slots,
        decode: Mapping[bytes, Any],
        families: frozenset[Any],
        controls: Mapping[bytes, Control],
        ancillary: bool,
    ) -> Recvmmsg: ...
    def takes(self, family: int, /) -> bool: ...
    def fill(self, slots: Slots, sock: socket.socket, limit: int, /) -> int: ...
    def settle(self, slots: Slots, /) -> None: ...
    def addresses(self, first: int, count: int, /) -> list[Any]: ...

@final
class Sendmmsg:
    @property
    def count(self) -> int: ...
    @property
    def handled(self) -> int: ...
    @property
    def refused(self) -> bool: ...
    @property
    def controls(self) -> bytes | tuple[bytes, ...] | None: ...
    def __new__(
        cls,
        failure: type[tuple[int, OSError]],
        items: Slots | list[Any],
        sockaddrs: Mapping[Any, bytes],
        family: int,
        most: int,
        gso: bool,
        data: Any = None,
        controls: bytes | tuple[bytes, ...] | None = None,
        /,
    ) -> Sendmmsg: ...
    def send(self, sock: socket.socket, result: Record, /) -> int: ...
    def rest(self) -> tuple[Sequence[Any], list[bytes]]: ...
    def release(self) -> None: ...

@disjoint_base
class Record:
    @property
    def sent(self) -> int: ...
    @property
    def failures(self) -> list[Any]: ...
    def __init__(self, sent: int = 0, failures: list[Any] | None = None) -> None: ...
    def _restart(self) -> None: ...
    def _watch(self, taken: list[int], /) -> None: ...
