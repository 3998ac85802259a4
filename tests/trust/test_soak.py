"""The soak for an instant, and that it finds the faults that it is there to find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import anyio_mmsg
from anyio_mmsg import compiled

from ..helpers import by_pythons_allocator

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(sys.platform != "linux", reason="the soak needs Linux"),
    by_pythons_allocator,
]
if sys.platform == "linux":
    from .soak.flat import ALLOWED, LEAST_ROUNDS, History, Sample
    from .soak.ledger import FaultError, Flow, Ledger, Totals, elsewhere, settle

SLOT_SIZE = 100


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    package = str(Path(anyio_mmsg.__file__).parent.parent)
    engine = "recvmmsg" if compiled else "plain"
    command = [sys.executable, "-m", "tests.trust.soak", "--minutes", "0.01", "--senders", "1"]
    return subprocess.run(
        [*command, "--engine", engine, *arguments],
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([package, *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_instant_on_each_loop(anyio_backend_name: str, anyio_backend: object) -> None:
    name = "uvloop" if "use_uvloop" in str(anyio_backend) else anyio_backend_name
    done = soak("--backend", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all accounted for, nothing grew" in done.stdout


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        ("lost", "packets are missing"),
        ("duplicated", "twice"),
        ("corrupted", "corrupted"),
        ("descriptor", "descriptors grew"),
        ("memory", "blocks grew"),
    ],
)
def test_a_fault_is_found(plant: str, says: str) -> None:
    done = soak("--backend", "asyncio", "--plant", plant)
    assert done.returncode == 1, done.stdout + done.stderr
    assert says in done.stderr
    assert "repeat with: python -m tests.trust.soak --backend asyncio --engine" in done.stderr


def ledger() -> Ledger:
    return Ledger(Flow(3, SLOT_SIZE), 0, SLOT_SIZE)


def long_ones(flow: Flow, more: bool = False) -> list[int]:
    """Numbers of packets that have one, of those that are cut if `more`."""
    least = SLOT_SIZE + 1 if more else 8
    return [number for number in range(500) if least <= flow.size(number) <= 1000]


def test_packets_may_come_late_and_once() -> None:
    books = ledger()
    numbers = long_ones(books.flow)
    for number in [numbers[1], numbers[0], *numbers[2:]]:
        data = books.flow.packet(number)
        books.take(data[:SLOT_SIZE], len(data))
    assert books.count == len(numbers)
    with pytest.raises(FaultError, match="twice"):
        books.take(books.flow.packet(numbers[0])[:SLOT_SIZE], books.flow.size(numbers[0]))


@pytest.mark.parametrize("at", [0, 7, 8, -1])
def test_each_byte_is_looked_at(at: int) -> None:
    books = ledger()
    number = long_ones(books.flow, more=True)[0]
    data = bytearray(books.flow.packet(number)[:SLOT_SIZE])
    data[at] ^= 0x80
    with pytest.raises(FaultError):
        books.take(bytes(data), books.flow.size(number))


def test_lengths_are_looked_at() -> None:
    number = long_ones(ledger().flow, more=True)[0]
    data = ledger().flow.packet(number)
    with pytest.raises(FaultError, match="corrupted"):
        ledger().take(data[: SLOT_SIZE - 1], len(data))
    with pytest.raises(FaultError, match="bytes long"):
        ledger().take(data[:SLOT_SIZE], len(data) - 1)
    with pytest.raises(FaultError, match="is said"):
        ledger().take(b"", 1)


def test_what_is_forgotten_does_not_come_again() -> None:
    books = ledger()
    number = long_ones(books.flow)[0]
    for page in range(Ledger.PAGES + 1):
        later = page * Ledger.PAGE + number
        books.take(books.flow.packet(later)[:SLOT_SIZE], books.flow.size(later))
    with pytest.raises(FaultError, match=r"twice|late"):
        books.take(books.flow.packet(number)[:SLOT_SIZE], books.flow.size(number))


@pytest.mark.parametrize("wrong", [{"sent": 1}, {"received": 1}, {"unread": 1}])
def test_an_account_that_does_not_balance(wrong: dict[str, int]) -> None:
    totals = Totals(sent=6, received=3, dropped_by_kernel=2, unread=1)
    settle("this", totals, elsewhere())
    totals.add(Totals(**wrong))
    with pytest.raises(FaultError, match="this: 1 "):
        settle("this", totals, 1 << 62)


@pytest.mark.parametrize("growing", ["rss", "blocks", "descriptors", "threads", "tasks"])
def test_growth_is_found_and_noise_is_not(growing: str) -> None:
    flat, grows = History(), History()
    for turn in range(3 * LEAST_ROUNDS):
        values = dict.fromkeys(ALLOWED, 1000)
        flat.add(Sample(**values))
        values[growing] += (ALLOWED[growing] // 10 + 1) * turn
        grows.add(Sample(**values))
    once = dict.fromkeys(ALLOWED, 1000)
    once[growing] *= 1_000_000  # a single sample says nothing
    flat.add(Sample(**once))
    flat.judge("this")
    with pytest.raises(FaultError, match=f"this: {growing} grew"):
        grows.judge("this")
