# What the C files give to the Python ones. What each name promises is said in its plain twin.

import socket
from collections.abc import Mapping
from typing import Any

from .._packets.packet import Control
from .._packets.packet import Packet as Packet
from .._packets.slots import Slots as Slots

class Recvmmsg:
    dry: bool
    error: OSError | None
    refused: bool
    def __init__(
        self,
        slots: Slots,
        decode: Mapping[bytes, Any],
        families: frozenset[Any],
        controls: Mapping[bytes, Control],
        ancillary: bool,
    ) -> None: ...
    def takes(self, family: int) -> bool: ...
    def fill(self, slots: Slots, sock: socket.socket, limit: int) -> int: ...
    def settle(self, slots: Slots) -> None: ...
    def addresses(self, first: int, count: int) -> list[Any]: ...

class Sendmmsg: ...
