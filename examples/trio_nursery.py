"""A syslog collector on Trio: prints each message it gets, and a summary now and then.

    python -m pip install -e '.[trio]'
    python examples/trio_nursery.py --host 127.0.0.1 --port 5514

Feed it from another terminal, with the `logger` command of Linux:

    logger -n 127.0.0.1 -P 5514 -d --rfc5424 'text'
    logger -n 127.0.0.1 -P 5514 -d --rfc3164 'text'

It reads both formats, RFC 5424 and the older RFC 3164; whatever is neither is counted and shown
escaped. `--host ::1` listens on IPv6, `--port 0` on any free port. Ctrl-C stops it: what has
arrived is still read, and the last summary printed. The exit status is 0 then.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import signal
import socket
import sys
from collections import Counter
from dataclasses import dataclass, field

import anyio
import trio

from anyio_mmsg import Packet, PacketBatch, recv_mmsg, recv_mmsg_nowait

SLOT_SIZE = 8192  # RFC 5426 section 3.2 asks for 2048 bytes, and for more if one can
RECEIVE_BUFFER = 2**20  # bytes; the kernel's usual 208 KiB is full soon if packets come in bursts

# Names by number (RFC 5424 section 6.2.1), as they are written in syslog.conf.
SEVERITIES = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]
FACILITY_NAMES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock "
    "local0 local1 local2 local3 local4 local5 local6 local7"
)
FACILITIES = FACILITY_NAMES.split()

# In verbose patterns a space is written [ ].
RFC5424 = re.compile(
    r"""
    <(?P<pri> 0 | [1-9][0-9]{0,2} )> 1 [ ]
    (?P<timestamp> - | [0-9]{4}-[0-9]{2}-[0-9]{2} T [0-9]{2}:[0-9]{2}:[0-9]{2}
                       (?: \.[0-9]{1,6} )? (?: Z | [+-][0-9]{2}:[0-9]{2} ) ) [ ]
    (?P<host> [!-~]{1,255} ) [ ]
    (?P<app> [!-~]{1,48} ) [ ]
    (?P<procid> [!-~]{1,128} ) [ ]
    (?P<msgid> [!-~]{1,32} ) [ ]
    (?P<structured> - | (?: \[ [^ =\]"]+ (?: [ ][^ =\]"]+ = "(?: [^"\\\]] | \\. )*" )* \] )+ )
    (?: [ ] (?P<text> .* ) )?
    """,
    re.VERBOSE | re.DOTALL,
)
# As programs write it: the RFC tells what is common, and that anything may come.
RFC3164 = re.compile(
    r"""
    <(?P<pri> 0 | [1-9][0-9]{0,2} )>
    (?: (?P<timestamp> [A-Z][a-z]{2} [ ] [ 0-9][0-9] [ ] [0-9]{2}:[0-9]{2}:[0-9]{2} ) [ ]
        (?P<host> [!-~]{1,255} ) [ ]
        (?: (?P<app> [!-9;-Z\\^-~]{1,48} ) (?: \[ (?P<procid> [!-Z\\^-~]{1,128} ) \] )? : [ ]? )?
    )?
    (?P<text> .* )
    """,
    re.VERBOSE | re.DOTALL,
)
ELEMENT = re.compile(r'\[([^ =\]"]+)((?:"(?:[^"\\\]]|\\.)*"|[^"\]])*)\]', re.DOTALL)
PARAMETER = re.compile(r' ([^ =\]"]+)="((?:[^"\\\]]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True)
class Message:
    """A message; "-" stands for what the sender left out."""

    facility: str
    severity: str
    timestamp: str
    host: str
    app: str
    procid: str
    msgid: str
    structured: dict[str, list[tuple[str, str]]]  # by element: its parameters, in order
    text: str

    def __str__(self) -> str:
        elements = ""
        for name, parameters in self.structured.items():
            elements += f"[{name}{''.join(f' {key}={value!r}' for key, value in parameters)}] "
        line = (
            f"{self.facility}.{self.severity} {self.timestamp} {self.host} "
            f"{self.app}[{self.procid}] {self.msgid} {elements}{self.text}"
        )
        # Whoever sends must not be able to steer the terminal.
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def parse(data: bytes) -> Message | None:
    """Return the message, or None if it is malformed."""
    # RFC 3164 has no encoding; bytes that are not UTF-8 show as \xff.
    line = data.decode("utf-8", "backslashreplace").rstrip("\r\n\0")
    found = (RFC5424 if re.match(r"<[0-9]{1,3}>1 ", line) else RFC3164).fullmatch(line)
    if not found or int(found["pri"]) >= 8 * len(FACILITIES):
        return None
    fields = {name: value or "-" for name, value in found.groupdict().items()}
    return Message(
        facility=FACILITIES[int(found["pri"]) // 8],
        severity=SEVERITIES[int(found["pri"]) % 8],
        timestamp=fields["timestamp"],
        host=fields["host"],
        app=fields["app"],
        procid=fields["procid"],
        msgid=fields.get("msgid", "-"),
        structured={
            name: [
                (key, re.sub(r'\\(["\\\]])', r"\1", value))
                for key, value in PARAMETER.findall(parameters)
            ]
            for name, parameters in ELEMENT.findall(fields.get("structured", "-"))
        },
        text=(found["text"] or "").removeprefix("\ufeff"),  # the BOM that says: UTF-8
    )


@dataclass
class Statistics:
    """What was counted so far."""

    messages: int = 0
    malformed: int = 0
    truncated: int = 0
    severities: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        parts = [f"{self.severities[name]} {name}" for name in SEVERITIES if self.severities[name]]
        return (
            f"-- {self.messages} messages ({', '.join(parts) or 'none'}), "
            f"{self.malformed} malformed, {self.truncated} truncated"
        )


def collect(packet: Packet, statistics: Statistics) -> None:
    """Print and count one packet."""
    data = bytes(packet.data)
    end = f" ... (truncated, {packet.wire_size} bytes)" if packet.truncated else ""
    statistics.truncated += packet.truncated
    message = parse(data)
    if message is None:
        statistics.malformed += 1
        print(f"malformed, from {packet.address[0]}: {data!r}{end}")
    else:
        statistics.messages += 1
        statistics.severities[message.severity] += 1
        print(f"{message}{end}")


async def receive(sock: socket.socket, batch: PacketBatch, statistics: Statistics) -> None:
    """Print what arrives: one wait, then a batch of packets."""
    while True:
        await recv_mmsg(sock, batch)
        for packet in batch:
            collect(packet, statistics)
        batch.clear()
        sys.stdout.flush()


async def report(interval: float, statistics: Statistics) -> None:
    """Print a summary at each interval."""
    while True:
        await trio.sleep(interval)
        print(statistics, flush=True)


async def serve(host: str, port: int, interval: float) -> None:
    """Receive and report until Ctrl-C, then print the last summary."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    batch, statistics = PacketBatch(slot_size=SLOT_SIZE), Statistics()
    with (
        socket.socket(family, kind) as sock,
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(address)
        sock.setblocking(False)
        host, port = sock.getsockname()[:2]
        print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", flush=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, sock, batch, statistics)
            nursery.start_soon(report, interval, statistics)
            await anext(signals)
            nursery.cancel_scope.cancel()
        # What came before the stop; one batch of it, since senders may never pause.
        with contextlib.suppress(anyio.WouldBlock):
            recv_mmsg_nowait(sock, batch)
        for packet in batch:
            collect(packet, statistics)
    print(statistics, flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=5514, help="0 for any free one")
    parser.add_argument("--interval", type=float, default=10, help="seconds between summaries")
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a letter is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    trio.run(serve, options.host, options.port, options.interval)


if __name__ == "__main__":
    main()
