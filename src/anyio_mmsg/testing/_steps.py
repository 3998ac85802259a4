"""The steps of a script: what they may be, and how to wait for them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, SupportsIndex, TypeAlias, cast

from .._arguments import whole_number
from ._datagrams import Datagram, DatagramLike, datagrams


class Event(Protocol):
    """What `anyio.Event`, `trio.Event` and `asyncio.Event` have in common."""

    def is_set(self) -> bool:
        """Return whether it has happened."""
        ...

    async def wait(self) -> object:
        """Wait until it has."""
        ...


class Dropped:
    """A step of a script: packets that the kernel has dropped, since the buffer was full.

    `ReceiverStatistics.dropped_by_kernel` of a `ScriptedReceiver` counts them once the steps
    before are done: what arrived before was received, or `stop` was called. It is None as long as
    a script has no such step. For a protocol nothing happens, as with real sockets::

        ScriptedReceiver([[b"a"], Dropped(3), [b"b"]])

    Args:
        packets: How many, at least 1.

    Raises:
        TypeError: `packets` is not an int.
        ValueError: It is below 1.
    """

    def __init__(self, packets: SupportsIndex) -> None:
        few = "give the number of packets, at least 1"
        self.packets: int = whole_number("packets", packets, 1, few)

    def __repr__(self) -> str:
        return f"Dropped({self.packets})"


Step: TypeAlias = (
    Iterable[DatagramLike]
    | Dropped
    | BaseException
    | type[BaseException]
    | Event
    | Callable[[], object]
)
"""A step of a script: packets that arrive together; `Dropped`, for some that did not; an error; an
event to wait for; or a function, async or not, to call first. A script in a variable of its own
needs the annotation ``list[Step]``."""


class Arrival:
    """Packets that arrive together. How many were read is one number: one store moves it."""

    def __init__(self, packets: list[Datagram]) -> None:
        self.packets = packets
        self.read = 0

    @property
    def left(self) -> list[Datagram]:
        return self.packets[self.read :]


Ready: TypeAlias = "Arrival | BaseException | type[BaseException]"

READY = (Arrival, BaseException, type)  # of the types, only classes of exceptions are steps


def is_event(step: object) -> bool:
    """Whether a step is an event.

    Its class says so: an object that answers to every name, such as a `Mock`, is a function.
    """
    return all(callable(getattr(type(step), name, None)) for name in ("is_set", "wait"))


def checked(script: Iterable[Step]) -> list[Any]:
    """Return the steps of a script, with an `Arrival` for packets.

    Raises:
        TypeError: A step can't be one; with its index.
        ValueError: A packet can't be a datagram; likewise.
    """
    try:
        given: list[Any] = list(script)
    except TypeError:
        raise TypeError(f"script is {script!r}; give a list of steps") from None
    return [_step(index, step) for index, step in enumerate(given)]


def _step(index: int, step: Any) -> Any:
    kind: Any = type(step)  # not step.__class__, which a mock borrows
    if issubclass(kind, Dropped):
        return Dropped(step.packets)  # a step of its own, if it stands in a script twice
    if issubclass(kind, BaseException):
        return step
    if is_event(step):
        if not inspect.iscoroutinefunction(kind.wait):
            raise TypeError(
                f"step {index} is a {kind.__module__}.{kind.__qualname__}, whose wait() is "
                f"not an async function, so it would stop the event loop; give an anyio.Event"
            )
        return step
    if inspect.isgeneratorfunction(step) or inspect.isasyncgenfunction(step):
        raise TypeError(f"step {index} is {step!r}, and calling it runs nothing; give a list")
    if issubclass(kind, type):
        if issubclass(step, BaseException):
            return step
    elif callable(step):
        return step
    with step_named(index):
        arrived = Arrival(datagrams(cast("Iterable[DatagramLike]", step)))
    if not arrived.packets:
        raise ValueError(f"step {index} has no packets; leave it out: no receive returns none")
    return arrived


async def wait_for(step: Any) -> None:
    """Wait for an event, or call a function and await what it returns, if that can be."""
    waiting = step.wait() if is_event(step) else step()
    if inspect.isawaitable(waiting):
        await waiting


@contextlib.contextmanager
def step_named(index: int) -> Iterator[None]:
    """Make errors that the block raises say which step of the script is wrong."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"step {index}, {error}") from None
