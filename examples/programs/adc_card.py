"""Stand in for a converter card: send numbered packets of samples, with faults on demand.

    python -m pip install -e . numpy
    python examples/programs/adc_card.py 127.0.0.1 4098 --packets 20000 --mbit 706
    python examples/programs/adc_card.py 127.0.0.1 4098 --packets 1000 --gaps 5 --swaps 20

It sends what `adc_capture.py` reads: a sine wave in packets of TI's DCA1000. A gap leaves a packet
out, a repeat sends one again, a swap exchanges two neighbours; which ones is the same in each run.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

import anyio

from anyio_mmsg import open_udp_socket, send_mmsg
from shared import OneLineErrors, add_backend_option, run_on

with OneLineErrors():
    import numpy as np

SAMPLES = 728
PACKET = np.dtype([("number", "<u4"), ("before", "<u2", 3), ("samples", "<i2", SAMPLES)])
TURN = 64  # packets between two looks at the clock


def make(count: int) -> bytes:
    """Return packets 1 to `count`, one after the other."""
    packets: Any = np.zeros(count, PACKET)
    packets["number"] = np.arange(1, count + 1)
    before = np.arange(count, dtype=np.int64) * 2 * SAMPLES
    packets["before"] = np.stack([before >> shift & 0xFFFF for shift in (0, 16, 32)], axis=1)
    phase = np.arange(count * SAMPLES).reshape(count, SAMPLES) * (2 * np.pi * 0.125)
    packets["samples"] = 8000 * np.sin(phase)
    data: bytes = packets.tobytes()
    return data


def order(count: int, gaps: int, repeats: int, swaps: int) -> list[int]:
    """Return which packets to send, counted from 0, with so many faults; always the last."""
    chance = random.Random(count)
    left_out = set(chance.sample(range(count - 1), gaps))
    sent = [number for number in range(count) if number not in left_out]
    for at in chance.sample(range(len(sent) - 1), repeats):
        sent.insert(at, sent[at])
    for at in chance.sample(range(len(sent) - 2), swaps):
        sent[at], sent[at + 1] = sent[at + 1], sent[at]
    return sent


async def run(options: argparse.Namespace) -> None:
    """Send all at a steady rate."""
    data, size = memoryview(make(options.packets)), PACKET.itemsize
    sent = order(options.packets, options.gaps, options.repeats, options.swaps)
    with await open_udp_socket(remote_host=options.host, remote_port=options.port) as sock:
        started = anyio.current_time()
        for at in range(0, len(sent), TURN):
            await anyio.sleep_until(started + at * size * 8 / (options.mbit * 1e6))
            turn = [(data[n * size : (n + 1) * size], None) for n in sent[at : at + TURN]]
            (await send_mmsg(sock, turn)).raise_for_failures()
    print(f"sent {len(sent):,} packets")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_backend_option(parser)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--packets", type=int, default=20_000)
    parser.add_argument("--mbit", type=float, default=100.0, help="Mbit of packets a second")
    for fault in ("gaps", "repeats", "swaps"):
        parser.add_argument(f"--{fault}", type=int, default=0, help="how many")
    options = parser.parse_args()
    if options.packets < 4 + options.gaps + options.repeats + options.swaps:
        parser.error("more faults than there are packets for; give more --packets")
    run_on(options.backend, run, options)


if __name__ == "__main__":
    with OneLineErrors():
        main()
