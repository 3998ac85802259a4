"""What tests of protocols are run over: the loops of asyncio, and who serves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from anyio_mmsg import batched_loop_factory

from ..helpers import without_uvloop


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"debug": True}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=without_uvloop),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The loops that have protocols: Trio has none."""
    name, options = request.param
    if "way" in request.fixturenames and request.getfixturevalue("way") == "endpoint":
        factory = batched_loop_factory(base_of(options))
        return name, {"debug": True, "loop_factory": factory}
    return name, options


@pytest.fixture(params=["loop", "ours", "endpoint"])
def way(request: pytest.FixtureRequest) -> str:
    """Who serves the protocol.

    The event loop's own transport, which is the reference; `serve_protocol`; or the endpoint of a
    loop by `batched_loop_factory`.
    """
    return str(request.param)


def base_of(options: dict[str, Any]) -> type[asyncio.AbstractEventLoop]:
    """Return the class of loops that a backend's options ask for."""
    if "use_uvloop" not in options:
        return asyncio.SelectorEventLoop
    import uvloop

    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop


@pytest.fixture
def on_uvloop(anyio_backend: Any) -> bool:
    options = anyio_backend[1]
    factory = options.get("loop_factory", asyncio.SelectorEventLoop)
    return "use_uvloop" in options or not issubclass(factory, asyncio.SelectorEventLoop)


@pytest.fixture
def not_uvloops(way: str, on_uvloop: bool) -> None:
    """For what uvloop's own transport does in another way than asyncio's."""
    if way == "loop" and on_uvloop:
        pytest.skip("uvloop's own transport closes at an exception, and reports what it drops")
