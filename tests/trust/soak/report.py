"""What the soak found, as a table and as a page."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from benchmarks.machine import describe, sentence

from .flat import ALLOWED
from .ledger import Totals
from .leg import Result


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; all columns but the first are numbers."""
    first, *rest = rows
    lines = [first, ["---", *["---:"] * (len(first) - 1)], *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _name(result: Result) -> str:
    engines = {"recvmmsg": "compiled", "recvfrom_into": "compiled, recvfrom_into"}
    return f"{result.backend}, {engines.get(result.engine, result.engine)}"


def _account(name: str, totals: Totals, seconds: float) -> list[str]:
    numbers = [
        totals.sent,
        totals.received,
        totals.dropped_by_kernel,
        totals.unread,
        totals.elsewhere,
        totals.dropped_by_policy,
        totals.truncated,
    ]
    rate = totals.received / seconds if seconds else 0.0
    return [name, *(f"{n:,}" for n in numbers), f"{totals.octets / 1e9:,.2f}", f"{rate:,.0f}"]


_ACCOUNT = [
    "",
    "sent",
    "= received",
    "+ dropped by the kernel",
    "+ unread at the end",
    "+ lost before a socket",
    "of those received: dropped by policy",
    "cut to the slot",
    "GB received",
    "received a second",
]


def _accounts(results: Sequence[Result]) -> str:
    rows = [_account(_name(result), result.total, result.seconds) for result in results]
    total = Totals()
    for result in results:
        total.add(result.total)
    rows.append(_account("together", total, sum(result.seconds for result in results)))
    return grid([_ACCOUNT, *rows])


def _ways(results: Sequence[Result]) -> str:
    found: dict[str, Totals] = {}
    for result in results:
        for name, totals in result.lines.items():
            found.setdefault(name, Totals()).add(totals)
    seconds = sum(result.seconds for result in results)
    return grid([_ACCOUNT, *(_account(name, t, seconds) for name, t in found.items())])


def _growth(results: Sequence[Result]) -> str:
    rows = [["", "rounds", "RSS, MiB", "blocks", "descriptors", "threads", "tasks"]]
    for result in (each for each in results if each.last):
        pairs = [
            [f"{each['rss'] / 2**20:.1f}", *(f"{each[n]:,.0f}" for n in rows[0][3:])]
            for each in (result.first, result.last)
        ]
        cells = [" to ".join(both) for both in zip(*pairs, strict=True)]
        rows.append([_name(result), str(result.rounds), *cells])
    return grid(rows)


def summary(results: Sequence[Result]) -> str:
    """Return what was found, for a terminal."""
    return f"\n{_accounts(results)}\n\n{_growth(results)}\n"


def page(results: Sequence[Result], began: float, note: str) -> str:
    """Return the page of a run that found no fault.

    Args:
        results: What was found.
        began: When, in seconds since the epoch.
        note: What else is to be known of the machine.
    """
    minutes = sum(result.seconds for result in results) / 60
    command = " ".join(["python -m tests.trust.soak", *_arguments()])
    total = sum(result.total.received for result in results)
    return f"""# Soak

{total:,} packets received in {minutes:.0f} minutes: every one accounted for, each byte as it was
sent, none twice, and nothing grew. The command that is quoted here wrote this page.

```sh
{command}
```

- **When**: {time.strftime("%Y-%m-%d %H:%M", time.gmtime(began))} UTC.
- **Machine**: {sentence(describe())} {note}

## What is done

`tests/trust/soak` runs each event loop, compiled and plain, in a process of its own. It goes in
rounds of some seconds. In each round, six programs run in one event loop, under load from other
processes by sockets of IPv4 and IPv6, some of them connected:

- `feed` into workers by each of its policies. Workers take their time now and then, and hand
  batches on to other tasks after they have released a part. Batches linger or don't, pools are
  small or large. The round ends by `stop()` after the flood or in the middle of it, by
  cancelling `feed` and starting it anew, or by `aclose()` with packets left.
- `recv_mmsg_exact` with timeouts that cancel it.
- An echo server around `recv_mmsg` and `send_mmsg`, with timeouts, and one for trains (GRO and
  GSO). The senders check the answers.

Sizes go from 0 bytes to 65,000, around the size of a slot, so that many packets are cut. A packet
begins with its number, and all its bytes follow from its sender and that number. Consumers compare
each byte, also of what a policy drops. Senders don't wait for the receivers, except those of the
echo servers: so the kernel drops packets, and counts them.

## The account

Each round of each program has to balance: what was sent was received, or dropped by the kernel at
the socket (by its own count), or left unread and counted by `aclose()`. "Lost before a socket" is
what the kernel dropped in a processor's queue, by its count for the whole machine. What was
received was read by a consumer, or dropped by a policy and counted.

{_accounts(results)}

By program:

{_ways(results)}

## What must not grow

Medians of the first third of the rounds, to those of the last one. A third of the run before
them is left out as warm-up. Between rounds everything is closed, so descriptors and tasks must
be the same. Threads look up host names: asyncio keeps as many as processors and 4, Trio as
many as there were lookups at a time. Blocks are `sys.getallocatedblocks()`;
{ALLOWED["blocks"]} more are allowed, and {ALLOWED["rss"] >> 20} MiB of RSS, for what the
interpreter and malloc do at their own pace. The processes that send use the library too, and
are judged in the same way.

{_growth(results)}
"""


def _arguments() -> list[str]:
    """Return the command line, without what is only about this page."""
    found, skip = [], False
    for word in sys.argv[1:]:
        if skip or word.startswith(("--report", "--note")):
            skip = not skip and "=" not in word
            continue
        found.append(word)
    return found
