"""The compiled module is loaded, or it is said which of many things is in the way."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import anyio_mmsg
from anyio_mmsg import _build, _load
from anyio_mmsg._system.platform import ON_LINUX

PACKAGE = Path(anyio_mmsg.__file__).parent
SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))
MODULE = f"_compiled{SUFFIX}"
OTHERS = "_compiled.cpython-39-x86_64-linux-musl.so"

needs_cpython = pytest.mark.skipif(
    sys.implementation.name != "cpython" or bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="the compiled module is for CPython with the GIL",
)
needs_module = pytest.mark.skipif(
    not _load.module or not PACKAGE.joinpath(MODULE).exists(),
    reason="the compiled module is not in use",
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, compiled module and all."""
    return Path(
        shutil.copytree(
            PACKAGE, tmp_path / "anyio_mmsg", ignore=shutil.ignore_patterns("__pycache__")
        )
    )


PROGRAM = """
import socket
import anyio
import anyio_mmsg
from anyio_mmsg import PacketBatch, recv_mmsg_nowait, send_mmsg_nowait
from anyio_mmsg._tools.report import compiled

print(compiled())
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setblocking(False)
    try:
        recv_mmsg_nowait(sock, PacketBatch(engine="recvmmsg"))
    except (ValueError, anyio.WouldBlock) as error:
        print(error)
    try:
        print(send_mmsg_nowait(sock, [], engine="sendmmsg").sent)
    except ValueError as error:
        print(error)
"""


def run(where: Path, setting: str = "", *before: str) -> subprocess.CompletedProcess[str]:
    """Run `PROGRAM` with the package of a folder or of an archive."""
    environment = {**os.environ, "PYTHONPATH": str(where), "ANYIO_MMSG_COMPILED": setting}
    command = [*before, sys.executable, "-B", "-W", "error", "-c", PROGRAM]
    return subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=60
    )


def remove(package: Path) -> None:
    for path in package.glob("_compiled.*"):
        path.unlink()


def put(name: str, data: bytes = b"") -> Callable[[Path], None]:
    def change(package: Path) -> None:
        remove(package)
        package.joinpath(name).write_bytes(data)

    return change


@needs_cpython
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (remove, "it was not built"),
        (put(MODULE), r"it could not be loaded: .*file too short.*"),
        (put(MODULE, b"not a library" * 99), r"it could not be loaded: .*invalid ELF header.*"),
        (
            put(OTHERS),
            re.escape(
                f"it was built for another Python or C library: {OTHERS} is there, and this "
                f"Python loads *{SUFFIX}"
            ),
        ),
    ],
    ids=["absent", "empty", "broken", "of another Python"],
)
def test_all_say_why_it_is_not_in_use(
    package: Path, change: Callable[[Path], None], why: str
) -> None:
    if not ON_LINUX and "loaded" in why:
        pytest.skip("the words are those of Linux's loader")
    change(package)
    check(package.parent, why)


def check(where: Path, why: str, *before: str, builds: bool = True) -> None:
    """Check the report, both engines and what a demand says."""
    done = run(where, "", *before)
    assert done.stderr == ""
    report, receiving, sending = done.stdout.splitlines()
    assert re.match(f"no: {why}", report)
    assert ("ANYIO_MMSG_COMPILED=1 python -m pip install" in report) is builds
    if ON_LINUX:
        assert re.match(f'engine="recvmmsg" needs the compiled module, and {why}; ', receiving)
        assert re.match(f'engine="sendmmsg" needs the compiled module, and {why}; ', sending)
    demanded = run(where, "1", *before)
    assert demanded.returncode == 1
    wanted = f"ImportError: ANYIO_MMSG_COMPILED=1 demands the compiled module, and {why}"
    assert re.match(wanted, demanded.stderr.splitlines()[-1])
    assert run(where, "0").stdout.startswith("no: ANYIO_MMSG_COMPILED=0 switches it off\n")


@needs_module
def test_one_of_other_sources_is_not_used(package: Path) -> None:
    folder = package / "_compiled"
    stamp = folder / _build.STAMP
    assert run(package.parent, "1").stdout.startswith("yes\n")
    fitting = _build.expected_fingerprint(folder)
    for path in [*folder.glob("*.c"), *folder.glob("*.h")]:
        path.unlink()
    stamp.write_text(fitting)  # as in a wheel, which has no C files
    assert run(package.parent, "1").stdout.startswith("yes\n")
    stamp.unlink()  # as in a program that was made of one file: nobody knows
    assert run(package.parent, "1").stdout.startswith("yes\n")
    stamp.write_text("f" * 16)
    why = re.escape(f"{MODULE} was built from other sources than the code beside it")
    check(package.parent, why)
    stamp.unlink()
    (folder / "module.c").write_text("/* of another day */")  # as in a checkout
    check(package.parent, why)


@needs_module
def test_in_an_archive(package: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "a"), "zip", package.parent, "anyio_mmsg")
    why = f"it could not be loaded: the package is in an archive, {re.escape(archive)}, and "
    check(Path(archive), f"{why}the system loads modules from files alone", builds=False)


@needs_module
@pytest.mark.skipif(not ON_LINUX, reason="mount(8) of Linux")
def test_on_a_file_system_that_runs_nothing(package: Path, tmp_path: Path) -> None:
    there = tmp_path / "noexec"
    there.mkdir()
    script = f'mount -t tmpfs -o noexec none {there} && cp -r {package} {there} && exec "$@"'
    inside = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh"]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], check=False).returncode:
        pytest.skip("no file systems can be mounted here")
    check(there, r"it could not be loaded: .*failed to map segment.*", *inside, builds=False)


def test_elsewhere_than_on_cpython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "implementation", types.SimpleNamespace(name="pypy"))
    monkeypatch.setattr(platform, "python_implementation", lambda: "PyPy")
    assert _load._try() == (None, "it is for CPython alone, and this is PyPy", False)


def test_on_free_threaded_cpython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: int(name == "Py_GIL_DISABLED"))
    why = "it needs the GIL, and this is a free-threaded build of CPython"
    assert _load._why_not("") == (why, False)


def test_a_setting_that_says_nothing(package: Path) -> None:
    done = run(package.parent, "yes")
    assert done.stderr.splitlines()[-1] == (
        "ImportError: ANYIO_MMSG_COMPILED is 'yes'; give 0 or 1, or leave it out"
    )


def test_the_version() -> None:
    assert anyio_mmsg.__version__ == _build.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", anyio_mmsg.__version__)
