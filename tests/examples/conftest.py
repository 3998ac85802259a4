"""Fixtures of the examples' tests."""

from __future__ import annotations

from typing import Any

import pytest

from .helpers import load


@pytest.fixture
def answerer() -> Any:
    """What answers DNS queries, for the zone that comes with the example."""
    dns_server = load("dns_server")
    return dns_server.load(dns_server.SAMPLE)
