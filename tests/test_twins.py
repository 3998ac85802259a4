"""C and Python say the same: numbers, messages, docstrings, signatures (tests/twins.py)."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from anyio_mmsg import _load
from anyio_mmsg._receive.engine import FillerFields
from anyio_mmsg._receive.outlook import OutlookFields

from . import twins

pytestmark = pytest.mark.skipif(
    not [*twins.C_FILES.glob("*.c")], reason="an installed package has no C files"
)
needs_module = pytest.mark.skipif(_load.module is None, reason="is of the compiled module")

# Where the twin of each number is that has a name in C.
NUMBERS = {
    "ALWAYS": "_system.options PMTUDISC_DO",
    "CONTROL_SIZE": "_system.control CONTROL_SIZE",
    "HOPLIMIT6": "_system.control IPV6_HOPLIMIT",
    "LOST": "_packets.slots LOST",
    "MAX_SIZE": "_receive.datagrams MAX_SIZE",
    "MOST_BYTES": "_send.sendto _MOST_BYTES",
    "MOST_REPORTED": "_send.sendto MOST_REPORTED",
    "MOST_SEGMENTS": "_send.sendto MOST_SEGMENTS",
    "MOST_STRUCK": "_send.sendto MOST_STRUCK",
    "MTU_DISCOVER": "_system.options IP_MTU_DISCOVER",
    "MTU_DISCOVER6": "_system.options IPV6_MTU_DISCOVER",
    "PKTINFO": "_system.control IP_PKTINFO",
    "PKTINFO6": "_system.control IPV6_PKTINFO",
    "PROBE": "_system.options PMTUDISC_PROBE",
    "RECENT_SENDERS": "_system.addresses ADDRESS_CACHE_SIZE",
    "RECVERR": "_system.error_queue IP_RECVERR",
    "RECVERR6": "_system.error_queue IPV6_RECVERR",
    "SCRIBBLE": "_packets.slots SCRIBBLE",
    "SOCKADDR_SIZE": "_system.sockaddr SOCKADDR_SIZE",
    "SOL_UDP_LEVEL": "_send.sendto SOL_UDP",
    "TCLASS6": "_system.control IPV6_TCLASS",
    "TIMESTAMPING_NEW": "_system.stamps SO_TIMESTAMPING_NEW",
    "TIMESTAMPING_OLD": "_system.stamps SO_TIMESTAMPING_OLD",
    "TIMESTAMPING_PKTINFO": "_system.stamps TIMESTAMPING_PKTINFO",
    "TIMESTAMPNS_NEW": "_system.stamps SO_TIMESTAMPNS_NEW",
    "TIMESTAMPNS_OLD": "_system.stamps SO_TIMESTAMPNS_OLD",
    "TIMESTAMP_NEW": "_system.stamps SO_TIMESTAMP_NEW",
    "TIMESTAMP_OLD": "_system.stamps SO_TIMESTAMP_OLD",
    "TOS": "_system.control IP_TOS",
    "TTL": "_system.control IP_TTL",
    "UDP_GRO": "_system.control UDP_GRO",
    "UDP_SEGMENT_TYPE": "_send.sendto UDP_SEGMENT",
    "UNKNOWN_WIRE_SIZE": "_packets.packet UNKNOWN_WIRE_SIZE",
}

# Those that plain Python has no use for.
OF_C_ALONE = {
    "_GNU_SOURCE",
    "DENSE",  # of copies: Python has the system provide all of them page by page
    "DONT_FRAGMENT6",  # Python reads no option by its number here
    "FITS_EACH_PATH",  # where batches are cut: Python sends one packet a call
    "KEPT_ROOM",  # memory that is used again
    "MOST_CONTROL",  # of a message's memory
    "MOST_MESSAGES",  # of a call
    "MOST_SPARES",  # objects that are kept for the next packets
    "RECENT_SIZE",  # of an entry's memory
    "RECENT_SOCKETS",  # likewise: Python has a dict
}

# Messages of checks that Python's own types make, or that no use of a public name meets.
SAID_BY_C_ALONE = {
    "PyPy runs the plain Python path: its memoryviews and reference counts are others",
    "free-threaded builds run the plain Python path: the GIL guards what is here",
    "The packets of anyio-mmsg and Linux's batch system calls, in C.",
    # what CPython's memoryview says
    "operation forbidden on released memoryview object",
    # of threads, which plain Python doesn't guard against
    "another thread is in this send",
    "another thread is receiving into this batch; a batch belongs to one event loop's thread",
    # wrong arguments, which nothing in this package gives
    "Sendmmsg takes 6 to 8 positional arguments",
    "% is not in __slots__",
    "a list, a tuple or slots, and a dict of sockaddrs",
    "a payload of % bytes",
    "a sender of another family",
    "a sockaddr is up to 128 bytes",
    "a type of no module",
    "Wake takes a loop",
    "a function, and context=",
    "an exception is to be raised",
    "another task waits",
    "it is done",
    "it is not done",
    "lend takes a pool and its classes",
    "loans are in a dict",
    "columns are read-only",
    "commit takes a list of sizes, and senders",
    "commit takes columns of one length",
    "commit takes lists of numbers, of one length",
    "control data is bytes, or a tuple of bytes by packet",
    "control data is up to 88 bytes, in whole words",
    "datagrams takes slots, a socket, two numbers, a list",
    "fan takes a socket, data, addresses, a result",
    "fill takes slots, a socket and a limit",
    "too little memory for a copy",
    "not a pair",
    "send takes a socket, a result, and whether to go on",
    "the view of a packet was released",
    "slot out of range",
    "these are the slots of another engine",
    "this send is over",
}


def test_numbers() -> None:
    found = {}
    for macro, place in NUMBERS.items():
        module, name = place.split()
        found[macro] = getattr(importlib.import_module(f"anyio_mmsg.{module}"), name)
    assert {name: n for name, n in twins.numbers().items() if name not in OF_C_ALONE} == found


def test_messages() -> None:
    assert twins.messages() - twins.words_of_python() == SAID_BY_C_ALONE


def test_docstrings() -> None:
    text = twins.HEADER.read_text(encoding="utf-8")
    assert text == twins.header(), "run `python -m tests.twins`"


@needs_module
@pytest.mark.parametrize("name", twins.TWINS)
def test_what_help_shows(name: str) -> None:
    compiled = getattr(_load.module, name, None)
    if compiled is None:
        pytest.skip(f"{name} is of Linux")
    twin = twins.TWINS[name]
    assert inspect.getdoc(compiled) == inspect.getdoc(twin)
    shown = set()
    for member, thing in twins.documented(twin):
        there = getattr(compiled, member)
        assert inspect.getdoc(there) == inspect.getdoc(thing)
        if callable(thing):
            assert parameters(there) == parameters(thing)
        shown.add(member)
    assert shown


@needs_module
@pytest.mark.parametrize("twin", [OutlookFields, FillerFields])
def test_fields(twin: Any) -> None:
    base = getattr(_load.module, twin.__name__, None)
    if base is None:
        pytest.skip(f"{twin.__name__} is of Linux")
    kept = [name for name in vars(base) if inspect.ismemberdescriptor(vars(base)[name])]
    assert sorted(kept) == sorted(twin.__slots__)


def parameters(function: object) -> list[tuple[str, object]]:
    assert callable(function)
    found = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.default) for parameter in found]
