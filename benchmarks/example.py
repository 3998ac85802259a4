"""The answering code of the DNS example: the only place here that knows where it is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .candidates.servers import Respond

EXAMPLES = Path(__file__).parent.parent / "examples"


def load() -> ModuleType:
    """Import the example, whose folder is not on the import path."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module("dns_server")
    finally:
        sys.path.remove(str(EXAMPLES))


def load_answer() -> Respond:
    """Return what makes its answers, for the zone that comes with it."""
    module = load()
    answer: Callable[[bytes | memoryview], bytes | None] = module.load(module.SAMPLE).answer
    return answer
