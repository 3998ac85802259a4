"""What parses bytes, under any bytes: one set of targets for three ways to make the bytes.

Hypothesis makes them (tests/trust/test_fuzz.py), a small corpus has them
(tests/trust/test_corpus.py), and a coverage-guided fuzzer searches for them: ``python -m
tests.trust.fuzz``. A target takes bytes, and raises if something is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

CORPUS = Path(__file__).parent.parent / "corpus"
"""Inputs by target, in files of hexadecimal lines; a line that begins with # says what follows.

First what is expected, then what was once found to be wrong, then what a fuzzer found to be new.
"""


def load() -> dict[str, Callable[[bytes], object]]:
    """Import the targets, by name; those of the examples that can't be imported are left out."""
    from . import examples, library, rings

    return {**library.TARGETS, **rings.TARGETS, **examples.TARGETS}


def corpus(target: str) -> Iterator[bytes]:
    """Return the inputs of a target that are kept."""
    path = CORPUS / f"{target}.txt"
    for line in path.read_text().splitlines() if path.exists() else []:
        if not line.startswith("#"):
            yield bytes.fromhex(line)
