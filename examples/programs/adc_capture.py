"""Capture the stream of a converter card into one array, and say what is missing, and why.

    python -m pip install -e . numpy matplotlib
    python examples/programs/adc_capture.py --packets 20000 --out capture.npy --png spectrum.png
    python examples/programs/adc_capture.py --host 192.168.33.30 --packets 600000 --idle 5

It reads what TI's DCA1000 sends of a radar: datagrams of 1,466 bytes with a sequence number from 1
on, the number of bytes sent before it, and 728 samples of 16 bits; up to 706 Mbit/s, some 60,000
packets a second. `adc_card.py` stands in for the card. Packets are never touched one by one: a
batch is an array with a row for each (`PacketBatch.columns`), whose samples are copied to where
their numbers say, so their order does not matter.

It ends when the array is complete, when the stream is past it, `--idle` seconds after the last
packet, or at Ctrl-C or SIGTERM (a second one ends it at once). Then it writes the samples, an
array (packets, 728) of int16 in `.npy`, with zeros where a packet is missing; beside it the
numbers of the missing packets; and a picture of the spectrum. What is missing was dropped by the
kernel, as far as that says so (its buffer was too small, or this machine too slow: `--buffer`), or
lost on the way: the rest. The exit status is 1 if anything is missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import anyio

from anyio_mmsg import Columns, PacketBatchPool, PacketReceiver, open_udp_socket
from shared import OneLineErrors, add_backend_option, announce, run_on, stop_on_signal

with OneLineErrors():
    import numpy as np

SAMPLES = 728  # of a packet
# Of the card's raw mode: u32, 48 bits, samples, all little-endian.
PACKET = np.dtype([("number", "<u4"), ("before", "<u2", 3), ("samples", "<i2", SAMPLES)])
PER_PACKET = 2 * SAMPLES  # bytes that the card counts

BATCH = 512  # packets of a wait: 8 ms of the fastest stream
PAST = 4096  # numbers behind the last one that is wanted, from which on none of those will come
CHUNK = 4096  # packets whose spectra are computed at once, to bound the memory


class Capture:
    """Samples, where their packets' numbers say.

    Args:
        packets: How many to keep.
        first: The number of the first one.

    Attributes:
        samples: A row for each packet, of zeros until it came.
        there: Which came.
        repeated: Packets that came again.
        outside: Packets with other numbers.
        malformed: Datagrams of another length, or whose two counts contradict each other.
        highest: The highest number, counted from the first; -1 before one came.
    """

    def __init__(self, packets: int, first: int = 1) -> None:
        self.samples = np.zeros((packets, SAMPLES), "<i2")
        self.there = np.zeros(packets, bool)
        self.first = first
        self.repeated = self.outside = self.malformed = 0
        self.highest = -1

    def place(self, columns: Columns) -> None:
        """Copy the samples of a batch to their places."""
        packets = np.asarray(columns.data)[:, : PACKET.itemsize].view(PACKET)[:, 0]
        numbers = packets["number"].astype(np.int64)
        before = packets["before"].astype(np.int64) @ [1, 1 << 16, 1 << 32]
        good = np.asarray(columns.wire_sizes) == PACKET.itemsize
        good &= before == (numbers - 1) * PER_PACKET
        self.malformed += len(good) - int(good.sum())
        places = numbers - self.first
        inside = good & (places >= 0) & (places < len(self.there))
        self.outside += int(good.sum()) - int(inside.sum())
        if good.any():
            self.highest = max(self.highest, int(places[good].max()))
        if inside.all() and (np.diff(places) == 1).all() and not self.there[places].any():
            kept, at = packets, slice(places[0], places[-1] + 1)  # as nearly always
        else:
            unique, rows = np.unique(places[inside], return_index=True)
            fresh = ~self.there[unique]
            self.repeated += int(inside.sum()) - int(fresh.sum())
            kept, at = packets[inside][rows[fresh]], unique[fresh]
        self.samples[at] = kept["samples"]
        self.there[at] = True

    def is_over(self) -> bool:
        """Whether the array is complete, or the stream past it."""
        return self.highest >= len(self.there) - 1 and (
            bool(self.there.all()) or self.highest >= len(self.there) + PAST
        )

    def missing(self) -> Any:
        """Return the numbers that are missing up to the last one that came, or is wanted."""
        reached = min(self.highest + 1, len(self.there))
        return np.flatnonzero(~self.there[:reached]) + self.first

    def spectrum(self) -> Any:
        """Return the mean power of the packets that came, in dB, by frequency up to a half."""
        power, count = np.zeros(SAMPLES // 2 + 1), 0
        for start in range(0, len(self.there), CHUNK):
            part = self.samples[start : start + CHUNK][self.there[start : start + CHUNK]]
            power += (np.abs(np.fft.rfft(part * np.hanning(SAMPLES))) ** 2).sum(axis=0)
            count += len(part)
        return 10 * np.log10(power / max(count, 1) + 1e-12)


def draw(decibels: Any, rate: float, path: Path) -> None:
    """Write a picture of the spectrum."""
    import matplotlib as mpl  # here, as only this needs it

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.plot(np.linspace(0, rate / 2e6, len(decibels)), decibels, linewidth=1)
    axes.set(xlabel="MHz", ylabel="dB", title="Mean spectrum of the capture")
    axes.grid(alpha=0.3)
    figure.savefig(path)
    plt.close(figure)


def report(capture: Capture, dropped: int | None) -> bool:
    """Print what came and what is missing, by cause; return whether all is there."""
    missing = capture.missing()
    by_kernel = min(dropped or 0, len(missing))
    known = "unknown" if dropped is None else f"{by_kernel:,}"
    print(
        f"{int(capture.there.sum()):,} of {len(capture.there):,} packets, missing "
        f"{len(missing):,}: dropped by kernel {known}, lost on the way "
        f"{len(missing) - by_kernel:,}; repeated {capture.repeated:,}, "
        f"malformed {capture.malformed:,}, outside {capture.outside:,}"
    )
    if capture.outside and not capture.there.any():
        print("the stream had begun before: start the card after this program, or give --first")
    ends = np.flatnonzero(np.diff(missing) > 1)
    for gap in np.split(missing, ends + 1)[:10] if len(missing) else ():
        print(f"missing {gap[0]:,} to {gap[-1]:,}" if len(gap) > 1 else f"missing {gap[0]:,}")
    return bool(capture.there.all())


def save(capture: Capture, path: Path) -> None:
    """Write the samples and the numbers of the missing packets; a file is whole, or as before."""
    beside = path.with_suffix(".missing.npy")
    for target, array in ((path, capture.samples), (beside, capture.missing())):
        part = target.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, array)
        part.replace(target)


async def receive(receiver: PacketReceiver, capture: Capture, idle: float) -> None:
    """Place what comes until the capture is over."""
    while not capture.is_over():
        batch = None
        try:
            with anyio.move_on_after(idle if capture.highest >= 0 else float("inf")):
                batch = await receiver.receive()
        except anyio.EndOfStream:
            return
        if batch is None:  # nothing came
            return
        with batch:
            capture.place(batch.columns())


async def run(options: argparse.Namespace) -> bool:
    """Capture, then write the files; return whether all is there."""
    sock = await open_udp_socket(options.host, options.port, receive_buffer_size=options.buffer)
    capture = Capture(options.packets, options.first)
    # One batch is enough: it is given back before the next is asked for.
    receiver = PacketReceiver(sock, PacketBatchPool(1, BATCH, PACKET.itemsize))
    async with receiver, anyio.create_task_group() as nursery:
        await nursery.start(stop_on_signal, receiver.stop, nursery.cancel_scope.cancel)
        announce(sock)
        await receive(receiver, capture, options.idle)
        nursery.cancel_scope.cancel()
    complete = report(capture, receiver.statistics().dropped_by_kernel)
    save(capture, options.out)
    if options.png:
        draw(capture.spectrum(), options.rate, options.png)
    return complete


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_backend_option(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=4098, help="the card's data port; 0: any")
    parser.add_argument("--packets", type=int, default=20_000, help="how many to capture")
    parser.add_argument("--first", type=int, default=1, help="number of the first one")
    parser.add_argument("--idle", type=float, default=2.0, help="seconds without a packet")
    parser.add_argument("--buffer", type=int, default=None, help="bytes of the socket's buffer")
    parser.add_argument("--out", type=Path, default=Path("capture.npy"), help="where to save")
    parser.add_argument("--png", type=Path, default=None, help="where to draw the spectrum")
    parser.add_argument("--rate", type=float, default=10e6, help="samples a second, to draw it")
    options = parser.parse_args()
    if options.packets < 1 or options.first < 1:
        parser.error("--packets and --first are at least 1")
    if not run_on(options.backend, run, options):
        sys.exit(1)


if __name__ == "__main__":
    with OneLineErrors():
        main()
