"""The kept inputs of the fuzzer's targets, and faults that the targets have to see.

``python -m tests.trust.fuzz`` searches for more. What a target found once is kept with a comment.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import anyio_mmsg
from anyio_mmsg._packets.slots import Slots as PlainSlots
from anyio_mmsg._receive import recvfrom_into
from anyio_mmsg._system import addresses, control, sockaddr, stamps
from anyio_mmsg._system.platform import why_no_batch_calls
from anyio_mmsg._tools import probes, sequence_numbers
from anyio_mmsg._tools.spread import Spread

from ..examples.helpers import load as example
from .fuzz import CORPUS, corpus, load
from .fuzz import __main__ as command
from .fuzz.kernel import before_libc

ROOT = Path(__file__).parent.parent.parent
PACKAGE = str(Path(anyio_mmsg.__file__).parent.parent)
TARGETS = load()
NAMES = sorted(path.stem for path in CORPUS.glob("*.txt"))


def replay(target: str) -> None:
    """Run a target on all that is kept for it; a failure says on which input."""
    for data in corpus(target):
        try:
            TARGETS[target](data)
        except Exception as error:
            again = f"python -m tests.trust.fuzz {target} --repeat {data.hex()}"
            raise AssertionError(f"repeat with: {again}") from error


def test_every_target_has_a_corpus() -> None:
    assert set(TARGETS) <= set(NAMES)
    assert sum(path.stat().st_size for path in CORPUS.iterdir()) < 200_000


@pytest.mark.parametrize("target", NAMES)
def test_what_is_kept(target: str) -> None:
    if target not in TARGETS:
        pytest.skip("what its example needs is not installed")
    replay(target)


needs_a_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc").split()[0]) is None,
    reason="no C compiler to build a kernel with",
)
needs_batch_calls = pytest.mark.skipif(bool(why_no_batch_calls()), reason=why_no_batch_calls())


def in_a_process(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose calls of recvmmsg a test can answer."""
    with tempfile.TemporaryDirectory() as folder:
        variables = before_libc(folder)
        variables["PYTHONPATH"] = os.pathsep.join([PACKAGE, *sys.path])
        return subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", program],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )


@needs_batch_calls
@needs_a_compiler
def test_what_is_kept_against_the_compiled_engine() -> None:
    done = in_a_process(
        """if True:
        from tests.trust.fuzz import rings
        from tests.trust.test_corpus import replay

        assert rings.can_answer()
        replay("receive")
        """
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_batch_calls
@needs_a_compiler
def test_a_fault_in_one_engine_alone_shows() -> None:
    done = in_a_process(
        """if True:
        from anyio_mmsg._system.addresses import ADDRESSES, AddressCache
        from tests.trust.test_corpus import replay

        class Wrong(AddressCache):
            def __missing__(self, raw):
                address = super().__missing__(raw)
                return address + "x" if type(address) is str else address

        from tests.trust.fuzz import rings
        rings.ADDRESSES = Wrong()
        replay("receive")
        """
    )
    assert (
        "AssertionError: repeat with: python -m tests.trust.fuzz receive --repeat" in done.stderr
    )


# Planted faults, by target: whose attribute becomes what.

FAULTS: list[tuple[str, Callable[[], Any], str, Any]] = [
    ("sockaddr", lambda: sockaddr, "_INET", struct.Struct("<2xH4s8x")),  # a port turned round
    ("sockaddr", lambda: sockaddr, "_INET", struct.Struct("!2xH4s")),  # takes one that was cut
    ("sockaddr", lambda: sockaddr, "_SCOPE_ID", struct.Struct("!I")),
    ("bounded", lambda: addresses, "ADDRESS_CACHE_SIZE", 10**9),
    ("address", lambda: sockaddr, "_port", lambda port: port & 0xFFFF),
    ("address", lambda: sockaddr, "_PATH_SIZE", 1000),
    ("control", lambda: stamps, "_TWO_LONGS", struct.Struct("=QQ")),
    ("control", lambda: control, "IP_PKTINFO", 9),
    ("control", lambda: control, "_HEADER", struct.Struct("@nI4x")),
    ("trains", lambda: PlainSlots, "_count", lambda self, slot: 1),
    ("receive", lambda: PlainSlots, "addresses", lambda self, *range: [None] * self.held),
    ("receive", lambda: recvfrom_into, "segment_of", lambda messages, cut: 0),
    ("syslog", lambda: example("syslog_messages").Message, "__str__", lambda self: self.text),
    ("statsd", lambda: example("statsd_metrics"), "LARGEST", math.inf),
    ("statsd", lambda: example("statsd_metrics").Metrics, "take_room", lambda *given: True),
    ("dns", lambda: example("dns_answers.answerer"), "refuse", lambda wire, rcode: wire),
    ("dns", lambda: example("dns_answers.wire"), "LARGEST_SIZE", 9000),
    ("latency", lambda: probes, "MAGIC", b"lat2"),
    ("latency", lambda: sequence_numbers, "SENDERS", 0),
    ("latency", lambda: Spread, "quantile", lambda self, share: share),
    ("loopback", lambda: example("loopback"), "read_packet", lambda data: 5),
]


@pytest.mark.parametrize(
    ("target", "owner", "name", "wrong"), FAULTS, ids=[f"{t}-{name}" for t, _, name, _ in FAULTS]
)
def test_a_planted_fault_shows(
    target: str,
    owner: Callable[[], Any],
    name: str,
    wrong: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if target not in TARGETS:
        pytest.skip("what its example needs is not installed")
    monkeypatch.setattr(owner(), name, wrong)
    with pytest.raises(AssertionError, match=f"tests.trust.fuzz {target} --repeat"):
        replay(target)


def test_faults_are_planted_for_every_target() -> None:
    assert {target for target, *_ in FAULTS} == set(NAMES)


# The command


def test_what_the_fuzzer_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("ANYIO_MMSG_COMPILED", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert command.why_not(["dns"]) == ""
    assert "apt-get install clang libclang-rt-dev" in command.why_not(["dns", "receive"])
    monkeypatch.setattr(shutil, "which", lambda name: name == "clang-14" or None)
    assert command.why_not(["receive"]) == ""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install atheris" in command.why_not(["dns"])


def test_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written by hand stays; of the rest the shortest, up to a bound."""
    monkeypatch.setattr(command, "CORPUS", tmp_path)
    monkeypatch.setattr(command, "MOST_KEPT", 12)
    by_hand = "# expected\n00ff\n# once wrong\n01\n"
    path = tmp_path / "dns.txt"
    path.write_text(f"{by_hand}{command.GENERATED}abcd\n")
    command.write([b"\1", b"\2\2", b"\3\3\3", b"\4" * 4], tmp_path / "found")
    command.save("dns", tmp_path / "found")
    assert path.read_text() == f"{by_hand}{command.GENERATED}0202\n030303\n"
    monkeypatch.setattr("tests.trust.fuzz.CORPUS", tmp_path)
    assert list(corpus("dns")) == [b"\0\xff", b"\1", b"\2\2", b"\3\3\3"]
