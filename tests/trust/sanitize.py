"""The tests of the core with the compiled module under AddressSanitizer and UBSan.

``python -m tests.trust.sanitize [pytest's arguments]``, where gcc and its sanitizers are. The
module is built into a folder of its own, and nothing else changes. Leaks are not looked for here:
CPython leaves much behind at its end; tests/trust/test_left_behind.py looks for them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from anyio_mmsg._build import fingerprint

ROOT = Path(__file__).parent.parent.parent
FLAGS = ["-std=c11", "-g", "-O1", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
TESTS = ["packets", "receive", "send", "system", "gro", "control", "protocol", "trust"]
TESTS += [f"stream/test_{name}.py" for name in ("loans", "wake", "pool", "pool_ends", "receiver")]


def build(source: Path, to: Path, *more: str) -> None:
    """Build the compiled module of the package in `source` as the file `to`."""
    command = [
        os.environ.get("CC", "gcc"),
        *FLAGS,
        *more,
        "-fPIC",
        "-shared",
        f"-DANYIO_MMSG_SOURCES={fingerprint(source / '_compiled')}",
        f"-I{sysconfig.get_paths()['include']}",
        *map(str, sorted((source / "_compiled").glob("*.c"))),
        "-o",
        str(to),
    ]
    print(*command, flush=True)
    subprocess.run(command, check=True)


def library(name: str) -> str:
    command = [os.environ.get("CC", "gcc"), f"-print-file-name={name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "anyio_mmsg"
        shutil.copytree(
            ROOT / "src" / "anyio_mmsg", package, ignore=shutil.ignore_patterns("*.so", "*.pyc")
        )
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        build(package, package / f"_compiled{suffix}", *SANITIZERS)
        environment = {
            **os.environ,
            "PYTHONPATH": folder,
            "PYTHONMALLOC": "malloc",
            "PYTHONFAULTHANDLER": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
            # 1 terabyte asked for in tests has to fail, not to end the process.
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "ANYIO_MMSG_SANITIZED": "1",
        }
        tests = arguments or [f"tests/{wing}" for wing in TESTS]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        command += ["-m", "thorough or not thorough", *tests]
        print(*command, flush=True)
        check = "import anyio_mmsg as a; assert a.compiled; print(a.__file__)"
        subprocess.run([sys.executable, "-c", check], check=True, env=environment)
        return subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
