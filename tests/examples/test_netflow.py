"""netflow.py: its parts, run as a user would, and fed by an exporter that others wrote."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from anyio_mmsg.testing import Datagram, make_batch

from .helpers import BUFFER, Program, each_backend, load, running, without_signals

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed; the group 'dev' has it")
dataset = pytest.importorskip("pyarrow.dataset")
netflow = load("netflow")

SECONDS = 1_700_000_000


def record(**fields: int) -> bytes:
    made = np.zeros(1, netflow.RECORD)
    for name, value in fields.items():
        made[name] = value
    return bytes(made.tobytes())


def export(*records: bytes, sequence: int = 0, engine: int = 0, **header: int) -> bytes:
    made = np.zeros(1, netflow.HEADER)
    fields = {"version": 5, "count": len(records), "seconds": SECONDS, "uptime": 10_000}
    for name, value in (fields | {"sequence": sequence, "engine": engine} | header).items():
        made[name] = value
    return bytes(made.tobytes()) + b"".join(records)


def collected(*exports: bytes, sender: Any = ("192.0.2.1", 5)) -> Any:
    collector = netflow.Collector()
    add(collector, *exports, sender=sender)
    return collector


def add(collector: Any, *exports: bytes, sender: Any = ("192.0.2.1", 5)) -> None:
    packets = [Datagram(data, sender) for data in exports]
    with make_batch(packets, slot_size=netflow.LONGEST) as batch:
        collector.add(batch.columns())


def test_layouts() -> None:
    """Of Cisco's documentation of version 5."""
    assert (netflow.HEADER.itemsize, netflow.RECORD.itemsize) == (24, 48)
    assert netflow.LONGEST == 1464
    assert netflow.RECORD.fields["octets"][1] == 20
    assert netflow.RECORD.fields["protocol"][1] == 38
    assert netflow.RECORD.fields["destination_as"][1] == 42


def test_flows_are_decoded() -> None:
    one = record(
        source=0x0A000001, destination=0xC0000202, packets=3, octets=2**32 - 1, first=4_000,
        last=9_999, source_port=53, destination_port=65_535, protocol=17, source_as=64_496,
    )  # fmt: skip
    collector = collected(export(one, record(source=1)), export(record(), sequence=2))
    assert collector.rows == 3
    flows = collector.take().drop_columns(["received"]).to_pylist()
    assert collector.take() is None
    first = flows[0]
    assert (first["source"], first["destination"]) == ("10.0.0.1", "192.0.2.2")
    assert (first["packets"], first["octets"]) == (3, 2**32 - 1)
    assert (first["source_port"], first["destination_port"], first["protocol"]) == (53, 65535, 17)
    assert first["source_as"] == 64_496
    assert first["exporter"] == "192.0.2.1"
    assert first["first"].timestamp() == pytest.approx(first["last"].timestamp() - 5.999)
    assert flows[1]["source"] == "0.0.0.1"
    assert flows[2]["source"] == "0.0.0.0"


def test_times_by_an_uptime_that_began_anew() -> None:
    """A flow that began before the exporter's clock of 32 bits was full."""
    collector = collected(export(record(first=2**32 - 500, last=400), uptime=1_000))
    table = collector.take()
    first, last = (int(table[name].cast(pa.int64())[0]) for name in ("first", "last"))
    assert (first, last) == (SECONDS * 1000 - 1_500, SECONDS * 1000 - 600)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "too short"),
        (export(record())[:23], "too short"),
        (export(record(), version=9), "another version"),
        (export(), "no or too many records"),
        (export(*[record()] * 31), "no or too many records"),
        (export(record())[:-1], "length and count contradict"),
        (export(record(), record(), count=1), "length and count contradict"),
        (export(record(), count=2), "length and count contradict"),
    ],
)
def test_malformed_exports(data: bytes, cause: str) -> None:
    collector = collected(export(record()), data, export(record(), sequence=1))
    assert {name: n for name, n in collector.malformed.items() if n} == {cause: 1}
    assert collector.rows == 2
    assert [seen.lost for seen in collector.exporters.values()] == [0]


def test_the_longest_export() -> None:
    collector = collected(export(*[record(packets=n) for n in range(30)]))
    assert collector.take()["packets"].to_pylist() == list(range(30))


def test_exporters_are_told_apart() -> None:
    collector = netflow.Collector()
    one, other = ("192.0.2.1", 5), ("2001:db8::1", 5, 0, 0)
    add(collector, export(record(), sequence=7), sender=one)
    add(collector, export(record(), sequence=99), sender=other)
    add(
        collector, export(record(), sequence=3, engine=1), export(record(), sequence=9), sender=one
    )
    found = {
        (netflow.address_of(host), engine): (seen.flows, seen.lost)
        for (host, engine), seen in collector.exporters.items()
    }
    assert found == {
        ("192.0.2.1", 0): (2, 1),
        ("192.0.2.1", 1): (1, 0),
        ("2001:db8::1", 0): (1, 0),
    }


@pytest.mark.parametrize(
    ("exports", "lost", "restarts"),
    [
        ([(0, 2), (2, 3), (5, 1)], 0, 0),
        ([(10, 2), (15, 1)], 3, 0),
        ([(0, 2), (5, 2), (2, 3), (7, 1)], 0, 0),  # the second came before the third
        ([(2**32 - 1, 2), (1, 1)], 0, 0),
        ([(2**32 - 2, 1), (1, 1)], 2, 0),
        ([(2**30, 5), (0, 2), (2, 2)], 0, 1),
    ],
)
def test_sequences(exports: list[tuple[int, int]], lost: int, restarts: int) -> None:
    exporter = netflow.Exporter()
    sequences, counts = np.array(exports).T
    exporter.add(sequences, counts)
    assert (exporter.lost, exporter.restarts) == (lost, restarts)
    assert exporter.flows == counts.sum()


def test_forged_exporters_are_bounded() -> None:
    collector = netflow.Collector()
    for number in range(netflow.EXPORTERS + 5):
        add(collector, export(record()), sender=(f"10.0.{number // 256}.{number % 256}", 1))
    assert len(collector.exporters) == netflow.EXPORTERS + 1
    assert collector.exporters[b"", 0].flows == 5


# The program


class Collecting:
    """The program at work, and what it has written."""

    def __init__(self, stack: ExitStack, folder: Path, *options: str) -> None:
        self.folder = folder
        arguments = ["--port", "0", "--out", str(folder), "--buffer", BUFFER, *options]
        self.program: Program = stack.enter_context(running("netflow.py", *arguments))
        self.address = self.program.address()

    def send(self, *exports: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for data in exports:
                sock.sendto(data, self.address)

    def flows(self) -> Any:
        files = sorted(self.folder.glob("*.parquet"))
        return dataset.dataset(files, format="parquet").to_table() if files else None


@without_signals
@each_backend
def test_a_collector(tmp_path: Path, backend: str) -> None:
    options = ["--interval", "600", "--backend", backend]
    with ExitStack() as stack:
        collecting = Collecting(stack, tmp_path / "flows", *options)
        records = [[record(packets=20 * e + n) for n in range(20)] for e in range(5)]
        collecting.send(*(export(*r, sequence=20 * e) for e, r in enumerate(records)), b"junk")
        lines = collecting.program.stop(signal.SIGTERM)
        assert lines[1:] == [
            "6 exports, 100 flows written; dropped by kernel 0",
            "malformed, too short: 1",
            "127.0.0.1 engine 0: 100 flows, 0 lost, 0 restarts",
        ]
        table = collecting.flows()
    assert table["packets"].to_pylist() == list(range(100))
    assert set(table["exporter"].to_pylist()) == {"127.0.0.1"}
    assert not list((tmp_path / "flows").glob("*.part"))


@without_signals
def test_a_kill_leaves_whole_files(tmp_path: Path) -> None:
    with ExitStack() as stack:
        collecting = Collecting(stack, tmp_path, "--interval", "600", "--rows", "30")
        for turn in range(3):
            collecting.send(export(*[record(packets=turn)] * 30, sequence=30 * turn))
            assert collecting.program.line().startswith("wrote 30 flows")
        collecting.send(export(record(packets=9), sequence=90))  # is not written yet
        collecting.program.process.kill()
        collecting.program.process.wait()
        assert collecting.flows()["packets"].to_pylist() == [0] * 30 + [1] * 30 + [2] * 30


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    table = collected(export(record())).take()

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(netflow.os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        netflow.write(table, tmp_path, 1)
    assert not list(tmp_path.glob("*.parquet"))


def capture(path: Path) -> None:
    """Write a capture of 20 UDP packets, in 4 flows (the format of libpcap, of raw IP)."""
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for number in range(20):
        udp = struct.pack("!HHHH", 1000 + number % 4, 53, 8 + 100, 0) + bytes(100)
        hosts = bytes([10, 0, 0, 1]), bytes([192, 0, 2, 1 + number % 4])
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), number, 0, 64, 17, 0, *hosts)
        size = len(head) + len(udp)
        data += struct.pack("<IIII", SECONDS + number, 0, size, size) + head + udp
    path.write_bytes(data)


@without_signals
@pytest.mark.skipif(shutil.which("softflowd") is None, reason="softflowd is not installed")
def test_of_softflowd(tmp_path: Path) -> None:
    """An exporter that others wrote, of a capture."""
    capture(tmp_path / "capture.pcap")
    with ExitStack() as stack:
        collecting = Collecting(stack, tmp_path / "flows", "--interval", "0.2")
        host, port = collecting.address
        reading = ["-d", "-r", str(tmp_path / "capture.pcap"), "-v", "5"]
        done = subprocess.run(
            ["softflowd", *reading, "-n", f"{host}:{port}"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        if done.returncode and "ermission" in done.stderr:
            pytest.skip(f"softflowd: {done.stderr}")
        assert done.returncode == 0, done.stderr
        assert "wrote 4 flows" in collecting.program.line_with("wrote")
        lines = collecting.program.stop(signal.SIGTERM)
        assert lines[-1] == "127.0.0.1 engine 0: 4 flows, 0 lost, 0 restarts"
        table = collecting.flows()
        rows = table.drop_columns(["received"]).to_pylist()
        assert table["received"].null_count == 0
    found = {(row["source"], row["destination"], row["source_port"]): row for row in rows}
    assert set(found) == {("10.0.0.1", f"192.0.2.{1 + n}", 1000 + n) for n in range(4)}
    for row in rows:
        assert (row["protocol"], row["destination_port"]) == (17, 53)
        assert (row["packets"], row["octets"]) == (5, 5 * 128)
        assert (row["last"] - row["first"]).total_seconds() == 16
