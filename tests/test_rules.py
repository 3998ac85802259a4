"""Rules about the source itself, and that each of them sees what breaks it (tests/rules.py)."""

from __future__ import annotations

import abc
import importlib.metadata
import inspect
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import pytest

import anyio_mmsg

from . import rules
from .helpers import each_loop
from .rules import SOURCE, Sources

SOURCES = rules.read_sources()
RULES = [
    rules.modules_without_a_wing,
    rules.wrong_imports,
    rules.wrong_reaches,
    rules.unused_doors,
    rules.starters_of_tasks,
]


@pytest.mark.parametrize("rule", RULES)
def test_the_source_keeps_the_rule(rule: Callable[[Sources], list[str]]) -> None:
    assert rule(SOURCES) == []


def test_one_module_asks_for_the_platform() -> None:
    assert rules.askers_for_the_platform(SOURCES) == ["_system.platform"]


def test_few_private_names_cross_wings() -> None:
    assert len({name for _, name in rules.reaches(SOURCES)}) <= 5  # what bases have apart


@pytest.mark.parametrize(
    ("rule", "module", "code", "found"),
    [
        (rules.modules_without_a_wing, "_attic.box", "", "_attic.box"),
        (rules.modules_without_a_wing, "attic", "", "attic"),
        (
            rules.wrong_imports,
            "_packets.slots",
            "from .._receive.engine import Engine",
            "_packets.slots imports from _receive",
        ),
        (
            rules.wrong_imports,
            "_packets.slots",
            "def late():\n    from .. import _send",
            "_packets.slots imports from _send",
        ),
        (
            rules.wrong_imports,
            "_arguments",
            "from ._stream.pool import PacketBatchPool",
            "_arguments imports from _stream",
        ),
        (
            rules.wrong_imports,
            "_stream.pool",
            "from .. import PacketBatch",
            "_stream.pool imports from __init__",
        ),
        (
            rules.wrong_imports,
            "testing",
            "from .._tools import top",
            "testing imports from _tools",
        ),
        (rules.wrong_imports, "__main__", "import rich.live", "__main__ imports rich"),
        (
            rules.wrong_imports,
            "_packets",
            "from .._system import memory",
            "_packets imports from _system",
        ),
        (rules.wrong_imports, "_packets.batch", "import anyio", "_packets.batch imports anyio"),
        (
            rules.wrong_imports,
            "_packets.batch",
            "from socket import socket",
            "_packets.batch imports socket",
        ),
        (
            rules.wrong_imports,
            "_system.control",
            "import anyio.lowlevel",
            "_system.control imports anyio",
        ),
        (rules.wrong_imports, "_send.sendto", "import ctypes", "_send.sendto imports ctypes"),
        (rules.wrong_imports, "testing", "import numpy as np", "testing imports numpy"),
        (
            rules.wrong_reaches,
            "_stream.port",
            "def look(slots):\n    return slots._dying",
            "_stream uses _dying of _packets",
        ),
        (
            rules.wrong_reaches,
            "_stream.port",
            "def change(slots):\n    slots._dying = 1",
            "_stream uses _dying of _packets",
        ),
        (
            rules.wrong_reaches,
            "_stream.port",
            "def look(slots):\n    return getattr(slots, '_dying')",
            "_stream uses _dying of _packets",
        ),
        (
            rules.wrong_reaches,
            "_protocol.serve",
            "from .._packets.slots import _hidden",
            "_protocol uses _hidden of _packets",
        ),
        (
            rules.wrong_reaches,
            "_protocol.serve",
            "def look(batch):\n    return batch._lease",
            "_protocol uses _lease of _packets",
        ),
        (
            rules.wrong_reaches,
            "testing",
            "class Own(PacketBatch):\n    def look(self):\n        return self._dying",
            "testing uses _dying of _packets",
        ),
        (
            rules.wrong_reaches,
            "_stream.port",
            "def look(sock):\n    return sock._io_refs",
            "_stream uses _io_refs of others",
        ),
        (
            rules.starters_of_tasks,
            "_stream.feed",
            "def go(nursery):\n    nursery.start_soon(print)",
            "_stream.feed",
        ),
        (
            rules.starters_of_tasks,
            "_stream.feed",
            "def go(loop):\n    return loop.create_task",
            "_stream.feed",
        ),
        (
            rules.starters_of_tasks,
            "_protocol.serve",
            "from asyncio import ensure_future\nensure_future(None)",
            "_protocol.serve",
        ),
        (
            rules.askers_for_the_platform,
            "_send.sendto",
            "import sys\nsys.platform",
            "_send.sendto",
        ),
        (
            rules.askers_for_the_platform,
            "_send.sendto",
            "from sys import platform as here",
            "_send.sendto",
        ),
        (rules.askers_for_the_platform, "_send.sendto", "import os\nos.name", "_send.sendto"),
    ],
)
def test_what_breaks_a_rule_is_found(
    rule: Callable[[Sources], list[str]], module: str, code: str, found: str
) -> None:
    """Plant it behind the module's own code."""
    # Something private of _packets, whatever its names are today.
    slots = SOURCES["_packets.slots"] + "\n\n_hidden = 0\nclass Held:\n    _dying = 0\n"
    sources = {**SOURCES, "_packets.slots": slots}
    planted = {**sources, module: f"{sources.get(module, '')}\n\n{code}\n"}
    assert set(rule(planted)) - set(rule(sources)) == {found}


def test_a_door_that_nobody_uses_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rules.DOORS, "_attic", ("_packets", {"_send"}))
    assert rules.unused_doors(SOURCES) == ["_attic for _send"]


def test_no_file_needs_much_scrolling() -> None:
    files = {
        path: path.read_text(encoding="utf-8")
        for path in SOURCE.rglob("*")
        if path.suffix in rules.MOST_LINES
    }
    assert rules.too_long(files, rules.MOST_LINES) == []
    longest = {Path("a.py"): "\n" * 450, Path("a.c"): "\n" * 500}
    assert rules.too_long(longest, rules.MOST_LINES) == []
    longest = {path: text + "\n" for path, text in longest.items()}
    assert rules.too_long(longest, rules.MOST_LINES) == ["a.py has 451 lines", "a.c has 501 lines"]


def test_no_test_needs_much_scrolling() -> None:
    files = {
        path: path.read_text(encoding="utf-8")
        for path in Path(__file__).parent.rglob("*")
        if path.suffix in rules.MOST_LINES
    }
    assert rules.too_long(files, dict.fromkeys(rules.MOST_LINES, 500)) == []


def test_the_only_dependency_is_anyio() -> None:
    required = importlib.metadata.requires("anyio-mmsg") or []
    assert "anyio>=4.4" in required
    assert rules.requirements(required) == []
    more = ["anyio>=4.4", "anyio[trio]>=4.4; extra == 'trio'", "anyioless>=4", "numpy"]
    assert rules.requirements(more) == ["anyioless>=4", "numpy"]


def test_public_names() -> None:
    public = {name: getattr(anyio_mmsg, name) for name in anyio_mmsg.__all__}
    assert undocumented(public) == []
    assert typing.get_type_hints(anyio_mmsg.PacketBatch)["capacity"] is int
    assert (SOURCE / "py.typed").exists()


def undocumented(public: dict[str, typing.Any]) -> list[str]:
    """Return the classes, functions and public members that have no docstring."""
    found = []
    for name, thing in public.items():
        if type(thing) in (type, abc.ABCMeta) or inspect.isfunction(thing):
            found += [name] * (not thing.__doc__)
            for member, value in vars(thing).items():
                if not member.startswith("_") and (callable(value) or hasattr(value, "fget")):
                    found += [f"{name}.{member}"] * (not inspect.getdoc(value))
    return found


def test_what_has_no_docstring_is_found() -> None:
    class Silent:
        def method(self) -> None: ...

        @property
        def value(self) -> None: ...

    def function() -> None: ...

    planted = {"Silent": Silent, "function": function}
    assert undocumented(planted) == ["Silent", "Silent.method", "Silent.value", "function"]


@each_loop
def test_nothing_warns(backend: str) -> None:
    """Importing and receiving, in a process of its own in which any warning is an error."""
    program = f"""if True:
        import socket, anyio
        from anyio_mmsg import PacketBatch, recv_mmsg, recv_mmsg_exact

        async def main():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", 0))
                sock.setblocking(False)
                batch = PacketBatch()
                for _ in range(3):
                    sock.sendto(b"x", sock.getsockname())
                    assert await recv_mmsg(sock, batch) == 1
                with anyio.move_on_after(0.01):
                    await recv_mmsg_exact(sock, batch)

        anyio.run(main, backend={backend!r})
        """
    subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", program], check=True)
