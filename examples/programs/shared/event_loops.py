"""The event loop that an example runs on, by its command line."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


def add_backend_option(parser: argparse.ArgumentParser) -> None:
    """Let the command line choose the event loop."""
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio", "uvloop"])


def run_on(backend: str, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Run an async function on asyncio, Trio or uvloop; return what it returns.

    Raises:
        ModuleNotFoundError: The event loop is not installed.
    """
    importlib.import_module(backend)
    return anyio.run(
        function,
        *arguments,
        backend="trio" if backend == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if backend == "uvloop" else {},
    )
