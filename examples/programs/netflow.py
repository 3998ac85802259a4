"""Collect NetFlow v5 from routers and probes, and append it to Parquet files.

    python -m pip install -e . numpy pyarrow
    python examples/programs/netflow.py --host 0.0.0.0 --port 2055 --out flows
    softflowd -i eth0 -n 192.0.2.7:2055 -v 5
    duckdb -c "select destination, sum(octets) from 'flows/*.parquet' group by all order by 2 desc"

An export is a header of 24 bytes and up to 30 records of 48. No Python object is made of a record:
a batch of exports is an array (`PacketBatch.columns`), and what comes out of it is an array of
flows. Every `--interval` seconds, or `--rows` flows, a file is written, by a thread: first beside
its place, then renamed. So a reader never sees a part of one, and after a crash or a kill each
file is whole or absent; what was not written yet is lost, an interval at most.

Exporters are told apart by address and engine. The sequence numbers of each show how many flows
did not arrive. Exports that are malformed are counted by cause, and so is what the kernel dropped.
Ctrl-C or SIGTERM stops it: what has arrived is written first. A second signal ends it at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from anyio_mmsg import Columns, PacketBatchPool, PacketReceiver, open_udp_socket
from shared import OneLineErrors, add_backend_option, announce, losses, run_on, stop_on_signal

with OneLineErrors():
    import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

TWO, FOUR, ONE = ">u2", ">u4", "u1"  # bytes of a number, as networks order them
HEADER = np.dtype(
    [
        *(("version", TWO), ("count", TWO), ("uptime", FOUR), ("seconds", FOUR)),
        *(("nanoseconds", FOUR), ("sequence", FOUR), ("engine", TWO), ("sampling", TWO)),
    ]
)
RECORD = np.dtype(
    [
        *(("source", FOUR), ("destination", FOUR), ("next_hop", FOUR), ("input", TWO)),
        *(("output", TWO), ("packets", FOUR), ("octets", FOUR), ("first", FOUR)),
        *(("last", FOUR), ("source_port", TWO), ("destination_port", TWO), ("pad", ONE)),
        *(("tcp_flags", ONE), ("protocol", ONE), ("tos", ONE), ("source_as", TWO)),
        *(("destination_as", TWO), ("source_mask", ONE), ("destination_mask", ONE)),
        ("pad2", TWO),
    ]
)
MOST = 30  # records of an export
LONGEST = HEADER.itemsize + MOST * RECORD.itemsize
COPIED = ["packets", "octets", "source_port", "destination_port", "protocol", "tcp_flags", "tos"]
COPIED += ["input", "output", "source_as", "destination_as"]

EXPORTERS = 1024  # are told apart: anybody can forge more
RESTART = 1 << 20  # flows: a sequence that jumps farther has begun anew


@dataclass
class Exporter:
    """What is known of one exporter."""

    expected: int | None = None  # the next sequence number
    flows: int = 0
    lost: int = 0
    restarts: int = 0

    def add(self, sequences: Any, counts: Any) -> None:
        """Take note of exports, in order of arrival: of the flows before each, and its own."""
        for sequence, count in zip(sequences.tolist(), counts.tolist(), strict=True):
            ahead = 0 if self.expected is None else (sequence - self.expected) % (1 << 32)
            behind = -ahead % (1 << 32)
            self.flows += count
            if min(ahead, behind) > RESTART:
                self.restarts += 1
            elif 0 < behind < ahead:  # late: it was taken for lost
                self.lost = max(0, self.lost - count)
                continue
            else:
                self.lost += ahead
            self.expected = (sequence + count) % (1 << 32)


class Collector:
    """Takes exports apart.

    Attributes:
        flows: Arrow tables of flows that are not written yet.
        rows: How many flows these are.
        malformed: Exports that were refused, by cause.
        exporters: By address and engine; all beyond `EXPORTERS` share the last entry.
    """

    def __init__(self) -> None:
        self.flows: list[pa.Table] = []
        self.rows = 0
        self.malformed: Counter[str] = Counter()
        self.exporters: dict[tuple[bytes, int], Exporter] = {}

    def add(self, columns: Columns) -> None:
        """Take a batch of exports."""
        rows = np.asarray(columns.data)
        headers = rows[:, : HEADER.itemsize].view(HEADER)[:, 0]
        sizes, counts = np.asarray(columns.wire_sizes), headers["count"].astype(np.int64)
        short, version = sizes < HEADER.itemsize, headers["version"] != 5
        many = (counts < 1) | (counts > MOST)
        length = sizes != HEADER.itemsize + counts * RECORD.itemsize
        good = np.ones(len(rows), bool)
        for cause, wrong in (
            ("too short", short),
            ("another version", version),
            ("no or too many records", many),
            ("length and count contradict", length),
        ):
            self.malformed[cause] += int((good & wrong).sum())
            good &= ~wrong
        if good.any():
            times = columns.timestamps
            received = np.full(len(rows), time.time_ns()) if times is None else np.asarray(times)
            hosts = np.asarray(columns.hosts)[good]
            self.follow(headers[good], hosts)
            records = rows[good, HEADER.itemsize :].view(RECORD)
            self.keep(headers[good], records, received[good], hosts)

    def follow(self, headers: Any, hosts: Any) -> None:
        """Take note of the sequence numbers of each exporter."""
        engines = headers["engine"].astype(">u2").view("u1").reshape(-1, 2)
        names, which = np.unique(np.column_stack([hosts, engines]), axis=0, return_inverse=True)
        for number, name in enumerate(names):
            key = (name[:16].tobytes(), int.from_bytes(name[16:].tobytes(), "big"))
            if key not in self.exporters and len(self.exporters) >= EXPORTERS:
                key = (b"", 0)
            of_it = headers[which.ravel() == number]
            exporter = self.exporters.setdefault(key, Exporter())
            exporter.add(of_it["sequence"], of_it["count"])

    def keep(self, headers: Any, records: Any, received: Any, hosts: Any) -> None:
        """Keep the flows of some exports as a table, a row for each."""
        import pyarrow as pa  # here, so that the command line can say that it is missing

        inside = np.arange(MOST) < headers["count"][:, None]
        flows, export = records[inside], np.nonzero(inside)[0]
        now = headers["seconds"].astype(np.int64) * 1000 + headers["nanoseconds"] // 1_000_000
        clock = now[export], headers["uptime"].astype(np.uint32)[export]
        columns = {
            "received": pa.array(received[export].view("M8[ns]")),
            "exporter": texts(hosts[export], address_of),
            "engine": pa.array(headers["engine"][export].astype(np.uint16)),
            "first": moments(*clock, flows["first"]),
            "last": moments(*clock, flows["last"]),
            "source": texts(flows["source"], ipv4_of),
            "destination": texts(flows["destination"], ipv4_of),
        }
        for name in COPIED:
            native = flows[name].dtype.newbyteorder("=")
            columns[name] = pa.array(flows[name].astype(native))
        self.flows.append(pa.table(columns))
        self.rows += len(flows)

    def take(self) -> pa.Table | None:
        """Return the flows that are not written yet, once; None if there are none."""
        import pyarrow as pa

        flows, self.flows, self.rows = self.flows, [], 0
        return pa.concat_tables(flows) if flows else None


def moments(now: Any, uptime: Any, then: Any) -> pa.Array:
    """Return times by an exporter's uptime: milliseconds that begin anew in 49 days."""
    import pyarrow as pa

    age = (uptime - then.astype(np.uint32)).astype(np.uint32).view(np.int32)
    return pa.array((now - age).view("M8[ms]"))


def texts(values: Any, text_of: Any) -> pa.Array:
    """Return texts of values, each different one made once."""
    import pyarrow as pa

    different, which = np.unique(values, axis=0, return_inverse=True)
    made = pa.array([text_of(value) for value in different], pa.string())
    return made.take(pa.array(which.ravel()))


def ipv4_of(number: Any) -> str:
    """Return an IPv4 address as text."""
    return str(IPv4Address(int(number)))


def address_of(host: Any) -> str:
    """Return what `Columns.hosts` has as text, an IPv4 address in its own form."""
    address = IPv6Address(bytes(host))
    return str(address.ipv4_mapped or address)


def write(table: pa.Table, folder: Path, number: int) -> Path:
    """Write a file of one row group, so that it is there as a whole or not at all."""
    import pyarrow.parquet as pq

    target = folder / f"{time.time_ns()}-{os.getpid()}-{number:06}.parquet"
    part = target.with_suffix(".part")
    with part.open("wb") as file:
        pq.write_table(table, file, row_group_size=max(1, len(table)), compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)
    if sys.platform != "win32":  # or the name may be lost where the machine loses its power
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    return target


class Writer:
    """Writes what the collector has."""

    def __init__(self, collector: Collector, folder: Path) -> None:
        self.collector, self.folder = collector, folder
        self.files = self.written = 0
        self.wanted = anyio.Event()

    async def flush(self) -> None:
        """Write what there is."""
        table = self.collector.take()
        if table is None:
            return
        self.files += 1
        # As a whole, even if the program ends meanwhile.
        with anyio.CancelScope(shield=True):
            path = await anyio.to_thread.run_sync(write, table, self.folder, self.files)
            self.written += len(table)
            print(f"wrote {len(table):,} flows to {path.name}", flush=True)

    async def work(self, interval: float) -> None:
        """Write at each interval, and when it is wanted."""
        while True:
            with anyio.move_on_after(interval):
                await self.wanted.wait()
            self.wanted = anyio.Event()
            await self.flush()


async def run(options: argparse.Namespace) -> None:
    """Collect until Ctrl-C."""
    linux = sys.platform == "linux"  # whose kernel says when packets came
    sock = await open_udp_socket(
        options.host, options.port, timestamps=linux, receive_buffer_size=options.buffer
    )
    options.out.mkdir(parents=True, exist_ok=True)
    receiver = PacketReceiver(sock, PacketBatchPool(1, 512, LONGEST, ancillary=linux))
    collector = Collector()
    writer = Writer(collector, options.out)
    async with receiver, anyio.create_task_group() as nursery:
        await nursery.start(stop_on_signal, receiver.stop, nursery.cancel_scope.cancel)
        announce(sock)
        nursery.start_soon(writer.work, options.interval)
        async for batch in receiver:
            with batch:
                collector.add(batch.columns())
            if collector.rows >= options.rows:
                writer.wanted.set()
        nursery.cancel_scope.cancel()
    await writer.flush()
    print(
        f"{receiver.statistics().packets:,} exports, {writer.written:,} flows written; "
        f"{losses(receiver.statistics())}"
    )
    for cause, count in collector.malformed.items():
        if count:
            print(f"malformed, {cause}: {count:,}")
    for (host, engine), seen in collector.exporters.items():
        name = f"{address_of(host)} engine {engine}" if host else "all others"
        print(f"{name}: {seen.flows:,} flows, {seen.lost:,} lost, {seen.restarts:,} restarts")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_backend_option(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=2055, help="0: any")
    parser.add_argument("--out", type=Path, default=Path("flows"), help="folder of the files")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between files")
    parser.add_argument("--rows", type=int, default=500_000, help="flows that make a file, too")
    parser.add_argument("--buffer", type=int, default=None, help="bytes of the socket's buffer")
    options = parser.parse_args()
    importlib.import_module("pyarrow")  # not missing at the first export
    run_on(options.backend, run, options)


if __name__ == "__main__":
    with OneLineErrors():
        main()
