"""What the sweeps themselves promise (tests/interrupts.py)."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable

import pytest

from anyio_mmsg._send import known
from anyio_mmsg._system.platform import ON_LINUX

from . import interrupts
from .interrupts import HandlerError, every_bytecode, fail, of_cpython

pytestmark = [
    of_cpython,
    pytest.mark.skipif(not ON_LINUX, reason="has_segmentation asks nothing here"),
]


def in_a_thread(function: Callable[[], object]) -> list[BaseException]:
    """Run it in a thread of its own, which takes with it what it leaves behind."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except AssertionError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


def sweep() -> None:
    """Through an `except` of the library."""
    sock = socket.socket()
    sock.close()
    for point in every_bytecode(fail, within=[known]):
        try:
            with point:
                assert not known.has_segmentation(sock)
        except HandlerError:
            pass


def test_a_sweep_leaves_no_except_behind() -> None:
    assert in_a_thread(sweep) == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="CPython 3.10 itself crashes")
@pytest.mark.parametrize("opcode", ["PUSH_EXC_INFO", "POP_EXCEPT"])
def test_an_except_that_is_left_behind_is_found(
    opcode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "_CLOSED", interrupts._CLOSED - {opcode})
    interrupts._places.cache_clear()
    try:
        (error,) = in_a_thread(sweep)
    finally:
        interrupts._places.cache_clear()
    assert "still in an `except`, after _send/known.py" in str(error)
