"""docs/promises.md: the tests that it names exist, and every promise has some."""

from __future__ import annotations

import ast
import re

import pytest

from .blocks import ROOT

TEXT = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
PROMISES = dict(re.findall(r"^### (.*)\n((?:(?!#).*\n)*)", TEXT, re.M))


def test_they_are_found() -> None:
    assert len(PROMISES) == TEXT.count("\n### ") > 10


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_has_tests_that_exist(promise: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PROMISES[promise])
    assert named
    assert len(named) == PROMISES[promise].count("::")
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {getattr(node, "name", "") for node in tree.body}, f"{path}::{name}"
