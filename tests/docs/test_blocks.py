"""Every code block of README.md and docs/ is run by a test, or is a shell block that could be."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

from .blocks import ROOT, Block, blocks, blocks_named_by, every_page, python_blocks

# What the fences of a page may say, so that no Python hides under another name.
LANGUAGES = {"python", "sh", "", "text", "toml", "ini", "c", "json"}
DIRECTIVES = re.compile(
    r"\{(toctree|grid|eval-rst|auto[a-z]+|include|image|figure|note|warning)\}.*"
)


def named_by_tests() -> set[tuple[str, int]]:
    """The places of all blocks that tests in this folder name."""
    named: set[Block] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        for name, thing in vars(module).items():
            if name.startswith("test_"):
                named |= blocks_named_by(getattr(thing, "pytestmark", []))
    return {block.place for block in named}


@every_page
def test_every_python_block_is_run(page: Path) -> None:
    """By a test that names it, and conftest.py looks whether that test did run it."""
    named = named_by_tests()
    assert [str(block) for block in python_blocks(page) if block.place not in named] == []


@every_page
def test_fences_say_what_they_hold(page: Path) -> None:
    languages = {block.language for block in blocks(page)}
    assert [lang for lang in languages - LANGUAGES if not DIRECTIVES.fullmatch(lang)] == []
    # Each one was found: a fence that is not closed, or nested, would hide others.
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^ *(?:`{3,}|~{3,})", text, re.M)) == 2 * len(blocks(page))


# Shell blocks

# What `python -m` may name that this repository does not have.
MODULES = {"pip", "venv", "build", "twine", "wheel", "pytest", "cibuildwheel", "sphinx"}


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block; a backslash joins lines."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        for command in re.split(r"&&|\|\|?|;", line):
            words = shlex.split(command, comments=True)
            if words:
                found.append(words)
    return found


@every_page
def test_shell_blocks_name_what_exists(page: Path) -> None:
    """Files of the repository, modules, and the options of programs that are ours."""
    for block in blocks(page):
        if block.language != "sh":
            continue
        for words in commands(block):
            source = ""  # of the program, if it is one of ours
            for word, following in zip(words, [*words[1:], ""], strict=True):
                if re.match(r"(examples|benchmarks|tests|docs|src|\.ci)/", word):
                    assert (ROOT / word).exists() or "_build" in word or "*" in word, word
                    if word.endswith(".py"):
                        source += (ROOT / word).read_text(encoding="utf-8")
                if word == "-m" and following.partition(".")[0] not in {*MODULES, "thorough"}:
                    spec = importlib.util.find_spec(following)
                    assert spec is not None, following
                    if spec.submodule_search_locations:
                        spec = importlib.util.find_spec(f"{following}.__main__")
                    assert spec is not None, following
                    assert spec.origin is not None, following
                    folder = Path(spec.origin).parent
                    source += "".join(
                        path.read_text(encoding="utf-8") for path in folder.rglob("*.py")
                    )
                if source and word.startswith("--"):
                    assert f'"{word.partition("=")[0]}"' in source, f"{block}: {word}"
