"""What a build puts into the compiled module, and what the package compares when it loads it.

setup.py runs this file too, without the rest of the package: it imports nothing of it. As a
program it fails if its argument, a tag, is not that of the version.
"""

from __future__ import annotations

import sys
from importlib.util import source_hash
from pathlib import Path

__version__ = "0.3.0"
"""The only place that has the version; pyproject.toml reads it from here."""

STAMP = "sources.txt"
"""A file beside the stub, in packages without C files. It holds the fingerprint of the C files
that the compiled module was built from."""


def fingerprint(folder: Path) -> str:
    """Return what tells the C files of a folder from others, or "" if it has none.

    The compiled module and the Python code are two halves of one version: a module of other
    sources than those beside it may do anything.
    """
    files = sorted([*folder.glob("*.c"), *folder.glob("*.h")])
    text = b"".join(b"%s\0%s\0" % (file.name.encode(), file.read_bytes()) for file in files)
    return source_hash(text).hex() if files else ""


def expected_fingerprint(folder: Path) -> str:
    """Return the fingerprint that a compiled module has that fits, or "" if nothing says so."""
    try:
        return fingerprint(folder) or (folder / STAMP).read_text("ascii")
    except OSError:  # an archive, or a program made of one file
        return ""


if __name__ == "__main__" and sys.argv[1] != f"v{__version__}":
    sys.exit(f"{sys.argv[1]} is not the tag of version {__version__}")
