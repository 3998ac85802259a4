"""docs/how-to/sessions.md: sessions that end, and a bound on them."""

from __future__ import annotations

import anyio
import pytest

from anyio_mmsg import PacketReceiver
from anyio_mmsg.testing import ScriptedReceiver

from ..helpers import Family
from .blocks import as_module, python_blocks, runs

(SESSIONS,) = python_blocks("docs/how-to/sessions.md")


@runs(SESSIONS)
def test_sessions_end_in_the_order_of_their_last_packet() -> None:
    table = as_module(SESSIONS)["Sessions"](3, 10.0)
    first = table.of("a", 0.0)
    table.of("b", 1.0)
    assert table.of("a", 5.0) is first
    table.of("c", 6.0)
    assert table.of("d", 6.0) is None
    assert (len(table), table.refused) == (3, 1)
    table.expire(10.9)
    assert len(table) == 3
    table.expire(11.0)  # "b" is the oldest now
    assert (len(table), table.ended) == (2, 1)
    assert table.of("d", 11.0) is not None
    assert table.of("a", 11.0) is first
    table.expire(1000.0)
    assert (len(table), table.ended) == (0, 4)


@pytest.mark.anyio
@runs(SESSIONS)
async def test_answers_know_their_session(inet: Family) -> None:
    page = as_module(SESSIONS)
    server, one, other = inet.open(), inet.open(), inet.open()
    to = [sock.getsockname() for sock in (one, other)]
    script = [[(b"x", to[0]), (b"x", to[1]), (b"x", to[0])], [(b"x", to[1])]]
    receiver: PacketReceiver = ScriptedReceiver(script)
    with anyio.fail_after(5):
        await page["serve"](receiver, server, page["Sessions"](10, 30.0), page["count"])
    assert [one.recv(9), one.recv(9)] == [b"1", b"2"]
    assert [other.recv(9), other.recv(9)] == [b"1", b"2"]
