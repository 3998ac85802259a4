"""What is counted: ``python -m benchmarks.workers.instructions KEY:WARM:SHORT:LONG ...``.

It runs under ``valgrind --tool=callgrind --dump-before=getpriority``: at each call of that
function, which nobody else calls, callgrind writes down the instructions since the last one. Each
row runs in a fork of this process, so that what is imported is imported once: WARM turns, a mark,
SHORT turns, a mark, LONG turns, a mark. The second and the third dump are the two runs.

For each row it prints {"key", "pid"}, or {"key", "missing": why it can't be counted here}.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import anyio

from benchmarks.candidates.counted import SPECS, CountedSpec
from benchmarks.spec import UnavailableError

from .protocol import NOT_BUILT, answer, compiled


def mark() -> None:
    """Have callgrind write down what it counted since the last mark."""
    os.getpriority(os.PRIO_PROCESS, 0)


async def count(spec: CountedSpec, turns: Sequence[int]) -> None:
    """Run a row."""
    assert spec.open is not None
    run = await spec.open(spec.loop, spec.limit)
    gc.collect()
    gc.freeze()  # collections then look at what the row makes, and at nothing else
    for number in turns:
        await run(number)
        mark()
    answer({"key": spec.key, "pid": os.getpid()})
    os._exit(0)  # with all sockets open: a row closes nothing


def settle_trio() -> None:
    """Have Trio shuffle its tasks in the same way each time."""
    import trio

    trio._core._run._r.seed(0)  # private: there is no other door


def child(spec: CountedSpec, turns: Sequence[int]) -> None:
    """Be a row's process."""
    if spec.kind == "ours" and compiled() is False:
        answer({"key": spec.key, "missing": NOT_BUILT})
        return
    try:
        if spec.loop == "trio":
            settle_trio()
            anyio.run(count, spec, turns, backend="trio")
        else:
            options = {"use_uvloop": spec.loop == "uvloop"}
            anyio.run(count, spec, turns, backend="asyncio", backend_options=options)
    except UnavailableError as reason:
        answer({"key": spec.key, "missing": str(reason)})


def main() -> None:
    """Run the rows, one after another."""
    rows = [(SPECS[key], turns) for key, *turns in (row.split(":") for row in sys.argv[1:])]
    for module in sorted({module for spec, _ in rows for module in spec.modules}):
        importlib.import_module(module)
    for spec, turns in rows:
        process = os.fork()
        if process == 0:
            try:
                child(spec, list(map(int, turns)))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(process, 0)[1]:
            raise SystemExit(f"{spec.key} failed")
    os._exit(0)


if __name__ == "__main__":
    main()
