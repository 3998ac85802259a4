"""How long the tests of trust run, and what they let pass."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def trust_rounds() -> int:
    """How often what is random is repeated: ``ANYIO_MMSG_TRUST_ROUNDS``, or once."""
    return int(os.environ.get("ANYIO_MMSG_TRUST_ROUNDS", "1"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let interrupts strike finalizers: Python reports those, and can't raise them.

    The collector may do that in a later test. What is lost so shows in the account of packets.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )
