"""docs/reference: every public name is there."""

from __future__ import annotations

import abc
import dataclasses
import errno
import inspect
import re
import socket
import sys
from typing import Any

import pytest

import anyio_mmsg
import anyio_mmsg.testing
from anyio_mmsg._packets.packet import Packet  # the plain one, which the page shows

from .blocks import ROOT, as_module, python_blocks, runs

(IMPORTS,) = python_blocks("docs/reference/index.md")
TEXT = "".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md")
)
PUBLIC = {
    name: getattr(module, name)
    for module in (anyio_mmsg, anyio_mmsg.testing)
    for name in module.__all__
}


@runs(IMPORTS)
def test_the_imports() -> None:
    as_module(IMPORTS)


def test_every_public_name_is_documented() -> None:
    documented = re.findall(r"^\.\. (?:auto|py:)\w+:: (\w+)", TEXT, re.M)
    assert sorted(documented) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_member_is_documented(name: str) -> None:
    thing = Packet if name == "Packet" else PUBLIC[name]
    if type(thing) not in (type, abc.ABCMeta):
        return
    below = re.findall(rf"^\.\. auto\w+:: {name}\n((?: .*\n|\n)*)", TEXT, re.M)
    documented = set(re.findall(r"^   \.\. auto\w+:: (\w+)", "".join(below), re.M))
    there = {
        member
        for base in thing.__mro__
        if base.__module__ == thing.__module__ and thing.__module__.startswith("anyio_mmsg")
        for member in vars(base)
        if not member.startswith("_")
        and (callable(value := getattr(base, member)) or isinstance(value, property))
    }
    assert there == documented


STOPS: list[tuple[Any, type[Exception], str]] = [
    (("localhost", 9), ValueError, "not a numeric address"),
    (("::1", 9), ValueError, "not the socket's"),
    (("127.0.0.1", 65_536), ValueError, "port is 65536"),
    (("127.0.0.1", -1), ValueError, "port is -1"),
    (("127.0.0.1", "9"), TypeError, "port is '9'"),
    (b"127.0.0.1", TypeError, "address is"),
    (anyio_mmsg.SendOptions("239.1.1.1"), ValueError, "a group"),
    (anyio_mmsg.SendOptions("::1"), ValueError, "not of the socket's family"),
    (65_508, ValueError, "a datagram carries"),
]
FAILS: list[tuple[Any, set[int]]] = [
    (("127.0.0.1", 0), {errno.EINVAL}),
    (None, {errno.EDESTADDRREQ}),
    (("255.255.255.255", 9), {errno.EACCES}),
    (anyio_mmsg.SendOptions("192.0.2.1"), {errno.ENETUNREACH, errno.EINVAL}),
    (anyio_mmsg.SendOptions("127.255.255.255"), {errno.ENETUNREACH, errno.EINVAL}),
    (anyio_mmsg.SendOptions(interface=2**31 - 1), {errno.ENODEV}),
]


@pytest.mark.skipif(sys.platform != "linux", reason="the table has Linux's errors")
@pytest.mark.parametrize(("what", "kind", "text"), STOPS + [(*row, "") for row in FAILS], ids=str)
def test_what_stops_a_call_and_what_is_a_failure(
    what: Any, kind: Any, text: str, sending: anyio_mmsg.SendEngine
) -> None:
    """As the table of sending.md has it, of a packet between two others."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        for each in sock, receiver:
            each.setblocking(False)
        sock.bind(("0.0.0.0", 0))
        receiver.bind(("127.0.0.1", 0))
        to = receiver.getsockname()
        bad: Any = (b"bad", what)
        if isinstance(what, anyio_mmsg.SendOptions):
            bad = (b"bad", to, what)
        elif isinstance(what, int):
            bad = (bytes(what), to)
        packets: list[Any] = [(b"1", to), bad, (b"2", to)]
        if text:
            with pytest.raises(kind, match=f"^packet 1: .*{text}"):
                anyio_mmsg.send_mmsg_nowait(sock, packets, engine=sending)
        else:
            result = anyio_mmsg.send_mmsg_nowait(sock, packets, engine=sending)
            ((index, error),) = result.failures
            assert (result.sent, index) == (2, 1)
            assert error.errno in kind
            assert [receiver.recv(9), receiver.recv(9)] == [b"1", b"2"]
        with pytest.raises(BlockingIOError):
            receiver.recv(9)


def fields_of(thing: Any) -> set[str]:
    """Return the public attributes that instances of a class have, and that are no properties."""
    if dataclasses.is_dataclass(thing):
        return {field.name for field in dataclasses.fields(thing)}
    made = {
        anyio_mmsg.PacketBatchPool: anyio_mmsg.PacketBatchPool,
        anyio_mmsg.PacketReceiver: anyio_mmsg.testing.ScriptedReceiver,
    }
    if thing in made:
        return {name for name in vars(made[thing]()) if not name.startswith("_")}
    return set(getattr(thing, "_fields", ()))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_attribute_is_documented(name: str) -> None:
    """As an argument or an attribute, in the docstring, which help() shows too."""
    thing = PUBLIC[name]
    text = inspect.getdoc(thing) or ""
    if thing is anyio_mmsg.StatisticsDelta:  # it says that the counts are those of the other
        text += inspect.getdoc(anyio_mmsg.ReceiverStatistics) or ""
    if isinstance(thing, type):
        assert fields_of(thing) <= set(re.findall(r"^    (\w+):", text, re.M))
