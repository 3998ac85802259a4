"""Scripts, and arguments beside them, that a scripted receiver refuses: in words that help."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from anyio_mmsg import PacketBatchPool
from anyio_mmsg.testing import Datagram, Dropped, ScriptedReceiver, Step

pytestmark = pytest.mark.anyio


def test_what_is_no_script() -> None:
    def generator() -> Iterator[None]:
        yield

    wrong: Any
    for wrong, words in (
        (3, "script is 3; give a list of steps"),
        ([[b"a"], 3], "step 1, packets is 3; give bytes"),
        ([b"a"], "step 0, packets is a bytes, one payload; give a list of packets"),
        (b"abc", "step 0, packets is 97"),
        (["text"], "step 0, packets is a str"),
        ([Datagram(b"a")], "step 0, packets is a Datagram, one payload"),
        ([[b"a"], [b"b", "c"]], "step 1, packet 1: the data is a str, not bytes-like; encode it"),
        ([None], "step 0, packets is None"),
        ([[b"a"], threading.Event()], "step 1 is a threading.Event, whose wait() is not"),
        ([multiprocessing.Event()], "step 0 is a multiprocessing.synchronize.Event, whose"),
        ([generator], "step 0 is <function"),
        ([bytes], "step 0, packets is <class 'bytes'>"),
    ):
        with pytest.raises(TypeError) as caught:
            ScriptedReceiver(wrong)
        assert str(caught.value).startswith(words)
    with pytest.raises(ValueError, match="step 0 has no packets; leave it out"):
        ScriptedReceiver([[]])
    with pytest.raises(ValueError, match="step 0, packet 1: port is -1"):
        ScriptedReceiver([[b"x", (b"y", ("192.0.2.1", -1))]])


def test_what_is_no_number_of_drops() -> None:
    wrong: Any = "3"
    with pytest.raises(TypeError, match="packets"):
        Dropped(wrong)
    with pytest.raises(ValueError, match="packets is 0; give the number of packets, at least 1"):
        Dropped(0)


def test_what_the_pool_has_no_room_for() -> None:
    script: list[Step] = [[b"a"], [b"b", Datagram(b"c", ecn=1)]]
    with pytest.raises(ValueError, match=r"step 1, packet 1: ecn is given.*with ancillary=True"):
        ScriptedReceiver(script)
    ScriptedReceiver(script, PacketBatchPool(ancillary=True))
    with pytest.raises(ValueError, match=r"step 0, packet 0: segment_size is given.*gro=True"):
        ScriptedReceiver([[Datagram(b"c", segment_size=1)]], PacketBatchPool())


async def test_the_same_when_the_pool_could_not_be_asked() -> None:
    pool = PacketBatchPool(1)
    with pool.acquire_nowait():
        receiver = ScriptedReceiver([[Datagram(b"c", ecn=1)]], pool)
    with pytest.raises(ValueError, match=r"packet 0: ecn is given.*with ancillary=True"):
        await receiver.receive()


def test_other_arguments() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="pool is a int, and has to be a PacketBatchPool"):
        ScriptedReceiver([], wrong)
    with pytest.raises(ValueError, match="limit is 0"):
        ScriptedReceiver([], limit=0)
    with pytest.raises(ValueError, match="errors is 'ignore'"):
        ScriptedReceiver([], errors="ignore")  # type: ignore[arg-type]
