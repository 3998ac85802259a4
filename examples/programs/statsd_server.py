"""A statsd server on asyncio: adds up the metrics it receives, and prints a report now and then.

    python -m pip install -e .
    python examples/programs/statsd_server.py --host 127.0.0.1 --port 8125 --interval 10

Feed it from another terminal, with any statsd client or by hand:

    pip install statsd && python -c "import statsd; statsd.StatsClient().incr('a')"
    echo 'a:1|c' | nc -u -w1 127.0.0.1 8125

It takes counters (`a:1|c`, sampled `a:1|c|@0.1`), gauges (`b:7|g`, changed by `b:+2|g`), timers
(`c:320|ms`; `h` and `d` are the same here) and sets (`d:anna|s`). A packet may hold many lines,
with LF or CR LF between them; blanks around a line and empty lines are ignored. Beyond that:

- Several metrics in a line, `a:1|c:2|c`, as Etsy's statsd server splits them (stats.js).
- Several values in a metric, `a:1:2|c`, as the DogStatsD protocol 1.1 packs them. Not for sets: a
  member may contain a colon, as in Datadog's agent.
- DogStatsD tags, `a:1|c|#env:test,web`. As in Datadog's agent a name with other tags is another
  metric, and the order of the tags doesn't matter; it is shown as `a{env:test,web}`.
- DogStatsD's container (`|c:...`), external data (`|e:...`), cardinality (`|card:...`) and
  timestamp (`|T...`) are accepted and ignored.

Any other line is refused as a whole and counted, and the report shows the last one. So are
DogStatsD events and service checks, and numbers above 1e300, whose sums could become infinite.

A datagram longer than a slot is cut. Its last line is not counted, since its number may be cut too
(10 to 1), and the report says how many packets were truncated. Names, members of sets and values
of timers take a bounded amount of memory, whatever senders make up: metrics that would exceed it
are refused and counted, while the ones that are known go on.

`--uvloop` runs it on uvloop, `--port 0` listens on any free port. Ctrl-C or SIGTERM stops it: what
has arrived is still counted, then it prints the last report. A second signal ends it at once,
and it says how many packets that left. The exit status is 0.

The task group is AnyIO's, the model of asyncio.TaskGroup (Python 3.11): it works on Python 3.10
too, and has a cancel scope.
"""

from __future__ import annotations

import argparse
import asyncio
import socket

import anyio

from anyio_mmsg import PacketBatchPool, PacketReceiver, open_udp_socket
from shared import (
    OneLineErrors,
    announce,
    escape_what_cannot_be_printed,
    left,
    print_at_intervals,
    stop_on_signal,
)
from statsd_metrics import Metrics

# statsd's documentation tells clients to send 512 bytes over the Internet, 1432 over Ethernet, and
# 8932 with jumbo frames. The library's default, 1232, would cut the latter two.
SLOT_SIZE = 8932
RECEIVE_BUFFER = 2**20  # bytes; the usual 208 KiB fill up quickly when packets come in bursts


async def serve(host: str, port: int, interval: float) -> None:
    """Receive and report until Ctrl-C, then print the last report."""
    metrics = Metrics()
    sock = await open_udp_socket(host, port)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)  # or what is allowed
    # One batch is enough: nothing is received while its metrics are added.
    receiver = PacketReceiver(sock, PacketBatchPool(1, slot_size=SLOT_SIZE))
    async with receiver, anyio.create_task_group() as group:
        await group.start(stop_on_signal, receiver.stop, group.cancel_scope.cancel)
        announce(sock)
        group.start_soon(print_at_intervals, interval, metrics.flush)
        async for batch in receiver:
            with batch:
                for packet in batch:
                    metrics.add_packet(packet.data, packet.truncated)
        group.cancel_scope.cancel()
    if count := left(receiver.statistics()):
        print(f"left: {count} packets")
    print(metrics.flush(), flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8125, help="0 for any free one")
    parser.add_argument("--interval", type=float, default=10, help="seconds between reports")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    options = parser.parse_args()
    escape_what_cannot_be_printed()
    run_server = asyncio.run
    if options.uvloop:
        import uvloop

        run_server = uvloop.run
    run_server(serve(options.host, options.port, options.interval))


if __name__ == "__main__":
    with OneLineErrors():
        main()
