"""One field of each packet, summed: by arrays over a whole batch, and packet by packet."""

from __future__ import annotations

import struct
from functools import partial

from anyio_mmsg import recv_mmsg
from benchmarks.spec import LOOPS, Spec

from .receivers import WORKER, Ours, ReceiverSpec, Use, opened

CALL = 512
"""Packets of a batch: arrays pay by what they take at once."""

FIELD = struct.Struct("<I")
"""The first of a packet, where many have a sequence number."""


class Fields(Ours):
    """Reads one field of each packet alone.

    Attributes:
        total: The sum of the fields.
    """

    total = 0


class Summing(Fields):
    """`PacketBatch.columns`, and numpy's sum of a column of it."""

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        import numpy as np  # here: the other receivers' processes do without

        sock, batch, limit = self.sock, self.batch, self.limit
        while self.got < count:
            await recv_mmsg(sock, batch, limit)
            columns = batch.columns()
            fields = np.asarray(columns.data)[:, : FIELD.size].view("<u4")
            self.total += int(fields.sum(dtype="u8"))
            self.got += len(columns)
            batch.clear()


class Unpacking(Fields):
    """``for packet in batch`` with `struct.unpack_from`, and a sum of Python's."""

    async def receive(self, count: int, use: Use) -> None:
        """See `Receiver`."""
        sock, batch, limit = self.sock, self.batch, self.limit
        unpack = FIELD.unpack_from
        while self.got < count:
            await recv_mmsg(sock, batch, limit)
            total = 0
            for packet in batch:
                (field,) = unpack(packet.data)
                total += field
            self.total += total
            self.got += len(batch)
            batch.clear()


def summing_key(loop: str) -> str:
    """Return the key of the sum by arrays."""
    return f"summing-{CALL}-{loop}"


def unpacking_key(loop: str) -> str:
    """Return the key of the sum packet by packet."""
    return f"unpacking-{CALL}-{loop}"


def _spec(
    key: str, label: str, loop: str, make: type[Ours], needs: tuple[str, ...]
) -> ReceiverSpec:
    opener = partial(opened, make=partial(make, engine="auto", limit=CALL))
    return Spec(key, label, loop, "ours", opener, WORKER, CALL, needs=needs)


FIELDS = [
    *(
        _spec(summing_key(loop), "columns(), summed by numpy", loop, Summing, ("numpy",))
        for loop in LOOPS
    ),
    *(
        _spec(unpacking_key(loop), "for packet in batch, struct.unpack_from", loop, Unpacking, ())
        for loop in LOOPS
    ),
]
