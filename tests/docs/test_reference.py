"""docs/reference: every public name is there."""

from __future__ import annotations

import abc
import dataclasses
import inspect
import re
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
