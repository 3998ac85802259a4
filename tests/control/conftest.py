"""Control data needs Linux, as `ask_for` does."""

from __future__ import annotations

import pytest

from anyio_mmsg._system.platform import ON_LINUX

from ..helpers import have_ipv6


@pytest.fixture(autouse=True, scope="session")
def _linux() -> None:
    if not ON_LINUX:
        pytest.skip("control data is asked for on Linux alone")


_of_ipv6 = pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")


@pytest.fixture(
    params=[
        "inet",
        pytest.param("inet6", marks=_of_ipv6),
        pytest.param("mapped", marks=_of_ipv6),
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)
