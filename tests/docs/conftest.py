"""A test of docs runs the blocks that it names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .blocks import Block, executed


@pytest.fixture(autouse=True)
def _runs_what_it_names(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that passed without having run each block that it names."""
    executed.clear()
    yield
    node = request.node
    named = {block for mark in node.iter_markers("runs") for block in mark.args}
    if hasattr(node, "callspec"):
        named |= {value for value in node.callspec.params.values() if isinstance(value, Block)}
    assert {block.place for block in named} <= executed
