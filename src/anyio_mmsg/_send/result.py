"""What became of packets that were to be sent."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from anyio import ClosedResourceError

from .._compat import ExceptionGroup
from .._system import platform
from .record import Record

if TYPE_CHECKING:
    _Record = Record
else:
    _Record = platform.Record or Record

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


class SendResult(_Record):
    """How far a send has got: packets up to `handled` were sent, but for the failures.

    What the system took is counted in the same step: if a signal handler raises
    in the middle of a send, the result that was given to it still says exactly what was sent.
    It only reports: changing it does not change the send.

    Args:
        sent: See the attributes.
        failures: See the attributes.

    Attributes:
        sent: How many packets the system took. It can't be set.
        failures: Those that it refused, in order.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def __init__(self, sent: int = 0, failures: list[SendFailure] | None = None) -> None: ...

        @property
        def failures(self) -> list[SendFailure]: ...

    @property
    def handled(self) -> int:
        """How many were dealt with, sent or refused. Packets from this index on were not."""
        return self.sent + len(self.failures)

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
        if len(self.failures) == 1:
            raise self.failures[0].error
        if self.failures:
            raise ExceptionGroup(
                f"{len(self.failures)} of {self.handled} packets were not sent",
                [failure.error for failure in self.failures],
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


class UnusableSocketError(ClosedResourceError, OSError):
    """The socket was closed, or its descriptor is not a socket (EBADF, ENOTSOCK).

    Attributes:
        result: What had become of the packets until then.
    """

    def __init__(self, number: int, message: str, result: SendResult | None = None) -> None:
        super().__init__(number, message)
        self.result: SendResult = SendResult() if result is None else result

    def __repr__(self) -> str:
        result = self.__dict__.get("result")
        return f"UnusableSocketError({self.errno}, {self.strerror!r}, {result!r})"
