"""The README's first programs, run as they stand but for the port."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
PROGRAMS = [
    block
    for block in re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.M | re.S)
    if "run(main" in block
]


def test_there_is_one_for_each_library() -> None:
    assert ["trio.run" in PROGRAMS[0], "asyncio.run" in PROGRAMS[1]] == [True, True]
    assert max(len(program.splitlines()) for program in PROGRAMS) <= 15


def listens(sender: socket.socket) -> bool:
    """Send a packet; tell whether it was not refused."""
    try:
        sender.send(b"hello")
        sender.recv(1)
    except ConnectionRefusedError:
        return False
    except TimeoutError:
        return True
    raise AssertionError("nobody answers")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT can't be sent to one process there")
@pytest.mark.parametrize("program", PROGRAMS, ids=["trio", "asyncio"])
def test_first_program(program: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            address = probe.getsockname()
        sender.connect(address)
        sender.settimeout(0.02)
        child = subprocess.Popen(
            [sys.executable, "-u", "-W", "error", "-c", program.replace("9999", str(address[1]))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with child:
            assert child.stdout is not None
            while child.poll() is None and not listens(sender):
                pass
            line = child.stdout.readline()
            child.send_signal(signal.SIGINT)
        assert line == f"{sender.getsockname()} b'hello'\n"
