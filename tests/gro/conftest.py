"""Trains need Linux, and its UDP_GRO."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from anyio_mmsg._system.control import SOL_UDP, UDP_GRO
from anyio_mmsg._system.platform import ON_LINUX

from ..helpers import have_ipv6
from .flow import Flow


def _why_no_gro() -> str:
    if not ON_LINUX:
        return "UDP_GRO is Linux's"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        except OSError as error:
            return f"UDP_GRO: {error}"
    return ""


@pytest.fixture(autouse=True, scope="session")
def _gro() -> None:
    if why_not := _why_no_gro():
        pytest.skip(why_not)


@pytest.fixture(
    params=[
        "127.0.0.1",
        pytest.param(
            "::1", marks=pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
        ),
    ]
)
def flow(request: pytest.FixtureRequest) -> Iterator[Flow]:
    with Flow(request.param) as flow:
        yield flow


@pytest.fixture
def inet(_gro: Any) -> Iterator[Flow]:
    """For tests to which the family makes no difference."""
    with Flow() as flow:
        yield flow
