"""What a bug report needs, each thing tried out on this machine."""

from __future__ import annotations

import json
import platform
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import anyio

from .._build import __version__
from .._load import build_helps, why_not_compiled
from .._packets.batch import PacketBatch
from .._receive.functions import recv_mmsg
from .._send.functions import send_mmsg
from .._send.known import SOL_UDP, UDP_SEGMENT, has_segmentation
from .._stream.open import open_udp_socket
from .._system.platform import ON_LINUX, Refused, why_no_batch_calls

BUFFER = 8 << 20  # bytes to ask for, as the README does

LIMITS = "net.core.rmem_max", "net.core.wmem_max"  # of the buffers to receive and to send

CONTROL_DATA = {
    "timestamps": "timestamp",
    "destinations": "destination",
    "ecn": "ecn",
    "hop_limits": "hop_limit",
}
"""Arguments of `open_udp_socket`, and the attribute of a packet that each is for."""


def installed(distribution: str) -> str:
    """Return the version of a distribution."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def compiled() -> str:
    """Whether the compiled module is in use, and if a command can help, which."""
    if not why_not_compiled:
        return "yes"
    if not build_helps:
        return f"no: {why_not_compiled}"
    return (
        f"no: {why_not_compiled}. With a C compiler and CPython's headers, this builds it: "
        f"ANYIO_MMSG_COMPILED=1 {command_to_build()}"
    )


def command_to_build() -> str:
    """Return how to install the package anew from where it came, past pip's cache of wheels."""
    pip = "python -m pip install"
    root = Path(__file__).parents[3]
    if (root / "setup.py").exists() and (root / "src" / "anyio_mmsg").exists():
        return f"{pip} -e {root}"
    try:
        origin = json.loads(distribution("anyio-mmsg").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    what = origin.get("url", "--no-binary anyio-mmsg anyio-mmsg")
    return f"{pip} --force-reinstall --no-deps --no-cache-dir {what}"


async def to_itself(sock: socket.socket, batch: PacketBatch) -> None:
    """Have a socket send a packet to itself, and receive it into `batch`."""
    sent = await send_mmsg(sock, [(b"anyio_mmsg", sock.getsockname())])
    sent.raise_for_failures()
    await recv_mmsg(sock, batch)


async def batch_call(name: str) -> str:
    """Whether a batch call of Linux works; it is given up when it is refused twice."""
    if why_not := why_no_batch_calls():
        return f"no: it {why_not}"
    with await open_udp_socket("127.0.0.1") as sock:
        for _ in range(2):
            await to_itself(sock, PacketBatch(1))
    return "no: the system refuses it" if getattr(Refused, name) else "yes"


async def gro() -> str:
    """Whether the kernel hands over as one what belongs together."""
    with await open_udp_socket("127.0.0.1", gro=True) as sock:
        batch = PacketBatch(2, gro=True)
        sent = await send_mmsg(sock, [(b"anyio_mmsg", sock.getsockname())] * 2, gso=True)
        sent.raise_for_failures()
        await recv_mmsg(sock, batch)
    return "yes" if (len(batch), batch.free) == (2, 1) else "no: what was sent as one came in two"


async def gso() -> str:
    """Whether the kernel cuts what is sent."""
    with await open_udp_socket("127.0.0.1") as sock:
        if not has_segmentation(sock):
            return "no: it needs Linux 4.18"
        size = (5).to_bytes(2, sys.byteorder)
        segments = [(SOL_UDP, UDP_SEGMENT, size)]
        sock.sendmsg([b"anyio_mmsg"], segments, 0, sock.getsockname())
        batch = PacketBatch(2)
        await recv_mmsg(sock, batch)
        return "yes" if batch.sizes() == [5, 5] else "no: what was to be cut came in one piece"


async def control_data() -> str:
    """Which control data comes with a packet."""
    found = []
    for asked, attribute in CONTROL_DATA.items():
        options: dict[str, Any] = {asked: True}
        with await open_udp_socket("127.0.0.1", **options) as sock:
            batch = PacketBatch(1, ancillary=True)
            await to_itself(sock, batch)
            if getattr(batch[0], attribute) is not None:
                found.append(asked)
    return ", ".join(found) or "none"


async def ipv6() -> str:
    """Whether IPv6 works."""
    with await open_udp_socket("::1") as sock:
        await to_itself(sock, PacketBatch(1))
    return "yes"


async def buffers() -> str:
    """What a socket is granted that asks for large buffers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sock = await open_udp_socket(
            "127.0.0.1", receive_buffer_size=BUFFER, send_buffer_size=BUFFER
        )
    with sock:
        granted = [
            sock.getsockopt(socket.SOL_SOCKET, option) // (2 if ON_LINUX else 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF)
        ]
    receive, send = granted
    got = f"of {BUFFER:,} bytes asked for, receives {receive:,}, sends {send:,}"
    if ON_LINUX:  # which adds as much again for its own data, and reports the sum
        got += " (SO_RCVBUF and SO_SNDBUF say twice that)"
    allowed = [limit(name.rpartition(".")[2]) for name in LIMITS]
    if any(most is not None and size > most for size, most in zip(granted, allowed, strict=True)):
        got += (
            ". That is more than the limit, which CAP_NET_ADMIN allows, as root has it; without "
            "it a process gets the limit"
        )
    low = [name for name, size in zip(LIMITS, granted, strict=True) if size < BUFFER]
    if not low or not ON_LINUX:
        return got
    return f"{got}. As root, this allows more: sysctl -w " + " ".join(f"{n}={BUFFER}" for n in low)


def limit(name: str) -> int | None:
    """Return one of the system's limits; None where there is none, or a namespace hides it."""
    try:
        return int(Path("/proc/sys/net/core", name).read_text())
    except (OSError, ValueError):
        return None


def limits() -> str:
    """What the system allows for buffers."""
    found = []
    for name in ("rmem_default", "rmem_max", "wmem_default", "wmem_max"):
        size = limit(name)
        if size is not None:
            found.append(f"{name} {size:,}")
    return ", ".join(found) or "not known"


async def tried(probe: Callable[[], Awaitable[str]]) -> str:
    """Return what a probe says, or why it could not."""
    try:
        with anyio.fail_after(5):
            return await probe()
    except TimeoutError:
        return "no: what was sent did not come within 5 seconds"
    except Exception as error:
        return f"no: {type(error).__name__}: {error}"


async def report() -> list[tuple[str, str]]:
    """Return what to print, line by line: a name, and what there is to say."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return [
        ("anyio-mmsg", __version__),
        ("compiled", compiled()),
        ("Python", python),
        *((name, installed(name)) for name in ("anyio", "trio", "uvloop")),
        ("system", platform.platform()),
        ("recvmmsg", await tried(partial(batch_call, "recvmmsg"))),
        ("sendmmsg", await tried(partial(batch_call, "sendmmsg"))),
        ("GRO", await tried(gro)),
        ("GSO", await tried(gso)),
        ("control data", await tried(control_data)),
        ("IPv6", await tried(ipv6)),
        ("limits", limits()),
        ("buffers", await tried(buffers)),
    ]


def show(as_json: bool) -> int:
    """Print the report, as a table or as one JSON object of the same names and texts."""
    rows = anyio.run(report)
    if as_json:
        print(json.dumps(dict(rows), indent=2))
    else:
        print("\n".join(f"{name:<13} {text}" for name, text in rows))
    return 0
