"""`SendResult`: what is derived from it, and raised."""

from __future__ import annotations

import errno
import socket
import sys

import pytest

from anyio_mmsg import SendEngine, SendFailure, SendResult, send_mmsg_nowait

from .helpers import Family, nowhere

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


def test_nothing_to_raise() -> None:
    assert SendResult().raise_for_failures() is None  # type: ignore[func-returns-value]
    assert SendResult(sent=3).raise_for_failures() is None  # type: ignore[func-returns-value]


def test_one_failure_is_raised_as_itself() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    result = SendResult(3, [SendFailure(2, refused)])
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError) as raised:
            result.raise_for_failures()
        assert raised.value is refused


def test_several_failures_are_a_group() -> None:
    errors = [ConnectionRefusedError(errno.ECONNREFUSED, "refused"), OSError(errno.EMSGSIZE, "")]
    result = SendResult(3, [SendFailure(number, error) for number, error in enumerate(errors)])
    with pytest.raises(ExceptionGroup, match="2 of 5 packets were not sent") as raised:
        result.raise_for_failures()
    assert list(raised.value.exceptions) == errors


def test_failures_of_a_send(sending: SendEngine, family: Family) -> None:
    sock, (address, number) = family.open(), nowhere(family)
    good = sock.getsockname()
    result = send_mmsg_nowait(sock, [(b"x", good), (b"y", address)], engine=sending)
    with pytest.raises(OSError) as raised:
        result.raise_for_failures()
    assert raised.value.errno == number
    assert isinstance(sock, socket.socket)
