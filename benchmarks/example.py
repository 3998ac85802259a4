"""The code of examples/dns_server.py, which is no package."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

EXAMPLE = Path(__file__).parent.parent / "examples" / "dns_server.py"


def load() -> ModuleType:
    """Import the example."""
    name = EXAMPLE.stem
    spec = importlib.util.spec_from_file_location(name, EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_answer() -> Callable[[bytes | memoryview], bytes | None]:
    """Return what makes its answers, for the zone that comes with it."""
    module = load()
    answerer = module.load(module.SAMPLE)
    answer: Callable[[bytes | memoryview], bytes | None] = answerer.answer
    return answer
