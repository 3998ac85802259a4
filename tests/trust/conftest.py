"""How long the tests of trust run: some seconds in the suite, as long as you like by hand."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def trust_rounds() -> int:
    """How often what is random is repeated: ``ANYIO_MMSG_TRUST_ROUNDS``, or once."""
    return int(os.environ.get("ANYIO_MMSG_TRUST_ROUNDS", "1"))
