"""What is measured of the examples: the only place here that knows where they are."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .candidates.servers import Respond

EXAMPLES = Path(__file__).parent.parent / "examples" / "programs"


def load(name: str = "dns_server") -> ModuleType:
    """Import an example, whose folder is not on the import path."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


def load_answer() -> Respond:
    """Return what makes its answers, for the zone that comes with it."""
    module = load()
    answer: Callable[[bytes | memoryview], bytes | None] = module.load(module.SAMPLE).answer
    return answer
