"""A test of docs runs the blocks that it names."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from .blocks import Block, executed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail a test that would pass without having run each block that it names."""
    executed.clear()
    yield  # a skip or a failure ends this function here
    named = {block for mark in item.iter_markers("runs") for block in mark.args}
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        named |= {value for value in item.callspec.params.values() if isinstance(value, Block)}
    assert [str(block) for block in named if block.place not in executed] == []
