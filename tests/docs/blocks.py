"""The code blocks of README.md and docs/, and how tests run them.

A test module unpacks the blocks of its page, so that a block that is added or removed is noticed::

    FIRST, ECHO = python_blocks("docs/how-to/echo.md")

A test names the blocks that it runs, by ``@runs(ECHO)`` or as parameters. It runs them by
`as_function`, if they are parts of a program, `as_module`, if they await nothing, or `as_child`,
if they are whole programs. test_blocks.py fails for a block that no test names; conftest.py fails
a test that did not run what it names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import anyio_mmsg

from ..helpers import attempts
from ..helpers import free_port as free_port

ROOT = Path(__file__).parent.parent.parent
_OF_THE_SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"]
PAGES += [page for page in _OF_THE_SITE if "_build" not in page.parts]

# A fence of backticks, perhaps in a list or in a tab, whose own fences are colons.
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=indent)(?P=ticks) *$",
    re.M | re.S,
)

executed: set[tuple[str, int]] = set()
"""What was run, to be looked at after each test: `Block.place`s."""

runs = pytest.mark.runs
every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: Its file, from the root of the repository.
        line: The line of its fence.
        language: What the fence says: "python", "sh", "" ...; of a directive like "{toctree}"
            that is no code its name.
        text: The code, without the fence's indentation.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> tuple[str, int]:
        """Where it is. A changed copy is the same block."""
        return self.page, self.line

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def replace(self, old: object, new: object) -> Block:
        """Return the block with one text, which it has once, replaced."""
        assert self.text.count(str(old)) == 1, f"{self} has {old!r} not once"
        return dataclasses.replace(self, text=self.text.replace(str(old), str(new)))


def blocks(page: str | Path) -> list[Block]:
    """Return all blocks of a page, in order."""
    path = ROOT / page
    found, text = [], path.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        language = fence["info"].strip().removeprefix("{code-block} ")
        code = textwrap.dedent(fence["text"]) if fence["indent"] else fence["text"]
        code = re.sub(r"\A(:[a-z-]+:.*\n)+\n*", "", code) if "{" in fence["info"] else code
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(path.relative_to(ROOT).as_posix(), line, language, code))
    return found


def python_blocks(page: str | Path) -> list[Block]:
    """Return the Python blocks of a page, in order."""
    return [block for block in blocks(page) if block.language == "python"]


def blocks_named_by(markers: list[pytest.Mark]) -> set[Block]:
    """Return the blocks that a test's marks name: those of `runs`, and parameters."""
    found: set[Block] = set()
    for mark in markers:
        if mark.name == "runs":
            found.update(mark.args)
        elif mark.name == "parametrize":
            for parameters in mark.args[1]:
                values = getattr(parameters, "values", parameters)
                found.update(
                    value
                    for value in (values if isinstance(values, (tuple, list)) else [values])
                    if isinstance(value, Block)
                )
    return found


def as_function(block: Block, **names: Any) -> Any:
    """Return an async function that runs a block, and returns its variables.

    The block finds anyio, the public names of anyio_mmsg, and `names`, which go first.
    """
    public = {name: getattr(anyio_mmsg, name) for name in anyio_mmsg.__all__}
    names = {"anyio": anyio} | public | names
    body = textwrap.indent(block.text, "    ")
    code = compile(f"async def program():\n{body}    return locals()\n", str(block), "exec")
    exec(code, names)

    async def program() -> Any:
        executed.add(block.place)
        return await names["program"]()

    return program


def as_module(*blocks: Block, **names: Any) -> dict[str, Any]:
    """Run blocks that await nothing, one after the other, and return all their names.

    They are what the blocks' functions see: a test may put others in their place.
    """
    for block in blocks:
        executed.add(block.place)
        exec(compile(block.text, str(block), "exec"), names)
    return names


@contextlib.contextmanager
def as_child(
    block: Block, *arguments: str, folder: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a block as a program, a process of its own, in which every warning is an error.

    What it prints comes by `stdout` and `stderr`. It is killed at the end, if it still runs.

    Args:
        block: The program.
        arguments: For its command line.
        folder: Where it runs.
    """
    executed.add(block.place)
    child = subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", block.text, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def catches(child: subprocess.Popen[str], number: signal.Signals) -> None:
    """Wait until a program has a handler for a signal that Python itself has none for (Linux)."""
    status = Path(f"/proc/{child.pid}/status")
    for _ in attempts():
        assert child.poll() is None, child.communicate()
        caught = re.findall(r"^SigCgt:\s*(\w+)$", status.read_text(), re.M)[0]
        if int(caught, 16) >> (number - 1) & 1:
            return


def interrupt(child: subprocess.Popen[str], by: signal.Signals = signal.SIGINT) -> str:
    """Send a signal when the program sleeps, wait for the end, and return the rest of its output.

    asyncio misses Ctrl-C if it comes just before its loop begins to sleep, until something else
    wakes that. `stop_on` sees to that, see `_stream/wakeup.py`; not all programs have it.
    """
    state = Path(f"/proc/{child.pid}/stat")
    for _ in attempts():
        if not state.exists() or ") S " in state.read_text():
            break
    child.send_signal(by)
    out, err = child.communicate(timeout=60)
    return out + err


@contextlib.contextmanager
def client(port: int, child: subprocess.Popen[str], hello: bytes) -> Iterator[socket.socket]:
    """A blocking socket that is connected to a program's port, when the program listens there.

    Args:
        port: Of 127.0.0.1.
        child: The program.
        hello: Is sent until it is not refused, so that the program gets it once. An answer to it
            is left in the socket.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(("127.0.0.1", port))
        sock.settimeout(0.02)
        for _ in attempts():
            assert child.poll() is None, child.communicate()
            if _takes(sock, hello):
                break
        sock.settimeout(30)
        yield sock


def _takes(sock: socket.socket, data: bytes) -> bool:
    """Send a packet; return whether it was not refused."""
    try:
        sock.send(data)
        sock.recv(1, socket.MSG_PEEK)
    except ConnectionRefusedError:
        return False
    except TimeoutError:
        pass
    return True
