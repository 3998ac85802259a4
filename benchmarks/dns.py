"""The DNS server of the examples under the load of dnsperf: queries a second, loss, latency.

The code that makes the answers is the example's, the same for all, and so is its zone; what
differs is how queries come in and answers go out. Ours does that as the example does.

It needs dnsperf (https://www.dns-oarc.net/tools/dnsperf), which is Debian's and Ubuntu's package
`dnsperf` and Homebrew's, and dnspython, which is in the extra `examples`. A server has a core of
its own, dnsperf all others; it wants two or more. What a server's process used of its core is
told, as it says what the limit was.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeAlias

from .children import PATIENCE
from .report import Bar, Context, Goal, Result, Unavailable, identity, name, spread
from .servers import DNS
from .spec import LOOPS, LUCKY_NOTE, AnySpec
from .stats import Summary, ratio, summarize
from .trial import rotated
from .udp import LOOPBACK


class Load(NamedTuple):
    """How dnsperf asks."""

    text: str
    outstanding: int  # queries without an answer yet, at most (-q)
    rate: int = 0  # queries a second, at most (-Q); 0: as fast as answers come


LOADS = (
    # dnsperf's own default, and what AnyIO's queue holds: nobody has to lose any.
    Load("100 outstanding", 100),
    Load("512 outstanding", 512),
    # A rate that all bear: in the others latency tells no more than the rate does (Little's law).
    Load("10,000/s", 512, 10_000),
)
CLIENTS = 8  # sockets that ask (-c)
THREADS = 2  # of dnsperf (-T); with one it comes near its limit, with more it gets no faster
BUFFER = 8 * 2**20  # bytes to ask for; nothing is lost in the kernel
TIMEOUT = 1  # second after which dnsperf takes a query for lost (-t)
SECONDS = 2  # a visit (-l)
QUICK_REPEATS = 20  # of the queries, in all (-n)
ROUNDS = 5
QUICK_ROUNDS = 1
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
    "deviation": r"Latency StdDev \(s\):\s+([\d.]+)",
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


Cell: TypeAlias = tuple[str, Load]


class Measurements:
    """What was found by server and load, and by field, round by round."""

    def __init__(self, queries: Path) -> None:
        self.queries = queries
        self.values: defaultdict[Cell, defaultdict[str, list[float | None]]]
        self.values = defaultdict(lambda: defaultdict(list))

    def visit(self, context: Context, spec: AnySpec, load: Load) -> None:
        """Have a server asked for a while."""
        children = context.children
        server, values = children[spec.key], self.values[spec.key, load]
        length = ("-n", QUICK_REPEATS) if context.quick else ("-l", SECONDS)
        server.ask("serve")
        with children.other_cores():
            found = ask(children.port(spec.key), self.queries, load, *length)
        served = server.ask("stop")
        values["rate"].append(found["rate"])
        values["lost"].append(found["lost"] / found["sent"] * 100)
        for field in ("latency", "deviation"):
            values[field].append(found[field] * 1e6)
        values["busy"].append(min(1.0, served["cpu"] / found["seconds"]) * 100)
        values["dnsperf"].append(found["cpu"] / found["seconds"] * 100)

    def summary(self, cell: Cell, field: str) -> Summary | None:
        """Summarize a field of a cell."""
        return summarize(self.values[cell][field])

    def ratio(self, key: str, base: str, load: Load) -> Summary | None:
        """Compare the rates of two servers, round by round."""
        return ratio(self.values[key, load]["rate"], self.values[base, load]["rate"])


def goals(found: Measurements) -> list[Goal]:
    """Compare with what the project promises itself."""
    pairs = [(loop, f"anyio-{loop}", 4.0) for loop in LOOPS]
    pairs += [("asyncio", "protocol-asyncio", 4.0), ("uvloop", "protocol-uvloop", 1.5)]
    labels = {spec.key: name(spec) for spec in DNS}
    return [
        Goal(
            f"queries a second, {load.text}: ours on {loop} to {labels[f'dns-{base}']}",
            found.ratio(f"dns-ours-{loop}", f"dns-{base}", load),
            bound,
            at_most=False,
        )
        for load in LOADS
        if not load.rate
        for loop, base, bound in pairs
    ]


COLUMNS = {
    "rate": "queries/s",
    "lost": "lost, %",
    "latency": "latency, us",
    "deviation": "its deviation, us",
    "busy": "busy, %",
    "dnsperf": "dnsperf, %",
}


def run(context: Context) -> Result:
    """Measure all servers, round after round."""
    if shutil.which("dnsperf") is None:
        raise Unavailable(HOW_TO_INSTALL)
    if find_spec("dns") is None:
        raise Unavailable("it needs dnspython: pip install -e '.[examples]'")
    children = context.children
    specs = children.available(DNS)
    granted = children.start(specs, BUFFER)
    rounds = context.steps(ROUNDS, QUICK_ROUNDS)
    loads = LOADS[:1] if context.quick else LOADS
    with TemporaryDirectory() as directory:
        queries = Path(directory, "queries")
        queries.write_text(QUERIES)
        found = Measurements(queries)
        for turn in range(rounds):
            for number, spec in enumerate(rotated(specs, turn), 1):
                for load in loads:
                    found.visit(context, spec, load)
                context.progress(turn * len(specs) + number, rounds * len(specs))

    result = Result("dns", "DNS server under dnsperf", "queries a second")
    result.notes = [
        f"{CLIENTS} clients, {THREADS} threads of dnsperf; receive buffers of {granted:,} bytes "
        "(SO_RCVBUF). The server has a core of its own, dnsperf has all others.",
        f"dnsperf gives a query up after {TIMEOUT} s. AnyIO's UDPSocket has a queue of 100 "
        "datagrams on asyncio and uvloop, and drops the rest.",
        "busy: what the server's process used of its core; dnsperf: what that used, of several.",
        LUCKY_NOTE,
    ]
    for load in loads:
        rows = []
        for spec in specs:
            cell = (spec.key, load)
            summaries = {field: found.summary(cell, field) for field in COLUMNS}
            rows.append([name(spec), *map(spread, summaries.values())])
            result.rows.append(
                {
                    **identity(spec, "server"),
                    "load": load.text,
                    **{
                        field: summary.as_json() if summary else None
                        for field, summary in summaries.items()
                    },
                }
            )
        result.tables.append((f"{result.title}, {load.text}", ["server", *COLUMNS.values()], rows))
        if not load.rate:
            result.bars[load.text] = [
                Bar(name(spec), spec.kind, found.summary((spec.key, load), "rate"))
                for spec in specs
            ]
    result.goals = goals(found)
    return result
