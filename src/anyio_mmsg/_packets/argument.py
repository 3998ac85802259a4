"""Arguments of `PacketBatch`, which it shows as attributes that can't be set."""

from __future__ import annotations

from typing import Any, NoReturn


class _Argument:
    """An argument of `PacketBatch` as a read-only attribute; on the class, its default."""

    def __init__(self, default: object) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, batch: Any, owner: type) -> object:
        return self.default if batch is None else getattr(batch._slots, self.name)

    def __set__(self, batch: object, value: object) -> NoReturn:
        raise AttributeError(
            f"{self.name} can't be set: it describes memory that exists. Make another batch"
        )


class _Memory(_Argument):
    """The program's own memory, as it was given, or None; the slots have a view of it."""

    def __get__(self, batch: Any, owner: type) -> object:
        if batch is not None:
            batch._slots.capacity  # noqa: B018  # or a ValueError, if it is closed
            return batch._given
        return self.default


def argument(default: object) -> Any:
    """Return what shows an argument that has this default."""
    return _Argument(default)


def memory_argument() -> Any:
    """Return what shows the argument `memory`."""
    return _Memory(None)
