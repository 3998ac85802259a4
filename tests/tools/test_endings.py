"""What keeps a command from its work is one line on stderr, and an exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anyio_mmsg import __main__ as commands
from anyio_mmsg._tools.ending import CommandError, causes_of, ending, text_of

from ..examples.helpers import (
    DEADLINE,
    client,
    each_backend,
    only_linux,
    running,
    without_signals,
    without_terminals,
)

NAME = "python -m anyio_mmsg"


def ended(*arguments: str, without: str = "", **options: Any) -> tuple[int, str, str]:
    """Run a command to its end, perhaps without a package; return its status and what it said."""
    code = f"import sys; sys.modules[{without!r}] = None; import runpy; "
    code += "runpy.run_module('anyio_mmsg', run_name='__main__', alter_sys=True)"
    how = ["-c", code] if without else ["-m", "anyio_mmsg"]
    done = subprocess.run(
        [sys.executable, "-W", "error", *how, *arguments],
        **{"stdout": subprocess.PIPE, **options},
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=DEADLINE,
    )
    return done.returncode, done.stdout or "", done.stderr


RECEIVERS = [["top", "--host", "127.0.0.1"], ["latency", "receive", "--host", "127.0.0.1"]]
RECEIVERS[1:] = [pytest.param(RECEIVERS[1], marks=only_linux)]  # type: ignore[list-item]


@each_backend
@pytest.mark.parametrize("command", RECEIVERS)
def test_a_port_in_use(command: list[str], backend: str) -> None:
    with client("127.0.0.1") as sock:
        port = sock.getsockname()[1]
        status, output, errors = ended(*command, "--port", str(port), "--backend", backend)
    assert (status, output) == (2, "")
    start = f"{NAME} {command[0]}: binding to 127.0.0.1 port {port}: "
    assert errors.startswith(start)
    assert len(errors.splitlines()) == 1


@each_backend
@pytest.mark.parametrize(
    "command",
    [
        ["top", "--port", "0", "--host", "no.such.host.invalid"],
        ["latency", "send", "no.such.host.invalid", "9"],
        pytest.param(["traceroute", "no.such.host.invalid"], marks=only_linux),
    ],
    ids=lambda command: command[0],
)
def test_an_unknown_host(command: list[str], backend: str) -> None:
    status, output, errors = ended(*command, "--backend", backend)
    assert (status, output) == (2, "")
    assert errors.startswith(f"{NAME} {command[0]}: ")
    assert "no.such.host.invalid" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--group", "192.0.2.1"], "192.0.2.1"),
        (["--group", "239.1.2.3", "--interface", "no-such-interface"], "no-such-interface"),
    ],
)
def test_a_group_that_is_none(options: list[str], words: str) -> None:
    status, output, errors = ended("top", "--port", "0", *options)
    assert (status, output) == (2, "")
    assert words in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("backend", "remedy"), [("trio", "'anyio-mmsg[trio]'"), ("uvloop", "uvloop")]
)
@pytest.mark.parametrize("command", [["top", "--port", "0"], ["latency", "send", "::1", "9"]])
def test_an_event_loop_that_is_not_installed(
    command: list[str], backend: str, remedy: str
) -> None:
    assert ended(*command, "--backend", backend, without=backend) == (
        2,
        "",
        f"{NAME} {command[0]}: --backend {backend} needs the package {backend}: "
        f"python -m pip install {remedy}\n",
    )


@without_terminals
@pytest.mark.parametrize(
    "command", [["top", "--port", "0"], pytest.param(["latency"], marks=only_linux)]
)
def test_a_terminal_without_the_extra(command: list[str]) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs, "wb") as terminal:
        status, _, errors = ended(*command, without="rich", stdout=terminal)
    assert status == 2
    assert errors.startswith(f"{NAME} {command[0]}: the live table needs the package rich: ")
    assert "python -m pip install 'anyio-mmsg[tools]'" in errors
    assert len(errors.splitlines()) == 1


@only_linux
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_elsewhere_the_extra_is_not_needed(options: list[str]) -> None:
    arguments = ["latency", "--packets", "1", *options]
    status, output, errors = ended(*arguments, without="rich")
    assert status == 0
    assert "rich" not in errors
    assert output


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["--json"],
        ["top", "--port", "0", "--interval", "0.02"],
        ["top", "--port", "0", "--interval", "0.02", "--json"],
        pytest.param(["latency", "--interval", "0.02"], marks=only_linux),
        pytest.param(["latency", "--interval", "0.02", "--json"], marks=only_linux),
        pytest.param(["traceroute", "127.0.0.1"], marks=only_linux),
    ],
    ids=" ".join,
)
@without_signals
def test_nobody_reads_the_output(command: list[str]) -> None:
    nobody, output = os.pipe()
    os.close(nobody)
    with os.fdopen(output, "wb") as end:
        status, _, errors = ended(*command, stdout=end)
    *before, line = errors.splitlines()
    assert status == 2
    name = " ".join([NAME, *(word for word in command[:1] if word != "--json")])
    assert line == f"{name}: nobody reads the output any more"
    assert all(text.startswith("listening on ") for text in before)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", [[], ["top", "--port", "0", "--interval", "0.02"]])
def test_a_full_disk(command: list[str]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        status, _, errors = ended(*command, stdout=full)
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert "No space left on device" in errors


@only_linux
@each_backend
def test_ctrl_c_ends_the_wait_for_reports(backend: str) -> None:
    """Somebody listens where nobody should, and says nothing."""
    options = ["--timeout", "1000", "--hops", "1", "--queries", "1", "--backend", backend]
    number = os.getpid()  # an address that no other run of this test has
    host = f"127.77.{number // 256 % 256}.{number % 256}"
    with client(host, 33434), running("traceroute", host, *options) as program:
        program.line()
        program.process.send_signal(signal.SIGINT)
        assert program.line() == " 1  *"
        assert program.process.wait() == 1


# Its parts


def test_groups_are_the_errors_in_them() -> None:
    inner: BaseException = OSError(98, "Address already in use")
    group = OSError(1, "Operation not permitted")

    class GroupError(Exception):
        exceptions = (inner, group)

    assert list(causes_of(GroupError())) == [inner, group]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(98, "Address already in use"), "Address already in use"),
        (FileNotFoundError(2, "No such file", "zone"), "zone: No such file"),
        (BrokenPipeError(32, "Broken pipe"), "nobody reads the output any more"),
        (TimeoutError(), "TimeoutError"),
        (CommandError("do that"), "do that"),
    ],
)
def test_an_error_is_one_line(
    error: Exception, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert text_of(error) == text
    assert ending("it", work) == 2
    assert capsys.readouterr().err == f"it: {text}\n"


def test_an_interrupt_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise KeyboardInterrupt

    assert ending("it", work) == 130
    assert capsys.readouterr() == ("", "")


def test_a_mistake_is_raised() -> None:
    def work() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ending("it", work)


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        import warnings

        warnings.simplefilter("always")
        warnings.warn("fewer bytes than asked for", RuntimeWarning, stacklevel=1)
        return 0

    assert ending("it", work) == 0
    assert capsys.readouterr().err == "it: fewer bytes than asked for\n"


# The command line


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        commands.main(["--help"])
    assert end.value.code == 0
    output = capsys.readouterr().out
    for name in ("top", "latency", "traceroute"):
        assert f"\n  {name} " in output
        with pytest.raises(SystemExit) as end:
            commands.main([name, "--help"])
        assert end.value.code == 0
        help_text = capsys.readouterr().out
        assert help_text.startswith(f"usage: {NAME} {name} ")
        assert f"{NAME} {name}" in help_text.partition("options:")[0].partition("\n\n")[2]


@pytest.mark.parametrize("arguments", [["tpo"], ["--json", "top"], ["--jsno"]])
def test_what_is_no_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        commands.main(arguments)
    assert end.value.code == 2
    assert "there are top, latency, traceroute" in capsys.readouterr().err


def test_the_report_as_json() -> None:
    status, output, errors = ended("--json")
    assert (status, errors) == (0, "")
    report = json.loads(output)
    _, table, _ = ended()
    assert list(report) == [line[:13].strip() for line in table.splitlines()]
    assert all(isinstance(text, str) for text in report.values())


def test_the_report_needs_no_extra() -> None:
    assert ended(without="rich")[0] == 0
