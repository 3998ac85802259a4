"""What ran: machine, kernel, Python, versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import anyio_mmsg

DISTRIBUTIONS = ("anyio-mmsg", "anyio", "trio", "uvloop", "aiofastnet", "qh3")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _limit(name: str) -> int | None:
    try:
        return int(Path("/proc/sys/net/core", name).read_text(encoding="utf-8"))
    except OSError:
        return None


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def describe(name: str = "") -> dict[str, Any]:
    """Return what the numbers depend on.

    Args:
        name: What its owner calls it, or why it is of interest; "" for no more than its parts.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "name": name,
        "processor": _processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
        "compiled": getattr(anyio_mmsg, "compiled", None),
        "rmem_default": _limit("rmem_default"),
        "rmem_max": _limit("rmem_max"),
        "versions": {name: _version(name) for name in DISTRIBUTIONS},
    }


def short(machine: dict[str, Any]) -> str:
    """Name the machine in a line."""
    memory = machine["memory"]
    size = f", {memory / 2**30:.0f} GiB" if memory else ""
    name = f"{machine['name']}: " if machine["name"] else ""
    return (
        f"{name}{machine['processor']}, {machine['cores']} cores{size}; {machine['system']}; "
        f"{machine['python']}"
    )


def sentence(machine: dict[str, Any]) -> str:
    """Name the machine and what ran on it."""
    versions = ", ".join(
        f"{name} {number}" for name, number in machine["versions"].items() if number
    )
    compiled = {
        True: "with its compiled module",
        False: "without its compiled module",
        None: "a version without a compiled module",
    }[machine["compiled"]]
    return f"{short(machine)} ({machine['compiler']}); {versions}; anyio-mmsg {compiled}."
