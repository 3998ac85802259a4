"""docs/performance.md: its six lines work."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from anyio_mmsg._compat import wait_socket_readable

from ..helpers import Family
from .blocks import as_function, python_blocks, runs

(SIX_LINES,) = python_blocks("docs/performance.md")


@runs(SIX_LINES)
@pytest.mark.anyio
async def test_the_six_lines(inet: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anyio, "wait_readable", wait_socket_readable, raising=False)
    receiver, sender = inet.pair()
    for number in range(3):
        sender.send(b"%d" % number)
    handled: list[bytes] = []
    done = anyio.Event()

    def handle(data: bytes, address: Any) -> None:
        assert address == sender.getsockname()
        handled.append(data)
        if len(handled) == 3:
            done.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(as_function(SIX_LINES, sock=receiver, handle=handle))
            await done.wait()
            nursery.cancel_scope.cancel()
    assert handled == [b"0", b"1", b"2"]
