"""The programs in the docstrings run as they stand, on every event loop."""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
import textwrap
from typing import Any

import anyio
import pytest

import anyio_mmsg
from anyio_mmsg import testing

pytestmark = pytest.mark.anyio
NAMES = {"anyio": anyio, "asyncio": asyncio, "pytest": pytest, "socket": socket}
for module in (anyio_mmsg, testing):
    NAMES |= {name: getattr(module, name) for name in module.__all__}

PROGRAMS = [
    (thing.__name__, program)
    for thing in (testing, *(getattr(testing, name) for name in testing.__all__))
    if inspect.ismodule(thing) or inspect.isclass(thing) or inspect.isfunction(thing)
    for program in re.findall(r"::\n\n((?:    .*\n|\n)+)", inspect.cleandoc(thing.__doc__ or ""))
]


def test_there_are_some() -> None:
    names = [name for name, _ in PROGRAMS]
    functions = ["Dropped", "ScriptedReceiver", "ScriptedTransport", "fill_batch", "make_batch"]
    assert names == ["anyio_mmsg.testing"] * 2 + functions


@pytest.mark.parametrize("program", [program for _, program in PROGRAMS])
async def test_it_runs(program: str) -> None:
    names: dict[str, Any] = dict(NAMES)
    body = textwrap.indent(textwrap.dedent(program), "    ")
    exec(f"async def program():\n{body}\n    return locals()\n", names)
    with anyio.fail_after(60):
        made = await names["program"]()
        for name, function in made.items():
            if name in ("main", "test_my_server"):
                await function()
            elif name == "test_capitals":
                function()


def test_public_names_say_that_they_are_from_here() -> None:
    for name in testing.__all__:
        thing = getattr(testing, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__module__ == "anyio_mmsg.testing"
            assert thing.__doc__
            for member, value in vars(thing).items():
                if not member.startswith("_") and callable(value):
                    assert value.__doc__, member
