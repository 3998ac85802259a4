"""HTTP/3: megabytes a second, what they cost the server, and requests of small files a second.

A client by qh3, in a process of its own on a core of its own, asks one server after another. Its
crypto is Rust's, so the servers are the limit, whose QUIC is aioquic's, in Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import example
from benchmarks.candidates.http3_servers import AIOQUIC, EXAMPLE, HTTP3, command, key
from benchmarks.children import FAREWELL, HERE, Child
from benchmarks.result import Context, Figures, Goal, Result, Table
from benchmarks.spec import AnySpec, UnavailableError

from .trial import rotated

BULK, SMALL = 4_000_000, 1_000  # bytes of a response
REQUESTS, WINDOW = 300, 20  # of small ones: in all, and at a time
ROUNDS = 5  # and one more before, uncounted
RATE, COST, ASKED = "MB/s", "CPU, ms a MB", "small requests/s"


class Server:
    """A server's process.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"{process.args!r} does not listen, status {process.wait()}")
        self.port = int(line.rpartition(":")[2])

    def cpu(self) -> float:
        """Return the seconds of the processor that it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text("utf-8").rpartition(")")[2]
        user, system = fields.split()[11:13]  # proc(5)
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(context: Context, spec: AnySpec, certificate: Path) -> Iterator[Server]:
    """Start a server, and end it."""
    process = subprocess.Popen(
        command(spec, str(certificate)), stdout=subprocess.PIPE, text=True, cwd=HERE.parent
    )
    assert process.stdout is not None
    with process.stdout:
        context.children.take_core(process.pid)
        try:
            yield Server(process)
        finally:
            process.terminate()
            try:
                process.wait(FAREWELL)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def visit(
    server: Server, load: Child, spec: AnySpec, found: Figures, silent: set[str], *, quick: bool
) -> None:
    """Have a server asked for much, and often.

    What a server left unanswered once it is not asked again: `silent` has keys with the question.
    """
    size = BULK // 100 if quick else BULK
    count = REQUESTS // 10 if quick else REQUESTS
    before = server.cpu()
    bulk = ask(load, server, silent, f"{spec.key} bulk", size, 1, 1)
    spent = server.cpu() - before
    often = ask(load, server, silent, f"{spec.key} often", SMALL, count, WINDOW)
    found.add(size / 1e6 / bulk if bulk else None, spec.key, RATE)
    found.add(spent * 1e3 / (size / 1e6) if bulk else None, spec.key, COST)
    found.add(count / often if often else None, spec.key, ASKED)


def ask(
    load: Child, server: Server, silent: set[str], what: str, size: int, count: int, window: int
) -> float | None:
    """Return the seconds that responses took; None if some did not come."""
    if what in silent:
        return None
    answer = load.ask("get", server.port, size, count, window)
    if answer.get("bytes") == size * count:
        return float(answer["seconds"])
    silent.add(what)
    return None


def run(context: Context) -> Result:
    """Measure all servers, round after round."""
    if sys.platform != "linux":
        raise UnavailableError("the CPU time of servers is read from /proc")
    children = context.children
    specs = [spec for spec in HTTP3 if not children.lacks(spec)]
    left_out: dict[str, list[str]] = {}
    for spec in HTTP3:
        if reason := children.lacks(spec):
            left_out.setdefault(reason, []).append(f"{spec.label}, {spec.loop}")
    if not specs:
        raise UnavailableError(f"{next(iter(left_out))}: pip install aioquic qh3 hypercorn[h3]")
    rounds = context.steps(ROUNDS)
    found, silent = Figures(), set[str]()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        example.load("http3_server").self_signed(folder / "peers.pem")
        servers = {
            spec.key: stack.enter_context(
                started(
                    context,
                    spec,
                    folder / (f"{spec.key}.pem" if EXAMPLE in spec.key else "peers.pem"),
                )
            )
            for spec in specs
        }
        load = children.helper("http3_load")
        for turn in context.turns(rounds):
            if turn == 1:
                found = Figures()
            for spec in rotated(specs, turn):
                visit(servers[spec.key], load, spec, found, silent, quick=context.quick)
            context.progress(turn + 1, rounds + 1)
    result = Result("http3", "HTTP/3", left_out=left_out)
    table = Table("http3", "Serving HTTP/3", "", "higher", [RATE, COST, ASKED])
    for spec in specs:
        table.add(spec, {column: found.summary(spec.key, column) for column in table.columns})
    result.tables = [table]
    result.goals = [
        Goal(
            "bulk over HTTP/3 by examples/programs/http3_server.py",
            "`aioquic.asyncio.serve`",
            loop,
            1.15,
            found.ratio((key(EXAMPLE, loop), RATE), (key(AIOQUIC, loop), RATE)),
            at_most=False,
        )
        for loop in ("asyncio", "uvloop")
    ]
    result.notes = [
        f"A response of {BULK:,} bytes, and {REQUESTS} of {SMALL:,}, {WINDOW} at a time, over a "
        "connection each; the clock begins after its handshake. The client is qh3's, with a core "
        "of its own. CPU is the server's process's.",
        "All servers make QUIC by aioquic. It builds, parses and encrypts packet after packet "
        "from Python, and that is most of what a megabyte costs.",
        "A server that left a request unanswered has no figure.",
    ]
    return result
