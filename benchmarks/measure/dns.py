"""The DNS server of the examples under the load of dnsperf: queries a second, loss, latency.

The code that makes the answers is the example's, the same for all, and so is its zone; what
differs is how queries come in and answers go out. Ours does that as the example does.

It needs dnsperf (https://www.dns-oarc.net/tools/dnsperf), which is Debian's and Ubuntu's package
`dnsperf` and Homebrew's, and dnspython, which is in the group `test`. A server has a core of
its own, dnsperf all others, so it needs two or more. The table has the share of its core that a
server used, which shows what the limit was.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.candidates.receiving_peers import SIX_LINES
from benchmarks.candidates.serving_peers import DNS, key
from benchmarks.children import PATIENCE
from benchmarks.result import Context, Figures, Goal, Result, Table, per_loop
from benchmarks.spec import WARM_NOTE, AnySpec, UnavailableError
from benchmarks.stats import Rounds, Summary, best, ratio
from benchmarks.udp import LOOPBACK

from .trial import rotated


class Load(NamedTuple):
    """How dnsperf asks."""

    text: str
    outstanding: int  # queries without an answer yet, at most (-q)
    rate: int = 0  # queries a second, at most (-Q); 0: as fast as answers come


FULL = Load("512 outstanding", 512)
# A rate that all can serve: under full load latency only repeats the rate (Little's law).
CALM = Load("10,000/s", 512, 10_000)
LOADS = (FULL, CALM)
CLIENTS = 8  # sockets that ask (-c)
THREADS = 2  # of dnsperf (-T); with one it comes near its limit, with more it gets no faster
BUFFER = 8 * 2**20  # bytes to ask for; nothing is lost in the kernel
TIMEOUT = 1  # second after which dnsperf takes a query for lost (-t)
SECONDS = 1  # a visit (-l)
QUICK_REPEATS = 5  # of the queries, in all (-n)
ROUNDS = 4
RATE, LATENCY, BUSY, LOST = "queries/s", "latency, us", "server's CPU, %", "lost, %"
CPU = "CPU, %"  # the same at a rate that all bear, where it is to be compared
HOW_TO_INSTALL = (
    "it needs dnsperf: apt install dnsperf (Debian, Ubuntu), brew install dnsperf, or "
    "https://www.dns-oarc.net/tools/dnsperf"
)

QUERIES = """\
example.org SOA
example.org MX
example.org TXT
example.org AAAA
www.example.org A
www.example.org AAAA
ftp.example.org A
cdn.example.org A
mail.example.org A
ns1.example.org A
ns2.example.org AAAA
_sip._udp.example.org SRV
sip.example.org A
one.dyn.example.org A
two.dyn.example.org A
nowhere.example.org A
"""
"""What is asked, over and over, each as often as the others: a name once in 16 is not there."""

FIELDS = {
    "rate": r"Queries per second:\s+([\d.]+)",
    "sent": r"Queries sent:\s+(\d+)",
    "lost": r"Queries lost:\s+(\d+)",
    "seconds": r"Run time \(s\):\s+([\d.]+)",
    "latency": r"Average Latency \(s\):\s+([\d.]+)",
}
"""What dnsperf prints at its end."""


def ask(port: int, queries: Path, load: Load, *more: object) -> dict[str, float]:
    """Run dnsperf; return its `FIELDS`, and as "cpu" what it used of the processor."""
    command = ["dnsperf", "-s", LOOPBACK, "-p", port, "-f", "inet", "-d", queries]
    command += ["-q", load.outstanding, "-c", CLIENTS, "-T", THREADS, "-t", TIMEOUT]
    command += ["-b", BUFFER // 1024]
    command += ["-Q", load.rate] if load.rate else []
    before = used()
    done = subprocess.run(
        list(map(str, [*command, *more])),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    matches = {field: re.search(pattern, done.stdout) for field, pattern in FIELDS.items()}
    found = {field: float(match[1]) for field, match in matches.items() if match}
    if done.returncode or len(found) < len(FIELDS):
        raise RuntimeError(f"dnsperf ended with {done.returncode}: {done.stdout}{done.stderr}")
    return {**found, "cpu": used() - before}


def used() -> float:
    """Return the seconds of the processor that ended children used."""
    times = os.times()
    return times.children_user + times.children_system


def visit(context: Context, spec: AnySpec, load: Load, queries: Path, found: Figures) -> None:
    """Have a server asked for a while."""
    children = context.children
    server = children[spec.key]
    length = ("-n", QUICK_REPEATS) if context.quick else ("-l", SECONDS)
    server.ask("serve")
    with children.other_cores():
        asked = ask(children.port(spec.key), queries, load, *length)
    served = server.ask("stop")
    for label, value in (
        (RATE, asked["rate"]),
        (LATENCY, asked["latency"] * 1e6),
        (BUSY if load is FULL else CPU, served["cpu"] / asked["seconds"] * 100),
        (LOST, asked["lost"] / asked["sent"] * 100 if asked["sent"] else None),
        ("dnsperf", asked["cpu"] / asked["seconds"] * 100),
    ):
        found.add(value, spec.key, load, label)


def goals(found: Figures) -> list[Goal]:
    """Compare with what the project promises itself."""

    def to_sockets(loop: str) -> Summary | None:
        """Compare with each round's best of AnyIO's and Trio's own sockets."""
        rounds: list[Rounds] = []
        for kind in ("anyio", "socket"):
            measured = found.get(key("dns", kind, loop), CALM, LATENCY)
            rounds += [measured] if measured else []
        ours = found.get(key("dns", "ours", loop), CALM, LATENCY)
        return ratio(ours, best(rounds, lowest=True) or None)

    six_lines = f"{SIX_LINES} with `sendto`, same answering code"
    listed = per_loop(
        "DNS at 10,000/s, CPU",
        six_lines,
        (0.9, 1.0, 1.15),
        lambda loop: found.ratio(
            (key("dns", "ours", loop), CALM, CPU), (key("dns", "naive", loop), CALM, CPU)
        ),
    )
    listed += per_loop(
        "DNS at 10,000/s, latency", "best of AnyIO's and Trio's own sockets", 1.0, to_sockets
    )
    listed += per_loop(
        "DNS under dnsperf, 512 outstanding",
        six_lines,
        1.25,
        lambda loop: found.ratio(
            (key("dns", "ours", loop), FULL, RATE), (key("dns", "naive", loop), FULL, RATE)
        ),
        at_most=False,
    )
    return listed


def run(context: Context) -> Result:
    """Measure all servers, round after round."""
    if shutil.which("dnsperf") is None:
        raise UnavailableError(HOW_TO_INSTALL)
    if find_spec("dns") is None:
        raise UnavailableError("it needs dnspython: pip install dnspython")
    children = context.children
    specs = children.start(DNS, BUFFER)
    rounds = context.steps(ROUNDS)
    found = Figures()
    with TemporaryDirectory() as directory:
        queries = Path(directory, "queries")
        queries.write_text(QUERIES)
        for turn in range(rounds):
            for number, spec in enumerate(rotated(specs, turn), 1):
                for load in LOADS:
                    visit(context, spec, load, queries, found)
                context.progress(turn * len(specs) + number, rounds * len(specs))

    result = Result("dns", "DNS server under dnsperf", left_out=children.left_out(DNS))
    result.notes = [
        f"{CLIENTS} clients, {THREADS} threads of dnsperf; receive buffers of "
        f"{children.granted:,} bytes (SO_RCVBUF). The server has its own core, dnsperf runs on "
        "the others.",
        f"A query without an answer counts as lost after {TIMEOUT} s. On asyncio and uvloop, "
        "AnyIO's UDPSocket has a queue of 100 datagrams and drops the rest.",
        WARM_NOTE,
    ]
    title = f"{result.title}, "
    full = Table("dns-full", title + FULL.text, "", "higher", [RATE, BUSY, LOST])
    calm = Table("dns-calm", title + CALM.text, "", "lower", [CPU, LATENCY, LOST])
    for load, table in ((FULL, full), (CALM, calm)):
        for spec in specs:
            cells = {label: found.summary(spec.key, load, label) for label in table.columns}
            table.add(spec, cells)
    result.tables = [full, calm]
    busy = [v for spec in specs for v in found.get(spec.key, FULL, "dnsperf") or () if v]
    if busy:
        result.notes.append(
            f"dnsperf itself used up to {max(busy):.0f} % of a core under full load."
        )
    result.goals = goals(found)
    return result
