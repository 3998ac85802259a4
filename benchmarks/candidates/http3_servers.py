"""What serves HTTP/3: the example, aioquic's own server, and Hypercorn. All speak it by aioquic.

Each is a program that prints where it listens, and answers with the example's site.
"""

from __future__ import annotations

import sys
from typing import TypeAlias

from benchmarks.children import python
from benchmarks.example import EXAMPLES
from benchmarks.spec import LOOPS, Kind, Spec

Http3Spec: TypeAlias = Spec[None]

EXAMPLE, AIOQUIC, BATCHED, HYPERCORN = "example", "aioquic", "batched", "hypercorn"


def key(kind: str, loop: str) -> str:
    """Return the key of a server."""
    return f"http3-{kind}-{loop}"


def command(spec: Http3Spec, certificate: str) -> list[str]:
    """Return the command that serves on a free port.

    Args:
        spec: Whom.
        certificate: The file of a certificate and its key; the example writes its own there.
    """
    if EXAMPLE not in spec.key:
        return python("http3", spec.key, certificate)
    program = str(EXAMPLES / "http3_server.py")
    options = ["--port", "0", "--self-signed", certificate, "--backend", spec.loop]
    return [sys.executable, program, *options, "--interval", "1000"]


def _specs(
    kind: str, label: str, whose: Kind, loops: tuple[str, ...], needs: tuple[str, ...] = ()
) -> list[Http3Spec]:
    needs = ("aioquic", "qh3", *needs)
    return [
        Spec(key(kind, loop), label, loop, whose, None, "http3", needs=needs) for loop in loops
    ]


HTTP3: list[Http3Spec] = [
    *_specs(EXAMPLE, "examples/programs/http3_server.py", "ours", LOOPS),
    *_specs(
        BATCHED, "aioquic.asyncio.serve by batched_loop_factory", "ours", ("asyncio", "uvloop")
    ),
    *_specs(AIOQUIC, "aioquic.asyncio.serve", "peer", ("asyncio", "uvloop")),
    *_specs(HYPERCORN, "Hypercorn", "peer", LOOPS, ("hypercorn",)),
]
SPECS = {spec.key: spec for spec in HTTP3}
