"""One target under libFuzzer, by atheris: the process that ``python -m tests.trust.fuzz`` starts.

Its arguments are the name of a program that starts it, which libFuzzer does anew to merge, and
libFuzzer's own.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from typing import Any

from . import load

# Whose branches guide the search. The targets' own would only distract it.
INSTRUMENTED = ["anyio_mmsg", "statsd_metrics", "dns_answers", "dns_server"]
INSTRUMENTED += ["loopback", "shared", "syslog_messages"]


TARGET = "ANYIO_MMSG_FUZZ_TARGET"
"""The variable of the environment that names the target."""


def main(arguments: list[str]) -> None:
    engine: Any = importlib.import_module("atheris")  # without types, nor for type checkers
    with (
        contextlib.redirect_stderr(io.StringIO()),  # a line for each module
        engine.instrument_imports(include=INSTRUMENTED),
    ):
        test = load()[os.environ[TARGET]]
        test(b"")  # which imports the example
    engine.Setup(arguments, test)
    engine.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
