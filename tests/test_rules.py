"""Rules about the source itself: who imports whom, who asks for the platform, what may warn."""

from __future__ import annotations

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

SOURCE = Path(anyio_mmsg.__file__).parent
ORDER = ["_batch", "_sockaddr", "_libc", "_engine_portable", "_engine_linux"]
ORDER += ["_outgoing", "_sent", "_sender_portable", "_sender_linux", "_engine", "_recv", "_send"]
ORDER += ["_sockets", "_pool", "_receiver", "_feed", "__init__"]
ALLOWED = {
    "_batch": {"operator", "collections", "dataclasses", "itertools", "typing"},
    "_engine_portable": {"socket"},
}


def imports(module: str) -> tuple[set[str], set[str]]:
    """What a module imports: from the package, and from elsewhere."""
    ours, others = set(), set()
    for node in ast.walk(ast.parse((SOURCE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            ours.add(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            others.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            others |= {alias.name.partition(".")[0] for alias in node.names}
    return ours, others - {"__future__", "_typeshed"}  # the latter for type checkers alone


def test_every_module_has_its_place() -> None:
    assert sorted(path.stem for path in SOURCE.glob("*.py")) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_from_those_above_it_alone(module: str) -> None:
    ours, others = imports(module)
    assert ours <= set(ORDER[: ORDER.index(module)])
    assert others <= set(sys.stdlib_module_names) | {"anyio"}
    assert others <= ALLOWED.get(module, others)
    assert ("anyio" in others) <= (ORDER.index(module) >= ORDER.index("_recv"))
    assert ("ctypes" in others) <= (module in ("_libc", "_engine_linux", "_sender_linux"))


def test_one_module_asks_for_the_platform() -> None:
    asking = [path.stem for path in SOURCE.glob("*.py") if "sys.platform" in path.read_text()]
    assert asking == ["_engine"]


def test_the_only_dependency_is_anyio() -> None:
    required = importlib.metadata.requires("anyio-mmsg") or []
    assert [re.split("[^a-z]", r)[0] for r in required if "extra ==" not in r] == ["anyio"]


def test_public_names() -> None:
    for name in anyio_mmsg.__all__:
        thing = getattr(anyio_mmsg, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getsource(thing)
            assert thing.__doc__
            for member, value in vars(thing).items():
                if not member.startswith("_") and callable(value):
                    assert value.__doc__, member
    assert typing.get_type_hints(anyio_mmsg.Packet)["data"] is memoryview
    assert (SOURCE / "py.typed").exists()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
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
