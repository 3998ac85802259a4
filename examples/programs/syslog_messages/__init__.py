r"""Syslog messages: RFC 5424, and the BSD format that RFC 3164 describes, as programs write it.

The rules for BSD messages, in which every part but the `<PRI>` may be missing:

- Timestamp: `Oct  1 10:00:00` (RFC 3164 section 4.1.2), also with a year, a fraction, or a colon
  after it, as network equipment writes it; or an ISO 8601 time with or without an offset.
  rsyslog's parser (pmrfc3164) reads both. Anything else belongs to the text (RFC 3164 section
  4.3.3).
- Host: rsyslog's rule. The word after the timestamp is the host if it is made of letters, digits,
  ".", "_" and "-" and ends in a letter or digit; an IP address is one too (RFC 3164 section
  4.1.2). A word with other characters, such as `app[12]:`, is the tag: local log sockets, BusyBox,
  log drivers of containers and some proxies send no host.
- Tag: `app:`, `app[pid]:` or `app[pid]` (RFC 3164 section 4.1.3 and 5.3). Without a timestamp the
  colon of `app:` has to be followed by a space, so that a plain sentence keeps its first words.
- A lone word after the timestamp is text: a message that is only a host says nothing.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

# Names by number (RFC 5424 section 6.2.1), as they are written in syslog.conf.
SEVERITIES = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]
FACILITY_NAMES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock "
    "local0 local1 local2 local3 local4 local5 local6 local7"
)
FACILITIES = FACILITY_NAMES.split()

# In verbose patterns a space is written [ ].
PRI = r"<(?P<pri> 0 | [1-9][0-9]{0,2} )>"
# Names may be longer than the RFC says (48 characters for APP-NAME): Docker's tags are.
RFC5424 = re.compile(
    rf"""
    {PRI} 1 [ ]
    (?P<timestamp> - | [0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}} T [0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}
                       (?: \.[0-9]{{1,6}} )? (?: Z | [+-][0-9]{{2}}:[0-9]{{2}} ) ) [ ]
    (?P<host> [!-~]{{1,255}} ) [ ]
    (?P<app> [!-~]{{1,255}} ) [ ]
    (?P<procid> [!-~]{{1,255}} ) [ ]
    (?P<msgid> [!-~]{{1,255}} ) [ ]
    (?P<structured> - | (?: \[ [^ =\]"]+ (?: [ ][^ =\]"]+ = "(?: [^"\\\]] | \\. )*" )* \] )+ )
    (?: [ ] (?P<text> .* ) )?
    """,
    re.VERBOSE | re.DOTALL,
)
ELEMENT = re.compile(r'\[([^ =\]"]+)((?:"(?:[^"\\\]]|\\.)*"|[^"\]])*)\]', re.DOTALL)
PARAMETER = re.compile(r' ([^ =\]"]+)="((?:[^"\\\]]|\\.)*)"', re.DOTALL)

BSD = re.compile(
    rf"""
    {PRI}
    (?: [ ]?
        (?P<timestamp>
            (?: Jan | Feb | Mar | Apr | May | Jun | Jul | Aug | Sep | Oct | Nov | Dec )
            [ ]{{1,2}} [0-9]{{1,2}} (?: [ ][0-9]{{4}} )?
            [ ][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}} (?: \.[0-9]{{1,9}} )?
        |
            [0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}} [T ] [0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}
            (?: [.,][0-9]{{1,9}} )? (?: Z | [+-][0-9]{{2}} (?: :?[0-9]{{2}} )? )?
        )
        :? (?: [ ]+ | \Z )
    )?
    (?P<rest> .* )
    """,
    re.VERBOSE | re.DOTALL,
)
HOST_NAME = re.compile(r"[A-Za-z0-9._-]{0,254}[A-Za-z0-9]")
TAG = re.compile(
    r"""
    (?: (?P<app> [^\s:\[\]]* ) \[ (?P<procid> [^\s\[\]]+ ) \] (?: : [ ]? | [ ] | \Z )
      | (?P<app_alone> [^\s:\[\]]+ ) : (?P<space> [ ] | \Z )?
    )
    """,
    re.VERBOSE,
)


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
        # A sender must not be able to control the terminal.
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def parse(data: bytes, source: str = "-") -> Message | None:
    """Return the message, or None if it is malformed.

    Args:
        data: The datagram.
        source: The address that it came from, which stands in for a host that is not named.
    """
    # RFC 3164 knows no encoding; bytes that are not UTF-8 show as \xff.
    line = data.decode("utf-8", "backslashreplace").rstrip("\r\n\0")
    is_rfc5424 = re.match(r"<[0-9]{1,3}>1 ", line)
    found = (RFC5424 if is_rfc5424 else BSD).fullmatch(line)
    if not found or int(found["pri"]) >= 8 * len(FACILITIES):
        return None
    fields = {name: value or "" for name, value in found.groupdict().items()}
    if not is_rfc5424:
        fields |= split_bsd(fields["rest"], had_timestamp=bool(fields["timestamp"]))
    host = fields["host"]
    return Message(
        facility=FACILITIES[int(found["pri"]) // 8],
        severity=SEVERITIES[int(found["pri"]) % 8],
        timestamp=fields["timestamp"] or "-",
        host=source if host in ("", "-") else host,
        app=fields["app"] or "-",
        procid=fields["procid"] or "-",
        msgid=fields.get("msgid") or "-",
        structured={
            name: [
                (key, re.sub(r'\\(["\\\]])', r"\1", value))
                for key, value in PARAMETER.findall(parameters)
            ]
            for name, parameters in ELEMENT.findall(fields.get("structured", ""))
        },
        text=fields["text"].removeprefix("\ufeff"),  # the BOM that says: UTF-8
    )


def split_bsd(rest: str, *, had_timestamp: bool) -> dict[str, str]:
    """Split what follows the timestamp of a BSD message into host, app, procid and text."""
    host = app = procid = ""
    word, space, after = rest.partition(" ")
    if had_timestamp and space and (is_host(word) or (word == "-" and TAG.match(after))):
        host, rest = word, after
    tag = TAG.match(rest)
    # Without a timestamp "http://..." is not a tag, nor is "12:30" without a host.
    if tag and (had_timestamp or tag["procid"] or tag["space"] is not None):
        app, procid = tag["app"] or tag["app_alone"] or "", tag["procid"] or ""
        rest = rest[tag.end() :]
    return {"host": host, "app": app, "procid": procid, "text": rest}


def is_host(word: str) -> bool:
    """Return whether a word can be a host name or is an IP address."""
    if HOST_NAME.fullmatch(word):
        return True
    try:
        ipaddress.ip_address(word.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
