"""What became of packets that were to be sent."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ._compat import ExceptionGroup

UNUSABLE = frozenset({errno.EBADF, errno.ENOTSOCK})
"""Errors of the socket itself, after which it sends nothing; all others are a packet's."""


class SendFailure(NamedTuple):
    """A packet that was not sent.

    Attributes:
        index: Which one, counted from 0 in the order they were given.
        error: Why. On a connected socket it may be what ICMP reported of an earlier packet, as
            ConnectionRefusedError; the system then tells it instead of sending this one.
    """

    index: int  # type: ignore[assignment]  # the method of tuple is no loss
    error: OSError


@dataclass
class SendResult:
    """How far a send has got: packets up to `handled` were sent, but for the failures.

    Attributes:
        sent: How many packets the system took.
        failures: Those that it refused, in order.
    """

    sent: int = 0
    failures: list[SendFailure] = field(default_factory=list)

    @property
    def handled(self) -> int:
        """How many were dealt with: sent or refused. Packets from this index on were not."""
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
                of the package `exceptiongroup`, which AnyIO requires there.
        """
        if len(self.failures) == 1:
            raise self.failures[0].error
        if self.failures:
            raise ExceptionGroup(
                f"{len(self.failures)} of {self.handled} packets were not sent",
                [failure.error for failure in self.failures],
            )
