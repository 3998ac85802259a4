"""What became of packets that were to be sent."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from anyio import ClosedResourceError

from .._compat import ExceptionGroup

UNUSABLE = frozenset({errno.EBADF, errno.ENOTSOCK})
"""Errors of the socket itself, after which it sends nothing; all others are a packet's."""


class SendFailure(NamedTuple):
    """A packet that was not sent.

    Attributes:
        index: Which one, counted from 0 in the order they were given.
        error: Why. On a connected socket it may be what ICMP reported of an earlier packet, as
            ConnectionRefusedError; the system then reports it instead of sending this one.
    """

    index: int  # type: ignore[assignment]  # hides a method of tuple that is not needed
    error: OSError


class Progress(Protocol):
    """How far a send has got; a sender has one.

    Attributes:
        handled: How many packets were sent or refused.
        failures: The packets that were refused, in order.
    """

    @property
    def handled(self) -> int: ...
    @property
    def failures(self) -> Sequence[SendFailure]: ...


class Past:
    """The `Progress` of no sender: of a send that has not begun, or of a result made by hand."""

    __slots__ = ("failures", "handled")

    def __init__(self, handled: int, failures: Sequence[SendFailure]) -> None:
        self.handled = handled
        self.failures = failures


NOTHING = Past(0, ())
"""What has become of packets before they are sent."""


class SendResult:
    """How far a send has got: packets up to `handled` were sent, but for the failures.

    It reads what its sender counts, in the same step that sends: if a signal handler raises in
    the middle of a send, the result that was given to it still says exactly what was sent.
    It only reports: changing it does not change the send.

    Args:
        sent: See the property.
        failures: See the property.
    """

    __slots__ = ("_progress",)

    _progress: Progress

    def __init__(self, sent: int = 0, failures: list[SendFailure] | None = None) -> None:
        known = () if failures is None else tuple(failures)
        self._progress = Past(sent + len(known), known)

    @property
    def sent(self) -> int:
        """How many packets the system took. It can't be set."""
        progress = self._progress
        return progress.handled - len(progress.failures)

    @property
    def failures(self) -> list[SendFailure]:
        """The packets that it refused, in order; a new list each time."""
        return list(self._progress.failures)

    @property
    def handled(self) -> int:
        """How many were dealt with, sent or refused. Packets from this index on were not."""
        return self._progress.handled

    @property
    def errors(self) -> Mapping[int, int]:
        """How many of each error there are among the failures, by errno."""
        return Counter(error.errno or 0 for _, error in self.failures)

    def raise_for_failures(self) -> None:
        """Raise what kept packets from being sent, if anything did.

        Raises:
            OSError: The error of the only failure.
            ExceptionGroup: Of several failures: their errors, in order. On Python 3.10 it is that
                of the package exceptiongroup, which AnyIO requires there.
        """
        failures = self.failures
        if len(failures) == 1:
            raise failures[0].error
        if failures:
            raise ExceptionGroup(
                f"{len(failures)} of {self.handled} packets were not sent",
                [failure.error for failure in failures],
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SendResult):
            return NotImplemented
        return self.sent == other.sent and self.failures == other.failures

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        try:
            return f"SendResult(sent={self.sent}, failures={self.failures})"
        except AttributeError:  # its __init__ was not called
            return "<SendResult, not made yet>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.sent, self.failures)


def result_of(progress: Progress) -> SendResult:
    """Return a new result that reads `progress`."""
    result = _new(SendResult)
    result._progress = progress
    return result


_new = SendResult.__new__  # without `__init__`: a result of a sender needs no other state


class UnusableSocketError(ClosedResourceError, OSError):
    """The socket was closed, or its descriptor is not a socket (EBADF, ENOTSOCK).

    Attributes:
        result: How far the send had got.
    """

    def __init__(self, number: int, message: str, result: SendResult | None = None) -> None:
        super().__init__(number, message)
        self.result: SendResult = SendResult() if result is None else result

    def __repr__(self) -> str:
        result = self.__dict__.get("result")
        return f"UnusableSocketError({self.errno}, {self.strerror!r}, {result!r})"
