"""What tests of protocols are run over: the loops of asyncio, and who serves."""

from __future__ import annotations

from typing import Any

import pytest

from ..helpers import without_uvloop


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"debug": True}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=without_uvloop),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The loops that have protocols: Trio has none."""
    return request.param


@pytest.fixture(params=["loop", "ours"])
def way(request: pytest.FixtureRequest) -> str:
    """Who serves the protocol: the event loop's own transport, which is the reference, or ours."""
    return str(request.param)


@pytest.fixture
def on_uvloop(anyio_backend: Any) -> bool:
    return "use_uvloop" in anyio_backend[1]


@pytest.fixture
def not_uvloops(way: str, on_uvloop: bool) -> None:
    """For what uvloop's own transport does in another way than asyncio's."""
    if way == "loop" and on_uvloop:
        pytest.skip("uvloop's own transport closes at an exception, and reports what it drops")
