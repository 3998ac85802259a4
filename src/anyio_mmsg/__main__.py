"""``python -m anyio_mmsg``: what a bug report needs, or one of the tools."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from ._tools import latency, report, top, traceroute
from ._tools.ending import ending

NAME = "python -m anyio_mmsg"
TOOLS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "top": (top.main, "watch a port or a multicast group: rates, drops, the top senders"),
    "latency": (latency.main, "measure how long datagrams take to this machine and to a program"),
    "traceroute": (traceroute.main, "the routers on the way to a host, all hops at once"),
}


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; return the exit status."""
    if arguments and arguments[0] in TOOLS:
        name, *rest = arguments
        return ending(f"{NAME} {name}", lambda: TOOLS[name][0](rest))
    parser = argparse.ArgumentParser(
        prog=NAME,
        usage=f"{NAME} [-h] [--json] | COMMAND ...",
        description="Without a command: what a bug report needs, each thing tried out here.",
        epilog="commands:\n"
        + "".join(f"  {name:<20}  {what}\n" for name, (_, what) in TOOLS.items())
        + f"\n{NAME} COMMAND --help says what each does. Live tables need anyio-mmsg[tools].",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options, rest = parser.parse_known_args(arguments)
    if rest:
        known = ", ".join(TOOLS)
        parser.error(f"{' '.join(rest)}: a command comes first, and there are {known}")
    return ending(NAME, lambda: report.show(options.json))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
