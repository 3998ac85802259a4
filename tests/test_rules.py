"""Rules about the source itself: who imports whom, the doors between the wings, what may warn."""

from __future__ import annotations

import abc
import ast
import importlib.metadata
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import anyio_mmsg

from .helpers import each_loop

SOURCE = Path(anyio_mmsg.__file__).parent
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
}

# From the top of the house down: a module imports from wings above its own, and from its own.
WINGS = ["_arguments", "_compat", "_compiled", "_packets", "_system", "_receive", "_send"]
WINGS += ["_stream", "_protocol", "testing", "__init__", "__main__"]

# The doors: private names that modules of other wings may use, and whose they are.
DOORS = {
    "_slots": "_packets",  # of a PacketBatch: its ring
    "_lease": "_packets",  # of a PacketBatch: what ends its loan
    "_local": "_packets",  # of a Packet: the address of this machine to answer from
}
MOST_LINES = {".py": 450, ".c": 500, ".h": 500}


def wing_of(module: str) -> str:
    return module.partition(".")[0]


def imports(module: str) -> tuple[set[str], set[str]]:
    """What a module imports: wings of the package, and packages from elsewhere."""
    path = MODULES[module]
    here = [*path.relative_to(SOURCE).parts[:-1]]
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - (node.level - 1)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            # In the package's own folder a name is a module; in a wing's it is the wing's.
            ours |= {(base or [name])[0].partition(".")[0] for name in names if name}
        elif isinstance(node, ast.ImportFrom):
            others.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            others |= {alias.name.partition(".")[0] for alias in node.names}
    return ours, others - {"__future__", "_typeshed"}  # the latter for type checkers alone


def private_names(module: str) -> set[str]:
    """Private attributes that a module reads or writes, but for those of `self` and `cls`."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.endswith("__")
            and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        ):
            found.add(node.attr)
    return found


def defined_in(wing: str) -> set[str]:
    """Private names that a wing's classes and modules have."""
    text = "".join(
        path.read_text(encoding="utf-8") for name, path in MODULES.items() if wing_of(name) == wing
    )
    return set(re.findall(r"\b(_[a-z]\w*)\b", text))


def test_every_module_has_its_wing() -> None:
    assert {wing_of(module) for module in MODULES if module} <= set(WINGS)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_from_wings_above_it_alone(module: str) -> None:
    ours, others = imports(module)
    wing = wing_of(module) or "__init__"
    assert ours <= set(WINGS[: WINGS.index(wing) + 1])
    assert others <= set(sys.stdlib_module_names) | {"anyio", "exceptiongroup", "sniffio"}
    if wing in ("_packets", "_system"):
        assert "anyio" not in others
    if wing == "_packets":
        assert "socket" not in others
    assert "ctypes" not in others


@pytest.mark.parametrize("module", sorted(MODULES))
def test_private_names_cross_wings_by_the_doors_alone(module: str) -> None:
    wing = wing_of(module) or "__init__"
    strangers = private_names(module) - defined_in(wing)
    used = {name for name in private_names(module) if DOORS.get(name, wing) != wing}
    assert strangers <= set(DOORS)
    assert used <= set(DOORS)


@pytest.mark.parametrize("folder", [SOURCE, Path(__file__).parent])
def test_no_file_needs_much_scrolling(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.suffix in MOST_LINES]
    most = 500 if folder != SOURCE else 0
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {p: n for p, n in lines.items() if n > max(most, MOST_LINES[p.suffix])} == {}


def test_one_module_asks_for_the_platform() -> None:
    asking = [
        name
        for name, path in MODULES.items()
        if "sys.platform" in path.read_text(encoding="utf-8")
    ]
    assert asking == ["_system.platform"]


def test_the_only_dependency_is_anyio() -> None:
    required = importlib.metadata.requires("anyio-mmsg") or []
    assert [re.split("[^a-z]", r)[0] for r in required if "extra ==" not in r] == ["anyio"]


def test_public_names() -> None:
    for name in anyio_mmsg.__all__:
        thing = getattr(anyio_mmsg, name)
        if type(thing) in (type, abc.ABCMeta) or inspect.isfunction(thing):
            assert thing.__doc__
            for member, value in vars(thing).items():
                if not member.startswith("_") and callable(value):
                    assert value.__doc__, member
    assert typing.get_type_hints(anyio_mmsg.PacketBatch)["capacity"] is int
    assert (SOURCE / "py.typed").exists()


def test_nothing_starts_a_task() -> None:
    starting = {"create_task", "create_task_group", "ensure_future", "open_nursery", "start_soon"}
    called = set()
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called.add(getattr(node.func, "attr", getattr(node.func, "id", "")))
    assert called & (starting | {"TaskGroup"}) == set()


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
