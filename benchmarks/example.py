"""The answering code of the DNS example: the only place here that knows where it is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .candidates.servers import Respond

EXAMPLES = Path(__file__).parent.parent / "examples"


def load() -> Any:
    """Import the example, `examples/dns_server`."""
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    return importlib.import_module("dns_server")


def load_answer() -> Respond:
    """Return what makes its answers, for the zone that comes with it."""
    module = load()
    answer: Callable[[bytes | memoryview], bytes | None] = module.load(module.SAMPLE).answer
    return answer
