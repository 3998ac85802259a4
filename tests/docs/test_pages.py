"""The pages: links lead somewhere, and what they name exists."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from .blocks import ROOT, every_page, python_blocks

# What a command on a page writes.
WRITTEN = {"benchmarks/results/other", "docs/_build/html", "docs/_build/html/index.html"}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\((?![a-z]+:)([^)#]*)", text):
        assert (page.parent / target).exists(), target


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"\b(?:src|tests|docs|examples|benchmarks|\.ci)/[\w./-]*\w",
        page.read_text(encoding="utf-8"),
    )
    assert [name for name in named if not (ROOT / name).exists() and name not in WRITTEN] == []


@pytest.mark.parametrize("folder", ["how-to", "migration"])
def test_programs_fit_the_page(folder: str) -> None:
    """Of a window as wide as usual, so that nobody has to scroll to read a line."""
    programs = [
        block
        for page in sorted((ROOT / "docs" / folder).glob("*.md"))
        for block in python_blocks(page)
    ]
    assert programs
    lines = [(str(program), line) for program in programs for line in program.text.splitlines()]
    assert [(where, line) for where, line in lines if len(line) > 84] == []


def test_the_house_is_drawn_as_it_is() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"^```\nsrc/anyio_mmsg/\n(.*?)^```$", text, re.M | re.S)
    assert tree is not None
    drawn: set[str] = set()
    folder = ""
    for line in tree[1].splitlines():
        name = line.split()[0]
        if line.startswith("   "):
            drawn.add(folder + name)
        elif name.endswith("/"):
            folder = name
        else:
            drawn.add(name)
    source = ROOT / "src" / "anyio_mmsg"
    there = {
        str(path.relative_to(source).as_posix())
        for kind in ("*.py", "*.c", "*.h", "*.pyi")
        for path in source.rglob(kind)
    }
    assert drawn == {name for name in there if not name.endswith("/__init__.py")}


@pytest.mark.parametrize(
    ("repository", "text", "shown"),
    [
        ("", "[p](performance.md#receiving)", "[p](/performance.md#receiving)"),
        ("", "[c](../CHANGELOG.md)", "[c](/changelog.md)"),
        ("", "[r](../README.md#sending)", "[r](/index.md#sending)"),
        (
            "",
            "[e](../examples/programs/echo_server.py)",
            "[e](/../examples/programs/echo_server.py)",
        ),
        ("", "[e](../examples) [`e`](../examples)", "`e` `e`"),
        ("", "![p](../benchmarks/results/echo.svg)", "![p](/../benchmarks/results/echo.svg)"),
        ("", "[x](https://example.org/) [y](#here)", "[x](https://example.org/) [y](#here)"),
        ("", "```\n[c](../CHANGELOG.md)\n```", "```\n[c](../CHANGELOG.md)\n```"),
        ("https://r/main", "[e](../examples)", "[e](https://r/main/examples)"),
        ("https://r/main", "![p](../a.svg)", "![p](/../a.svg)"),
        ("https://r/main", "[h](how-to/index.md)", "[h](/how-to/index.md)"),
    ],
)
def test_links_become_links_of_the_site(
    repository: str, text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYIO_MMSG_COMPILED", "0")  # as conf.py does, for this test alone
    conf = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    convert = conf["with_links_of_the_site"]
    monkeypatch.setitem(convert.__globals__, "REPOSITORY", repository)
    assert convert(text, ROOT / "docs" / "performance.md") == shown


@pytest.mark.parametrize(
    ("cells", "shown", "stacks"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a", "b", "3 c"], ["a", "h1: b", "h2: 3 c"], True),
        (["a", "1", ""], ["a", "1", ""], False),
        (["a", "1.5 ±2%", "2", "b"], ["a", "1.5 ±2%", "2", "b"], False),
    ],
)
def test_cells_that_a_phone_stacks_have_headings(
    cells: list[str], shown: list[str], stacks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = pytest.importorskip("docutils.nodes", reason="the site needs the group 'docs'")

    def row(texts: list[str]) -> Any:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", text)) for text in texts))

    body = nodes.tbody("", row(cells))
    head = nodes.thead("", row([f"h{column}" for column in range(len(cells))]))
    table = nodes.table("", nodes.tgroup("", head, body))
    monkeypatch.setenv("ANYIO_MMSG_COMPILED", "0")
    conf = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    conf["_stack"](None, nodes.section("", table), "a page")
    assert [entry.astext() for entry in body[0]] == shown
    assert table["classes"] == (["words"] if stacks else [])
