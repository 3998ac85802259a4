"""That uses.py, which type checkers check, uses everything."""

from __future__ import annotations

import ast
from pathlib import Path

import anyio_mmsg
from anyio_mmsg import testing


def test_every_public_name_is_used() -> None:
    tree = ast.parse((Path(__file__).parent / "uses.py").read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert {*anyio_mmsg.__all__, *testing.__all__} - used == set()
