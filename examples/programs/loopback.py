"""Send packets to yourself over loopback, and check that each one arrives unharmed.

    python -m pip install -e '.[trio]'
    python examples/programs/loopback.py
    python examples/programs/loopback.py --packets 1000000 --backend trio --engine recvfrom_into

It feeds itself: a sender and a receiver in one nursery, on asyncio, then on Trio, then on uvloop
if that is installed. Ctrl-C or SIGTERM stops the sender; packets on their way still arrive, and
the table covers those that were sent. A second signal ends it at once, and packets on their way
then count as lost. The exit status is 0, or 1 if a packet was lost or corrupt, stopped or not.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import socket
import struct
import sys
import time
import zlib
from dataclasses import dataclass, field

import anyio

from anyio_mmsg import (
    PACKET_DATA_SIZE,
    PacketBatch,
    ReceiveEngine,
    __version__,
    compiled,
    recv_mmsg,
)
from shared import OneLineErrors, run_on, stop_on_signal

# A packet: the checksum of all that follows it, the sequence number, 0 to 1220 bytes of body. The
# longest one fills a slot of the default size, and none is longer.
CHECKSUM = struct.Struct("!I")
SEQUENCE = struct.Struct("!Q")
MAX_BODY = PACKET_DATA_SIZE - CHECKSUM.size - SEQUENCE.size
NOISE = bytes(range(256)) * 6  # bodies are slices of this

RECEIVE_BUFFER = 2**20  # bytes to ask the kernel for; it may grant fewer
PACKET_OVERHEAD = 2048  # what Linux counts for a packet on top of its bytes, rounded up
PATIENCE = 5.0  # seconds; if nothing arrives for so long, packets on their way count as lost


@dataclass
class Run:
    """One backend's run: its progress, and at the end its row of the table."""

    backend: str
    packets: int
    window: int = 0  # the most bytes that may be on their way, as the kernel counts them
    on_the_way: int = 0
    credit: anyio.Event = field(default_factory=anyio.Event)  # set when some have arrived
    stopped: bool = False  # the sender is to stop
    sent: int = 0
    intact: int = 0
    corrupt: int = 0
    batches: int = 0
    seconds: float = 0.0

    def stop(self) -> None:
        """Send no more."""
        self.stopped = True

    @property
    def arrived(self) -> int:
        """Packets received."""
        return self.intact + self.corrupt

    @property
    def lost(self) -> int:
        """Packets that were sent and have not arrived (yet)."""
        return max(0, self.sent - self.arrived)


def make_packet(number: int) -> bytes:
    """Return the packet with this sequence number."""
    size = number * 101 % (MAX_BODY + 1)  # 101 shares no factor with 1221: every size comes up
    start = number % 256
    content = SEQUENCE.pack(number) + NOISE[start : start + size]
    return CHECKSUM.pack(zlib.crc32(content)) + content


def read_packet(data: memoryview) -> int | None:
    """Return the sequence number, or None if the packet was changed on its way."""
    if len(data) < CHECKSUM.size + SEQUENCE.size:
        return None
    (checksum,) = CHECKSUM.unpack_from(data)
    if zlib.crc32(data[CHECKSUM.size :]) != checksum:
        return None
    number: int = SEQUENCE.unpack_from(data, CHECKSUM.size)[0]
    return number


async def credit_came(run: Run) -> bool:
    """Wait until packets were read; return False if that takes too long."""
    run.credit = anyio.Event()
    with anyio.move_on_after(PATIENCE):
        await run.credit.wait()
    return run.credit.is_set()


async def send(sock: socket.socket, run: Run, everything: anyio.CancelScope) -> None:
    """Send while the receiver's buffer has room for certain, otherwise wait for the receiver."""
    while run.sent < run.packets and not run.stopped:
        packet = make_packet(run.sent)
        cost = len(packet) + PACKET_OVERHEAD
        if run.on_the_way and run.on_the_way + cost > run.window:
            if not await credit_came(run):
                break
            continue
        try:
            sock.send(packet)
        except BlockingIOError:  # the send buffer is full of packets that were not read yet
            if not await credit_came(run):
                break
            continue
        run.sent += 1
        run.on_the_way += cost
    while run.on_the_way and await credit_came(run):
        pass
    everything.cancel()  # all have arrived, or none came for so long that the rest is lost


async def receive(sock: socket.socket, run: Run, engine: ReceiveEngine) -> None:
    """Check what arrives: one wait, then a batch of packets."""
    batch = PacketBatch(engine=engine)
    seen = bytearray(run.packets)
    while True:
        await recv_mmsg(sock, batch)
        run.batches += 1
        for packet in batch:
            number = read_packet(packet.data)
            if number is None or number >= run.packets or seen[number]:
                run.corrupt += 1
            else:
                seen[number] = True
                run.intact += 1
            run.on_the_way -= packet.size + PACKET_OVERHEAD
        batch.clear()
        run.credit.set()


async def show_progress(run: Run) -> None:
    """On a terminal rewrite one line; elsewhere print a line at each quarter."""
    on_terminal, shown = sys.stdout.isatty(), -1
    try:
        while True:
            quarter = 4 * run.arrived // run.packets
            if on_terminal:
                print(f"\r{progress(run)}", end="", flush=True)
            elif shown < quarter < 4:
                shown = quarter
                print(progress(run), flush=True)
            await anyio.sleep(0.1)
    finally:
        print(f"\r{progress(run)}" if on_terminal else progress(run), flush=True)


def progress(run: Run) -> str:
    """Return the line that shows how far the run is."""
    percent = 100 * run.arrived // run.packets
    return f"{run.backend:>8}: {run.arrived:>11,} of {run.packets:,} packets, {percent:>3} %"


async def loopback(run: Run, engine: ReceiveEngine) -> None:
    """Send and receive all packets of a run."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        # Half of it: Linux gives back the room of packets that were read late, by up to a quarter.
        run.window = receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        for sock in (receiver, sender):
            sock.setblocking(False)
        started = time.perf_counter()
        async with anyio.create_task_group() as nursery:
            await nursery.start(stop_on_signal, run.stop, nursery.cancel_scope.cancel)
            nursery.start_soon(show_progress, run)
            nursery.start_soon(receive, receiver, run, engine)
            nursery.start_soon(send, sender, run, nursery.cancel_scope)
        run.seconds = time.perf_counter() - started


def print_table(runs: list[Run]) -> None:
    """Print a row for each run."""
    how = "compiled" if compiled else "plain Python: `python -m anyio_mmsg` says why"
    print(f"\nanyio-mmsg {__version__}, {how}")
    print("\nbackend     packets   batches  packets/batch  packets/s      lost   corrupt")
    for run in runs:
        per_batch, rate = run.arrived / max(1, run.batches), run.arrived / max(1e-9, run.seconds)
        print(
            f"{run.backend:<8} {run.sent:>10,} {run.batches:>9,} {per_batch:>14.1f} "
            f"{rate:>10,.0f} {run.lost:>9,} {run.corrupt:>9,}"
        )


def main() -> int:
    """Read the command line, run on each backend, and return the exit status."""
    installed = [name for name in ("trio", "uvloop") if importlib.util.find_spec(name)]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packets", type=int, default=200_000, help="for each backend")
    parser.add_argument("--backend", action="append", choices=["asyncio", *installed])
    parser.add_argument("--engine", default="auto", choices=["auto", "recvfrom_into", "recvmmsg"])
    options = parser.parse_args()
    if options.packets < 1:
        parser.error("--packets has to be at least 1")
    runs: list[Run] = []
    with contextlib.suppress(KeyboardInterrupt):  # between two runs nothing handles the signal
        for backend in options.backend or ["asyncio", *installed]:
            run = Run(backend, options.packets)
            runs.append(run)
            run_on(backend, loopback, run, options.engine)
            if run.stopped:
                break
    print_table(runs)
    return 1 if any(run.lost or run.corrupt for run in runs) else 0


if __name__ == "__main__":
    with OneLineErrors():
        sys.exit(main())
