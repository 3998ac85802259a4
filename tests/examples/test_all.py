"""What holds for every example."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from .helpers import EXAMPLES, PROGRAMS, running

FILES = sorted(EXAMPLES.rglob("*.py"))
PROGRAM_FILES = sorted(PROGRAMS.glob("*.py"))
each_file = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: str(path.relative_to(EXAMPLES))
)


@pytest.mark.parametrize("path", PROGRAM_FILES, ids=lambda path: path.name)
def test_the_commands_in_the_first_lines_are_understood(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    commands = re.findall(
        rf"^ +python examples/programs/{re.escape(path.name)}(.*)$", docstring, re.M
    )
    assert commands
    for options in commands:
        with running(path.name, *shlex.split(options), "--help") as program:
            assert program.end()[0].startswith(f"usage: {path.name}")


@each_file
def test_a_file_can_be_read_at_once(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


@each_file
def test_examples_use_public_names_alone(path: Path) -> None:
    """Names of the library and of other examples; an object's own are its own."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            assert not any(re.match(r"_[^_]", name) for name in names)
        elif isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
            assert isinstance(node.value, ast.Name)
            assert node.value.id == "self"


@each_file
def test_signals_are_handled_in_one_place(path: Path) -> None:
    assert ("open_signal_receiver" in path.read_text("utf-8")) == (path.name == "stopping.py")
