"""docs/reference: every public name is there."""

from __future__ import annotations

import re

import anyio_mmsg

from .blocks import ROOT, as_module, python_blocks, runs

(IMPORTS,) = python_blocks("docs/reference/index.md")


@runs(IMPORTS)
def test_the_imports() -> None:
    as_module(IMPORTS)


def test_every_public_name_is_documented() -> None:
    text = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    documented = re.findall(r"^\.\. (?:auto|py:)\w+:: (\w+)", text, re.M)
    assert sorted(documented) == sorted(anyio_mmsg.__all__)
