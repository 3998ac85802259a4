"""What ran: machine, kernel, Python, versions."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

DISTRIBUTIONS = ("anyio-mmsg", "anyio", "trio", "uvloop")


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


def describe() -> dict[str, Any]:
    """Return what the numbers depend on, and nothing that tells one such machine from another."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": _processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
        "optimized": not sys.flags.dev_mode,
        "rmem_default": _limit("rmem_default"),
        "rmem_max": _limit("rmem_max"),
        "versions": {name: _version(name) for name in DISTRIBUTIONS},
    }


def sentence(machine: dict[str, Any]) -> str:
    """Write it in two lines."""
    memory = machine["memory"]
    size = f", {memory / 2**30:.0f} GiB" if memory else ""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores{size}; {machine['system']}\n"
        f"{machine['python']} ({machine['compiler']}); {versions}"
    )
