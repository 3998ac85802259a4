"""Choices that bytes make."""

from __future__ import annotations


class Reader:
    """Reads numbers and strings from bytes; at their end all are 0 and empty."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        """Return the next bytes, up to `size`."""
        part = self.data[self.at : self.at + size]
        self.at += len(part)
        return part

    def block(self) -> bytes:
        """Return bytes that have their length before them."""
        return self.take(self.number(1))

    def number(self, size: int) -> int:
        """Return an unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def below(self, most: int) -> int:
        """Return a number from 0 to below `most`, up to 256."""
        return self.number(1) % most
