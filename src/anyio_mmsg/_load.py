"""Loads the compiled module, or says why it is not in use.

``ANYIO_MMSG_COMPILED=0`` in the environment switches it off, ``ANYIO_MMSG_COMPILED=1`` demands it.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from ._build import expected_fingerprint

__all__ = ["build_helps", "module", "why_not_compiled"]

_SETTING = "ANYIO_MMSG_COMPILED"
_FOLDER = Path(__file__).parent


def _load() -> tuple[Any, str, bool]:
    """Return the module or None, why it is not in use, and whether building it helps."""
    setting = os.environ.get(_SETTING, "")
    if setting not in ("", "0", "1"):
        raise ImportError(f"{_SETTING} is {setting!r}; give 0 or 1, or leave it out")
    if setting == "0":
        return None, f"{_SETTING}=0 switches it off", False
    found, why, helps = _try()
    if why and setting == "1":
        raise ImportError(f"{_SETTING}=1 demands the compiled module, and {why}")
    return found, why, helps


def _try() -> tuple[Any, str, bool]:
    """Return the same as `_load`, whatever the environment asks for."""
    if sys.implementation.name != "cpython":
        return None, f"it is for CPython alone, and this is {platform_name()}", False
    found: Any = None
    words = ""
    try:
        found = import_module("anyio_mmsg._compiled")
    except ModuleNotFoundError:
        pass  # nothing was built
    except Exception as error:  # of the loader, or of the module itself
        words = str(error)
    if getattr(found, "__file__", None) is None:  # nothing, or the folder of the C sources
        return None, *_why_not(words)
    sources = getattr(found, "sources", "")
    if sources != (expected_fingerprint(_FOLDER / "_compiled") or sources):
        name = Path(found.__file__).name
        return None, f"{name} was built from other sources than the code beside it", True
    return found, "", False


def platform_name() -> str:
    """Return the name of this Python implementation, such as PyPy."""
    import platform

    return platform.python_implementation()


def _why_not(words: str) -> tuple[str, bool]:
    """Return why the module could not be imported, and whether building it helps."""
    if words:
        forbidden = "failed to map segment" in words or "not permitted" in words  # noexec
        return f"it could not be loaded: {words}", not forbidden
    if not _FOLDER.is_dir():
        return (
            f"it could not be loaded: the package is in an archive, {_FOLDER.parent}, and the "
            f"system loads modules from files alone"
        ), False
    import sysconfig

    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "it needs the GIL, and this is a free-threaded build of CPython", False
    found = sorted(
        path.name for kind in ("so", "pyd") for path in _FOLDER.glob(f"_compiled.*{kind}")
    )
    if found:
        wanted = sysconfig.get_config_var("EXT_SUFFIX")
        return (
            f"it was built for another Python or C library: {', '.join(found)} is there, and this "
            f"Python loads *{wanted}"
        ), True
    return "it was not built", True


module: Any
module, why_not_compiled, build_helps = _load()
