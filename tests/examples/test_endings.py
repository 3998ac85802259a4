"""What keeps an example from its work is one line on stderr, and an exit status."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .helpers import DEADLINE, EXAMPLES, PROGRAMS, client, load, without_terminals

FILES = sorted(path.name for path in PROGRAMS.glob("*.py"))
each_program = pytest.mark.parametrize("name", FILES)

# What a program needs beside a host and a port, by its name; None: it listens at no given port.
OPTIONS: dict[str, list[str] | None] = {
    "adc_card.py": None,
    "loopback.py": None,
    "http3_server.py": ["--self-signed", os.devnull],
    "relay.py": ["--to", "127.0.0.1:9"],
}
# The packages of each that are not the library's.
PACKAGES = {
    "adc_capture.py": ["numpy"],
    "adc_card.py": ["numpy"],
    "dns_server.py": ["dns"],
    "http3_server.py": ["aioquic"],
    "netflow.py": ["numpy", "pyarrow"],
    "syslog_collector.py": ["trio"],
    "to_jetstream.py": ["nats"],
}
INSTALLED_AS = {"dns": "dnspython", "nats": "nats-py"}

# Runs a program where a package can't be found, as if it were not installed.
HIDE = """
class Finder(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] != hidden:
            return super().find_spec(name, path, target)

hidden, *sys.argv = sys.argv[1:]
sys.meta_path = [Finder if it is machinery.PathFinder else it for it in sys.meta_path]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def ended(name: str, *options: str, without: str = "", **given: Any) -> tuple[int, str, list[str]]:
    """Run a program to its end, perhaps without a package.

    Returns:
        Its status, its output, and its lines on stderr.
    """
    path = str(PROGRAMS / name)
    how = [path]
    if without:
        code = f"import os, runpy, sys, importlib.machinery as machinery\n{HIDE}"
        how = ["-c", code, without, path]
    done = subprocess.run(
        [sys.executable, "-W", "error", *how, *options],
        **{"stdout": subprocess.PIPE, **given},
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=DEADLINE,
    )
    return done.returncode, done.stdout or "", done.stderr.splitlines()


def listening(name: str, host: str, port: int) -> list[str]:
    """Return the options that have a program listen at an address."""
    options = OPTIONS.get(name, [])
    if options is None:
        pytest.skip("it listens at no port that is given")
    for package in PACKAGES.get(name, []):
        pytest.importorskip(package)
    return ["--host", host, "--port", str(port), *options]


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where http3_server.py may write one."""
    monkeypatch.setitem(OPTIONS, "http3_server.py", ["--self-signed", str(tmp_path / "a.pem")])


@each_program
@pytest.mark.usefixtures("certificate")
def test_a_port_in_use(name: str) -> None:
    with client("127.0.0.1") as sock:
        port = sock.getsockname()[1]
        status, _, lines = ended(name, *listening(name, "127.0.0.1", port))
    assert status != 0
    assert [line for line in lines if f"binding to 127.0.0.1 port {port}: " in line] == lines
    assert lines[0].startswith(f"{name}: ")


@each_program
@pytest.mark.usefixtures("certificate")
def test_an_unknown_host(name: str) -> None:
    options = ["no.such.host.invalid", "9"]
    if name != "adc_card.py":
        options = listening(name, "no.such.host.invalid", 0)
    else:
        pytest.importorskip("numpy")
    status, _, lines = ended(name, *options)
    assert status != 0
    assert [line for line in lines if "no.such.host.invalid" in line] == lines
    assert lines[0].startswith(f"{name}: ")


def test_an_unknown_destination() -> None:
    status, output, lines = ended("relay.py", "--to", "no.such.host.invalid:9", "--port", "0")
    assert (status, output) == (2, "")
    assert "no.such.host.invalid" in lines[-1]
    assert "Traceback" not in lines[0]


@each_program
@pytest.mark.usefixtures("certificate")
def test_nobody_reads_the_output(name: str) -> None:
    options = ["--packets", "1000"] if name == "loopback.py" else []
    for package in PACKAGES.get(name, []):
        pytest.importorskip(package)
    nobody, output = os.pipe()
    os.close(nobody)
    with os.fdopen(output, "wb") as end, socket.socket(type=socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))  # else the network may say that nobody is there
        if name == "adc_card.py":
            options = ["127.0.0.1", str(listener.getsockname()[1]), "--packets", "10"]
        elif OPTIONS.get(name, []) is not None:
            options = listening(name, "127.0.0.1", 0)
        status, _, lines = ended(name, *options, stdout=end)
    assert (status, lines) == (2, [f"{name}: nobody reads the output any more"])


@pytest.mark.parametrize(
    ("name", "package"),
    [(name, package) for name, packages in PACKAGES.items() for package in packages],
)
def test_a_missing_package(name: str, package: str) -> None:
    for other in PACKAGES[name]:
        if other != package:
            pytest.importorskip(other)
    options = ["127.0.0.1", "9"] if name == "adc_card.py" else []
    if name == "http3_server.py":
        options = ["--self-signed", os.devnull]
    status, output, lines = ended(name, *options, without=package)
    wanted = INSTALLED_AS.get(package, package)
    assert (status, output) == (2, "")
    assert lines == [f"{name}: it needs the package {wanted}: python -m pip install {wanted}"]


@each_program
@pytest.mark.usefixtures("certificate")
@pytest.mark.parametrize("loop", ["trio", "uvloop"])
def test_a_missing_event_loop(name: str, loop: str) -> None:
    source = (PROGRAMS / name).read_text("utf-8")
    if "--uvloop" in source and loop == "uvloop":
        options = ["--uvloop"]
    elif "add_backend_option(" in source or ('"uvloop"]' in source and loop == "uvloop"):
        options = ["--backend", loop]
    else:
        pytest.skip("its loop is not chosen by an option, or only of what is installed")
    for package in PACKAGES.get(name, []):
        pytest.importorskip(package)
    options += ["127.0.0.1", "9"] if name == "adc_card.py" else OPTIONS.get(name) or []
    status, output, lines = ended(name, *options, without=loop)
    assert (status, output) == (2, "")
    assert lines == [f"{name}: it needs the package {loop}: python -m pip install {loop}"]


@without_terminals
@pytest.mark.parametrize("name", ["pipeline.py", "reuseport_workers.py"])
def test_a_live_table_without_its_package(name: str) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs, "wb") as terminal:
        status, _, lines = ended(name, without="rich", stdout=terminal)
    assert status == 2
    assert lines == [f"{name}: it needs the package rich: python -m pip install rich"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        status, _, lines = ended("echo_server.py", "--port", "0", stdout=full)
    assert (status, lines) == (2, ["echo_server.py: No space left on device"])


# Short ones


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES.glob("*.py")])
def test_a_port_in_use_of_a_short_one(name: str) -> None:
    if "{error}" not in (EXAMPLES / name).read_text("utf-8").partition("__main__")[2]:
        assert name in {"arrays.py", "ask.py", "exact.py", "send.py"}  # at any port
        return
    if name == "trio_nursery.py":
        pytest.importorskip("trio")
    with client("127.0.0.1") as sock:
        status, output, (line,) = ended(f"../{name}", str(sock.getsockname()[1]))
    assert (status, output) == (1, "")
    if name == "asyncio_task_group.py" and sys.version_info < (3, 11):
        assert line == f"{name} needs Python 3.11: its asyncio has TaskGroup"
        return
    assert line.startswith(f"{name}: ")
    assert os.strerror(errno.EADDRINUSE) in line


@pytest.mark.parametrize(
    ("name", "package"), [("arrays.py", "numpy"), ("trio_nursery.py", "trio")]
)
def test_a_missing_package_of_a_short_one(name: str, package: str) -> None:
    line = f"{name} needs {package}: python -m pip install {package}"
    assert ended(f"../{name}", without=package) == (1, "", [line])


# The helper alone


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (OSError(98, "Address in use"), 2, "Address in use"),
        (FileNotFoundError(2, "No such file", "zone"), 2, "zone: No such file"),
        (ModuleNotFoundError("no nats", name="nats.js"), 2, "it needs the package nats-py: "),
        (TimeoutError(), 2, "TimeoutError"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(7), 7, ""),
    ],
)
def test_errors_in_one_line(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for raised in (error, type("GroupError", (BaseException,), {"exceptions": (error, error)})()):
        if isinstance(error, SystemExit) and raised is not error:
            continue
        with pytest.raises(SystemExit) as end, load("shared").OneLineErrors():
            raise raised
        assert end.value.code == status
        errors = capsys.readouterr().err
        assert errors.count("\n") == (1 if line else 0)
        assert line in errors


def test_a_mistake_shows_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), load("shared").OneLineErrors():
        raise ZeroDivisionError
    mixed = type(
        "GroupError", (Exception,), {"exceptions": (OSError(1, "x"), ZeroDivisionError())}
    )
    with pytest.raises(mixed), load("shared").OneLineErrors():
        raise mixed
    assert capsys.readouterr().err == ""
