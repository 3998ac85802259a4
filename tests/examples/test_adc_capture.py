"""adc_capture.py, fed by adc_card.py, and its parts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from anyio_mmsg.testing import fill_batch, make_batch

from .helpers import BUFFER, each_backend, load, numbers, running, without_signals

np = pytest.importorskip("numpy")
capture_of = load("adc_capture")
card = load("adc_card")

COUNTS = (
    "# of # packets, missing #: dropped by kernel #, lost on the way #; repeated #, malformed #"
)
SIZE = card.PACKET.itemsize


def packets(count: int) -> list[bytes]:
    data = card.make(count)
    return [data[at : at + SIZE] for at in range(0, len(data), SIZE)]


def placed(*batches: list[bytes], wanted: int, first: int = 1) -> Any:
    capture = capture_of.Capture(wanted, first)
    for batch in batches:
        with make_batch(batch, slot_size=SIZE) as made:
            capture.place(made.columns())
    return capture


def test_packets_are_as_the_card_sends_them() -> None:
    assert SIZE == 1466
    first, second = packets(2)
    assert first[:10] == b"\1\0\0\0" + bytes(6)
    assert second[:10] == b"\2\0\0\0" + (1456).to_bytes(6, "little")


def test_samples_are_placed_by_number() -> None:
    sent = packets(6)
    capture = placed([sent[1], sent[0]], [sent[4], sent[2], sent[4]], wanted=5)
    assert capture.there.tolist() == [True, True, True, False, True]
    assert capture.missing().tolist() == [4]
    assert (capture.repeated, capture.outside, capture.malformed) == (1, 0, 0)
    for number in (0, 1, 2, 4):
        assert capture.samples[number].tobytes() == sent[number][10:]
    assert not capture.samples[3].any()
    assert not capture.is_over()


def test_around_the_end_of_the_ring() -> None:
    """Where `columns` copies, the samples are the same."""
    sent = packets(5)
    capture = capture_of.Capture(5)
    with make_batch(sent[:3], slot_size=SIZE, capacity=4) as batch:
        capture.place(batch.columns())
        batch.release(2)
        fill_batch(batch, sent[3:])
        capture.place(batch.columns())
    assert capture.there.all()
    assert capture.samples.tobytes() == b"".join(data[10:] for data in sent)
    assert capture.repeated == 1


def test_what_is_not_a_packet_of_the_stream() -> None:
    good = packets(3)
    contradicts = good[1][:4] + good[2][4:]
    bad = [b"", b"x", good[0][:-1], good[0] + b"x", contradicts, good[2]]
    capture = placed(bad, wanted=2)
    assert (capture.malformed, capture.outside) == (5, 1)
    assert not capture.there.any()
    assert capture.missing().tolist() == [1, 2]


def test_a_stream_that_goes_past_ends_it() -> None:
    capture = placed(packets(3), wanted=4)
    assert not capture.is_over()
    later = np.zeros(1, card.PACKET)
    number = 4 + capture_of.PAST + 1
    later["number"] = number
    before = (number - 1) * 1456
    later["before"] = [before & 0xFFFF, before >> 16 & 0xFFFF, before >> 32]
    with make_batch([later.tobytes()], slot_size=SIZE) as batch:
        capture.place(batch.columns())
    assert capture.is_over()
    assert capture.missing().tolist() == [4]


def test_the_spectrum_has_its_peak_where_the_sine_is() -> None:
    decibels = placed(packets(3), wanted=4).spectrum()
    assert int(np.argmax(decibels)) == 728 // 8


def test_faults_on_demand() -> None:
    sent = card.order(100, 5, 7, 11)
    assert len(sent) == 102
    assert len(set(sent)) == 95
    assert sent != sorted(sent)
    assert sent == card.order(100, 5, 7, 11)
    assert card.order(100, 0, 0, 0) == list(range(100))


def run(folder: Path, faults: list[str], *options: str, backend: str = "asyncio") -> list[str]:
    """Capture 100 packets, which fit into the socket's buffer whatever the scheduler does."""
    out = str(folder / "capture.npy")
    arguments = ["--port", "0", "--packets", "100", "--out", out, "--buffer", BUFFER, *options]
    with running("adc_capture.py", "--backend", backend, *arguments) as program:
        host, port = program.address()
        with running("adc_card.py", host, str(port), "--packets", "100", *faults) as sender:
            assert sender.end()[0].startswith("sent")
        assert program.process.stdout is not None
        lines: list[str] = program.process.stdout.read().splitlines()
        assert program.process.stderr is not None
        assert program.process.stderr.read() == ""
        assert program.process.wait() == (1 if "--gaps" in faults else 0)
    return lines


@each_backend
def test_a_stream_without_faults(tmp_path: Path, backend: str) -> None:
    options = ["--png", str(tmp_path / "a.png")] if importlib.util.find_spec("matplotlib") else []
    lines = run(tmp_path, [], *options, backend=backend)
    assert numbers(lines[0], COUNTS) == (100, 100, 0, 0, 0, 0, 0)
    samples = np.load(tmp_path / "capture.npy")
    assert samples.shape == (100, 728)
    assert samples.tobytes() == b"".join(data[10:] for data in packets(100))
    assert np.load(tmp_path / "capture.missing.npy").tolist() == []
    if options:
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_gaps_repeats_and_swaps(tmp_path: Path) -> None:
    faults = ["--gaps", "5", "--repeats", "7", "--swaps", "11"]
    lines = run(tmp_path, faults, "--idle", "0.2")
    assert numbers(lines[0], COUNTS) == (95, 100, 5, 0, 5, 7, 0)
    left_out = sorted(set(range(100)) - set(card.order(100, 5, 7, 11)))
    missing = [number + 1 for number in left_out]
    assert np.load(tmp_path / "capture.missing.npy").tolist() == missing
    samples = np.load(tmp_path / "capture.npy")
    assert not samples[left_out].any()
    expected = [data[10:] for number, data in enumerate(packets(100)) if number not in left_out]
    assert np.delete(samples, left_out, axis=0).tobytes() == b"".join(expected)


@without_signals
def test_ctrl_c_saves_what_came(tmp_path: Path) -> None:
    out = tmp_path / "capture.npy"
    with running("adc_capture.py", "--port", "0", "--packets", "9", "--out", str(out)) as program:
        program.address()
        program.process.send_signal(2)
        assert program.process.stdout is not None
        assert "0 of 9 packets" in program.process.stdout.read()
        assert program.process.wait() == 1
    assert not np.load(out).any()
