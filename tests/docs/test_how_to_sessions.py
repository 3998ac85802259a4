"""docs/how-to/sessions.md: sessions that end, and a bound on them."""

from __future__ import annotations

import errno
import sys
from typing import Any

import anyio
import pytest

from anyio_mmsg import IcmpError, PacketReceiver
from anyio_mmsg.testing import ScriptedReceiver

from ..helpers import Family
from .blocks import as_module, python_blocks, runs
from .opening import Opening, until

SESSIONS, GONE = python_blocks("docs/how-to/sessions.md")


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
    with anyio.fail_after(60):
        await page["serve"](receiver, server, page["Sessions"](10, 30.0), page["count"])
    assert [one.recv(9), one.recv(9)] == [b"1", b"2"]
    assert [other.recv(9), other.recv(9)] == [b"1", b"2"]


@runs(SESSIONS, GONE)
def test_other_errors_end_no_session() -> None:
    page = as_module(SESSIONS, GONE)
    table, peer = page["Sessions"](3, 10.0), ("192.0.2.1", 50000)
    table.of(peer, 0.0)
    on_error = page["ends_sessions"](table)
    on_error(ConnectionRefusedError(errno.ECONNREFUSED, "of nobody knows which peer"))
    on_error(IcmpError(errno.EMSGSIZE, peer, mtu=1400))
    on_error(IcmpError(errno.ECONNREFUSED, ("192.0.2.1", 50001)))
    assert (len(table), table.ended) == (1, 0)
    for _ in range(2):  # a second report finds none
        on_error(IcmpError(errno.ECONNREFUSED, peer))
        assert (len(table), table.ended) == (0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the error queue is Linux's")
@pytest.mark.anyio
@runs(SESSIONS, GONE)
async def test_a_peer_that_is_gone(inet: Family) -> None:
    """Its address is the destination of the error, by each version of IP."""
    host = inet.open().getsockname()[0]
    page = as_module(SESSIONS, GONE.replace("127.0.0.1", host))
    page["open_udp_socket"] = opens = Opening()
    tables: list[Any] = []
    made = page["Sessions"]

    def make(*bounds: Any) -> Any:
        tables.append(made(*bounds))
        return tables[0]

    page["Sessions"] = make
    peer, other = inet.open(), inet.open()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(page["main"])
            await until(lambda: opens.opened)
            server = opens.opened[0].getsockname()
            for sock in (peer, other):
                sock.sendto(b"x", server)
            await until(lambda: len(tables[0]) == 2)
            peer.sendto(b"x", server)
            peer.close()  # the answer finds nobody
            await until(lambda: tables[0].ended)
            assert len(tables[0]) == 1
            nursery.cancel_scope.cancel()
