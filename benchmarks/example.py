"""The answers of examples/dns_server.py, whose folder is not on the import path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parent.parent / "examples"


def load() -> ModuleType:
    """Import the example."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module("dns_server")
    finally:
        sys.path.remove(str(EXAMPLES))


def load_answer() -> Callable[[bytes | memoryview], bytes | None]:
    """Return what makes its answers, for the zone that comes with it."""
    module = load()
    answerer = module.load(module.SAMPLE)
    answer: Callable[[bytes | memoryview], bytes | None] = answerer.answer
    return answer
