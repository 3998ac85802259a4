"""The rules about the source, each a function of the modules' texts that returns what breaks it.

`Sources` maps the name of each module, seen from the package ("_packets.slots"; "" is the package
itself), to its text. So a test can plant a violation and see it found.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import anyio_mmsg

SOURCE = Path(anyio_mmsg.__file__).parent
Sources: TypeAlias = Mapping[str, str]

# From the top of the house down: a module imports from wings above its own, and from its own.
WINGS = [
    "_arguments",
    "_compat",
    "_build",
    "_log",
    "_compiled",
    "_load",
    "_packets",
    "_system",
    "_receive",
]
WINGS += ["_send", "_stream", "_protocol", "testing", "__init__", "_tools", "__main__"]

# The doors: private names that modules of other wings may use; whose they are, and for whom.
DOORS = {
    "_slots": ("_packets", {"_receive", "_send", "testing"}),  # of a PacketBatch: its ring
    "_lease": ("_packets", {"_stream"}),  # of a PacketBatch: what ends its loan
    "_local": ("_packets", {"_send"}),  # of a Packet: the address of this machine to answer from
    "_CLOSED": ("_packets", {"_stream"}),  # the ring of a closed PacketBatch
}

# What classes may use of a base in another wing.
BASES = {
    "_begin": ("_stream", {"testing"}),  # of PacketReceiver: how one over any port begins
    "_read": ("_stream", {"testing"}),  # of PacketReceiver: what a port calls
}

# What has no business in a wing, though it may be imported elsewhere.
UNWANTED = {
    "_packets": {"anyio", "asyncio", "socket"},  # the ring knows no socket
    "_system": {"anyio", "asyncio"},
}
# What only an extra of the package installs, and who may import it.
EXTRA = {"_tools": {"rich"}}
# The wings that are programs: they may start tasks, in a nursery of their own.
PROGRAMS = {"_tools", "__main__"}
# Public, but for their names: methods of a namedtuple; modules; a function of `sys`.
NO_REACH = {"_asdict", "_fields", "_make", "_replace", *WINGS, *sys.stdlib_module_names}
NO_REACH |= {"_getframe"}
MOST_LINES = {".py": 450, ".c": 500, ".h": 500}
STARTING = {"create_task", "create_task_group", "ensure_future", "open_nursery", "start_soon"}
STARTING |= {"TaskGroup", "run_coroutine_threadsafe", "start_new_thread", "spawn_system_task"}


def read_sources() -> dict[str, str]:
    """Return the modules as they are."""
    return {
        name_of(path): path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.py"))
    }


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def wing_of(module: str) -> str:
    return module.partition(".")[0] or "__init__"


def trees(sources: Sources) -> Iterator[tuple[str, ast.Module]]:
    for module, text in sources.items():
        yield module, parse(text)


@functools.cache
def parse(text: str) -> ast.Module:
    return ast.parse(text)


def modules_without_a_wing(sources: Sources) -> list[str]:
    return [module for module in sources if wing_of(module) not in WINGS]


def imports(module: str, tree: ast.Module, sources: Sources) -> tuple[set[str], set[str]]:
    """Return what a module imports: wings of the package, and packages from elsewhere."""
    is_folder = any(name.startswith(f"{module}.") for name in sources) or not module
    here = module.split(".") if module else []
    if not is_folder:
        here = here[:-1]
    ours, others = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - (node.level - 1)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            # In the package's own folder a name is a module; in a wing's it is the wing's.
            wings = {(base or [name])[0].partition(".")[0] for name in names if name}
            ours |= {name if name in WINGS or node.module else "__init__" for name in wings}
        elif isinstance(node, ast.ImportFrom):
            others.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            others |= {alias.name.partition(".")[0] for alias in node.names}
    return ours, others - {"__future__", "_typeshed"}  # the latter for type checkers alone


def wrong_imports(sources: Sources) -> list[str]:
    """Return imports from below, and of packages that are not wanted there."""
    usual = set(sys.stdlib_module_names) - {"ctypes"} | {"anyio", "exceptiongroup", "sniffio"}
    found = []
    for module, tree in trees(sources):
        wing = wing_of(module)
        ours, others = imports(module, tree, sources)
        above = WINGS[: WINGS.index(wing) + 1] if wing in WINGS else []
        found += [f"{module} imports from {name}" for name in sorted(ours - set(above))]
        allowed = usual | EXTRA.get(wing, set())
        unwanted = others - allowed | others & UNWANTED.get(wing, set())
        found += [f"{module} imports {name}" for name in sorted(unwanted)]
    return found


def is_private(name: str) -> bool:
    return name.isidentifier() and name.strip("_") != "" and name[0] == "_" and name[-2:] != "__"


def declared(tree: ast.Module) -> Iterator[ast.Name]:
    """Give declarations without a value, as for an attribute that a base class has, or gets."""
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=ast.Name() as name, value=None):
                yield name


def defined(tree: ast.Module) -> Iterator[str]:
    """Give the names that a module's code defines: in it, in its classes, on `self`."""
    declarations = set(map(id, declared(tree)))
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) if id(node) not in declarations:
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                yield from strings(value)


def strings(tree: ast.AST) -> Iterator[str]:
    """Give the strings in code that could be names; the parts of an f-string can't."""
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in parts
        ):
            yield node.value


def used(tree: ast.Module) -> Iterator[str]:
    """Give the names that a module's code uses of anything but `self`.

    By attribute, by import from another module, and by a string, as for `getattr`.
    """
    yield from strings(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name):
                yield name
            case ast.ImportFrom(names=names):
                yield from (alias.name for alias in names)


def used_of_self(tree: ast.Module) -> Iterator[str]:
    """Give the names that a module's classes use of themselves, so also of their bases."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                yield name


class Names:
    """The private names in a module's code."""

    def __init__(self, text: str) -> None:
        def found(names: Iterator[str]) -> set[str]:
            return set(filter(is_private, names)) - NO_REACH

        tree = parse(text)
        self.defined = found(defined(tree))
        self.declared = found(node.id for node in declared(tree))
        self.used = found(used(tree))
        self.used_of_self = found(used_of_self(tree)) - self.used


names_of = functools.cache(Names)


def owners_of(sources: Sources) -> dict[str, set[str]]:
    """Return whose each private name is. What is only declared belongs to who declares it."""
    owners: dict[str, set[str]] = {}
    for module, text in sources.items():
        for name in names_of(text).defined:
            owners.setdefault(name, set()).add(wing_of(module))
    known = set(owners)
    for module, text in sources.items():
        for name in names_of(text).declared - known:
            owners.setdefault(name, set()).add(wing_of(module))
    return owners


def reaches(sources: Sources, inherited: bool = False) -> dict[tuple[str, str], set[str]]:
    """Return private names that a wing uses and doesn't define: the wing, the name, and whose.

    Nobody's are names of other packages.

    Args:
        sources: The modules.
        inherited: Return those that classes use of their bases, instead of all others.
    """
    owners, found = owners_of(sources), {}
    for module, text in sources.items():
        wing = wing_of(module)
        for name in names_of(text).used_of_self if inherited else names_of(text).used:
            if wing not in owners.get(name, set()):
                found[wing, name] = owners.get(name, set())
    return found


def wrong_reaches(sources: Sources) -> list[str]:
    """Return those that don't go through a door."""
    found = []
    for inherited, allowed in ((False, DOORS), (True, BASES)):
        doors = {(wing, name): owner for name, (owner, users) in allowed.items() for wing in users}
        found += [
            f"{wing} uses {name} of {' or '.join(sorted(whose)) or 'others'}"
            for (wing, name), whose in sorted(reaches(sources, inherited).items())
            if doors.get((wing, name)) not in whose
        ]
    return found


def unused_doors(sources: Sources) -> list[str]:
    return [
        f"{name} for {wing}"
        for inherited, allowed in ((False, DOORS), (True, BASES))
        for name, (_, users) in allowed.items()
        for wing in sorted(users)
        if (wing, name) not in reaches(sources, inherited)
    ]


def too_long(files: Mapping[Path, str], most: Mapping[str, int]) -> list[str]:
    return [
        f"{path} has {len(text.splitlines())} lines"
        for path, text in files.items()
        if len(text.splitlines()) > most[path.suffix]
    ]


def askers_for_the_platform(sources: Sources) -> list[str]:
    """Return the modules that look at what the system is, by any of the usual ways."""
    asking = {("sys", "platform"), ("os", "name"), ("os", "uname"), ("platform", "system")}
    found = []
    for module, tree in trees(sources):
        pairs = {
            (node.value.id, node.attr)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        pairs |= {
            (node.module or "", alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        if pairs & asking:
            found.append(module)
    return found


def starters_of_tasks(sources: Sources) -> list[str]:
    """Return the modules that name what starts a task or a thread, called or handed on."""
    return [
        module
        for module, tree in trees(sources)
        if wing_of(module) not in PROGRAMS
        and STARTING
        & {
            name
            for node in ast.walk(tree)
            for name in (getattr(node, key, None) for key in ("attr", "id", "name"))
        }
    ]


def requirements(required: list[str]) -> list[str]:
    """Return what an installation requires beside AnyIO."""
    plain = [requirement for requirement in required if "extra ==" not in requirement]
    return [requirement for requirement in plain if not requirement.startswith("anyio>=")]
