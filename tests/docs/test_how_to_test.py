"""docs/how-to/testing.md: its tests pass, and would not if its program were wrong."""

from __future__ import annotations

import socket
import subprocess
import sys
import types
from pathlib import Path

import anyio
import pytest

from ..helpers import loses_batches
from .blocks import as_module, executed, python_blocks, runs

COLLECTOR, TESTS, CONTROL, GONE, TICKER, ANSWER = python_blocks("docs/how-to/testing.md")


@runs(COLLECTOR, TESTS)
def test_the_tests_pass(tmp_path: Path) -> None:
    """As files, by pytest."""
    (tmp_path / "collector.py").write_text(COLLECTOR.text)
    (tmp_path / "test_collector.py").write_text(TESTS.text)
    executed.update((COLLECTOR.place, TESTS.place))
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "pytest", "-q"]
    command += [
        "-p",
        "no:hypothesispytest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.anyio
@runs(COLLECTOR, TESTS)
@pytest.mark.parametrize(
    ("right", "wrong", "fails"),
    [
        ("", "", None),
        ('"(cut)" if packet.truncated else ', "", "a_packet_that_is_cut"),
        ("            with batch:\n    ", "            if True:\n    ", "it_goes_on"),
        ("async for batch in receiver:", "if batch := await receiver.receive():", "it_goes_on"),
    ],
    ids=["right", "cut", "not closed", "too early"],
)
@loses_batches
async def test_the_tests_find_what_is_wrong(
    right: str, wrong: str, fails: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = types.ModuleType("collector")
    program = COLLECTOR.replace(right, wrong) if right else COLLECTOR
    vars(collector).update(as_module(program))
    monkeypatch.setitem(sys.modules, "collector", collector)
    failed = []
    for name, test in list(as_module(TESTS).items()):  # a warning notes itself there
        if name.startswith("test_"):
            try:
                with anyio.fail_after(60):
                    done = test()
                    if done is not None:
                        await done
            except AssertionError:
                failed.append(name)
    assert failed if fails else not failed
    assert all(name.startswith(f"test_{fails}") for name in failed[:1])


@runs(TICKER)
@pytest.mark.parametrize(
    ("right", "wrong", "fails"),
    [
        ("", "", set()),
        ("self.paused = True", "pass", {"test_it_stops_when_it_is_paused"}),
        ("self.paused = False\n", "pass\n", {"test_it_stops_when_it_is_paused"}),
        ("self.errors += 1", "pass", {"test_it_bears_errors"}),
        (", address)\n\n    def pause", ", None)\n\n    def pause", {"test_it_answers"}),
    ],
    ids=["right", "goes on", "never again", "errors", "to nobody"],
)
def test_tests_of_a_protocol(right: str, wrong: str, fails: set[str]) -> None:
    failed = set()
    program = as_module(TICKER.replace(right, wrong) if right else TICKER)
    for name, test in program.items():
        if name.startswith("test_"):
            try:
                test()
            except AssertionError:
                failed.add(name)
    assert failed == fails


@runs(CONTROL)
def test_control_data() -> None:
    as_module(CONTROL)


@pytest.mark.anyio
@runs(GONE)
async def test_an_error_of_the_network() -> None:
    await as_module(GONE)["test_a_peer_that_is_gone"]()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform")
@pytest.mark.anyio
@runs(ANSWER)
async def test_a_server_that_answers() -> None:
    await as_module(ANSWER)["test_an_answer"]()
