"""The line protocol of the workers: one JSON line for each line of words.

A worker greets with {"port": its UDP port}, or {"missing": why it can't be measured here}. It
ends with its input, that is, when its parent does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import anyio

import anyio_mmsg
from benchmarks.spec import AnySpec, UnavailableError

Answer: TypeAlias = dict[str, Any]

NOT_BUILT = "the compiled module is not built, or switched off (anyio_mmsg.compiled is False)"


def answer(values: Answer) -> None:
    """Write one line of JSON to the parent."""
    print(json.dumps(values), flush=True)


def compiled() -> bool | None:
    """Return whether the library runs compiled here; None if its version can't say."""
    found: bool | None = getattr(anyio_mmsg, "compiled", None)
    return found


def main(serve: Callable[[Any], Awaitable[None]], specs: Mapping[str, AnySpec]) -> None:
    """Run a process: serve the candidate that the command line names, on its loop."""
    spec = specs[sys.argv[1]]
    if spec.kind == "ours" and compiled() is False:
        answer({"missing": NOT_BUILT})
        return
    if spec.kind == "plain" and compiled():
        raise SystemExit(f"{spec.key} has to run without the compiled module, and has it")
    try:
        if spec.loop == "trio":
            anyio.run(serve, spec, backend="trio")
        else:
            options = {"use_uvloop": spec.loop == "uvloop"}
            anyio.run(serve, spec, backend="asyncio", backend_options=options)
    except UnavailableError as reason:
        answer({"missing": str(reason)})
